"""The bodies of requests and answers. Their JSON names are those of the fields of a task (docs/protocol.md)."""

import json
from datetime import datetime
from itertools import permutations
from typing import Annotated, Any, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from rhai_tasks.client.spec import Via
from rhai_tasks.operate.queues import Queue
from rhai_tasks.protocol import LONGEST, REFERENCE, UNREADABLE, Status, is_utf8, parse_time
from rhai_tasks.protocol import Field as TaskField

from .problems import clean

MOST_TASKS = 500
"""Tasks of one batch."""

TASK_ID = r"^[A-Za-z0-9_][A-Za-z0-9._:~-]{0,199}$"

_DEEPEST = 128
_LARGEST = 2**63 - 1
_Seconds = Annotated[float, Field(ge=0.001, le=LONGEST)]
_Bound = Annotated[int, Field(ge=1, le=_LARGEST)]
_Name = Annotated[str, Field(max_length=1000)]
_PRINTS = 16 * 1024 * 1024  # bytes


class _Model(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", ser_json_inf_nan="null", strict=True
    )


class Signature(_Model):
    """A caller's signature of a task: the fields of the details, as docs/protocol.md defines them."""

    signed_at: Annotated[str, Field(max_length=100)]
    signature_scheme: Literal["ed25519", "secp256k1"]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


class Submission(_Model):
    """A task to submit: a script, or a reference to a stored one, and options."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [
                {"required": [name], "properties": {name: {"type": "string"}, other: {"type": "null"}}}
                for name, other in permutations((TaskField.SCRIPT, TaskField.SCRIPT_REF))
            ]
        }
    )

    script: str | None = Field(None, description="Rhai source.")
    script_ref: _Name | None = Field(
        None, pattern=REFERENCE, description="A stored script: `@name`, or `sha256:` and a hash."
    )
    circle: _Name | None = Field(
        None, min_length=1, description="Whose workers run the task; may be left out if the key has one."
    )
    caller_id: _Name | None = Field(None, description="`CALLER_ID` in scripts; by default the key's.")
    context_id: _Name | None = None
    task_id: str | None = Field(None, pattern=TASK_ID, description="By default a new UUID; an id is used once.")
    args: dict[str, Any] | None = Field(None, description="The constant `ARGS` in the script.")
    delay: Annotated[float, Field(ge=0, le=LONGEST)] = Field(0.0, description="Seconds until workers get the task.")
    via: Via = "native"
    timeout: _Seconds | None = Field(None, description="Seconds for which the script may run.")
    max_operations: _Bound | None = None
    max_memory: _Bound | None = Field(None, description="Bytes.")
    start_before: Annotated[AwareDatetime, Field(strict=False)] | None = None
    result_format: Literal["json"] | None = Field(None, description="Keep the value as JSON, too.")
    stats: bool = Field(default=False, description="Keep the cost of the run.")
    keep_prints: Annotated[int, Field(ge=1, le=_PRINTS)] | None = Field(None, description="Bytes of prints to keep.")
    signed: Signature | None = Field(None, description="It signs `taskId` and `callerId`, too: give both.")

    @field_validator("*")
    @classmethod
    def _check_text(cls, value: Any) -> Any:
        if isinstance(value, str) and not is_utf8(value):
            raise ValueError("half of a pair of surrogates is not text")
        return value

    @model_validator(mode="after")
    def _check_script(self) -> Self:
        if (self.script is None) == (self.script_ref is None):
            raise ValueError("give one of script and scriptRef")
        return self


class BatchSubmission(_Model):
    """Tasks to submit in one request."""

    tasks: Annotated[list[Submission], Field(min_length=1, max_length=MOST_TASKS)]


class Task(_Model):
    """A task and its state."""

    task_id: str
    status: str = Field(description="`pending`, `processing`, `completed` or `error`; any program may write another.")
    circle: str = Field(description="Empty: no program has written it.")
    caller_id: str
    context_id: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Stats(_Model):
    """What the last run of a task took."""

    started_at: datetime | None = None
    run_seconds: float | None = None
    operations: int | None = None
    peak_memory: int | None = Field(None, description="Bytes.")
    deliveries: int | None = None
    worker_id: str | None = None


class Result(Task):
    """A task with its outcome, if it has ended."""

    output: str | None = Field(None, description="Text of the script's value, if it completed.")
    error: str | None = Field(None, description="Text of the error, if it failed or was cancelled.")
    error_kind: str | None = None
    result: Any = Field(None, description="The value, if it was asked for with `resultFormat`.")
    stats: Stats | None = None


class Batch(_Model):
    """The tasks of a batch, in their order."""

    tasks: list[Task]


class Cancelled(_Model):
    """What a cancel did."""

    task_id: str
    cancelled: bool = Field(description="`false`: the task had ended already.")


class CircleQueue(_Model):
    """How many tasks of a circle are in each place."""

    circle: str
    waiting: int
    buffered: int
    parked: int
    prefetched: int
    running: int
    delayed: int
    dead: int
    workers: int
    paused: bool
    oldest: float | None = Field(description="Seconds since the oldest waiting task was created.")

    @classmethod
    def of(cls, queue: Queue) -> Self:
        """Describe a queue."""
        return cls(
            **{name: getattr(queue, name) for name in cls.model_fields if name != TaskField.CIRCLE},
            circle=clean(queue.circle),
        )


class Queues(_Model):
    """The circles, as of a time."""

    at: datetime
    queues: list[CircleQueue]


class Health(_Model):
    """The server answers."""

    status: Literal["ok"] = "ok"


STATE_FIELDS = (
    TaskField.STATUS,
    TaskField.CIRCLE,
    TaskField.CALLER_ID,
    TaskField.PUBLIC_KEY,
    TaskField.CONTEXT_ID,
    TaskField.CREATED_AT,
    TaskField.UPDATED_AT,
)
"""Fields of the details that `task_of` reads."""

STATS_FIELDS = (
    TaskField.STARTED_AT,
    TaskField.RUN_SECONDS,
    TaskField.OPERATIONS,
    TaskField.PEAK_MEMORY,
    TaskField.DELIVERIES,
    TaskField.WORKER_ID,
)
RESULT_FIELDS = (
    *STATE_FIELDS,
    TaskField.OUTPUT,
    TaskField.ERROR,
    TaskField.ERROR_KIND,
    TaskField.RESULT,
    *STATS_FIELDS,
)
"""Fields of the details that `result_of` reads."""


def circle_and_caller(details: dict[str, str]) -> tuple[str, str]:
    """Return whose task it is; empty: the details do not say."""
    circle = details.get(TaskField.CIRCLE) or details.get(TaskField.CONTEXT_ID) or ""
    return circle, details.get(TaskField.CALLER_ID) or details.get(TaskField.PUBLIC_KEY) or ""


def _state(task_id: str, details: dict[str, str]) -> dict[str, Any]:
    names = (TaskField.CONTEXT_ID, TaskField.CREATED_AT, TaskField.UPDATED_AT)
    circle, caller = circle_and_caller(details)
    texts = {name: details[name] for name in names if name in details}
    texts |= {
        TaskField.STATUS: details.get(TaskField.STATUS, ""),
        TaskField.CIRCLE: circle,
        TaskField.CALLER_ID: caller,
    }
    return {to_camel("task_id"): task_id, **{name: clean(text) for name, text in texts.items()}}


def task_of(task_id: str, details: dict[str, str]) -> Task:
    """Describe a task by its details: any program may have written them."""
    return Task.model_validate(_state(task_id, details))


def result_of(task_id: str, details: dict[str, str]) -> Result:
    """Describe a task and its outcome by its details."""
    state = _state(task_id, details)
    if state[TaskField.STATUS] == Status.COMPLETED:
        state[TaskField.OUTPUT] = clean(details.get(TaskField.OUTPUT, ""))
        if TaskField.RESULT in details:
            state[TaskField.RESULT] = _value_in(details[TaskField.RESULT])
    elif state[TaskField.STATUS] == Status.ERROR:
        state[TaskField.ERROR] = clean(details.get(TaskField.ERROR, ""))
        if TaskField.ERROR_KIND in details:
            state[TaskField.ERROR_KIND] = clean(details[TaskField.ERROR_KIND])
    if TaskField.WORKER_ID in details:
        state[TaskField.STATS] = _stats_in(details)
    return Result.model_validate(state)


def _value_in(text: str) -> Any:
    try:
        value = json.loads(clean(text), parse_constant=_refuse)
        return value if _is_flat(value, _DEEPEST) else None
    except UNREADABLE:
        return None


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _is_flat(value: Any, levels: int) -> bool:
    """Whether a value is nested no deeper than `levels`, as every value of a script is."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_flat(part, levels - 1) for part in parts)


def _stats_in(details: dict[str, str]) -> Stats | None:
    texts = {name: clean(details[name]) for name in STATS_FIELDS if name in details}
    if parse_time(texts.get(TaskField.STARTED_AT, "")) is None:
        texts.pop(TaskField.STARTED_AT, None)
    try:
        return Stats.model_validate(texts, strict=False)
    except ValueError:
        return None
