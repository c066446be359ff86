"""Wire format: key names, hash fields, statuses, and the texts that go into them.

Pure: no connection, no clock. The reference is docs/protocol.md.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from math import isfinite
from typing import NamedTuple

from .errors import TaskMalformed

MISSING_SCRIPT = "Script content not found in Redis hash"
"""`error` of a task without a script; clients of the original compare it to the letter."""

CANCELLED = "cancelled"
"""`error` of a task that was cancelled. Lua scripts know it too."""


class Status(StrEnum):
    """Values of the field `status`."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    ERROR = "error"

    @property
    def is_final(self) -> bool:
        """Whether the task has ended."""
        return self in {Status.COMPLETED, Status.ERROR}


DETAIL_FIELDS = ("script", "callerId", "publicKey", "contextId", "createdAt", "replyToQueue")
"""Fields of a details hash that a worker reads, in the order in which `parse_task` expects them."""

TRACEPARENT = "traceparent"
"""Field of a details hash that joins the task to a trace, as W3C writes it; read only by workers that trace."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """What stands before a circle or a task id in the native keys; later dispatchers use others."""

    queue: str = "rhai_tasks:"
    details: str = "rhai_task_details:"
    reply: str = "rhai_reply:"


class Task(NamedTuple):
    """One native task, as its details hash describes it.

    Ids hold any bytes: those that are not UTF-8 stand as surrogate escapes (`to_text`, `to_bytes`).
    """

    id: str
    script: str
    caller_id: str = ""
    context_id: str | None = None  # as the dispatcher wrote it; the worker's own circle is what scripts see
    created_at: str | None = None
    reply_to: str | None = None  # list that wants the final details; older clients only


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: its final status, and the output or the error message."""

    status: Status
    text: str
    kind: str = dataclass_field(default="", compare=False)  # of the error: Rhai's name of it, or one of ours

    @property
    def field(self) -> str:
        """The hash field that takes the text."""
        return "output" if self.status is Status.COMPLETED else "error"


def completed(output: str) -> Outcome:
    """Build the outcome of a script that ran to its end."""
    return Outcome(Status.COMPLETED, output)


def failed(message: str, kind: str) -> Outcome:
    """Build the outcome of a script that failed, or of a task that could not be run."""
    return Outcome(Status.ERROR, message, kind)


def to_text(data: bytes) -> str:
    """Read a key part or id; bytes that are not UTF-8 survive the way back through `to_bytes`."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Undo `to_text`."""
    return text.encode("utf-8", "surrogateescape")


def key_pattern(prefix: str) -> bytes:
    """Write the pattern of all keys that begin like this."""
    return b"".join(b"\\" + bytes([byte]) if byte in b"*?[]\\^" else bytes([byte]) for byte in to_bytes(prefix)) + b"*"


def parse_task(task_id: str, values: Sequence[bytes | None]) -> Task:
    """Read a task from the values of `DETAIL_FIELDS` in its details hash; `None` is an absent field.

    Raises:
        TaskMalformed: There is no script, or a field is not UTF-8. Its text is the task's `error`.
    """
    try:
        script, caller, public_key, context, created, reply_to = [
            None if value is None else value.decode() for value in values[: len(DETAIL_FIELDS)]
        ]
    except UnicodeDecodeError as error:
        field = DETAIL_FIELDS[values.index(error.object)]
        raise TaskMalformed(
            f"Field '{field}' of the task is not valid UTF-8: "
            f"byte {error.object[error.start]:#04x} at position {error.start}"
        ) from error
    if script is None:
        raise TaskMalformed(MISSING_SCRIPT)
    return Task(
        id=task_id,
        script=script,
        caller_id=caller if caller is not None else public_key or "",
        context_id=context,
        created_at=created,
        reply_to=reply_to or None,
    )


def timestamp(seconds: float) -> str:
    """Write a moment (seconds since the epoch) as RFC 3339 in UTC, with microseconds."""
    whole, microseconds = divmod(round(seconds * 1e6), 1_000_000)
    return f"{_to_the_second(whole)}.{microseconds:06d}Z"


@lru_cache(maxsize=4)  # many tasks end within a second
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


def moment(text: str | bytes) -> float | None:
    """Read a moment, RFC 3339 or seconds since the epoch, as seconds since the epoch; `None`: it is neither."""
    try:
        text = text if isinstance(text, str) else text.decode()
        try:
            return datetime.fromisoformat(text).timestamp()
        except ValueError:
            seconds = float(text)
            return seconds if isfinite(seconds) else None
    except (ValueError, OverflowError):
        return None


_OUR_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


def is_our_timestamp(text: str) -> bool:
    """Say whether a moment is written as `timestamp` does; the original worker writes it otherwise, or not at all."""
    return _OUR_TIMESTAMP.fullmatch(text) is not None


def reply_json(task: Task, outcome: Outcome, updated_at: str) -> bytes:
    """Write the final details as clients of a reply list read them: camelCase, null where absent."""
    is_output = outcome.status is Status.COMPLETED
    details = {
        "taskId": task.id,
        "script": task.script,
        "status": outcome.status,
        "output": outcome.text if is_output else None,
        "error": None if is_output else outcome.text,
        "callerId": task.caller_id or None,
        "contextId": task.context_id,
        "createdAt": task.created_at,
        "updatedAt": updated_at,
    }
    return to_bytes(json.dumps(details, ensure_ascii=False))


# --- Our own keys: dramatiq's layout, and beside it what keeps tasks from getting lost -------------------

ACTOR = "run_script"
"""Name of the dramatiq actor that every message is for."""


def message_head(queue: str, seconds: float) -> str:
    """Write a dramatiq message of this moment (seconds since the epoch) up to its argument, which Lua adds."""
    return (
        f'{{"queue_name":"{queue}","actor_name":"{ACTOR}","kwargs":{{}},'
        f'"message_timestamp":{int(seconds * 1000)},"args":['
    )


_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_ESCAPED = re.compile(rb"\.([0-9a-f]{2})")
_QUEUE_PREFIX = "rhai-"


def queue_name(circle: str) -> str:
    """Name a circle's dramatiq queue; `circle_of` undoes it.

    Bytes outside letters, digits, `_` and `-` are written as `.` and two hex digits: dramatiq gives `.`
    and `:` a meaning of its own at the end of names, and circles may hold any character.
    """
    escaped = _UNSAFE.sub(lambda match: b".%02x" % match[0][0], to_bytes(circle))
    return _QUEUE_PREFIX + escaped.decode()


@lru_cache(maxsize=1024)  # asked for every task
def circle_of(queue: str) -> str:
    """Read the circle from the name of its dramatiq queue."""
    escaped = to_bytes(queue.removeprefix(_QUEUE_PREFIX))
    return to_text(_ESCAPED.sub(lambda match: bytes.fromhex(match[1].decode()), escaped))


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """Keys of one dramatiq queue under a namespace (docs/protocol.md, "Keys of our own")."""

    namespace: str
    queue: str

    @property
    def messages(self) -> str:
        """List of what waits for a worker: ids of messages, and of tasks that become messages when they are fetched."""
        return f"{self.namespace}:{self.queue}"

    @property
    def bodies(self) -> str:
        """Hash of message id to message, waiting or held; dramatiq's own."""
        return f"{self.messages}.msgs"

    @property
    def dead(self) -> str:
        """Sorted set of dead message ids by milliseconds; dramatiq's own."""
        return f"{self.messages}.XQ"

    @property
    def dead_bodies(self) -> str:
        """Hash of dead message id to message; dramatiq's own."""
        return f"{self.dead}.msgs"

    @property
    def dead_reasons(self) -> str:
        """Hash of dead message id to what is wrong with it."""
        return f"{self.dead}.reasons"

    @property
    def sequence(self) -> str:
        """Counter behind message ids: a smaller id was taken earlier."""
        return f"{self.messages}.sequence"

    @property
    def published(self) -> str:
        """Sorted set of ids of messages in RabbitMQ, by the server's millisecond; who runs one takes it out."""
        return f"{self.messages}.published"

    @property
    def leases(self) -> str:
        """Sorted set of broker id to the server's millisecond until which it holds its messages."""
        return f"{self.messages}.leases"

    @property
    def deliveries(self) -> str:
        """Hash of message id to how often a process has died with it."""
        return f"{self.messages}.deliveries"

    @property
    def full(self) -> str:
        """String that stands while a bridge waits for room."""
        return f"{self.messages}.full"

    @property
    def room(self) -> str:
        """List on which a bridge waits for room."""
        return f"{self.messages}.room"

    @property
    def delayed(self) -> str:
        """Sorted set of task ids by the server's millisecond at which they go to the native list."""
        return f"{self.messages}.delayed"

    @property
    def delayed_messages(self) -> str:
        """Sorted set of ids of messages or tasks, likewise, which go to the messages."""
        return f"{self.messages}.delayed_messages"

    @property
    def wake(self) -> str:
        """List on which a bridge waits for something delayed that is due earlier than what it knows of."""
        return f"{self.messages}.wake"

    def acks(self, broker_id: str) -> str:
        """Set of message ids that one broker holds; dramatiq's own."""
        return f"{self.namespace}:__acks__.{broker_id}.{self.queue}"

    def released(self, broker_id: str) -> str:
        """String: a process that had this broker id, and the number of the last message that it gave back."""
        return f"{self.namespace}:__released__.{broker_id}.{self.queue}"

    @staticmethod
    def registry(namespace: str) -> str:
        """Set of the names of all queues that a bridge ever served."""
        return f"{namespace}:__queues__"


def workers_key(namespace: str) -> str:
    """Hash of broker id to the heartbeat of that worker process; see activity.py."""
    return f"{namespace}:__workers__"


def state_channel(namespace: str) -> str:
    """Channel on which a task's new status is told; its details key follows this.

    A message is a status, and for a final one that has a text of at most 4096 bytes, a blank and the text.
    """
    return f"{namespace}:__state__:"


def cancel_channel(namespace: str) -> str:
    """Channel on which workers hear ids of tasks that were cancelled."""
    return f"{namespace}:__cancel__"


def submits_key(namespace: str, client_id: str) -> str:
    """Sorted set of a client's calls that were done and that it may repeat, because the reply got lost."""
    return f"{namespace}:__submits__.{client_id}"
