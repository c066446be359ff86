"""The contract with dispatchers and the original worker: hash fields, statuses, prefixes of keys, outcomes.

Pure: no connection, no clock. The reference is docs/protocol.md.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from enum import StrEnum
from itertools import permutations
from typing import NamedTuple

from rhai_tasks.errors import ConfigurationError, TaskMalformed

from .text import is_utf8, to_bytes

Naming = Callable[[dict[str, str | None]], dict[str, str | None]]

MISSING_SCRIPT = "Script content not found in Redis hash"
"""`error` of a task without a script; clients of the original compare it literally."""

CANCELLED = "cancelled"
"""`error` of a task that was cancelled. Lua scripts know it too."""


EXPIRED = "expired before it began"
"""`error` of a task that no worker has begun in time."""


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


class Field:
    """Names of the fields of a details hash. Lua scripts know most of them too."""

    SCRIPT = "script"
    STATUS = "status"
    OUTPUT = "output"
    ERROR = "error"
    ERROR_KIND = "errorKind"
    """The kind of the error, as `Outcome.kind`; this project's workers write it."""
    CALLER_ID = "callerId"
    PUBLIC_KEY = "publicKey"
    """The caller, as older dispatchers write it."""
    CONTEXT_ID = "contextId"
    CREATED_AT = "createdAt"
    UPDATED_AT = "updatedAt"
    REPLY_TO = "replyToQueue"
    """A list that gets the final details; older dispatchers wait for it."""
    SUBMISSION = "submission"
    """Tells a submission from an earlier one of the same task id; `Client` writes it."""
    CIRCLE = "circle"
    """The circle that the task was submitted to; `Client` writes it."""
    EXPIRE_FINISHED = "expireFinished"
    """Seconds after which the details of the finished task expire."""
    KEEP_FINISHED = "keepFinished"
    """Seconds for which a worker that deletes finished tasks keeps this one."""
    TRACEPARENT = "traceparent"
    """Joins the task to a trace, in W3C's format; only workers that trace read it."""
    TIMEOUT = "timeout"
    MAX_OPERATIONS = "maxOperations"
    MAX_MEMORY = "maxMemory"
    START_BEFORE = "startBefore"
    RESULT_FORMAT = "resultFormat"
    STATS = "stats"
    KEEP_PRINTS = "keepPrints"
    ARGS = "args"
    SCRIPT_REF = "scriptRef"
    """In the place of a script: `sha256:` and the hash of a stored script, or `@` and a name."""
    SIGNATURE = "signature"
    SIGNED_AT = "signedAt"
    SIGNATURE_SCHEME = "signatureScheme"
    RESULT = "result"
    STARTED_AT = "startedAt"
    RUN_SECONDS = "runSeconds"
    OPERATIONS = "operations"
    PEAK_MEMORY = "peakMemory"
    DELIVERIES = "deliveries"
    WORKER_ID = "workerId"
    PRINTED = "printed"
    REQUEST_HASH = "requestHash"
    """SHA-256 of a request to the HTTP API that may be repeated; the API writes it."""
    PREREQUISITES = "prerequisites"
    """Ids of tasks that have to complete before this one begins, a JSON array; not in the first dialect."""


DETAIL_FIELDS = (
    Field.SCRIPT,
    Field.CALLER_ID,
    Field.PUBLIC_KEY,
    Field.CONTEXT_ID,
    Field.CREATED_AT,
    Field.REPLY_TO,
    Field.SCRIPT_REF,
)
"""Fields of a details hash that a worker reads, in the order in which `parse_task` expects them."""

SIMPLE_FIELDS = 5
"""The first fields of `DETAIL_FIELDS`, which a simple task may have: it names no reply list and no stored script."""

FENCE_FIELDS = (Field.STATUS, Field.ERROR, Field.SUBMISSION, Field.EXPIRE_FINISHED)
"""Fields of a details hash that tell how a task may end: whether it was cancelled, submitted again, or expires."""


@dataclass(frozen=True, slots=True)
class Prefixes:
    """Prefixes of the native keys, before a circle or a task id; later dispatchers use others."""

    queue: str = "rhai_tasks:"
    details: str = "rhai_task_details:"
    reply: str = "rhai_reply:"
    stop: str = ""
    """Prefix of the lists of requests to stop a task; empty: there are no such lists."""


def check_names(prefixes: Prefixes, namespace: str) -> None:
    """Refuse prefixes and a namespace under which one key could be two things: a native list and an internal one.

    Others choose circles and ids, so no prefix may be the start of another. The prefixes of queues and details are an
    exception: some dispatchers have one prefix for both, the keys hold different types, and `--all-circles` reads
    lists only.

    Raises:
        ConfigurationError: One is the start of another, is empty, or is not a text.
    """
    if not isinstance(prefixes, Prefixes):
        raise ConfigurationError(f"prefixes {prefixes!a}: expected rhai_tasks.protocol.Prefixes")
    names = {
        "--queue-prefix": prefixes.queue,
        "--details-prefix": prefixes.details,
        "--reply-prefix": prefixes.reply,
        "--namespace": namespace,
    }
    if prefixes.stop:
        names["--stop-prefix"] = prefixes.stop
    for option, name in names.items():
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ConfigurationError(f"{option} {name!a}: expected one or more printable characters")
    names["--namespace"] += ":"  # all keys under it begin with this
    for (option, name), (other, longer) in permutations(names.items(), 2):
        if {option, other} != {"--queue-prefix", "--details-prefix"} and longer.startswith(name):
            raise ConfigurationError(
                f"{option} {name!a} is the start of {other} {longer!a}: "
                "a key could belong to both; choose prefixes of which none begins another"
            )


def check_circle(circle: str, name: str = "circle") -> str:
    """Return the circle if it can be served: UTF-8, since scripts see it, and not empty. `name` is the option's.

    Raises:
        ConfigurationError: It is empty, or not UTF-8 text.
    """
    if not isinstance(circle, str) or not circle or not is_utf8(circle):
        raise ConfigurationError(f"{name} {circle!a}: expected the public key of a circle, UTF-8 and not empty")
    return circle


class Task(NamedTuple):
    """One native task, as its details hash describes it.

    An id may hold any bytes: those that are not UTF-8 are surrogate escapes (`to_text`, `to_bytes`).
    """

    id: str
    script: str
    caller_id: str = ""
    context_id: str | None = None  # as the dispatcher wrote it; scripts see the worker's own circle
    created_at: str | None = None
    reply_to: str | None = None  # list for the final details; older clients only
    script_ref: str | None = None  # of a stored script, where there is no `script`


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended: its final status, and the output or the error message."""

    status: Status
    text: str
    kind: str = dataclass_field(default="", compare=False)  # of the error: Rhai's name, or one of this project's
    result: str | None = dataclass_field(default=None, compare=False)  # the value as JSON, if the task asks for it

    @property
    def field(self) -> str:
        """The hash field that takes the text."""
        return Field.OUTPUT if self.status is Status.COMPLETED else Field.ERROR


def completed(output: str, result: str | None = None) -> Outcome:
    """Build the outcome of a script that ran to its end; `result` is its value as JSON, if the task asks for it."""
    return Outcome(Status.COMPLETED, output, "", result)


def failed(message: str, kind: str) -> Outcome:
    """Build the outcome of a script that failed, or of a task that could not be run."""
    return Outcome(Status.ERROR, message, kind)


def not_utf8(field: str, error: UnicodeDecodeError) -> TaskMalformed:
    """Make the error for a field whose bytes are not text."""
    return TaskMalformed(
        f"Field '{field}' of the task is not valid UTF-8: "
        f"byte {error.object[error.start]:#04x} at position {error.start}"
    )


def parse_task(task_id: str, values: Sequence[bytes | None], names: Sequence[str] = DETAIL_FIELDS) -> Task:
    """Read a task from the values of `DETAIL_FIELDS` in its details hash; `None` is an absent field.

    `names`: those that the fields have in the hash, for errors.

    Raises:
        TaskMalformed: There is no script, or a field is not UTF-8. Its text is the task's `error`.
    """
    try:
        script, caller, public_key, context, created, reply_to, script_ref = [
            None if value is None else value.decode() for value in values[: len(DETAIL_FIELDS)]
        ]
    except UnicodeDecodeError as error:
        raise not_utf8(names[values.index(error.object)], error) from error
    if script is None and script_ref is None:
        raise TaskMalformed(MISSING_SCRIPT)
    return Task(
        id=task_id,
        script=script or "",
        caller_id=caller if caller is not None else public_key or "",
        context_id=context,
        created_at=created,
        reply_to=reply_to or None,
        script_ref=script_ref if script is None else None,
    )


def reply_json(
    task: Task, outcome: Outcome, updated_at: str, answers: Mapping[str, str], named: Naming = dict
) -> bytes:
    """Write the final details as clients of a reply list read them: null where absent.

    Args:
        task: Its details.
        outcome: Its outcome.
        updated_at: Time of the outcome.
        answers: Further fields, for which the task has asked.
        named: Gives the fields their names; by default they keep those of `Field`.
    """
    is_output = outcome.status is Status.COMPLETED
    details: dict[str, str | None] = {
        "taskId": task.id,
        "script": task.script,
        "status": outcome.status,
        "output": outcome.text if is_output else None,
        "error": None if is_output else outcome.text,
        "callerId": task.caller_id or None,
        "contextId": task.context_id,
        "createdAt": task.created_at,
        "updatedAt": updated_at,
        **answers,
    }
    return to_bytes(json.dumps(named(details), ensure_ascii=False))
