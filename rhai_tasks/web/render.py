"""Templates: they escape untrusted text and make invisible characters visible."""

from typing import Any
from urllib.parse import quote, unquote_to_bytes

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rhai_tasks.protocol import parse_time, timestamp, to_bytes, to_text
from rhai_tasks.terminal import visible

from . import charts

_LAST_TIME = 253402300799.0  # the end of the year 9999


def reference(text: str) -> str:
    """Write an id for an address or a form; `dereference` undoes it. Ids may hold bytes that are not UTF-8."""
    return quote(to_bytes(text), safe="")


def dereference(text: str) -> str:
    """Undo `reference`."""
    return to_text(unquote_to_bytes(text))


def brief(text: str, length: int = 60) -> str:
    """Return the start of a text on one line; Jinja's `truncate` would keep the line breaks."""
    line = " ".join(text[: length * 4].split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def format_time(seconds: float, length: int = 19) -> str:
    """Write a time (seconds since the epoch) in UTC, by default to the second."""
    return timestamp(min(max(seconds, 0.0), _LAST_TIME))[:length].replace("T", " ")


def moment(text: str) -> str:
    """Write a time as a dispatcher wrote it in UTC; a text that is none stays as it is."""
    seconds = parse_time(text)
    return brief(text, 32) if seconds is None else format_time(seconds)


def _finalize(value: Any) -> Any:
    return visible(str(value)) if not isinstance(value, Markup) else value


def environment() -> Environment:
    """Make the templates' environment: each value goes through `visible`, and is escaped."""
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
        "format_time": format_time,
        "moment": moment,
        "number": charts.number,
        "ref": reference,
    }
    return made
