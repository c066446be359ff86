"""A delivery: a fetched message with its task. It does not change."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dramatiq import Message

from rhai_tasks.errors import TaskMalformed
from rhai_tasks.log import about
from rhai_tasks.protocol import (
    ACTOR,
    DETAIL_FIELDS,
    TERMS,
    QueueKeys,
    Task,
    Term,
    Terms,
    circle_of,
    is_utf8,
    parse_task,
    parse_terms,
    to_bytes,
    to_text,
)


def no_acknowledgement() -> None:
    """Acknowledge a message that no other server has brought."""


class Details(NamedTuple):
    """Values of a details hash. `None`: the field is absent."""

    script: bytes | None = None
    caller_id: bytes | None = None
    public_key: bytes | None = None
    context_id: bytes | None = None
    created_at: bytes | None = None
    reply_to: bytes | None = None
    script_ref: bytes | None = None
    traceparent: bytes | None = None


DETAILS = len(Details._fields)


class Delivery(NamedTuple):
    """A message that this broker holds, with its task, as it was fetched."""

    keys: QueueKeys
    message_id: str
    task_id: str
    details: Details = Details()
    terms: Sequence[bytes | None] = ()
    """Values of `TERM_FIELDS`, and of the dialect's further fields, up to the last that is present.

    `None`: the field is absent.
    """
    signature: Sequence[bytes | None] = ()
    """Values of `SIGNATURE_FIELDS`, up to the last that is present; none if signatures are not checked."""
    crashes: int = 0
    """How many processes have died with the message."""
    submission: bytes = b""
    """Of the details when the message was fetched. Once they have another one, this delivery has no effect."""
    fields: Mapping[str, Any] = {}
    """Of dramatiq's message, if it was one before it was fetched."""
    composed: Message[Any] | None = None
    """The message as it came, if something follows it in a composition of dramatiq's."""
    clock: float = 0.0
    """Seconds to add to time.monotonic() for the server's time since the epoch."""
    fetched: float = 0.0
    """Seconds since the epoch; only if this worker traces."""
    acknowledge: Callable[[], object] = no_acknowledgement
    """To be called after the message's end is written: tells the server that brought its id."""
    changes: bytes | None = None
    """Of a simple task, the number of changes when it was fetched. While that stays, its details need not be read again
    before its output is written. `None`: the task is not simple."""

    def about(self) -> dict[str, str]:
        """Name the task, for a line of the log."""
        details = self.details
        caller = details.caller_id if details.caller_id is not None else details.public_key or b""
        return about(self.task_id, circle_of(self.keys.queue), to_text(caller))

    def signed_details(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the fields that a signature may be of, and those that describe it, by name: those that are present.

        `names`: of all fields that the worker reads.
        """
        values = (*self.details, *self.terms, *self.signature)
        return {name: value for name, value in zip(names, values, strict=False) if value is not None}

    def task(self, names: Sequence[str] = DETAIL_FIELDS) -> Task:
        """Read the details; `names`: those of the fields in the hash.

        Raises:
            TaskMalformed: They cannot be run; see `parse_task`.
        """
        return parse_task(self.task_id, self.details, names)

    def read_terms(self, terms: Sequence[Term] = TERMS) -> Terms:
        """Read the task's terms; `terms`: with the names of the fields in the hash.

        Raises:
            TaskMalformed: One cannot be read; see `parse_terms`.
        """
        return parse_terms(self.terms, terms)

    def readable_task(self) -> Task:
        """Read the details for a reply, without what cannot be read: a malformed task gets a reply, too."""
        try:
            return self.task()
        except TaskMalformed:
            values = self.details[: len(DETAIL_FIELDS)]
            readable = [value if value and is_utf8(to_text(value)) else None for value in values]
            return parse_task(self.task_id, [readable[0] or b"", *readable[1:]])

    def message_fields(self) -> Mapping[str, Any]:
        """Return the fields of dramatiq's message, also of one that `fetch.lua` has made of a task's id."""
        return self.fields or {
            "queue_name": self.keys.queue,
            "actor_name": ACTOR,
            "args": (self.task_id,),
            "kwargs": {},
            "options": {"redis_message_id": self.message_id},
            "message_id": self.message_id,
            "message_timestamp": int(time.time() * 1000),
        }

    def details_key(self, prefix: str) -> bytes:
        """Name the key of the details."""
        return to_bytes(prefix + self.task_id)
