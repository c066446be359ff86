"""Reads the rows that Lua returns for a fetch."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

import redis
from dramatiq import Message

from rhai_tasks.errors import TaskMalformed
from rhai_tasks.observe.recorder import shorten
from rhai_tasks.protocol import (
    ACTOR,
    NO_TERMS,
    QueueKeys,
    blocked_by,
    failed,
    name_in,
    script_names_key,
    to_bytes,
    to_text,
)

from .context import QueueContext
from .delivery import DETAILS, Delivery, Details, no_acknowledgement
from .endings import Dead, Finished
from .follow_ups import is_composed
from .message import decode, read_task_id
from .run import Run
from .sources import Taken

_ABSENT = (None,) * DETAILS
_NONE: Mapping[str, Any] = {}
_new = tuple.__new__
_NO_HASH = "its details are not a hash: "


class DeliveryReader:
    """Makes runs of the rows of a queue, and dead letters of those that cannot be run."""

    def __init__(self, context: QueueContext, keys: QueueKeys) -> None:
        self._context, self._keys = context, keys

    def read(self, taken: Taken) -> list[Run | Dead | Finished]:
        """Read messages that were taken from a source. Those of blocked callers and scripts have ended.

        Raises:
            redis.RedisError: The server does not answer, which is asked again for details that Lua could not read.
        """
        keys, read = self._keys, list[Run | Dead | Finished]()
        fetched = time.time() if self._context.tracer else 0.0
        plain, terms_end = self._context.plain_fields, self._context.terms_end
        clock, idle, changes = taken.now / 1000 - time.monotonic(), taken.idle, taken.changes
        for place, row in enumerate(taken.rows):
            if type(row[0]) is int:  # a simple task; without more calls than these: nearly all tasks come this way
                number, task, submission, *values = row
                values += _ABSENT[len(values) :]
                task_id, details = task.decode("utf-8", "surrogateescape"), _new(Details, values)
                first = (keys, f"m-{number}", task_id, details, (), (), 0, submission, _NONE, None, clock, 0.0)
                run = Run(_new(Delivery, (*first, no_acknowledgement, changes)), NO_TERMS, place < idle)
                read.append((taken.blocks and self._end_if_blocked(run, taken.blocks)) or run)
                continue
            name, task, body, crashes, details, cancelled, submission = row
            message_id = name.decode()
            acknowledge = taken.acknowledgements.get(message_id, no_acknowledgement)
            task_id, message = to_text(task or b""), None
            try:
                if body is not None:
                    message = self._read_message(body)
                    task_id = read_task_id(message)
                values = details if isinstance(details, list) else self._read_details(details, message, task_id)
            except _DeadLetter as why:
                read.append(Dead(Delivery(keys, message_id, task_id, acknowledge=acknowledge), *why.args))
                continue
            delivery = Delivery(
                keys,
                message_id,
                task_id,
                Details(*values[:DETAILS]),
                values[DETAILS:terms_end],
                values[terms_end:],
                crashes,
                submission or b"",
                vars(message) if message else {},
                message if message and is_composed(message) else None,
                clock,
                fetched,
                acknowledge,
            )
            run = Run(delivery, marked=place < idle and crashes == 0 and len(values) <= plain)
            if cancelled:
                run.cancel.cancel()
            blocked = self._end_if_blocked(run, taken.blocks) if taken.blocks else None
            read.append(blocked or run)
        return read

    def _end_if_blocked(self, run: Run, blocks: Mapping[bytes, bytes]) -> Finished | None:
        """End a run that a rule of its circle blocks.

        Raises:
            redis.RedisError: The server does not answer, which is asked what the name of a stored script points to.
        """
        details = run.delivery.details
        caller = details.caller_id if details.caller_id is not None else details.public_key or b""
        reference = details.script_ref
        if details.script is None and reference is not None and (name := name_in(to_text(reference))):
            names = script_names_key(self._context.settings.namespace)
            reference = b"sha256:" + (cast("bytes | None", self._context.client.hget(names, name)) or b"")
        rule = blocked_by(blocks, caller, details.script, reference)
        if not rule:
            return None
        with suppress(TaskMalformed):
            run.terms = run.delivery.read_terms()
        run.finish(failed(f"blocked: {rule.reason}", "Blocked"))
        return cast("Finished", run.ending)

    def _read_message(self, body: bytes) -> Message[Any]:
        """Read a message for a task.

        Raises:
            _DeadLetter: It is not a message for a task.
        """
        try:
            message = decode(body, self._keys.queue)
            read_task_id(message)
        except (ValueError, TypeError, RecursionError) as error:
            raise _DeadLetter(f"its message cannot be read: {error}") from error
        if message.actor_name != ACTOR:  # dramatiq would log it with all its arguments
            raise _DeadLetter(
                f"no actor of this name runs here: {shorten(message.actor_name)!r}; "
                "actors in Python belong on a RedisBroker, with a queue and a worker of their own"
            )
        return message

    def _read_details(self, error: bytes | None, message: Message[Any] | None, task_id: str) -> list[bytes | None]:
        """Read a task's details where `hold.lua` could not: its JSON knows no half of a pair of surrogates.

        Args:
            error: The server's, if `hold.lua` got one.
            message: The task's.
            task_id: The task's.

        Raises:
            _DeadLetter: There are none.
        """
        if error is not None:
            raise _DeadLetter(error.decode(errors="replace"), _NO_HASH)
        if not message or not isinstance(next(iter(message.args), None), str):
            raise _DeadLetter("it names no task")
        client, key = self._context.client, to_bytes(self._context.settings.prefixes.details + task_id)
        carried = message.kwargs.get("details")
        try:
            texts = carried.items() if isinstance(carried, dict) else ()
            fields: dict[Any, Any] = {
                to_bytes(name): to_bytes(value) for name, value in texts if isinstance(value, str)
            }
            if fields and not client.exists(key):
                client.hset(key, mapping=fields)
            return cast("list[bytes | None]", client.hmget(key, self._context.stored_fields))
        except (redis.ResponseError, ValueError) as why:
            raise _DeadLetter(str(why), _NO_HASH) from why


class _DeadLetter(Exception):
    """Why a message cannot be run: the error, and what it is about."""
