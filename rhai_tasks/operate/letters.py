"""Dead letters: messages that could not be processed, and had no details to say so in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import QueueKeys, queue_name, timestamp, to_bytes, to_text

from .messages import task_id_in
from .rules import Note, common_circle


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that could not be processed, and had no details to say so in."""

    circle: str
    message_id: str
    task_id: str  # empty if the message cannot be read
    at: str  # RFC 3339
    reason: str


class DeadLetters:
    """Reads, retries and deletes dead letters.

    Args:
        client: A connection.
        namespace: Prefix of dramatiq's keys.
        note: Notes in a log what was done in a circle.
    """

    def __init__(self, client: Any, namespace: str, note: Note) -> None:
        self._client, self._namespace, self._note = client, namespace, note
        self._retry = load_script(client, __package__, "retry")

    def read(self, circle: str, start: int = 0, count: int | None = None) -> list[DeadLetter]:
        """Return a circle's dead letters, oldest first: all, or `count` of them from `start` on."""
        keys = self._keys(circle)
        last = -1 if count is None else start + count - 1
        entries = self._client.zrange(keys.dead, start, last, withscores=True)
        if not entries:
            return []
        names = [name for name, _ in entries]
        bodies, reasons = self._client.hmget(keys.dead_bodies, names), self._client.hmget(keys.dead_reasons, names)
        return [
            DeadLetter(
                circle,
                to_text(name),
                task_id_in(body or b""),
                timestamp(milliseconds / 1000),
                to_text(reason) if reason else "dramatiq gave it up",
            )
            for (name, milliseconds), body, reason in zip(entries, bodies, reasons, strict=True)
        ]

    def retry(self, letters: Sequence[DeadLetter]) -> int:
        """Put dead letters back at the end of their queues; return how many."""
        return self._each(letters, "retry", self._retry_one)

    def _retry_one(self, letter: DeadLetter) -> bool:
        keys = self._keys(letter.circle)
        names = [keys.messages, keys.bodies, keys.dead, keys.dead_bodies, keys.dead_reasons]
        return bool(self._retry(keys=names, args=[to_bytes(letter.message_id)]))

    def delete(self, letters: Sequence[DeadLetter]) -> int:
        """Delete dead letters; return how many."""
        return self._each(letters, "delete", self._delete_one)

    def _delete_one(self, letter: DeadLetter) -> bool:
        keys, name = self._keys(letter.circle), to_bytes(letter.message_id)
        with self._client.pipeline() as pipeline:
            pipeline.zrem(keys.dead, name)
            pipeline.hdel(keys.dead_bodies, name)
            pipeline.hdel(keys.dead_reasons, name)
            return bool(pipeline.execute()[0])

    def _each(self, letters: Sequence[DeadLetter], verb: str, act: Callable[[DeadLetter], bool]) -> int:
        """Act on dead letters, note in the log how many there were, and return how many."""
        done = 0
        try:
            for letter in letters:
                done += act(letter)
        finally:  # also what was done before an error or Ctrl-C
            if done:
                self._note(common_circle(letter.circle for letter in letters), f"{verb} {done} dead letter(s)")
        return done

    def _keys(self, circle: str) -> QueueKeys:
        return QueueKeys(self._namespace, queue_name(circle))
