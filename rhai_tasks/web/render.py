"""Templates: they escape untrusted text and make invisible characters visible."""

import re
from dataclasses import fields
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from rhai_tasks.operate.where import Where
from rhai_tasks.protocol import parse_time, timestamp, to_bytes, to_text
from rhai_tasks.terminal import visible

from . import charts

_UNFIT = re.compile("[\x00\ud800-\udfff]")
_LAST_TIME = 253402300799.0  # the end of the year 9999


def reference(text: str) -> str:
    """Write an id for an address or a form; `dereference` undoes it. Ids may hold bytes that are not UTF-8."""
    return quote(to_bytes(text), safe="")


def dereference(text: str) -> str:
    """Undo `reference`."""
    return to_text(unquote_to_bytes(text))


def exact(text: str) -> Markup:
    """Return a text that a form sends back, or that is copied, as it is: only what no page can hold is replaced."""
    return Markup(str(escape(_UNFIT.sub("\ufffd", text))).replace("\r", "&#13;"))  # noqa: S704  (it is escaped)


def brief(text: str, length: int = 60) -> str:
    """Return the start of a text on one line; Jinja's `truncate` would keep the line breaks."""
    line = " ".join(text[: length * 4].split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def format_time(seconds: float, length: int = 19) -> str:
    """Write a time (seconds since the epoch) in UTC, by default to the second."""
    return timestamp(min(max(seconds, 0.0), _LAST_TIME))[:length].replace("T", " ")


def moment(text: str) -> str:
    """Write a dispatcher's time in UTC; any other text stays as it is."""
    seconds = parse_time(text)
    return brief(text, 32) if seconds is None else format_time(seconds)


def values_of(where: Where, **changed: str) -> list[tuple[str, str]]:
    """List the values of a filter, as forms and addresses carry them."""
    values = {field.name: getattr(where, field.name) for field in fields(where)} | changed
    return [(name, value if isinstance(value, str) else age(value)) for name, value in values.items() if value]


def address_of(where: Where, **changed: str) -> str:
    """Write a filter as the query of an address."""
    return "&".join(f"{name}={reference(value)}" for name, value in values_of(where, **changed))


def age(seconds: float) -> str:
    """Write a duration of a filter: the inverse of `parse_age`."""
    units = (("d", 86400), ("h", 3600), ("m", 60))
    return next(
        (f"{seconds / size:.0f}{unit}" for unit, size in units if seconds and seconds % size == 0), f"{seconds:g}"
    )


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
        "address": address_of,
        "age": age,
        "brief": brief,
        "duration": charts.duration,
        "exact": exact,
        "format_time": format_time,
        "moment": moment,
        "number": charts.number,
        "ref": reference,
        "values": values_of,
    }
    return made
