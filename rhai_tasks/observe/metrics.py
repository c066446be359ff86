"""Counters and histograms as plain numbers: no library, and about 2 us a task.

Each process counts for itself; its report carries the counts.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Self

from rhai_tasks.protocol import count_of, finite

Labels = tuple[str, ...]

_MICROSECONDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4)
_MILLISECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
_DURATIONS = (*_MICROSECONDS, *_MILLISECONDS, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


class Metric(NamedTuple):
    """A metric of Prometheus."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    text: str
    labels: Labels = ()
    bounds: tuple[float, ...] = ()  # of a histogram: the upper bounds of its buckets


FINISHED = Metric("rhai_tasks_finished_total", "counter", "Tasks that ended, by final status", ("circle", "status"))
ERRORS = Metric(
    "rhai_tasks_errors_total",
    "counter",
    "Tasks that ended as errors, by Rhai's name of the error; Poison: the worker process died too often under it; "
    "Malformed: no script, or not UTF-8; Input: a pipeline's value that no script can hold; "
    "Worker: the worker itself failed",
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
    "Tasks of a circle, on all machines: waiting in the native list, buffered in dramatiq, parked by rules, "
    "prefetched by workers, running, delayed, dead (letters)",
    ("circle", "state"),
)
LEASES = Metric("rhai_tasks_leases", "gauge", "Worker processes with a valid lease, on all machines", ("circle",))
OLDEST = Metric(
    "rhai_tasks_oldest_waiting_seconds",
    "gauge",
    "Since the createdAt of the oldest task that waits in a circle, on all machines; 0: none waits",
    ("circle",),
)
PAUSED = Metric("rhai_tasks_paused", "gauge", "1 if an operator has paused the circle, else 0", ("circle",))
RULES = Metric("rhai_tasks_rules", "gauge", "Pauses, blocks and limits of a circle and of its callers", ("circle",))

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
    OLDEST,
    PAUSED,
    RULES,
)
_COUNTERS = tuple(metric for metric in METRICS if metric.kind == "counter")
_HISTOGRAMS = tuple(metric for metric in METRICS if metric.kind == "histogram")


Samples = Callable[[], Iterable[tuple[Metric, Labels, float]]]
"""Reads values at the moment of the call; none if they cannot be read."""


class Counts:
    """Counters and histograms of a process. Threads: any may call `add`, one at a time changes `histograms`."""

    def __init__(self) -> None:
        self.counters: dict[str, Counter[Labels]] = {metric.name: Counter() for metric in _COUNTERS}
        # A histogram has the number of values in each bucket, the last one without a bound, and then their sum.
        self.histograms: dict[str, list[float]] = {
            metric.name: [0] * (len(metric.bounds) + 2) for metric in _HISTOGRAMS
        }
        self._adding = threading.Lock()
        # A series that is alerted on must exist before its first event: Prometheus sees no step from nothing to one.
        for metric, *labels in ((ERRORS, "Poison"), (ERRORS, "Worker"), (RECOVERED,), (WRITE_RETRIES,)):
            self.add(metric, *labels, count=0)

    def add(self, metric: Metric, *labels: str, count: int = 1) -> None:
        """Count something rare."""
        with self._adding:
            self.counters[metric.name][labels] += count

    def merge(self, other: Self) -> None:
        """Add the counts of another process, or of the process whose place this one took."""
        for name, values in other.counters.items():
            self.counters[name].update(values)
        for name, more in other.histograms.items():
            self.histograms[name] = [one + two for one, two in zip(self.histograms[name], more, strict=True)]

    def since(self, before: Self) -> Self:
        """Return the counts since `before`, an earlier state of the same counts."""
        counts = type(self)()
        for name, values in self.counters.items():
            counts.counters[name] = values - before.counters[name]
        for name, histogram in self.histograms.items():
            pairs = zip(histogram, before.histograms[name], strict=True)
            counts.histograms[name] = [max(now - then, 0) for now, then in pairs]
        return counts

    def to_json(self) -> dict[str, Any]:
        """Write all counts as values of JSON."""
        return {
            "counters": {name: list(dict(values).items()) for name, values in self.counters.items()},
            "histograms": {name: list(values) for name, values in self.histograms.items()},
        }

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> Self:
        """Undo `to_json`. Metrics that this version does not have, or has with other buckets, are left out.

        Raises:
            UNREADABLE: It is not what `to_json` writes.
        """
        counts = cls()
        for metric in _COUNTERS:
            for labels, value in written["counters"].get(metric.name, []):
                names = tuple(map(str, labels))
                if len(names) != len(metric.labels):
                    raise ValueError(f"{metric.name} has other labels")
                counts.counters[metric.name][names] = count_of(value)
        for metric in _HISTOGRAMS:
            *buckets, total = written["histograms"].get(metric.name, counts.histograms[metric.name])
            if len(buckets) == len(metric.bounds) + 1:
                counts.histograms[metric.name] = [*map(count_of, buckets), finite(total)]
        return counts


def quantile(metric: Metric, histogram: Sequence[float], share: float) -> float | None:
    """Return a quantile of a histogram of `Counts`, interpolated in its bucket as Prometheus does; `None`: it is empty.

    Args:
        metric: Has the buckets' bounds.
        histogram: Counts of that metric.
        share: From 0 to 1; the quantile is the value that this share of the values stays below.
    """
    *buckets, _ = histogram
    left = share * sum(buckets)
    below = 0.0
    for bound, count in zip(metric.bounds, buckets, strict=False):
        if 0 < count >= left:
            return below + (bound - below) * left / count
        left -= count
        below = bound
    return below if any(buckets) else None
