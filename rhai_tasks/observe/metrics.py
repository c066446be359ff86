"""What is counted, in plain numbers: no library, and next to no time while tasks run.

Each process counts for itself. Its reports carry the counts to the one process of the tree that shows them.
"""

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

from .protocol import Outcome, Status, moment

Labels = tuple[str, ...]

_DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric as Prometheus knows it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()  # upper ones, of a histogram's buckets


FINISHED = Metric("rhai_tasks_finished_total", "counter", "Tasks that ended, by final status", ("circle", "status"))
ERRORS = Metric(
    "rhai_tasks_errors_total",
    "counter",
    "Tasks that ended as errors, by Rhai's name of the error; Poison: the worker process died too often under it; "
    "Malformed: no script, or not UTF-8; Worker: the worker itself failed",
    ("kind",),
)
WAIT = Metric(
    "rhai_tasks_wait_seconds", "histogram", "From a task's createdAt to the start of its script", bounds=_DURATIONS
)
RUN = Metric("rhai_tasks_run_seconds", "histogram", "Run of a script", bounds=_DURATIONS)
OPERATIONS = Metric(
    "rhai_tasks_script_operations",
    "histogram",
    "Engine operations of a script",
    bounds=tuple(10**power for power in range(1, 10)),
)
PEAK_MEMORY = Metric(
    "rhai_tasks_script_peak_memory_bytes",
    "histogram",
    "Most memory that a script had allocated at once",
    bounds=tuple(4**power for power in range(5, 16)),
)
RECOVERED = Metric("rhai_tasks_recovered_total", "counter", "Tasks of worker processes that died, put back into queues")
WRITE_RETRIES = Metric(
    "rhai_tasks_status_write_retries_total", "counter", "Writes of statuses and results that were tried again"
)
IN_FLIGHT = Metric("rhai_tasks_in_flight", "gauge", "Tasks that the workers of this tree hold, fetched and not ended")
RUNNING = Metric("rhai_tasks_running", "gauge", "Scripts that run now in this tree")
READ_AGE = Metric(
    "rhai_tasks_read_age_seconds", "gauge", "Since the last successful blocking read, of the oldest queue", ("process",)
)
LEASE_AGE = Metric(
    "rhai_tasks_lease_age_seconds", "gauge", "Since the last renewal of a lease, of the oldest queue", ("process",)
)
READY = Metric("rhai_tasks_ready", "gauge", "1 if the process can do its work now, else 0", ("process",))
QUEUE_TASKS = Metric(
    "rhai_tasks_queue_tasks",
    "gauge",
    "Tasks of a circle, on all machines: waiting in the native list, buffered in dramatiq, running (held by workers), "
    "delayed, dead (letters)",
    ("circle", "state"),
)
LEASES = Metric("rhai_tasks_leases", "gauge", "Worker processes with a lease that stands, on all machines", ("circle",))

METRICS = (
    FINISHED,
    ERRORS,
    WAIT,
    RUN,
    OPERATIONS,
    PEAK_MEMORY,
    RECOVERED,
    WRITE_RETRIES,
    IN_FLIGHT,
    RUNNING,
    READ_AGE,
    LEASE_AGE,
    READY,
    QUEUE_TASKS,
    LEASES,
)
_COUNTERS = tuple(metric for metric in METRICS if metric.kind == "counter")
_HISTOGRAMS = tuple(metric for metric in METRICS if metric.kind == "histogram")


Samples = Callable[[], Iterable[tuple[Metric, Labels, float]]]
"""Reads values at the moment they are asked for; nothing if they cannot be had."""


Use = tuple[float, float, int, int]
"""What the run of a script used: when it began (seconds since the epoch), seconds, operations, peak memory in bytes.

A bare tuple: a named one takes a tenth of all that counting a task costs.
"""


class Ended(Protocol):
    """What is counted of a task that ended."""

    outcome: Outcome | None
    use: Use | None  # None: no script ran

    @property
    def created_at(self) -> bytes | None:
        """Its `createdAt`."""


class Counts:
    """One process's counters and histograms. Threads: any may call `add`, one at a time `ended`."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter[Labels]] = {metric.name: Counter() for metric in _COUNTERS}
        # A histogram is how many values fell into each bucket, the last one without a bound, and then their sum.
        self.histograms: dict[str, list[float]] = {
            metric.name: [0] * (len(metric.bounds) + 2) for metric in _HISTOGRAMS
        }
        self._adding = threading.Lock()
        # What shall be alerted on must be there before it happens: Prometheus sees no step from nothing to one.
        for metric, *labels in ((ERRORS, "Poison"), (ERRORS, "Worker"), (RECOVERED,), (WRITE_RETRIES,)):
            self.add(metric, *labels, count=0)

    def add(self, metric: Metric, *labels: str, count: int = 1) -> None:
        """Count something rare."""
        with self._adding:
            self.counters[metric.name][labels] += count

    def ended(self, circle: str, tasks: Iterable[Ended]) -> None:
        """Count tasks of a circle that ended together."""
        completed = 0
        failed: list[str] = []
        wait, run, operations, peak = (self.histograms[metric.name] for metric in (WAIT, RUN, OPERATIONS, PEAK_MEMORY))
        for task in tasks:
            outcome = task.outcome
            if outcome and outcome.status is Status.ERROR:
                failed.append(outcome.kind)
            else:
                completed += 1
            if task.use is None:
                continue
            began, seconds, used, held = task.use
            created_at = task.created_at
            created = moment(created_at) if created_at else None
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
        for status, count in ((Status.COMPLETED, completed), (Status.ERROR, len(failed))):
            if count:
                self.add(FINISHED, circle, status.value, count=count)
        for kind in failed:
            self.add(ERRORS, kind)

    def merge(self, other: Self) -> None:
        """Add what another process counted, or a process whose place this one took."""
        for name, values in other.counters.items():
            self.counters[name].update(values)
        for name, more in other.histograms.items():
            self.histograms[name] = [one + two for one, two in zip(self.histograms[name], more, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """Write all counts as JSON knows values."""
        return {
            "counters": {name: list(dict(values).items()) for name, values in self.counters.items()},
            "histograms": {name: list(values) for name, values in self.histograms.items()},
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """Undo `to_json`."""
        counts = cls()
        for name, values in written["counters"].items():
            for labels, value in values:
                counts.counters[name][tuple(labels)] = value
        counts.histograms.update(written["histograms"])
        return counts
