"""How commands print: JSON for programs, tables for people, and no control characters to a terminal."""

import json
import sys
from collections.abc import Iterable

from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rhai_tasks.protocol import Status
from rhai_tasks.terminal import echo, visible

_COLOURS: dict[str, str] = {
    Status.PENDING: "yellow",
    Status.PROCESSING: "cyan",
    Status.COMPLETED: "green",
    Status.ERROR: "red",
}
_SHOWN = 200  # characters of a text in a table or line


def make_console() -> Console:
    """Make a console: colours and the terminal's width on a terminal, whole lines in a pipe."""
    return Console(width=None if sys.stdout.isatty() else 1000, highlight=False)


def print_json(value: object) -> None:
    """Print a value as JSON on one line."""
    echo(json.dumps(value).replace("\x7f", "\\u007f"))  # the one control character that JSON does not escape


def brief(text: str) -> str:
    """Shorten a text to one line, with control characters made visible."""
    line = " ".join(text.split())
    line = line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
    return visible(line)


def print_table(rows: Iterable[Iterable[object]], *columns: str) -> None:
    """Print a table; each cell is on one line."""
    table = make_table(*columns)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(brief(str(cell))) for cell in row))
    make_console().print(table)


def make_table(*columns: str) -> Table:
    """Make a table: with lines on a terminal, without in a pipe."""
    return Table(*columns, box=HEAVY_HEAD if sys.stdout.isatty() else None)


def coloured(status: str) -> Text:
    """Return the status of a task in its colour."""
    return Text(brief(status), style=_COLOURS.get(status, ""))
