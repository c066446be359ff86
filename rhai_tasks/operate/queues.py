"""The queues as an operator sees and empties them."""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import redis

from rhai_tasks.calls import batched
from rhai_tasks.connection import connect
from rhai_tasks.metrics import LEASES, QUEUE_TASKS, Labels, Metric, Samples
from rhai_tasks.protocol import QueueKeys, circle_of, queue_name, state_channel, timestamp, to_bytes, to_text
from rhai_tasks.settings import Settings
from rhai_tasks.store import load_script

from .loop import CircleBridge, waiting_circles

_COUNTED = 100  # circles in a script call
_AT_ONCE = 500  # tasks that a script call removes: the server has others to serve


@dataclass(frozen=True, slots=True)
class Queue:
    """What is where in one circle, counted at one moment."""

    circle: str
    waiting: int  # in the native list
    buffered: int  # in dramatiq's queue, on Redis or in RabbitMQ
    running: int  # held by workers
    delayed: int
    dead: int
    workers: int  # processes with a lease that stands


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be processed, and had no hash to say so in."""

    circle: str
    message_id: str
    task_id: str  # empty if the message cannot be read
    at: str  # RFC 3339
    reason: str


@dataclass(frozen=True, slots=True)
class Delayed:
    """A task that is to be handed over later."""

    circle: str
    name: str  # of its message, or the task's id
    task_id: str  # empty if the message cannot be read
    due: float  # seconds since the epoch, by the server's clock
    is_message: bool = False


class Queues:
    """Looks at all circles of a server, and mends single ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.client: Any = connect(settings.redis_url)  # redis-py types replies for both of its clients at once
        self._purge = load_script(self.client, "bridge", "purge")
        self._revive = load_script(self.client, "bridge", "revive")
        self._count = load_script(self.client, "bridge", "count")
        self._due = load_script(self.client, "bridge", "due")

    @classmethod
    def sampling(cls, settings: Settings, circles: Callable[[], Iterable[str]]) -> Samples:
        """Return a function that counts the tasks of circles as values of metrics; none while no server answers."""
        queues = cls(settings)

        def sample() -> list[tuple[Metric, Labels, float]]:
            try:
                counted = queues.count(circles())
            except redis.RedisError:
                return []
            states = ("waiting", "buffered", "running", "delayed", "dead")
            return [
                *((LEASES, (queue.circle,), queue.workers) for queue in counted),
                *((QUEUE_TASKS, (queue.circle, state), getattr(queue, state)) for queue in counted for state in states),
            ]

        return sample

    def close(self) -> None:
        """Disconnect."""
        self.client.close()

    def keys(self, circle: str) -> QueueKeys:
        """Name the keys of a circle's queue."""
        return QueueKeys(self._settings.namespace, queue_name(circle))

    def native_key(self, circle: str) -> bytes:
        """Name a circle's native list."""
        return to_bytes(self._settings.prefixes.queue + circle)

    def circles(self) -> list[str]:
        """List the circles that have tasks, and those that were ever bridged."""
        bridged = self.client.smembers(QueueKeys.registry(self._settings.namespace))
        return sorted({*waiting_circles(self.client, self._settings), *(circle_of(to_text(name)) for name in bridged)})

    def count(self, circles: Iterable[str]) -> list[Queue]:
        """Count what is where, some circles in each round trip."""
        return [queue for some in batched(circles, _COUNTED) for queue in self._count_some(some)]

    def _count_some(self, circles: list[str]) -> Iterator[Queue]:
        keys: list[str | bytes] = []
        for circle in circles:
            names = self.keys(circle)
            keys += [self.native_key(circle), names.messages, names.published, names.delayed, names.delayed_messages]
            keys += [names.dead, names.leases]
        acks = QueueKeys(self._settings.namespace, "").acks("").removesuffix(".")
        counts = self._count(keys=keys, args=[acks, *map(queue_name, circles)])
        return (Queue(circle, *row) for circle, row in zip(circles, counts, strict=True))

    def buffered(self, circle: str, start: int = 0, count: int | None = None) -> list[bytes]:
        """List the ids of what waits in a circle's queue, on Redis or in RabbitMQ: all, or `count` from `start` on."""
        keys = self.keys(circle)
        last = -1 if count is None else start + count - 1
        found: list[bytes] = self.client.lrange(keys.messages, start, last)
        if count is None or len(found) < count:
            start = max(start - self.client.llen(keys.messages), 0)
            last = -1 if count is None else start + count - len(found) - 1
            found += self.client.zrange(keys.published, start, last)
        return found

    def give_back(self, circle: str) -> int:
        """Return what no worker holds to the native list; a bridge that serves the circle takes it again."""
        return CircleBridge(self._settings, circle, self.client).give_back()

    def purge(self, circle: str) -> int:
        """Remove all that waits, delayed tasks too; each ends as cancelled. What runs goes on."""
        keys = self.keys(circle)
        total = 0
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
                ],
                args=[
                    _AT_ONCE,
                    self._settings.prefixes.details,
                    timestamp(time.time()),
                    state_channel(self._settings.namespace),
                ],
            )
        ):
            total += removed
        return total

    def dead_letters(self, circle: str, start: int = 0, count: int | None = None) -> list[DeadLetter]:
        """List a circle's dead letters, oldest first: all, or `count` of them from `start` on."""
        keys = self.keys(circle)
        last = -1 if count is None else start + count - 1
        entries = self.client.zrange(keys.dead, start, last, withscores=True)
        if not entries:
            return []
        names = [name for name, _ in entries]
        bodies, reasons = self.client.hmget(keys.dead_bodies, names), self.client.hmget(keys.dead_reasons, names)
        return [
            DeadLetter(
                circle,
                to_text(name),
                _task_id(body or b""),
                timestamp(milliseconds / 1000),
                to_text(reason) if reason else "dramatiq gave it up",
            )
            for (name, milliseconds), body, reason in zip(entries, bodies, reasons, strict=True)
        ]

    def revive(self, letters: Iterable[DeadLetter]) -> int:
        """Put dead letters back into their queues; return how many."""
        revived = 0
        for letter in letters:
            keys = self.keys(letter.circle)
            revived += int(
                self._revive(
                    keys=[keys.messages, keys.bodies, keys.dead, keys.dead_bodies, keys.dead_reasons],
                    args=[to_bytes(letter.message_id)],
                )
            )
        return revived

    def delete(self, letters: Iterable[DeadLetter]) -> int:
        """Delete dead letters; return how many."""
        deleted = 0
        for letter in letters:
            keys, name = self.keys(letter.circle), to_bytes(letter.message_id)
            with self.client.pipeline() as pipeline:
                pipeline.zrem(keys.dead, name)
                pipeline.hdel(keys.dead_bodies, name)
                pipeline.hdel(keys.dead_reasons, name)
                deleted += int(pipeline.execute()[0])
        return deleted

    def delayed(self, circle: str, start: int, count: int) -> list[Delayed]:
        """List `count` of a circle's delayed tasks from `start` on, earliest first; native ones before messages."""
        keys = self.keys(circle)
        native = self.client.zrange(keys.delayed, start, start + count - 1, withscores=True)
        found = [Delayed(circle, to_text(name), to_text(name), due / 1000) for name, due in native]
        if len(found) < count:
            start = max(start - self.client.zcard(keys.delayed), 0)
            messages = self.client.zrange(keys.delayed_messages, start, start + count - len(found) - 1, withscores=True)
            tasks = tasks_of(self.client, keys, [name for name, _ in messages])
            for (name, due), task_id in zip(messages, tasks, strict=True):
                found.append(Delayed(circle, to_text(name), task_id, due / 1000, is_message=True))
        return found

    def hand_over(self, delayed: Iterable[Delayed]) -> int:
        """Hand delayed tasks over now; return how many, without those that were due in the meantime."""
        handed_over = 0
        for one in delayed:
            keys = self.keys(one.circle)
            waits_in = keys.delayed_messages if one.is_message else keys.delayed
            handed_over += int(self.client.zadd(waits_in, {to_bytes(one.name): 0}, xx=True, ch=True))
            native = self.native_key(one.circle)
            self._due(keys=[keys.delayed, native, keys.delayed_messages, keys.messages], args=[_AT_ONCE])
        return handed_over

    def forget(self, delayed: Iterable[Delayed]) -> int:
        """Take delayed tasks out, and leave their details as they are; return how many."""
        forgotten = 0
        for one in delayed:
            keys = self.keys(one.circle)
            waits_in = keys.delayed_messages if one.is_message else keys.delayed
            if self.client.zrem(waits_in, to_bytes(one.name)):  # else it is due, and its body is needed
                forgotten += 1
                if one.is_message:
                    self.client.hdel(keys.bodies, to_bytes(one.name))
        return forgotten


def _task_id(body: bytes) -> str:
    try:
        task_id = str(json.loads(to_text(body))["args"][0])
        to_bytes(task_id)  # JSON can spell what no key can
    except (ValueError, TypeError, LookupError, RecursionError):
        return ""
    return task_id


def tasks_of(client: Any, keys: QueueKeys, message_ids: Iterable[bytes]) -> list[str]:
    """Name the tasks that messages are for; one that no worker has ever held stands there by the task's own id."""
    names = list(message_ids)
    bodies = client.hmget(keys.bodies, names) if names else []
    return [_task_id(body) if body else to_text(name) for name, body in zip(names, bodies, strict=True)]
