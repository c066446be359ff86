"""Samples queues and workers, at most every 2 s, shared by all open pages; no open page, no sample."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import redis

from rhai_tasks.observe.metrics import FINISHED, RUN, WAIT, Counts, Metric, quantile
from rhai_tasks.observe.recorder import EndedTask, Report, RunningTask
from rhai_tasks.operate.queues import Queue, Queues
from rhai_tasks.operate.workers import count_running, lease_of, parse_heartbeats
from rhai_tasks.protocol import QueueKeys, Status, workers_key
from rhai_tasks.settings import Settings

from .circles import Circles
from .foreign import ForeignWorkers, HeadWatcher

SECONDS = 2.0
"""Between two samples."""

_HISTORY = 300  # samples: ten minutes
_COUNTED = 500  # circles in one sample; where there are more, they take turns
_BUSIEST = 25  # of them are counted in each


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process at the time of a sample."""

    broker_id: str
    report: Report
    lease: float  # seconds until it ends; negative: since it ended
    counted: Counts | None  # since the report before; `None`: there is none
    seconds: float  # from the report before to this one

    def rate_of(self, circle: str, status: str) -> float:
        """Return how many tasks of a circle it ends with this status, a second."""
        return self.counted.counters[FINISHED.name][circle, status] / self.seconds if self.counted else 0.0

    @property
    def rate(self) -> float:
        """How many tasks it ends, a second."""
        return sum(self.counted.counters[FINISHED.name].values()) / self.seconds if self.counted else 0.0


@dataclass(frozen=True, slots=True)
class ChartPoint:
    """A point of the charts. Durations are in seconds, and `None` where nothing ended."""

    at: float  # seconds since the epoch, by the server's clock
    completed: float  # tasks a second
    failed: float
    ran: tuple[float | None, float | None]  # median and 95th percentile
    waited: tuple[float | None, float | None]
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Sample:
    """Queues and workers at one time; the content of the overview."""

    at: float = 0.0
    queues: Mapping[str, Queue] = field(default_factory=dict)
    workers: tuple[Worker, ...] = ()
    foreign: tuple[ForeignWorkers, ...] = ()
    history: tuple[ChartPoint, ...] = ()
    keys: int = 0  # of the database

    def list_running(self) -> list[tuple[RunningTask, Worker]]:
        """List running tasks with their workers, the longest first."""
        running = [(task, worker) for worker in self.workers if worker.lease > 0 for task in worker.report.running]
        return sorted(running, key=lambda pair: pair[0].since)

    def list_recent(self) -> list[tuple[EndedTask, Worker]]:
        """List recently ended tasks with their workers, the last first."""
        recent = [(task, worker) for worker in self.workers for task in worker.report.recent]
        return sorted(recent, key=lambda pair: pair[0].at, reverse=True)

    def rate_of(self, circle: str, status: str) -> float:
        """Return how many tasks of a circle end with this status, a second."""
        return sum(worker.rate_of(circle, status) for worker in self.workers)


class Sampler:
    """Takes samples. Any thread may ask; one at a time takes a sample, and the others get the same."""

    def __init__(self, settings: Settings, queues: Queues) -> None:
        self._settings, self._queues, self._client = settings, queues, queues.client
        self._circles = Circles(settings, self._client)
        self._heads = HeadWatcher(settings, queues)
        self._reports: dict[str, tuple[Report, Report]] = {}  # by broker: the last two that differ
        self._history: deque[ChartPoint] = deque(maxlen=_HISTORY)
        self._sample = Sample()
        self._turn = 0
        self._lock = threading.Lock()
        self._sampled = float("-inf")  # time.monotonic()
        self._error: redis.RedisError | None = None

    def sample(self) -> Sample:
        """Return the latest sample, or a new one if that is too old.

        Raises:
            redis.RedisError: The server does not answer; it is asked again only after `SECONDS`.
        """
        with self._lock:
            if time.monotonic() - self._sampled >= SECONDS * 0.95:
                self._error = None
                try:
                    self._sample = self._take()
                except redis.RedisError as error:
                    self._error = error
                self._sampled = time.monotonic()
            if self._error:
                raise self._error
            return self._sample

    def note(self, circle: str) -> None:
        """Count this circle from now on."""
        self._circles.known.add(circle)

    def _take(self) -> Sample:
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hgetall(workers_key(self._settings.namespace))
            pipeline.scard(QueueKeys.registry(self._settings.namespace))
            pipeline.dbsize()
            clock, reports, registered, keys = pipeline.execute(raise_on_error=False)
        for answer in (clock, keys):
            if isinstance(answer, redis.RedisError):
                raise answer
        # A key of another type hides nothing else.
        registered = 0 if isinstance(registered, redis.ResponseError) else registered
        (seconds, microseconds) = clock
        now = seconds + microseconds / 1e6
        self._circles.update(registered)
        workers = tuple(self._compare(parse_heartbeats(reports), now))
        running = count_running(worker.report for worker in workers if worker.lease > 0)
        counted = {queue.circle: queue for queue in self._queues.count(self._due_circles(), running)}
        queues = {**self._sample.queues, **counted}
        self._history.append(_point(now, workers, queues))
        return Sample(now, queues, workers, self._heads.update(queues.values()), tuple(self._history), keys)

    def _due_circles(self) -> list[str]:
        """Return the circles to count now: the busiest always, the others in turns if there are many."""
        circles = sorted(self._circles.known)
        if len(circles) <= _COUNTED:
            return circles
        busiest = sorted(self._sample.queues.values(), key=lambda queue: -queue.waiting - queue.buffered)[:_BUSIEST]
        some = {queue.circle for queue in busiest}
        some |= {circles[(self._turn + step) % len(circles)] for step in range(_COUNTED - _BUSIEST)}
        self._turn = (self._turn + _COUNTED - _BUSIEST) % len(circles)
        return sorted(some)

    def _compare(self, latest: Mapping[str, Report], now: float) -> Iterator[Worker]:
        """Compare the reports with those before."""
        for broker_id in self._reports.keys() - latest.keys():
            del self._reports[broker_id]
        for broker_id, report in latest.items():
            _, last = self._reports.get(broker_id, (report, report))
            if report.at != last.at:
                self._reports[broker_id] = last, report
            before, _ = self._reports.setdefault(broker_id, (report, report))
            lease = lease_of(report, now)
            seconds = report.at - before.at
            # The first report has none before it, and that of another process under the same name is not comparable.
            is_comparable = lease > 0 and seconds > 0 and report.since == before.since
            counted = report.counts.since(before.counts) if is_comparable else None
            yield Worker(broker_id, report, lease, counted, seconds)


def _point(now: float, workers: Iterable[Worker], queues: Mapping[str, Queue]) -> ChartPoint:
    total, rates = Counts(), {Status.COMPLETED.value: 0.0, Status.ERROR.value: 0.0}
    for worker in workers:
        if worker.counted:
            total.merge(worker.counted)
            for (_, status), count in worker.counted.counters[FINISHED.name].items():
                rates[status] = rates.get(status, 0.0) + count / worker.seconds
    return ChartPoint(
        now,
        rates[Status.COMPLETED],
        rates[Status.ERROR],
        _median_and_95th(RUN, total),
        _median_and_95th(WAIT, total),
        sum(queue.waiting for queue in queues.values()),
        sum(queue.running for queue in queues.values()),
    )


def _median_and_95th(metric: Metric, counts: Counts) -> tuple[float | None, float | None]:
    histogram = counts.histograms[metric.name]
    return quantile(metric, histogram, 0.5), quantile(metric, histogram, 0.95)
