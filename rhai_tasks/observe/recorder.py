"""The report of a process: its state and its counts, written once for metrics, health, heartbeat and page.

The report is one JSON object. `Reports` keeps it in a file for the tree of the process; a worker also publishes it on
Redis with each renewal of its lease, as its heartbeat. Counts only grow, so two reports tell what happened between
them, however many were missed.
"""

import json
import os
import resource
import socket
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from heapq import nsmallest
from importlib.metadata import version
from math import inf
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rhai_tasks.protocol import UNREADABLE, Outcome, Status, circle_of, count_of, finite, parse_time, to_bytes

from .metrics import ERRORS, FINISHED, OPERATIONS, PEAK_MEMORY, RUN, WAIT, Counts
from .readiness import Readiness, overdue

_RECENT = 25  # ended tasks of each status in a report
_CIRCLES = 100  # circles that a report names
_RUNNING = 256  # running tasks that a report names
_ID_LENGTH = 300  # characters of an id: longer ones are cut, and cannot be found by it
_STATM = Path("/proc/self/statm")
_COMPLETED, _ERROR = str(Status.COMPLETED), str(Status.ERROR)  # members of an enum are slow to read

Use = tuple[float, float, int, int]
"""What the run of a script used: when it began (seconds since the epoch), seconds, operations, peak memory in bytes.

A bare tuple: a named one takes a tenth of all that counting a task costs.
"""


class Ended(Protocol):
    """A task that has ended, as `Recorder.record` reads it."""

    @property
    def task_id(self) -> str:
        """Its id."""

    @property
    def outcome(self) -> Outcome:
        """How it ended."""

    @property
    def use(self) -> Use | None:
        """What its script used; `None`: no script ran."""

    @property
    def ended(self) -> float:
        """Seconds since the epoch."""

    @property
    def crashes(self) -> int:
        """How many processes have died with it."""

    @property
    def created_at(self) -> bytes | None:
        """Its `createdAt`."""


class RunningTask(NamedTuple):
    """A task whose script runs now. Times are in seconds since the epoch, by the worker's clock."""

    task_id: str
    circle: str
    since: float
    delivery: int  # 1: the first time that a worker process runs it


class EndedTask(NamedTuple):
    """A task that has ended. Durations are in seconds."""

    task_id: str
    circle: str
    status: str
    at: float  # since the epoch
    ran: float | None  # `None`: no script ran
    waited: float | None  # from `createdAt` until the script began; `None`: not known
    delivery: int


class State(NamedTuple):
    """The queues, running tasks and gauges of a process at one time."""

    queues: Collection[str] = ()
    running: Iterable[RunningTask] = ()
    gauges: Mapping[str, float] = {}  # by name of the metric
    rabbitmq: bool = False  # its messages come through RabbitMQ
    quiet: bool = False  # an operator keeps it from taking tasks


class Recorder:
    """Records what a process does, and writes its report.

    Threads: one at a time calls `record`. Any calls `report`, which copies the counts without releasing the GIL.

    Args:
        readiness: Readiness of the process; a new one by default.
        threads: How many scripts can run at a time.
        state: Returns what the process holds now.
    """

    def __init__(
        self, readiness: Readiness | None = None, *, threads: int = 0, state: Callable[[], State] = State
    ) -> None:
        self.readiness = readiness or Readiness()
        self.counts = Counts()
        self.threads, self._state = threads, state
        self._host, self._version = socket.gethostname(), version("rhai-tasks")
        self._since = time.time()
        # Rows of `EndedTask`, but bare tuples, which take half the time.
        self._completed: deque[tuple[Any, ...]] = deque(maxlen=_RECENT)
        self._failed: deque[tuple[Any, ...]] = deque(maxlen=_RECENT)

    def record(self, circle: str, tasks: Iterable[Ended]) -> None:
        """Count tasks of a circle that ended together, and keep the last ones."""
        completed = 0
        failed: list[str] = []
        histograms = self.counts.histograms
        wait, run = histograms[WAIT.name], histograms[RUN.name]
        operations, peak = histograms[OPERATIONS.name], histograms[PEAK_MEMORY.name]
        for task in tasks:
            waited = seconds = None
            if task.use is not None:
                began, seconds, used, held = task.use
                created_at = task.created_at
                created = parse_time(created_at) if created_at else None
                if created is not None:
                    waited = max(began - created, 0)  # clocks of machines differ
                    wait[bisect_left(WAIT.bounds, waited)] += 1
                    wait[-1] += waited
                run[bisect_left(RUN.bounds, seconds)] += 1
                run[-1] += seconds
                operations[bisect_left(OPERATIONS.bounds, used)] += 1
                operations[-1] += used
                peak[bisect_left(PEAK_MEMORY.bounds, held)] += 1
                peak[-1] += held
            outcome, task_id, ended, delivery = task.outcome, task.task_id, task.ended, task.crashes + 1
            if len(task_id) > _ID_LENGTH:
                task_id = shorten(task_id)
            if outcome.status == _ERROR:
                failed.append(outcome.kind)
                self._failed.append((task_id, circle, _ERROR, ended, seconds, waited, delivery))
            else:
                completed += 1
                self._completed.append((task_id, circle, _COMPLETED, ended, seconds, waited, delivery))
        if completed:
            self.counts.add(FINISHED, circle, _COMPLETED, count=completed)
        if failed:
            self.counts.add(FINISHED, circle, _ERROR, count=len(failed))
            for kind in failed:
                self.counts.add(ERRORS, kind)

    def report(self) -> str:
        """Write the report as JSON, with the present state."""
        state = self._state()
        queues, running = sorted(state.queues), list(state.running)
        return json.dumps(
            {
                "host": self._host,
                "pid": os.getpid(),
                "version": self._version,
                "threads": self.threads,
                "since": self._since,
                "memory": _resident_bytes(),
                "circle_count": len(queues),
                "circles": [circle_of(queue) for queue in queues[:_CIRCLES]],
                "running": running[:_RUNNING],
                "running_by_circle": Counter(task.circle for task in running),
                "recent": [*self._completed, *self._failed],
                "clock": time.monotonic(),
                "stopping": self.readiness.stopping,
                "succeeded": _oldest(self.readiness.times()),
                "gauges": dict(state.gauges),
                "rabbitmq": state.rabbitmq,
                "quiet": state.quiet,
                "counts": self.counts.to_json(),
                # Without these, a page of the version before does not know the process.
                "ended": {},
                "ran": {},
                "waited": {},
            },
            separators=(",", ":"),
        )


def _oldest(times: Mapping[str, float]) -> dict[str, float | None]:
    """Return the `_CIRCLES` oldest times of each kind; `None` stands for never."""
    oldest: dict[str, float | None] = {}
    for kind in ("read of ", "lease of ", "publishing for "):
        of_kind = [(what, then) for what, then in times.items() if what.startswith(kind)]
        oldest |= {what: None if then == -inf else then for what, then in nsmallest(_CIRCLES, of_kind, itemgetter(1))}
    return oldest


def shorten(task_id: str) -> str:
    """Cut an id that is too long for a report."""
    return task_id if len(task_id) <= _ID_LENGTH else f"{task_id[:_ID_LENGTH]}…"


def _resident_bytes() -> int:
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:  # only Linux has it
        return 0


class Report(NamedTuple):
    """The state of a process, and its counts since it started."""

    process: str  # its name in the tree, or the worker's broker id
    host: str
    pid: int
    version: str
    threads: int
    since: float  # seconds since the epoch
    memory: int  # bytes, resident; 0: not known
    circle_count: int
    circles: tuple[str, ...]  # the first of them
    running: tuple[RunningTask, ...]  # the first of them
    running_by_circle: Mapping[str, int]  # all of them
    recent: tuple[EndedTask, ...]  # the last ones of each status
    clock: float  # time.monotonic() when it was written, which is the same for all processes of a machine
    stopping: bool
    succeeded: Mapping[str, float]  # time.monotonic() of the oldest reads and renewals; negative infinity: none yet
    gauges: Mapping[str, float]  # by name of the metric
    rabbitmq: bool  # its messages come through RabbitMQ
    quiet: bool  # an operator keeps it from taking tasks
    counts: Counts
    at: float  # seconds since the epoch by the server's clock, which adds it to what Redis holds; 0: not from Redis

    def list_missing(self) -> list[str]:
        """List what keeps the process from its work."""
        if self.stopping:
            return ["stopping"]
        if not self.succeeded:
            return ["serves no circle yet"]
        late = overdue(self.succeeded, time.monotonic())
        return [f"no {what} {'yet' if age == inf else f'for {age:.0f} s'}" for what, age in late.items()]


def read_report(process: str, text: str | bytes) -> Report | None:
    """Read the report of a process; `None` if this version cannot read it."""
    try:
        fields: dict[str, Any] = json.loads(text)
        running = tuple(map(_running, fields["running"]))
        return Report(
            process=process,
            host=_text(fields["host"]),
            pid=count_of(fields["pid"]),
            version=_text(fields["version"]),
            threads=count_of(fields["threads"]),
            since=finite(fields["since"]),
            memory=count_of(fields["memory"]),
            circle_count=count_of(fields["circle_count"]),
            circles=tuple(map(_text, fields["circles"])),
            running=running,
            running_by_circle=(
                {_text(circle): count_of(count) for circle, count in fields["running_by_circle"].items()}
                if "running_by_circle" in fields  # a worker of the version before publishes none
                else Counter(task.circle for task in running)
            ),
            recent=tuple(map(_ended, fields["recent"])),
            # A worker of the version before publishes none of the next seven.
            clock=finite(fields.get("clock", 0.0)),
            stopping=bool(fields.get("stopping", False)),
            succeeded={
                str(what): -inf if then is None else finite(then) for what, then in fields.get("succeeded", {}).items()
            },
            gauges={str(name): finite(value) for name, value in fields.get("gauges", {}).items()},
            rabbitmq=bool(fields.get("rabbitmq", False)),
            quiet=bool(fields.get("quiet", False)),
            counts=Counts.from_json(fields["counts"]) if "counts" in fields else _counts_before(fields["ended"]),
            at=finite(fields.get("at", 0.0)) / 1000,
        )
    except UNREADABLE:
        return None


def _counts_before(ended: Mapping[str, Any]) -> Counts:
    """Read how many tasks a worker of the version before has completed and failed, by circle."""
    counts = Counts()
    for circle, numbers in ended.items():
        for status, number in zip((Status.COMPLETED, Status.ERROR), numbers, strict=True):
            counts.add(FINISHED, _text(circle), status.value, count=count_of(number))
    return counts


def _running(row: Sequence[Any]) -> RunningTask:
    task_id, circle, since, delivery = row
    return RunningTask(_text(task_id), _text(circle), finite(since), count_of(delivery))


def _ended(row: Sequence[Any]) -> EndedTask:
    task_id, circle, status, at, *durations, delivery = row
    ran, waited = (None if seconds is None else finite(seconds) for seconds in durations)
    return EndedTask(_text(task_id), _text(circle), _text(status), finite(at), ran, waited, count_of(delivery))


def _text(value: Any) -> str:
    to_bytes(str(value))  # what cannot be a key is not an id
    return str(value)
