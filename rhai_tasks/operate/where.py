"""Filters of tasks, as a person writes them: `caller=ada status=error error~"stock" older=1h`."""

import re
import shlex
from dataclasses import dataclass, fields
from typing import NamedTuple

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import Status

ERROR_BYTES = 400
"""How much of an error's text a filter and a pattern see, from its start."""

_TERM = re.compile(r"(?P<name>[a-z]+)(?P<sign>[=~])(?P<value>.*)", re.DOTALL)
_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)", re.ASCII)
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_SPELLED = "status=, circle=, caller=, error=, error~, older=, younger="

_POSITION = re.compile(r" ?\(line \d+, position \d+\)| ?@ \d+:\d+")
_QUOTED = re.compile(r"(?<!\w)(?:'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`)(?!\w)")
_WORD = re.compile(r"[\w.:+-]+")
_TYPE = re.compile(r"[iuf](?:8|16|32|64|128)[.:]*")


class Found(NamedTuple):
    """A task that a search has found; `error` is cut to `ERROR_BYTES`."""

    task_id: str
    status: str
    caller: str
    circle: str
    error: str
    at: float | None  # of its last change, seconds since the epoch; `None`: its details have no time


@dataclass(frozen=True, slots=True)
class Where:
    """A filter of tasks: a task matches if it has every value of the filter."""

    status: str = ""
    circle: str = ""
    caller: str = ""
    contains: str = ""  # a part of the error
    error: str = ""  # an error that differs in positions and values alone
    older: float | None = None  # seconds since the task last changed, at least
    younger: float | None = None  # seconds since then, at most

    def matches(self, found: Found, now: float) -> bool:
        """Whether a task matches, `now` seconds since the epoch; a task without a time has no age."""
        if self.older is not None and (found.at is None or found.at > now - self.older):
            return False
        if self.younger is not None and (found.at is None or found.at < now - self.younger):
            return False
        return (
            self.status in {"", found.status}
            and self.circle in {"", found.circle}
            and self.caller in {"", found.caller}
            and self.contains in found.error
            and (not self.error or (found.status == Status.ERROR and pattern(found.error) == pattern(self.error)))
        )

    @property
    def is_any(self) -> bool:
        """Whether every task matches."""
        return self == Where()

    def __str__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return " ".join(_write(name, value) for name, value in values if value not in {"", None})


def _write(name: str, value: str | float) -> str:
    start = "error~" if name == "contains" else f"{name}="
    return start + (shlex.quote(value) if isinstance(value, str) else f"{value:.15g}s")


def parse_where(text: str) -> Where:
    """Read a filter; the inverse of `str`.

    Raises:
        ConfigurationError: The text is not a filter.
    """
    try:
        terms = shlex.split(text)
    except ValueError as error:
        raise ConfigurationError(f"the filter {text!a} cannot be read: {error}") from error
    values: dict[str, str | float] = {}
    for term in terms:
        found = _TERM.fullmatch(term)
        name = {"error~": "contains"}.get(f"{found['name']}{found['sign']}", found["name"]) if found else ""
        if not found or name not in Where.__dataclass_fields__ or (found["sign"] == "~") != (name == "contains"):
            raise ConfigurationError(f"{term!a} is not part of a filter: expected {_SPELLED}")
        if name in values:
            raise ConfigurationError(f"the filter {text!a} has {name} twice")
        if not found["value"]:
            raise ConfigurationError(f"{term!a} has no value")
        if name == "status" and found["value"] not in {*Status}:
            raise ConfigurationError(f"{term!a}: expected one of {', '.join(Status)}")
        try:
            values[name] = parse_age(found["value"]) if name in {"older", "younger"} else found["value"]
        except ConfigurationError as error:
            raise ConfigurationError(f"{term!a}: {error}") from error
    return Where(**values)  # type: ignore[arg-type]  # each value has the type of its name


def parse_age(text: str) -> float:
    """Read a duration such as `90`, `90s`, `15m`, `1h` or `7d`, as seconds.

    Raises:
        ConfigurationError: The text is not a duration.
    """
    found = _AGE.fullmatch(text.strip())
    if not found:
        raise ConfigurationError(f"{text!a} is not a duration: expected a number and s, m, h or d, such as 15m")
    return float(found[1]) * _UNITS[found[2]]


def pattern(error: str) -> str:
    """Return an error without positions, and with `…` for each quoted text and each word with a digit.

    Errors of one cause have one pattern. The pattern of a pattern is itself. Names of functions and types stay.
    """
    text, before = " ".join(error[:ERROR_BYTES].split()), ""
    while text != before:  # what took the place of a value can end a quoted text
        before = text
        text = _POSITION.sub("", text)
        text = _QUOTED.sub(lambda quoted: quoted[0] if _is_name(quoted) else "…", text)
        text = _WORD.sub(lambda word: "…" if _is_value(word[0]) else word[0], text)
        text = " ".join(text.split())
    return text


def _is_name(quoted: re.Match[str]) -> bool:
    return quoted.string.endswith(("function ", "variable ", "property "), 0, quoted.start())


def _is_value(word: str) -> bool:
    return any(map(str.isdigit, word)) and not _TYPE.fullmatch(word)
