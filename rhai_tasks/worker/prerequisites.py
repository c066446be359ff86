"""Asks the server whether the prerequisites of a task have completed."""

import json
from functools import partial
from typing import Any, NamedTuple

from rhai_tasks.connection.outage import retry_until_answered
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import TERM_FIELDS, UNREADABLE, Field, to_bytes, to_text, unreadable_term
from rhai_tasks.queue.context import QueueContext
from rhai_tasks.queue.delivery import Delivery

_MOST = 1000  # prerequisites of a task: each check reads all
_SEARCHED = 1000  # tasks that a check searches for a cycle


class Standing(NamedTuple):
    """The server's word for the prerequisites of a task, and the ids of the tasks that it is about."""

    word: str
    task_ids: list[str]


class Prerequisites:
    """Checks prerequisites. Threads: any."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._prefix = context.settings.prefixes.details
        self._field = context.settings.table.stored(Field.PREREQUISITES)
        self._script = load_script(context.client, __package__, "prerequisites", context.settings.table)

    def check(self, delivery: Delivery) -> Standing:
        """Ask how the prerequisites of a task stand; see `prerequisites.lua`.

        Raises:
            TaskMalformed: The field cannot be read.
            redis.RedisError: This process stops, and the server is away.
        """
        value = delivery.terms[len(TERM_FIELDS)] if len(delivery.terms) > len(TERM_FIELDS) else None
        ids = self._read(value) if value else []
        if not ids:
            return Standing("ready", [])
        args: list[Any] = [self._prefix, to_bytes(delivery.task_id), _SEARCHED, *ids]
        context = self._context
        reply = retry_until_answered(partial(self._script, args=args), context.outage, context.draining)
        word, *found = map(to_text, reply)
        return Standing(word, found)

    def _read(self, value: bytes) -> list[bytes]:
        try:
            ids = json.loads(value)
            if isinstance(ids, list) and len(ids) <= _MOST and all(isinstance(one, str) for one in ids):
                return list(map(to_bytes, ids))
        except UNREADABLE:
            pass
        expected = f"a JSON array of the ids of at most {_MOST} tasks"
        raise unreadable_term(self._field, value.decode(errors="replace"), expected) from None
