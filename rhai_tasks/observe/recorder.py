"""What a worker process tells of itself with each renewal of its lease: its heartbeat.

Counters only grow, so that whoever reads two heartbeats knows what happened between them, however many were missed.
"""

import json
import math
import os
import resource
import socket
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from .protocol import Status, circle_of, to_bytes

_RECENT = 25  # tasks that ended, of each status
_CIRCLES = 100  # that are named, of those a process serves
_RUNNING = 256  # tasks that are named
_ID_LENGTH = 300  # characters of an id: longer ones are cut, and cannot be found by it
_STEPS = 4  # of a histogram for each doubling: 19 % wide


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
    ran: float | None  # `None`: it could not begin
    waited: float | None  # from `createdAt` until it began; `None`: not known
    delivery: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a worker process does, and has done since it started."""

    host: str
    pid: int
    version: str
    threads: int
    since: float  # seconds since the epoch
    memory: int  # bytes, resident
    circle_count: int
    circles: tuple[str, ...]  # the first of them
    running: tuple[RunningTask, ...]
    recent: tuple[EndedTask, ...]  # the last ones of each status
    ended: Mapping[str, tuple[int, int]]  # by circle: completed, error
    ran: Mapping[int, int]  # histogram of run times; see `step_of`
    waited: Mapping[int, int]  # likewise, until the script began
    at: float = 0.0  # seconds since the epoch by the server's clock, which adds it


class Activity:
    """Counts what this process finishes.

    Threads: one at a time calls `ended`, any calls `heartbeat`; what it copies is copied without letting go of the GIL.
    """

    def __init__(self, threads: int) -> None:
        self._host, self._version, self._threads = socket.gethostname(), version("rhai-tasks"), threads
        self._since = time.time()
        self._counts: dict[str, list[int]] = {}  # by queue: completed, error
        self._ran: dict[int, int] = {}
        self._waited: dict[int, int] = {}
        self._recent: dict[str, deque[EndedTask]] = {status: deque(maxlen=_RECENT) for status in Status}

    def ended(self, queue: str, task: EndedTask) -> None:
        """Count a task whose end is recorded."""
        counts = self._counts.setdefault(queue, [0, 0])
        counts[task.status != Status.COMPLETED] += 1
        for histogram, seconds in ((self._ran, task.ran), (self._waited, task.waited)):
            if seconds is not None:
                step = step_of(seconds)
                histogram[step] = histogram.get(step, 0) + 1
        self._recent[task.status].append(task)

    def heartbeat(self, queues: Iterable[str], running: Iterable[RunningTask]) -> str:
        """Write the heartbeat as JSON, without the server's time."""
        served = sorted(queues)
        beat = Heartbeat(
            host=self._host,
            pid=os.getpid(),
            version=self._version,
            threads=self._threads,
            since=self._since,
            memory=_resident_bytes(),
            circle_count=len(served),
            circles=tuple(circle_of(queue) for queue in served[:_CIRCLES]),
            running=tuple(running)[:_RUNNING],
            recent=tuple(task for ended in self._recent.values() for task in list(ended)),
            ended={circle_of(queue): (done, failed) for queue, (done, failed) in list(self._counts.items())},
            ran=dict(self._ran),
            waited=dict(self._waited),
        )
        fields = asdict(beat)
        del fields["at"]
        return json.dumps(fields, separators=(",", ":"))


def read_heartbeat(text: bytes) -> Heartbeat | None:
    """Read a heartbeat; `None` if it is none that this version knows."""
    try:
        fields: dict[str, Any] = json.loads(text)
        return Heartbeat(
            host=str(fields["host"]),
            pid=int(fields["pid"]),
            version=str(fields["version"]),
            threads=int(fields["threads"]),
            since=_number(fields["since"]),
            memory=int(fields["memory"]),
            circle_count=int(fields["circle_count"]),
            circles=tuple(map(_text, fields["circles"])),
            running=tuple(map(_running, fields["running"])),
            recent=tuple(map(_ended, fields["recent"])),
            ended={circle: (int(done), int(failed)) for circle, (done, failed) in fields["ended"].items()},
            ran={int(step): int(count) for step, count in fields["ran"].items()},
            waited={int(step): int(count) for step, count in fields["waited"].items()},
            at=_number(fields["at"]) / 1000,
        )
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
        return None


def _running(row: Sequence[Any]) -> RunningTask:
    task_id, circle, since, delivery = row
    return RunningTask(_text(task_id), _text(circle), _number(since), int(delivery))


def _ended(row: Sequence[Any]) -> EndedTask:
    task_id, circle, status, at, *durations, delivery = row
    ran, waited = (None if seconds is None else _number(seconds) for seconds in durations)
    return EndedTask(_text(task_id), _text(circle), str(status), _number(at), ran, waited, int(delivery))


def _text(value: Any) -> str:
    to_bytes(str(value))  # what cannot be a key is no id
    return str(value)


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def step_of(seconds: float) -> int:
    """Say which step of a histogram counts a duration; below a microsecond all are alike."""
    return math.floor(math.log2(max(seconds, 1e-6)) * _STEPS)


def quantile(histogram: Mapping[int, int], share: float) -> float | None:
    """Return the duration in seconds that this share of the counted ones stays below, some 10 % near."""
    left = share * sum(histogram.values())
    for step in sorted(histogram):
        left -= histogram[step]
        if left <= 0 and histogram[step]:
            return float(2 ** ((step + 0.5) / _STEPS))
    return None


def shorten(task_id: str) -> str:
    """Cut an id that is too long to be told."""
    return task_id if len(task_id) <= _ID_LENGTH else f"{task_id[:_ID_LENGTH]}…"


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
