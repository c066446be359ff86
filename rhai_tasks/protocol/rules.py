"""Rules of a circle: pauses, blocks and limits. An operator sets them, and each fetch reads them."""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, Literal, Self

from rhai_tasks.errors import ConfigurationError, QueueFull

from .scripts import hash_in
from .text import UNREADABLE, finite, to_bytes, to_text

_LATEST = 1e11  # seconds since the epoch, in the year 5138
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_RATE = re.compile(r"(\d+(?:\.\d+)?)/([smh])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600}

Verb = Literal["pause", "block", "limit"]
Scope = Literal["circle", "callers", "caller", "script"]
"""The circle, each of its callers, one caller by name, or one script."""

_KINDS: set[tuple[str, str]] = {
    ("pause", "circle"),
    ("pause", "caller"),
    ("block", "caller"),
    ("block", "script"),
    ("limit", "circle"),
    ("limit", "callers"),
    ("limit", "caller"),
}


@dataclass(frozen=True, slots=True)
class Quota:
    """The figures of a limit; `None`: not limited."""

    concurrency: int | None = None  # tasks that workers hold at once, in the whole fleet
    rate: float | None = None  # tasks that begin a second
    burst: int | None = None  # tasks that begin at once after a pause; by default as many as a second has, at least 1
    waiting: int | None = None  # tasks that wait, of clients of this project
    weight: int | None = None  # of a caller where callers take turns; by default 1

    def __str__(self) -> str:
        figures = {name: value for name, value in asdict(self).items() if value is not None}
        return ", ".join(f"{name} {write_rate(value) if name == 'rate' else value}" for name, value in figures.items())


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a circle."""

    verb: Verb
    scope: Scope
    name: str = ""  # of the caller; of a script, the SHA-256 of its text in hex
    reason: str = ""
    by: str = ""  # the person or program that set it
    at: float = 0.0  # seconds since the epoch
    quota: Quota | None = None  # of a limit

    @property
    def subject(self) -> str:
        """The circle, or the callers or script that the rule is for, as a person reads it."""
        caller = f"caller {self.name}" if self.name else "tasks without a caller"
        named = {"circle": "the circle", "callers": "each caller", "caller": caller}
        return named.get(self.scope, f"script sha256:{self.name}")

    @property
    def text(self) -> str:
        """The whole rule, as a person reads it."""
        return f"{self.verb} {self.subject}" + (f": {self.quota}" if self.quota else "")

    @property
    def field(self) -> bytes:
        """Its field in the hash of rules."""
        start = f"{self.verb} {self.scope}"
        return to_bytes(f"{start} {self.name}" if self.scope in {"caller", "script"} else start)

    @property
    def note(self) -> str:
        """Its value there."""
        note = {"reason": self.reason, "by": self.by, "at": self.at}
        figures = asdict(self.quota) if self.quota else {}
        return json.dumps(note | {name: value for name, value in figures.items() if value is not None})

    @classmethod
    def read(cls, field: bytes, note: bytes) -> Self | None:
        """Read a rule; `None`: the field is not one of this version's."""
        verb, _, rest = to_text(field).partition(" ")
        scope, _, name = rest.partition(" ")
        if (verb, scope) not in _KINDS:
            return None
        quota = None
        try:
            known = json.loads(note)
            reason, by, at = str(known["reason"]), str(known["by"]), seconds_of(known["at"])
            if verb == "limit":
                quota = Quota(*(_figure(known.get(name)) for name in Quota.__slots__))
        except UNREADABLE:
            reason, by, at = "", "", 0.0  # a rule that somebody wrote by hand is valid, too
        return cls(verb, scope, name, reason, by, at, quota)  # type: ignore[arg-type]  # checked above


def _figure(value: Any) -> Any:
    if value is None:
        return None
    number = finite(value)
    return int(number) if number == int(number) else number


def seconds_of(value: Any) -> float:
    """Read seconds since the epoch from untrusted JSON.

    Raises:
        UNREADABLE: It is not a time that can be written.
    """
    seconds = finite(value)
    if not 0 <= seconds < _LATEST:
        raise ValueError("not a time")
    return seconds


def script_hash(text: str) -> str:
    """Read the SHA-256 of a script, with or without `sha256:` before it.

    Raises:
        ConfigurationError: The text is not a hash of a script.
    """
    found = _HASH.fullmatch(text.strip().lower())
    if not found:
        raise ConfigurationError(f"{text!r} is not a hash of a script: expected sha256: and 64 hex digits")
    return found[1]


def parse_rate(text: str) -> float:
    """Read a rate, such as `10/s`, `600/m` or `36000/h`; return tasks a second.

    Raises:
        ConfigurationError: The text is not a rate.
    """
    found = _RATE.fullmatch(text)
    if not found or not 0.36 <= float(found[1]) * 3600 / _SECONDS[found[2]] <= 3.6e9:
        raise ConfigurationError(
            f"{text!r} is not a rate: expected a number and /s, /m or /h, such as 10/s, from 0.36/h to 1000000/s"
        )
    return float(found[1]) / _SECONDS[found[2]]


def write_rate(rate: float) -> str:
    """Write a rate in the first unit in which it is exact, as `10/h`; the inverse of `parse_rate`."""
    texts = [f"{rate * seconds:.10g}/{unit}" for unit, seconds in _SECONDS.items()]
    return next((text for text in texts if len(text) < 10 and _RATE.fullmatch(text)), texts[0])


def blocked_by(
    rules: Mapping[bytes, bytes], caller: bytes, script: bytes | None, script_ref: bytes | None = None
) -> Rule | None:
    """Return the rule that blocks a task, if one does.

    Args:
        rules: The circle's that block, by field.
        caller: The task's.
        script: Its text.
        script_ref: The reference to a stored script that a task without a text has.
    """
    field = Rule("block", "caller", to_text(caller)).field
    if field not in rules and (script is not None or script_ref is not None):
        digest = sha256(script).hexdigest() if script is not None else hash_in(to_text(script_ref or b""))
        field = Rule("block", "script", digest or "").field
    return Rule.read(field, rules[field]) if field in rules else None


def queue_full(refusal: list[Any]) -> QueueFull:
    """Make the error of a submission that a limit refuses, as `submit.lua` and `enqueue.lua` return it."""
    caller, limit, *is_callers = refusal
    return QueueFull(to_text(caller) if is_callers else None, limit)
