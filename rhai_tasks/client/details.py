"""The fields of submitted tasks."""

import operator
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rhai_tasks.protocol import (
    NO_TERMS,
    Dialect,
    DialectName,
    Field,
    Status,
    Terms,
    check_circle,
    dialect_named,
    signed_form,
    timestamp,
    to_bytes,
    to_text,
    write_terms,
)

from .spec import TaskSpec, check_seconds

if TYPE_CHECKING:  # an extra
    from rhai_tasks.signatures import SigningKey

_PENDING = Status.PENDING.value
_KEEP_SECONDS = "60"  # a worker with --delete-finished keeps a client's tasks that long: their results are awaited
REFERENCES = ("@", "s")
"""How references to stored scripts begin: no function is called for any other script."""
_terms_of: Callable[[TaskSpec], tuple[Any, ...]] = operator.attrgetter(*Terms._fields)


@dataclass(frozen=True, kw_only=True, slots=True)
class DetailsWriter:
    """Writes the fields of submitted tasks; holds those that tasks have by default.

    Raises:
        ConfigurationError: The circle cannot be used.
        ValueError: `expire_finished` is below a millisecond and not 0, longer than a hundred years, or no number; or
            another caller is named than the key's.
    """

    circle: str | None = None
    caller_id: str = ""
    context_id: str | None = None
    expire_finished: float | None = None  # seconds; `None`: as the worker is set
    dialect: DialectName = "rhai"
    traceparent: Callable[[], str | None] | None = None  # gives the current span, whose trace workers join
    signing_key: "SigningKey | None" = None
    table: Dialect = field(init=False)
    """Of the dialect."""

    def __post_init__(self) -> None:
        if self.signing_key is not None:
            self._check_caller(self.caller_id or None)
        object.__setattr__(self, "table", dialect_named(self.dialect))
        if self.circle is not None:
            check_circle(self.circle)
        if self.expire_finished is not None and self.expire_finished != 0:
            check_seconds("expire_finished", self.expire_finished, least=0.001)

    def write(self, spec: TaskSpec, task_id: str, now: str) -> list[str]:
        """Return the fields of a task that is submitted `now`: each name, and its value after it."""
        caller = spec.caller_id if spec.caller_id is not None else self.caller_id
        reference = "" if spec.script.__class__ is str and spec.script[:1] not in REFERENCES else spec.reference
        details: list[str] = [Field.SCRIPT, str(spec.script)] if not reference else [Field.SCRIPT_REF, reference]
        if spec.materialize:
            details += (Field.SCRIPT, "")  # which `submit.lua` looks up
        details += (Field.STATUS, _PENDING, Field.CALLER_ID, caller)
        details += (Field.CREATED_AT, now, Field.UPDATED_AT, now)
        context = spec.context_id if spec.context_id is not None else self.context_id
        if context is not None:
            details += (Field.CONTEXT_ID, context)
        circle = spec.circle if spec.circle is not None else self.circle
        # Other clients read UTF-8.
        if circle is not None and (circle.isascii() or circle.encode(errors="replace") == to_bytes(circle)):
            details += (Field.CIRCLE, circle)
        if self.expire_finished is not None:
            details += (Field.EXPIRE_FINISHED, f"{self.expire_finished:.15g}")
        else:
            details += (Field.KEEP_FINISHED, _KEEP_SECONDS)
        if self.traceparent and (parent := self.traceparent()):
            details += (Field.TRACEPARENT, parent)
        asked = _terms_of(spec)
        if asked != NO_TERMS:
            details += write_terms(asked)
        own = {*details[::2], Field.CIRCLE, Field.SUBMISSION}
        if self.signing_key is not None:
            own |= {Field.SIGNED_AT, Field.SIGNATURE_SCHEME, Field.SIGNATURE}
        if self.table.renames:
            own |= {*self.table.stored_names(own), *filter(None, [self.table.id_field])}
        for name, value in (spec.fields or {}).items():
            if name in own:
                raise ValueError(f"the field {name!r} is the client's own; it is set by an argument")
            details += (name, value)
        if self.signing_key is not None:
            self._sign(self.signing_key, details, spec, task_id)
        return self.table.write(details, task_id) if self.table.renames else details

    def _sign(self, key: "SigningKey", details: list[str], spec: TaskSpec, task_id: str) -> None:
        """Make the task one of the key's caller, and add its signature. A delayed task counts as signed when due."""
        self._check_caller(spec.caller_id)
        details[details.index(Field.CALLER_ID) + 1] = key.public_key
        details += (Field.SIGNED_AT, timestamp(time.time() + spec.delay), Field.SIGNATURE_SCHEME, key.scheme)
        circle = spec.circle if spec.circle is not None else self.circle
        texts = iter(map(to_bytes, details))
        form = signed_form(
            task_id, circle or "", {to_text(name): value for name, value in zip(texts, texts, strict=True)}
        )
        details += (Field.SIGNATURE, key.sign(form))

    def _check_caller(self, caller: str | None) -> None:
        if self.signing_key is not None and caller not in {None, self.signing_key.public_key}:
            raise ValueError(f"caller_id={caller!r}: the signing key is {self.signing_key.public_key}'s")
