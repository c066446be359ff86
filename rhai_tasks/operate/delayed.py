"""Delayed tasks: those that a bridge is to hand over later."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import QueueKeys, queue_name, to_bytes, to_text
from rhai_tasks.queue import native
from rhai_tasks.settings import Settings

from .messages import due_in, task_id_in, tasks_of
from .rules import Note, common_circle

_AT_ONCE = 500  # tasks that one script call hands over: the server has others to serve


@dataclass(frozen=True, slots=True)
class DelayedTask:
    """A task that is to be handed over later."""

    circle: str
    name: str  # of its message, or the task's id
    task_id: str  # empty if the message cannot be read
    due: float  # seconds since the epoch, by the server's clock
    is_message: bool = False


class DelayedTasks:
    """Reads delayed tasks, hands them over early and removes them.

    Args:
        client: A connection.
        settings: The names of keys.
        note: Notes in a log what was done in a circle.
    """

    def __init__(self, client: Any, settings: Settings, note: Note) -> None:
        self._client, self._settings, self._note = client, settings, note
        self._due = load_script(client, __package__, "queue/due")

    def read(self, circle: str, start: int, count: int) -> list[DelayedTask]:
        """Return `count` of a circle's delayed tasks from `start` on, earliest first; native ones before messages."""
        keys = self._keys(circle)
        tasks = self._client.zrange(keys.delayed, start, start + count - 1, withscores=True)
        found = [DelayedTask(circle, to_text(name), to_text(name), due / 1000) for name, due in tasks]
        if len(found) < count:
            start = max(start - self._client.zcard(keys.delayed), 0)
            found += self._messages(circle, start, count - len(found))
        if len(found) < count:
            start = max(start - self._client.zcard(keys.delayed_messages), 0)
            found += self._foreign_messages(circle)[start : start + count - len(found)]
        return found

    def _messages(self, circle: str, start: int, count: int) -> Iterator[DelayedTask]:
        keys = self._keys(circle)
        messages = self._client.zrange(keys.delayed_messages, start, start + count - 1, withscores=True)
        task_ids = tasks_of(self._client, keys, [name for name, _ in messages])
        for (name, due), task_id in zip(messages, task_ids, strict=True):
            yield DelayedTask(circle, to_text(name), task_id, due / 1000, is_message=True)

    def _foreign_messages(self, circle: str) -> list[DelayedTask]:
        """Return the messages that plain dramatiq brokers have delayed, until a bridge adopts them."""
        bodies = self._client.hgetall(self._keys(circle).delay_bodies).items()
        foreign = [
            DelayedTask(circle, to_text(name), task_id_in(body), due_in(body), is_message=True) for name, body in bodies
        ]
        return sorted(foreign, key=lambda task: (task.due, task.name))

    def hand_over(self, tasks: Sequence[DelayedTask]) -> int:
        """Hand delayed tasks over now; return how many, without those that came due in the meantime."""
        handed_over = 0
        try:
            for task in tasks:
                handed_over += int(self._client.zadd(self._waits_in(task), {to_bytes(task.name): 0}, xx=True, ch=True))
                self._hand_over_due(task.circle)
        finally:  # also what was done before an error or Ctrl-C
            self._note_some(tasks, handed_over, "run {} delayed task(s) now")
        return handed_over

    def remove(self, tasks: Sequence[DelayedTask]) -> int:
        """Remove delayed tasks, and leave their details as they are; return how many."""
        removed = 0
        try:
            for task in tasks:
                if self._client.zrem(self._waits_in(task), to_bytes(task.name)):  # else it is due, and needs its body
                    removed += 1
                    if task.is_message:
                        self._client.hdel(self._keys(task.circle).bodies, to_bytes(task.name))
        finally:
            self._note_some(tasks, removed, "cancel {} delayed task(s)")
        return removed

    def _note_some(self, tasks: Sequence[DelayedTask], count: int, what: str) -> None:
        if count:
            self._note(common_circle(task.circle for task in tasks), what.format(count))

    def _waits_in(self, task: DelayedTask) -> str:
        """Return the sorted set that a task is in, also if a plain dramatiq broker has delayed it."""
        self.adopt(task.circle)
        keys = self._keys(task.circle)
        return keys.delayed_messages if task.is_message else keys.delayed

    def adopt(self, circle: str) -> None:
        """Move messages that plain dramatiq brokers have delayed to our sorted set, as a bridge does."""
        keys = self._keys(circle)
        before, left = -1, self._client.hlen(keys.delay_bodies)
        while left and left != before:
            self._hand_over_due(circle)
            before, left = left, self._client.hlen(keys.delay_bodies)

    def _hand_over_due(self, circle: str) -> None:
        native_key = to_bytes(self._settings.prefixes.queue + circle)
        self._due(keys=native.delayed_keys(self._keys(circle), native_key), args=[_AT_ONCE])

    def _keys(self, circle: str) -> QueueKeys:
        return QueueKeys(self._settings.namespace, queue_name(circle))
