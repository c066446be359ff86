"""Circles' queues: how many tasks are in each place, and how to empty them."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

import redis

from rhai_tasks.client.requests import batched
from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.observe.metrics import LEASES, OLDEST, PAUSED, QUEUE_TASKS, RULES, Labels, Metric, Samples
from rhai_tasks.protocol import (
    ACTOR,
    Field,
    QueueKeys,
    cancel_channel,
    circle_of,
    parse_time,
    queue_name,
    state_channel,
    timestamp,
    to_bytes,
    to_text,
)
from rhai_tasks.queue import native
from rhai_tasks.settings import Settings

from .delayed import DelayedTasks
from .letters import DeadLetters
from .rules import Rules, common_circle
from .workers import count_running, read_workers

_COUNTED = 100  # circles in a script call
_NAMED = 5  # tasks in a note of cancels
_AT_ONCE = 500  # tasks that a script call removes: the server has others to serve


@dataclass(frozen=True, slots=True)
class Queue:
    """How many tasks of one circle are in each place, counted at one time."""

    circle: str
    waiting: int  # in the native list
    buffered: int  # in dramatiq's queue, on Redis or in RabbitMQ
    parked: int  # in the lines of their callers, which may not begin more now
    prefetched: int  # held by workers, not known to have begun
    running: int  # by the workers' heartbeats, which are 3 s old at most
    delayed: int
    dead: int
    workers: int  # processes with a valid lease
    paused: bool = False  # the circle begins no more tasks
    rules: int = 0  # set by operators, a pause among them
    due: bool = False  # delayed tasks are due, and a bridge will hand them over
    oldest: float | None = (
        None  # seconds since the oldest task that waits was created; `None`: not known, or none waits
    )

    def count(self, place: str) -> int:
        """Return how many tasks are in one of the `PLACES`."""
        return int(getattr(self, place))

    @property
    def left(self) -> int:
        """How many tasks have not ended, delayed ones only if they are due."""
        places = self.waiting + self.buffered + self.parked + self.prefetched + self.running
        return places + (self.delayed if self.due else 0)

    @property
    def is_unserved(self) -> bool:
        """Whether tasks have not ended, and no worker process serves the circle."""
        return self.left > 0 and not self.workers


_NO_PLACES = {"circle", "workers", "paused", "rules", "due", "oldest"}
PLACES = tuple(field.name for field in fields(Queue) if field.name not in _NO_PLACES)
"""Where a task can be that has not ended."""


def queue_samples(settings: Settings, circles: Callable[[], Iterable[str]]) -> Samples:
    """Return a function that counts the tasks of circles as values of metrics; none while no server answers."""
    queues = Queues(settings)

    def sample() -> list[tuple[Metric, Labels, float]]:
        try:
            counted = queues.count(circles())
        except redis.RedisError:
            return []
        return [
            *((LEASES, (queue.circle,), queue.workers) for queue in counted),
            *((PAUSED, (queue.circle,), queue.paused) for queue in counted),
            *((RULES, (queue.circle,), queue.rules) for queue in counted),
            *((OLDEST, (queue.circle,), queue.oldest or 0.0) for queue in counted),
            *((QUEUE_TASKS, (queue.circle, place), queue.count(place)) for queue in counted for place in PLACES),
        ]

    return sample


class Queues:
    """Inspects all circles of a server and repairs single ones; a context closes the connection.

    What changes something is noted in the log of `Rules`.

    Args:
        settings: The server and its names.
        by: The person or program to name in the log; by default user and machine.
    """

    def __init__(self, settings: Settings, by: str | None = None) -> None:
        self.settings = settings
        self.client: Any = connect(settings.redis_url)  # redis-py types replies for both of its clients at once
        self._purge = load_script(self.client, __package__, "purge", settings.table)
        self._cancel_held = load_script(self.client, __package__, "cancel_held", settings.table)
        self._count = load_script(self.client, __package__, "count", settings.table)
        self.rules = Rules(self.client, settings.namespace, by)
        self.dead_letters = DeadLetters(self.client, settings.namespace, self.note)
        self.delayed = DelayedTasks(self.client, settings, self.note)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self.client.close()

    def note(self, circle: str, what: str) -> None:
        """Note in the log what was done; an empty circle stands for none or several."""
        self.rules.note(circle, what)

    def note_cancels(self, task_ids: Sequence[str], by: str | None = None) -> None:
        """Note in the log that tasks were cancelled by their ids; `by`: another person or program than usual."""
        names = [self.settings.table.stored(name) for name in (Field.CIRCLE, Field.CONTEXT_ID)]
        with self.client.pipeline(transaction=False) as pipeline:
            for task_id in task_ids:
                pipeline.hmget(to_bytes(self.settings.prefixes.details + task_id), names)
            replies = pipeline.execute(raise_on_error=False)
        circles = {to_text(reply[0] or reply[1] or b"") for reply in replies if isinstance(reply, list)}
        more = ", ..." if len(task_ids) > _NAMED else ""
        what = f"cancel {len(task_ids)} task(s): {', '.join(task_ids[:_NAMED])}{more}"
        self.rules.note(common_circle(circles), what, by=by)

    def keys(self, circle: str) -> QueueKeys:
        """Return the keys of a circle's queue."""
        return QueueKeys(self.settings.namespace, queue_name(circle))

    def native_key(self, circle: str) -> bytes:
        """Return the key of a circle's native list."""
        return to_bytes(self.settings.prefixes.queue + circle)

    def circles(self) -> list[str]:
        """List the circles that have tasks, and those that were ever bridged."""
        bridged = native.registered_queues(self.client, self.settings)
        return sorted(
            {*native.waiting_circles(self.client, self.settings), *(circle_of(to_text(name)) for name in bridged)}
        )

    def count(self, circles: Iterable[str], running: Mapping[str, int] | None = None) -> list[Queue]:
        """Count the tasks of circles by place, some circles in each round trip.

        Args:
            circles: Whose tasks.
            running: How many scripts run, by circle, as `count_running` counts; `None`: the heartbeats are read.
        """
        if running is None:
            running = count_running(read_workers(self.client, self.settings.namespace))
        return [queue for some in batched(circles, _COUNTED) for queue in self._count_some(some, running)]

    def _count_some(self, circles: list[str], running: Mapping[str, int]) -> Iterator[Queue]:
        keys: list[str | bytes] = []
        for circle in circles:
            names = self.keys(circle)
            keys += [self.native_key(circle), names.messages, names.published, names.delayed, names.delayed_messages]
            keys += [names.delay_bodies, names.dead, names.leases, names.rules]
        acks = QueueKeys.acks_start(self.settings.namespace)
        arguments = [acks, self.settings.prefixes.details, ACTOR, *map(queue_name, circles)]
        now, counts = self._count(keys=keys, args=arguments)
        for circle, numbers in zip(circles, counts, strict=True):
            waiting, buffered, parked, held, delayed, dead, workers, paused, rules, due, created = numbers
            begun = min(running.get(circle, 0), held)  # a heartbeat is older than the count
            places = waiting, buffered, parked, held - begun, begun, delayed, dead
            times = [time for time in map(parse_time, created) if time is not None]
            oldest = max(now / 1000 - min(times), 0.0) if times else None
            yield Queue(circle, *places, workers, paused == 1, rules, due == 1, oldest)

    def count_paused(self, queue: Queue) -> int:
        """Count the tasks of a counted circle that a pause keeps from beginning, as far as workers have seen them."""
        if queue.paused:
            return queue.left - queue.prefetched - queue.running
        if not queue.rules:
            return 0
        keys = self.keys(queue.circle)
        with self.client.pipeline(transaction=False) as pipeline:
            for rule in self.rules.read(queue.circle):
                if rule.verb == "pause":
                    pipeline.llen(keys.line(rule.name))
            return sum(pipeline.execute())

    def buffered(self, circle: str, start: int = 0, count: int | None = None) -> list[bytes]:
        """List the ids of a circle's buffered messages, on Redis or in RabbitMQ: all, or `count` from `start` on."""
        keys = self.keys(circle)
        last = -1 if count is None else start + count - 1
        found: list[bytes] = self.client.lrange(keys.messages, start, last)
        if count is None or len(found) < count:
            start = max(start - self.client.llen(keys.messages), 0)
            last = -1 if count is None else start + count - len(found) - 1
            found += self.client.zrange(keys.published, start, last)
        return found

    def parked(self, circle: str) -> list[bytes]:
        """List the elements of a circle's lines: ids of tasks, and of messages that a worker held before."""
        keys = self.keys(circle)
        with self.client.pipeline(transaction=False) as pipeline:
            for caller in self.client.zrange(keys.lines, 0, -1):
                pipeline.lrange(keys.line(to_text(caller)), 0, -1)
            return [parked.split(b" ", 1)[-1] for line in pipeline.execute() for parked in line]

    def held(self, circle: str) -> list[bytes]:
        """List the ids of the messages that workers hold, in the order in which they were made."""
        keys = self.keys(circle)
        with self.client.pipeline(transaction=False) as pipeline:
            for broker_id in self.client.zrange(keys.leases, 0, -1):
                pipeline.smembers(keys.acks(to_text(broker_id)))
            return sorted(set[bytes]().union(*pipeline.execute()))

    def give_back(self, circle: str) -> int:
        """Give buffered tasks back to the native list; a bridge that serves the circle takes them again."""
        count = native.give_back(self.client, self.settings, circle)
        self.note(circle, f"return {count} task(s)")
        return count

    def purge(self, circle: str) -> int:
        """Cancel all tasks whose scripts have not begun, and return how many; running tasks go on."""
        total = 0
        self.delayed.adopt(circle)
        try:
            # A worker may release a prefetched task into its queue meanwhile.
            while removed := self._purge_lists(circle) or self._purge_held(circle):
                total += removed
        finally:  # also what was done before an error or Ctrl-C
            if total:
                self.note(circle, f"purge {total} task(s)")
        return total

    def _purge_lists(self, circle: str) -> int:
        """Remove some tasks that no worker holds; return how many."""
        keys = self.keys(circle)
        return int(
            self._purge(
                keys=[
                    self.native_key(circle),
                    keys.messages,
                    keys.bodies,
                    keys.deliveries,
                    keys.delayed,
                    keys.delayed_messages,
                    keys.published,
                    keys.leases,
                ],
                args=[
                    _AT_ONCE,
                    self.settings.prefixes.details,
                    timestamp(time.time()),
                    state_channel(self.settings.namespace),
                    ACTOR,
                    keys.acks_start(keys.namespace),
                    keys.queue,
                ],
            )
        )

    def _purge_held(self, circle: str) -> int:
        """Cancel the tasks that workers have prefetched; return how many."""
        keys, settings = self.keys(circle), self.settings
        arguments = [settings.prefixes.details, timestamp(time.time()), cancel_channel(keys.namespace)]
        arguments += [state_channel(keys.namespace), ACTOR, keys.namespace]
        brokers = self.client.zrange(keys.leases, 0, -1)
        return sum(
            int(self._cancel_held(keys=[keys.acks(to_text(broker_id)), keys.bodies], args=arguments))
            for broker_id in brokers
        )
