"""The queues as an operator sees and empties them."""

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import redis

from rhai_tasks.connection import Outage, connect
from rhai_tasks.metrics import LEASES, QUEUE_TASKS, Labels, Metric, Samples
from rhai_tasks.protocol import QueueKeys, circle_of, queue_name, state_channel, timestamp, to_bytes, to_text
from rhai_tasks.settings import Settings
from rhai_tasks.store import load_script

from .loop import CircleBridge, waiting_circles

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


class Queues:
    """Looks at all circles of a server, and mends single ones."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.client: Any = connect(settings.redis_url)  # redis-py types replies for both of its clients at once
        self._purge = load_script(self.client, "bridge", "purge")
        self._revive = load_script(self.client, "bridge", "revive")

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
        return sorted({*waiting_circles(self.client, self._settings), *(circle_of(name.decode()) for name in bridged)})

    def count(self, circles: Iterable[str]) -> list[Queue]:
        """Count what is where."""
        seconds, microseconds = self.client.time()
        now = seconds * 1000 + microseconds // 1000
        found = []
        for circle in circles:
            keys = self.keys(circle)
            brokers = [to_text(broker) for broker in self.client.zrange(keys.leases, 0, -1)]
            with self.client.pipeline(transaction=False) as pipeline:
                pipeline.llen(self.native_key(circle))
                pipeline.llen(keys.messages)
                pipeline.zcard(keys.published)
                pipeline.zcard(keys.delayed)
                pipeline.zcard(keys.delayed_messages)
                pipeline.zcard(keys.dead)
                pipeline.zcount(keys.leases, now, "+inf")
                for broker in brokers:
                    pipeline.scard(keys.acks(broker))
                # A native key of another type is no reason to show nothing.
                counts = [_count(reply) for reply in pipeline.execute(raise_on_error=False)]
            native, messages, published, tasks, delayed, dead, workers, *held = counts
            found.append(Queue(circle, native, messages + published, sum(held), tasks + delayed, dead, workers))
        return found

    def buffered(self, circle: str) -> list[bytes]:
        """List the ids of what waits in a circle's queue, on Redis or in RabbitMQ."""
        keys = self.keys(circle)
        return [*self.client.lrange(keys.messages, 0, -1), *self.client.zrange(keys.published, 0, -1)]

    def give_back(self, circle: str) -> int:
        """Return what no worker holds to the native list; a bridge that serves the circle takes it again."""
        bridge = CircleBridge(self._settings, circle, Outage(self._settings.redis_url))
        try:
            return bridge.give_back()
        finally:
            bridge.close()

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

    def dead_letters(self, circle: str) -> list[DeadLetter]:
        """List a circle's dead letters, oldest first."""
        keys = self.keys(circle)
        entries = self.client.zrange(keys.dead, 0, -1, withscores=True)
        found = []
        for name, milliseconds in entries:
            body, reason = self.client.hget(keys.dead_bodies, name), self.client.hget(keys.dead_reasons, name)
            found.append(
                DeadLetter(
                    circle,
                    to_text(name),
                    _task_id(body or b""),
                    timestamp(milliseconds / 1000),
                    to_text(reason) if reason else "dramatiq gave it up",
                )
            )
        return found

    def revive(self, letters: Iterable[DeadLetter]) -> int:
        """Put dead letters back into their queues; return how many."""
        revived = 0
        for letter in letters:
            keys = self.keys(letter.circle)
            revived += int(
                self._revive(
                    keys=[keys.messages, keys.bodies, keys.dead, keys.dead_bodies, keys.dead_reasons],
                    args=[letter.message_id],
                )
            )
        return revived

    def delete(self, letters: Iterable[DeadLetter]) -> int:
        """Delete dead letters; return how many."""
        deleted = 0
        for letter in letters:
            keys = self.keys(letter.circle)
            with self.client.pipeline() as pipeline:
                pipeline.zrem(keys.dead, letter.message_id)
                pipeline.hdel(keys.dead_bodies, letter.message_id)
                pipeline.hdel(keys.dead_reasons, letter.message_id)
                deleted += int(pipeline.execute()[0])
        return deleted


def _count(reply: object) -> int:
    return reply if isinstance(reply, int) else 0


def _task_id(body: bytes) -> str:
    try:
        args = json.loads(to_text(body))["args"]
        return str(args[0])
    except (ValueError, TypeError, LookupError):
        return ""


def tasks_of(client: Any, keys: QueueKeys, message_ids: Iterable[bytes]) -> set[str]:
    """Name the tasks that messages are for; one that no worker has ever held stands there by the task's own id."""
    names = [to_text(name) for name in message_ids]
    bodies = client.hmget(keys.bodies, names) if names else []
    return {_task_id(body) if body else name for name, body in zip(names, bodies, strict=True)}
