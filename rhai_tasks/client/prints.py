"""Reads what a script prints, while it runs and afterwards.

Polls, and no channel: a reader that stops reading costs nobody anything.
"""

from rhai_tasks.errors import NotAsked, TaskNotFound

from .requests import Request

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 0.5  # seconds between two polls


class PrintsReader:
    """The lines that one task prints. If its process dies, the lines of its next run follow.

    Args:
        task_id: The task's id.
        key: Key of the task's details.
    """

    def __init__(self, task_id: str, key: bytes) -> None:
        self._task_id, self._key = task_id, key
        self._position, self._delivery = 0, b""
        self._rest = b""  # of a line whose end has not come
        self._has_asked = False
        self.has_ended = False
        """Whether the task has ended, so that no more lines come."""
        self.pause = _SHORTEST_PAUSE
        """Seconds until the next poll."""

    def poll(self) -> Request[list[str]]:
        """Build the request for the lines that are new.

        Its `read` raises `TaskNotFound`, and `NotAsked` if no prints of the task are kept.
        """
        return Request("new_prints", [self._key], [self._position, self._delivery], self._read)

    def _read(self, reply: list[bytes | int | None] | None) -> list[str]:
        if reply is None:
            raise TaskNotFound(self._task_id)
        has_ended, asked, delivery, is_other, new = reply
        assert isinstance(new, bytes)  # noqa: S101  (so `new_prints.lua` returns it)
        if asked is None and not new and not self._has_asked:
            raise NotAsked(self._task_id, "keep_prints")
        self._has_asked = True
        if is_other:
            self._position, self._rest = 0, b""
        self._position += len(new)
        if isinstance(delivery, bytes):
            self._delivery = delivery
        self.has_ended = bool(has_ended)
        self.pause = _SHORTEST_PAUSE if new else min(2 * self.pause, _LONGEST_PAUSE)
        *lines, self._rest = (self._rest + new).split(b"\n")
        if self.has_ended and self._rest:  # another program wrote it
            lines, self._rest = [*lines, self._rest], b""
        return [line.decode(errors="replace") for line in lines]
