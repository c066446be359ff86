"""A real RabbitMQ server on loopback, with nothing outside of a directory of its own."""

import logging
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPError

from tests.conftest import free_port, wait_until

_SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's, without the wrapper that changes the user
BOOT_SECONDS = 60.0
logging.getLogger("pika").setLevel(logging.CRITICAL)  # it logs each try to connect


class RabbitServer:
    """A server that keeps its data while it is down, and the port mapper that Erlang wants."""

    def __init__(self, folder: Path) -> None:
        program = str(_SCRIPT) if _SCRIPT.exists() else shutil.which("rabbitmq-server")
        if program is None:
            if os.environ.get("CI"):
                pytest.fail("rabbitmq-server is not installed, and CI must not go without")
            pytest.skip("rabbitmq-server is not installed: apt-get install rabbitmq-server")
        self._program = program
        self._folder = folder
        self.port, distribution, mapper = free_port(), free_port(), free_port()
        (folder / "plugins").write_text("[].")
        self._environment = {
            **os.environ,
            "HOME": str(folder),  # of Erlang's cookie
            "RABBITMQ_NODENAME": f"rhai-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper),
        }
        self._mapper = subprocess.Popen(["epmd", "-address", "127.0.0.1", "-port", str(mapper)])
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect; a connection that breaks without a word is noticed within seconds."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/?heartbeat=4"

    def start(self) -> None:
        """Start, and wait until clients can connect."""
        with (self._folder / "output.txt").open("ab") as output:
            self._process = subprocess.Popen(
                [self._program], env=self._environment, stdout=output, stderr=output, start_new_session=True
            )
        wait_until(self._answers, within=BOOT_SECONDS, what="RabbitMQ")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "output.txt").read_text()[-2000:]
        with suppress(AMQPError):
            pika.BlockingConnection(pika.URLParameters(self.url)).close()
            return True
        return False

    def kill(self) -> None:
        """Kill it with SIGKILL, all of it."""
        self._signal(signal.SIGKILL)

    def freeze(self, seconds: float) -> None:
        """Stop it, and let it go on after some seconds."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.killpg(self._process.pid, signal.SIGCONT)

    def stop(self) -> None:
        """End it, and the port mapper."""
        self._signal(signal.SIGTERM)
        self._mapper.terminate()
        self._mapper.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            os.killpg(self._process.pid, number)
            self._process.wait(BOOT_SECONDS)

    def is_running(self) -> bool:
        """Say whether it has been started and not ended."""
        return self._process is not None and self._process.poll() is None


class Queue:
    """One queue, as a test looks at it."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._connection = pika.BlockingConnection(pika.URLParameters(url.replace("heartbeat=4", "heartbeat=0")))
        self.channel = self._connection.channel()

    def count(self) -> int:
        """Count the messages that no worker has been sent."""
        return int(self.channel.queue_declare(self._name, passive=True).method.message_count)

    def peek(self) -> bytes:
        """Return the first message, and leave it there."""
        method, _, body = self.channel.basic_get(self._name)
        self.channel.basic_nack(method.delivery_tag)
        return bytes(body)

    def publish(self, body: bytes) -> None:
        """Put a message there."""
        self.channel.basic_publish("", self._name, body)

    def purge(self) -> None:
        """Remove what waits."""
        self.channel.queue_purge(self._name)

    def delete(self) -> None:
        """Remove the queue, and those that dramatiq has beside it."""
        for name in (self._name, f"{self._name}.DQ", f"{self._name}.XQ"):
            self.channel.queue_delete(name)

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()
