"""What is where and what happens, taken at most every other second for all open pages together, and never unasked."""

import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from bridge.queues import Queue, Queues
from rhai_tasks.activity import EndedTask, Heartbeat, RunningTask, quantile, read_heartbeat
from rhai_tasks.broker import LEASE_SECONDS
from rhai_tasks.protocol import (
    QueueKeys,
    Status,
    circle_of,
    is_our_timestamp,
    key_pattern,
    to_bytes,
    to_text,
    workers_key,
)
from rhai_tasks.settings import Settings
from rhai_tasks.store import load_script

SECONDS = 2.0
"""Between two samples."""

_HISTORY = 300  # samples: ten minutes
_COUNTED = 500  # circles in one sample; where there are more, they take turns
_BUSIEST = 25  # of them are counted in each
_SCANS = 10  # commands of one sample that look for circles that no bridge ever served
_SCANNED = 1000  # keys that each looks at
_HEADS = 20  # circles whose next task is watched
_WATCHED = 100  # tasks
_WATCH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker process at the time of a sample."""

    broker_id: str
    beat: Heartbeat
    lease: float  # seconds that it stands; negative: since when it has run out
    rates: Mapping[str, tuple[float, float]]  # by circle: completed and failed tasks a second

    @property
    def rate(self) -> float:
        """How many tasks it ends a second."""
        return sum(sum(rate) for rate in self.rates.values())


@dataclass(frozen=True, slots=True)
class Moment:
    """A point of the charts. Durations are in seconds, and `None` where nothing ended."""

    at: float  # seconds since the epoch, by the server's clock
    completed: float  # tasks a second
    failed: float
    ran: tuple[float | None, float | None]  # median, and what 95 % stay below
    waited: tuple[float | None, float | None]
    waiting: int
    running: int


@dataclass(frozen=True, slots=True)
class Others:
    """Workers that are not ours, inferred from what becomes of tasks at the head of a circle's native list."""

    circle: str
    theirs: int  # of the watched tasks that were taken in the last minute
    watched: int


@dataclass(frozen=True, slots=True)
class Sample:
    """All that the overview shows."""

    at: float = 0.0
    queues: Mapping[str, Queue] = field(default_factory=dict)
    workers: tuple[Worker, ...] = ()
    others: tuple[Others, ...] = ()
    history: tuple[Moment, ...] = ()
    keys: int = 0  # of the database

    def running(self) -> list[tuple[RunningTask, Worker]]:
        """List what runs, the longest first."""
        running = [(task, worker) for worker in self.workers if worker.lease > 0 for task in worker.beat.running]
        return sorted(running, key=lambda pair: pair[0].since)

    def recent(self) -> list[tuple[EndedTask, Worker]]:
        """List what has ended lately, the last first."""
        recent = [(task, worker) for worker in self.workers for task in worker.beat.recent]
        return sorted(recent, key=lambda pair: pair[0].at, reverse=True)

    def rate(self, circle: str) -> tuple[float, float]:
        """Say how many tasks of a circle are completed and fail a second."""
        rates = [worker.rates.get(circle, (0.0, 0.0)) for worker in self.workers]
        return sum(rate[0] for rate in rates), sum(rate[1] for rate in rates)


class Sampler:
    """Takes samples. Any thread may ask; one at a time samples, and the others get what it found."""

    def __init__(self, settings: Settings, queues: Queues) -> None:
        self._settings, self._queues, self._client = settings, queues, queues.client
        self._circles = _Circles(settings, self._client)
        self._others = _Watch(settings, queues)
        self._beats: dict[str, tuple[Heartbeat, Heartbeat]] = {}  # by broker: the last two that differ
        self._history: deque[Moment] = deque(maxlen=_HISTORY)
        self._sample = Sample()
        self._turn = 0
        self._lock = threading.Lock()
        self._tried = float("-inf")  # time.monotonic()
        self._error: redis.RedisError | None = None

    def look(self) -> Sample:
        """Return the latest sample, a new one if that is too old.

        Raises:
            redis.RedisError: The server does not answer; nobody asks it again for a while.
        """
        with self._lock:
            if time.monotonic() - self._tried >= SECONDS * 0.95:
                self._error = None
                try:
                    self._sample = self._take()
                except redis.RedisError as error:
                    self._error = error
                self._tried = time.monotonic()
            if self._error:
                raise self._error
            return self._sample

    def note(self, circle: str) -> None:
        """Know of a circle from now on."""
        self._circles.known.add(circle)

    def _take(self) -> Sample:
        with self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            pipeline.hgetall(workers_key(self._settings.namespace))
            pipeline.scard(QueueKeys.registry(self._settings.namespace))
            pipeline.dbsize()
            (seconds, microseconds), beats, registered, keys = pipeline.execute()
        now = seconds + microseconds / 1e6
        self._circles.update(registered)
        counted = {queue.circle: queue for queue in self._queues.count(self._due_circles())}
        queues = {**self._sample.queues, **counted}
        before = dict(self._beats)
        workers = tuple(self._read_workers(beats, now))
        self._history.append(self._moment(now, before, workers, queues))
        return Sample(now, queues, workers, self._others.look(queues.values()), tuple(self._history), keys)

    def _due_circles(self) -> list[str]:
        """Name the circles that are counted now: the busiest always, the others in turns if there are many."""
        circles = sorted(self._circles.known)
        if len(circles) <= _COUNTED:
            return circles
        busiest = sorted(self._sample.queues.values(), key=lambda queue: -queue.waiting - queue.buffered)[:_BUSIEST]
        some = {queue.circle for queue in busiest}
        some |= {circles[(self._turn + step) % len(circles)] for step in range(_COUNTED - _BUSIEST)}
        self._turn = (self._turn + _COUNTED - _BUSIEST) % len(circles)
        return sorted(some)

    def _read_workers(self, beats: Mapping[bytes, bytes], now: float) -> Iterable[Worker]:
        read = {to_text(broker_id): read_heartbeat(text) for broker_id, text in sorted(beats.items())}
        for broker_id in self._beats.keys() - read.keys():
            del self._beats[broker_id]
        for broker_id, beat in read.items():
            if beat is None:
                continue
            _, last = self._beats.get(broker_id, (beat, beat))
            if beat.at != last.at:
                self._beats[broker_id] = last, beat
            before, _ = self._beats.setdefault(broker_id, (beat, beat))
            lease = beat.at + LEASE_SECONDS - now
            yield Worker(broker_id, beat, lease, _rates(before, beat) if lease > 0 else {})

    def _moment(
        self,
        now: float,
        before: Mapping[str, tuple[Heartbeat, Heartbeat]],
        workers: Iterable[Worker],
        queues: Mapping[str, Queue],
    ) -> Moment:
        ran: dict[int, int] = {}
        waited: dict[int, int] = {}
        for worker in workers:
            if worker.broker_id in before:
                last, _ = self._beats[worker.broker_id]
                _add(ran, worker.beat.ran, last.ran)
                _add(waited, worker.beat.waited, last.waited)
        rates = [rate for worker in workers for rate in worker.rates.values()]
        return Moment(
            now,
            sum(completed for completed, _ in rates),
            sum(failed for _, failed in rates),
            (quantile(ran, 0.5), quantile(ran, 0.95)),
            (quantile(waited, 0.5), quantile(waited, 0.95)),
            sum(queue.waiting for queue in queues.values()),
            sum(queue.running for queue in queues.values()),
        )


def _rates(before: Heartbeat, now: Heartbeat) -> dict[str, tuple[float, float]]:
    """Say how many tasks a second a worker has completed and failed between two heartbeats, by circle."""
    seconds = now.at - before.at
    if seconds <= 0 or now.since != before.since:  # the first, or another process under the same name
        return {}
    rates = {}
    for circle, (completed, failed) in now.ended.items():
        completed_before, failed_before = before.ended.get(circle, (0, 0))
        rates[circle] = (completed - completed_before) / seconds, (failed - failed_before) / seconds
    return rates


def _add(total: dict[int, int], now: Mapping[int, int], before: Mapping[int, int]) -> None:
    for step, count in now.items():
        total[step] = total.get(step, 0) + max(count - before.get(step, 0), 0)


class _Circles:
    """Knows the circles: those of the registry, and, from a slow walk over all keys, those that only a list names."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self.known: set[str] = set()
        self._client = client
        self._registry = QueueKeys.registry(settings.namespace)
        self._prefix = to_bytes(settings.prefixes.queue)
        self._pattern = key_pattern(settings.prefixes.queue)
        self._registered = 0
        self._cursor = 0
        self._began = 0.0  # time.monotonic() at which the walk began
        self._pause_ends = 0.0

    def update(self, registered: int) -> None:
        """Look for new ones; `registered`: how many the registry has."""
        if registered != self._registered:
            names = cast("set[bytes]", self._client.smembers(self._registry))
            self.known |= {circle_of(to_text(name)) for name in names}
            self._registered = registered
        now = time.monotonic()
        if now < self._pause_ends:
            return
        if self._cursor == 0:
            self._began = now
        for _ in range(_SCANS):
            self._cursor, keys = self._client.scan(self._cursor, match=self._pattern, count=_SCANNED, _type="LIST")
            self.known |= {to_text(key.removeprefix(self._prefix)) for key in keys}
            if self._cursor == 0:
                self._pause_ends = now + (now - self._began)  # as long as the walk was
                return


class _Watch:
    """Watches tasks that are next to be taken, and judges by what becomes of them who took them.

    Our workers write `updatedAt` with each status, in a form of their own. Whoever changes the status and not the
    time, or writes it in another form, is none of them.
    """

    def __init__(self, settings: Settings, queues: Queues) -> None:
        self._prefix, self._queues = settings.prefixes.details, queues
        self._script = load_script(queues.client, "rhai_tasks.web", "watch")
        self._watched: dict[str, tuple[str, str, float]] = {}  # by task: circle, `updatedAt`, since when
        self._judged: deque[tuple[float, str, bool]] = deque()  # when, whose circle, whether not ours

    def look(self, queues: Iterable[Queue]) -> tuple[Others, ...]:
        """Watch some more, and say what was found in the last minute."""
        circles = [queue.circle for queue in sorted(queues, key=lambda queue: -queue.waiting) if queue.waiting][:_HEADS]
        watched, now = list(self._watched), time.monotonic()
        if circles or watched:
            heads, states = self._script(
                keys=[self._queues.native_key(circle) for circle in circles],
                args=[self._prefix, *map(to_bytes, watched)],
            )
            for task_id, (status, updated) in zip(watched, states, strict=True):
                self._judge(task_id, to_text(status), to_text(updated), now)
            for place, name, _, updated in heads:
                if len(self._watched) < _WATCHED:
                    self._watched.setdefault(to_text(name), (circles[place], to_text(updated), now))
        while self._judged and self._judged[0][0] < now - _WATCH_SECONDS:
            self._judged.popleft()
        found: dict[str, list[bool]] = {}
        for _, circle, theirs in self._judged:
            found.setdefault(circle, []).append(theirs)
        return tuple(Others(circle, sum(all_), len(all_)) for circle, all_ in sorted(found.items()) if any(all_))

    def _judge(self, task_id: str, status: str, updated: str, now: float) -> None:
        circle, updated_before, since = self._watched[task_id]
        if status in {"", Status.PENDING} and now < since + _WATCH_SECONDS:
            return
        del self._watched[task_id]
        if status not in {"", Status.PENDING}:
            self._judged.append((now, circle, is_foreign(updated, updated_before)))


def is_foreign(updated: str, before: str) -> bool:
    """Say whether a status was written by none of our workers, from `updatedAt` now and before."""
    return updated == before or not is_our_timestamp(updated)
