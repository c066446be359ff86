"""Rules of a circle: what is paused, and whose tasks are blocked. An operator sets them, and each fetch reads them."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, Self

from rhai_tasks.errors import ConfigurationError

from .text import UNREADABLE, finite, to_bytes, to_text

_LATEST = 1e11  # seconds since the epoch, in the year 5138
_HASH = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a circle."""

    verb: Literal["pause", "block"]
    scope: Literal["circle", "caller", "script"]
    name: str = ""  # of the caller; of a script, the SHA-256 of its text in hex
    reason: str = ""
    by: str = ""  # the person or program that set it
    at: float = 0.0  # seconds since the epoch

    @property
    def subject(self) -> str:
        """The circle, or the caller or script that the rule is for, as a person reads it."""
        if self.scope == "circle":
            return "the circle"
        return f"caller {self.name}" if self.scope == "caller" else f"script sha256:{self.name}"

    @property
    def field(self) -> bytes:
        """Its field in the hash of rules."""
        start = f"{self.verb} {self.scope}"
        return to_bytes(start if self.scope == "circle" else f"{start} {self.name}")

    @property
    def note(self) -> str:
        """Its value there."""
        return json.dumps({"reason": self.reason, "by": self.by, "at": self.at})

    @classmethod
    def read(cls, field: bytes, note: bytes) -> Self | None:
        """Read a rule; `None`: the field is not one of this version's."""
        verb, _, rest = to_text(field).partition(" ")
        scope, _, name = rest.partition(" ")
        if (verb, scope) not in _KINDS:
            return None
        try:
            known = json.loads(note)
            reason, by, at = str(known["reason"]), str(known["by"]), seconds_of(known["at"])
        except UNREADABLE:
            reason, by, at = "", "", 0.0  # what somebody wrote by hand holds all the same
        return cls(verb, scope, name, reason, by, at)  # type: ignore[arg-type]  # checked above


_KINDS = {("pause", "circle"), ("pause", "caller"), ("block", "caller"), ("block", "script")}


def seconds_of(value: Any) -> float:
    """Read seconds since the epoch from untrusted JSON.

    Raises:
        UNREADABLE: It is no time that can be written.
    """
    seconds = finite(value)
    if not 0 <= seconds < _LATEST:
        raise ValueError("not a time")
    return seconds


def script_hash(text: str) -> str:
    """Read the SHA-256 of a script, with or without `sha256:` before it.

    Raises:
        ConfigurationError: It is none.
    """
    found = _HASH.fullmatch(text.strip().lower())
    if not found:
        raise ConfigurationError(f"{text!r} is no hash of a script: wanted is sha256: and 64 hex digits")
    return found[1]


def blocked_by(rules: Mapping[bytes, bytes], caller: bytes, script: bytes | None) -> Rule | None:
    """Return the rule that blocks a task, if one does.

    Args:
        rules: The circle's that block, by field.
        caller: The task's.
        script: Its text.
    """
    field = Rule("block", "caller", to_text(caller)).field
    if field not in rules and script is not None:
        field = Rule("block", "script", sha256(script).hexdigest()).field
    return Rule.read(field, rules[field]) if field in rules else None
