"""Circles' queues: how many tasks are in each place, and how to empty them."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, Self

import redis

from rhai_tasks.client.requests import batched
from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.observe.metrics import LEASES, QUEUE_TASKS, Labels, Metric, Samples
from rhai_tasks.protocol import ACTOR, QueueKeys, circle_of, queue_name, state_channel, timestamp, to_bytes, to_text
from rhai_tasks.queue import native
from rhai_tasks.settings import Settings

from .delayed import DelayedTasks
from .letters import DeadLetters

_COUNTED = 100  # circles in a script call
_AT_ONCE = 500  # tasks that a script call removes: the server has others to serve


@dataclass(frozen=True, slots=True)
class Queue:
    """How many tasks of one circle are in each place, counted at one time."""

    circle: str
    waiting: int  # in the native list
    buffered: int  # in dramatiq's queue, on Redis or in RabbitMQ
    running: int  # held by workers
    delayed: int
    dead: int
    workers: int  # processes with a lease that stands

    def count(self, place: str) -> int:
        """Return how many tasks are in one of the `PLACES`."""
        return int(getattr(self, place))


PLACES = tuple(field.name for field in fields(Queue) if field.name not in {"circle", "workers"})
"""Where a task that has not ended can be: `waiting`, `buffered`, `running`, `delayed`, `dead`."""


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
            *((QUEUE_TASKS, (queue.circle, place), queue.count(place)) for queue in counted for place in PLACES),
        ]

    return sample


class Queues:
    """Inspects all circles of a server and repairs single ones; a context closes the connection."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.client: Any = connect(settings.redis_url)  # redis-py types replies for both of its clients at once
        self._purge = load_script(self.client, __package__, "purge")
        self._count = load_script(self.client, __package__, "count")
        self.dead_letters = DeadLetters(self.client, settings.namespace)
        self.delayed = DelayedTasks(self.client, settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect."""
        self.client.close()

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

    def count(self, circles: Iterable[str]) -> list[Queue]:
        """Count the tasks of circles by place, some circles in each round trip."""
        return [queue for some in batched(circles, _COUNTED) for queue in self._count_some(some)]

    def _count_some(self, circles: list[str]) -> Iterator[Queue]:
        keys: list[str | bytes] = []
        for circle in circles:
            names = self.keys(circle)
            keys += [self.native_key(circle), names.messages, names.published, names.delayed, names.delayed_messages]
            keys += [names.delay_bodies, names.dead, names.leases]
        acks = QueueKeys.acks_start(self.settings.namespace)
        counts = self._count(keys=keys, args=[acks, *map(queue_name, circles)])
        return (Queue(circle, *row) for circle, row in zip(circles, counts, strict=True))

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

    def give_back(self, circle: str) -> int:
        """Give buffered tasks back to the native list; a bridge that serves the circle takes them again."""
        return native.give_back(self.client, self.settings, circle)

    def purge(self, circle: str) -> int:
        """Remove all waiting, buffered and delayed tasks: each ends as cancelled. Running tasks go on."""
        keys = self.keys(circle)
        total = 0
        self.delayed.adopt(circle)
        while removed := int(
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
        ):
            total += removed
        return total
