"""Templates, and how text of strangers is shown: as text, all of it visible, and never as anything else."""

import re
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rhai_tasks.protocol import timestamp, to_bytes, to_text

from . import charts

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff\ufffe\uffff]"
)
_MIB = 1024 * 1024
_LAST_MOMENT = 253402300799.0  # of the year 9999


def visible(text: str) -> str:
    """Make every character show: what controls a terminal, a line's direction or nothing at all is written as code."""
    return _HIDDEN.sub(_code, text.replace("\r\n", "\n"))


def _code(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def reference(text: str) -> str:
    """Write an id for an address or a form; `dereference` undoes it. Ids hold any bytes, also those of no text."""
    return quote(to_bytes(text), safe="")


def dereference(text: str) -> str:
    """Undo `reference`."""
    return to_text(unquote_to_bytes(text))


def size(count: int) -> str:
    """Write a number of bytes in few characters."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.3g} KiB" if count < _MIB else f"{count / _MIB:,.1f} MiB"


def brief(text: str, length: int = 60) -> str:
    """Put the start of a text on one line."""
    line = " ".join(text[: length * 4].split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def moment(seconds: float, length: int = 19) -> str:
    """Write a moment (seconds since the epoch) in UTC, by default to the second."""
    return timestamp(min(max(seconds, 0.0), _LAST_MOMENT))[:length].replace("T", " ")


def _finalize(value: Any) -> Any:
    return visible(str(value)) if not isinstance(value, Markup) else value


def environment() -> Environment:
    """Make the templates' environment: whatever they show goes through `visible`, and is escaped."""
    made = Environment(
        loader=PackageLoader("rhai_tasks.web"),
        autoescape=True,
        finalize=_finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "brief": brief,
        "duration": charts.duration,
        "moment": moment,
        "number": charts.number,
        "ref": reference,
        "size": size,
    }
    return made
