"""Texts: ids with any bytes, times, and numbers from untrusted JSON."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from math import inf, isfinite
from typing import Any


def is_utf8(text: str) -> bool:
    """Whether a text is UTF-8: no surrogate escapes of `to_text`."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def to_text(data: bytes) -> str:
    """Decode a key part or id; `to_bytes` restores bytes that are not UTF-8."""
    return data.decode("utf-8", "surrogateescape")


def to_bytes(text: str) -> bytes:
    """Encode a text; the inverse of `to_text`."""
    return text.encode("utf-8", "surrogateescape")


def shown(value: object) -> str:
    """Return a value as an error shows it: its `repr`, shortened."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python writes
        text = "a huge number"
    return text if len(text) <= 50 else f"{text[:49]}…"


def timestamp(seconds: float) -> str:
    """Format seconds since the epoch as RFC 3339 in UTC, with microseconds."""
    microseconds = round(seconds * 1e6)
    return f"{_to_the_second(microseconds // 1_000_000)}.{microseconds % 1_000_000:06d}Z"


@lru_cache(maxsize=4)  # many tasks end within a second
def _to_the_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().removesuffix("+00:00")


def parse_time(text: str | bytes) -> float | None:
    """Parse a time, RFC 3339 or seconds since the epoch, as seconds since the epoch; `None` for any other text."""
    try:
        text = text if isinstance(text, str) else text.decode()
        try:
            seconds = datetime.fromisoformat(text).timestamp()
        except ValueError:
            seconds = float(text)
    except (ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds < inf else None


_OUR_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)


def is_our_timestamp(text: str) -> bool:
    """Whether a time has the format of `timestamp`; the original worker writes another one, or none."""
    return _OUR_TIMESTAMP.fullmatch(text) is not None


UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""Exceptions from reading untrusted JSON: of a stranger, or of another version of this project."""


def finite(value: Any) -> float:
    """Read a number from untrusted JSON.

    Raises:
        UNREADABLE: It is not a number, or infinite.
    """
    number = float(value)
    if not isfinite(number):
        raise ValueError("not a finite number")
    return number


def count_of(value: Any) -> int:
    """Read a count from untrusted JSON.

    Raises:
        UNREADABLE: It is not a number, or too large for a count.
    """
    count = int(value)
    if not 0 <= count < 2**63:
        raise ValueError("not a count")
    return count
