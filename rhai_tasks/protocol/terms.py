"""The terms of a task: optional fields of its details by which it sets limits of its own, or asks for more than a text.

`TERMS` has a row for each field. Workers read the fields with it, and clients write them, so that both refuse the same
values. An original worker ignores all of them.
"""

import math
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from rhai_tasks.errors import TaskMalformed

from .args import write_args
from .native import Field, not_utf8
from .text import shown

LONGEST = 100 * 365.25 * 86400
"""Longest duration that a task may be given, in seconds: a hundred years."""

_LARGEST = 2**63 - 1  # what the engine counts with
_NUMBER = re.compile(r"[0-9]{1,30}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,3})?", re.ASCII)
_MOST_PRINTS = 16 * 1024 * 1024  # bytes: a field of the details is written and read at once
_LAST_MOMENT = 253402300799.0  # of the year 9999, in seconds since the epoch: milliseconds are beyond it
_WHOLE = re.compile(r"[0-9]{1,30}", re.ASCII)


class Terms(NamedTuple):
    """What a task's own fields ask for, in the order of `TERMS`. The defaults stand for an absent field."""

    timeout: float | None = None
    """Seconds for which the script may run, if the worker allows no fewer."""
    max_operations: int | None = None
    """Operations of the engine, if the worker allows no fewer."""
    max_memory: int | None = None
    """Bytes that the script may hold at once, if the worker allows no fewer."""
    start_before: float | None = None
    """Seconds since the epoch, by the server's clock: from then on the task does not begin."""
    json: bool = False
    """Whether the value is also kept as JSON."""
    stats: bool = False
    """Whether the cost of the run is kept."""
    keep_prints: int | None = None
    """Bytes of what the script prints that are kept."""
    args: str | None = None
    """The arguments of the script, a JSON object; only the engine reads more than its braces."""


NO_TERMS = Terms()


class Term(NamedTuple):
    """A row of `TERMS`."""

    field: str
    read: Callable[[str], Any]
    """Reads the field's text; for a text that it cannot read, it raises a `ValueError` that says what it expected."""
    write: Callable[[Any], str] = str
    """Writes the text of a value that an application gave."""


def _duration(text: str) -> float:
    seconds = float(text) if _NUMBER.fullmatch(text) else 0.0
    if not 0.001 <= seconds <= LONGEST:
        raise ValueError(f"a number of seconds from 0.001 to {LONGEST:g}")
    return seconds


def _count(text: str, most: int = _LARGEST) -> int:
    count = int(text) if _WHOLE.fullmatch(text) else 0
    if not 1 <= count <= most:
        raise ValueError(f"a whole number from 1 to {most}")
    return count


def _bytes_of_prints(text: str) -> int:
    return _count(text, _MOST_PRINTS)


def read_moment(text: str) -> float:
    """Read a time, RFC 3339 with its offset or seconds since the epoch, as seconds since the epoch.

    Raises:
        ValueError: The text is not such a value; the error says what is expected.
    """
    try:
        moment = float(text) if _NUMBER.fullmatch(text) else _date(text)
    except (ValueError, OverflowError):
        moment = math.inf
    if moment > _LAST_MOMENT:
        raise ValueError("a time before the year 10000: RFC 3339 with its offset, or seconds since the epoch")
    return moment


def _date(text: str) -> float:
    date = datetime.fromisoformat(text)
    if date.tzinfo is None:
        raise ValueError("no offset")
    return date.timestamp()


def _write_moment(moment: object) -> str:
    return moment.isoformat() if isinstance(moment, datetime) else str(moment)


def _format(text: str) -> bool:
    if text != "json":
        raise ValueError("a known format, which is json alone")
    return True


def _object(text: str) -> str:
    if not (text.lstrip().startswith("{") and text.rstrip().endswith("}")):
        raise ValueError("a JSON object")
    return text


def _flag(text: str) -> bool:
    if text not in {"0", "1"}:
        raise ValueError("a flag, 1 or 0")
    return text == "1"


TERMS = (
    Term(Field.TIMEOUT, _duration),
    Term(Field.MAX_OPERATIONS, _count),
    Term(Field.MAX_MEMORY, _count),
    Term(Field.START_BEFORE, read_moment, _write_moment),
    Term(Field.RESULT_FORMAT, _format, lambda asked: "json" if asked is True else str(asked)),
    Term(Field.STATS, _flag, lambda asked: "1" if asked is True else str(asked)),
    Term(Field.KEEP_PRINTS, _bytes_of_prints),
    Term(Field.ARGS, _object, write_args),
)
"""The fields, in the order of `Terms`. A new field is a row here, and an attribute there and of `client.TaskSpec`."""

TERM_FIELDS = tuple(term.field for term in TERMS)

REPEATED_TERMS = tuple(field for field in TERM_FIELDS if field != Field.START_BEFORE)
"""Those that a copy of a task keeps: the time to begin was the first task's."""


def parse_terms(values: Sequence[bytes | None], terms: Sequence[Term] = TERMS) -> Terms:
    """Read the values of `TERM_FIELDS`; `None` is an absent field, as are those after the last value.

    `terms`: `TERMS` with the names that the fields have in the hash, for errors.

    Raises:
        TaskMalformed: A field cannot be read. The text names the field and the reason; it becomes the task's `error`.
    """
    present = zip(Terms._fields, terms, values, strict=False)
    return Terms(**{name: _parse(term, value) for name, term, value in present if value is not None})


def _parse(term: Term, value: bytes) -> Any:
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(term.field, error) from error
    try:
        return term.read(text)
    except ValueError as error:
        raise unreadable_term(term.field, text, str(error)) from error


def unreadable_term(field: str, text: str | None, expected: str) -> TaskMalformed:
    """Return the error of a field that cannot be read."""
    return TaskMalformed(f"Field '{field}' of the task is {shown(text)}: expected {expected}")


def write_terms(terms: Sequence[Any]) -> list[str]:
    """Write the values of `Terms` as fields: each name, and its text after it.

    Raises:
        TypeError, ValueError: No worker could read a value.
    """
    details: list[str] = []
    for name, (field, read, write), value in zip(Terms._fields, TERMS, terms, strict=True):
        if value is not None and value is not False:
            text = write(value)
            try:
                read(text)
            except ValueError as error:
                raise ValueError(f"{name}={shown(value)}: expected {error}") from None
            details += (field, text)
    return details
