"""The tasks that an application submits: the script of each, and its options."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypedDict, get_args

from rhai_tasks.protocol import LONGEST, ScriptRef, is_reference, shown

Via = Literal["native", "dramatiq", "urgent"]
"""How a task gets to a worker: `native`, by its circle's list, which any worker may serve; `dramatiq`, as a message in
the circle's dramatiq queue, past the tasks in the list; `urgent`, as such a message, at the head of that queue."""

WAYS: tuple[Via, ...] = get_args(Via)


class TaskOptions(TypedDict, total=False):
    """The options of a submission, as `Client.submit` takes and explains them."""

    circle: str | None
    caller_id: str | None
    context_id: str | None
    task_id: str | None
    fields: Mapping[str, str] | None
    unique: bool
    delay: float
    via: Via
    timeout: float | None
    max_operations: int | None
    max_memory: int | None
    start_before: datetime | float | None
    start_within: float | None
    json: bool
    stats: bool
    keep_prints: int | None
    args: Mapping[str, Any] | None
    materialize: bool


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task for `submit_many`: a script, and options with the meanings and defaults that `Client.submit` explains.

    Raises:
        ValueError: `delay` is negative, longer than a hundred years, or no number; or the task could never begin.
    """

    script: str | ScriptRef
    circle: str | None = None
    caller_id: str | None = None
    context_id: str | None = None
    task_id: str | None = None
    fields: Mapping[str, str] | None = None
    unique: bool = False
    delay: float = 0.0
    via: Via = "native"
    timeout: float | None = None
    max_operations: int | None = None
    max_memory: int | None = None
    start_before: datetime | float | None = None
    start_within: float | None = None
    json: bool = False
    stats: bool = False
    keep_prints: int | None = None
    args: Mapping[str, Any] | None = None
    materialize: bool = False

    @property
    def reference(self) -> str:
        """The reference to a stored script in the place of a script; empty: the script is a source."""
        script = self.script
        if isinstance(script, ScriptRef):
            return str(script)
        return script if script.startswith(("@", "sha256:")) and is_reference(script) else ""

    def __post_init__(self) -> None:
        if self.delay != 0.0:
            check_seconds("delay", self.delay)
        if self.start_within is not None:
            self._check_start()

    def _check_start(self) -> None:
        if self.start_before is not None:
            raise ValueError("start_before and start_within exclude each other: give one of them")
        if check_seconds("start_within", self.start_within, least=0.001) <= self.delay:
            raise ValueError(
                f"start_within={self.start_within:g}: the task would expire before its delay of "
                f"{self.delay:g} s is over"
            )


Submitted = str | ScriptRef | TaskSpec
"""What can be submitted: a source, a reference to a stored script, or either with options."""


def to_spec(spec: Submitted) -> TaskSpec:
    """Return the `TaskSpec` of a submission.

    Raises:
        TypeError: It is neither a script nor a `TaskSpec` of one.
    """
    spec = TaskSpec(spec) if isinstance(spec, str | ScriptRef) else spec
    if not isinstance(spec, TaskSpec):
        raise TypeError(f"expected a script or a TaskSpec, not {shown(spec)}")
    if not isinstance(spec.script, str | ScriptRef):
        raise TypeError(f"script={shown(spec.script)}: expected a text")
    return spec


def check_seconds(
    name: str, value: float | None, *, least: float = 0.0, most: float = LONGEST, unit: str = "seconds"
) -> float:
    """Return a number of seconds, or of another unit, as a float.

    Raises:
        ValueError: It is out of these bounds, or no number.
    """
    try:
        # A text is not a number, though `float` reads it; `None` raises.
        seconds = math.nan if isinstance(value, str | bytes) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not least <= seconds <= most:  # true of not-a-number, too
        upper = "" if most == math.inf else f" to {most:g}"
        raise ValueError(f"{name}={shown(value)}: expected a number of {unit} from {least:g}{upper}")
    return seconds
