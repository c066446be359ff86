"""How commands print: JSON for programs, tables for people, and no control characters to a terminal."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn

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


class _Console(Console):
    """A console that raises an error when its reader is gone: the command decides how it ends."""

    def on_broken_pipe(self) -> NoReturn:
        raise BrokenPipeError


def make_console() -> Console:
    """Make a console: colours and the terminal's width on a terminal, whole lines in a pipe."""
    return _Console(width=None if sys.stdout.isatty() else 1000, highlight=False)


def print_json(value: object) -> None:
    """Print a value as JSON on one line."""
    echo(json.dumps(value).replace("\x7f", "\\u007f"))  # the one control character that JSON does not escape


def brief(text: str) -> str:
    """Shorten a text to one line, with control characters made visible."""
    line = " ".join(text.split())
    line = line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
    return visible(line)


def print_table(rows: Iterable[Iterable[object]], *columns: str, empty: str = "") -> None:
    """Print a table, in which each cell is on one line; without rows, print the line `empty`, if there is one."""
    table = make_table(*columns)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(brief(str(cell))) for cell in row))
    if table.row_count or not empty:
        make_console().print(table)
    else:
        echo(empty)


def make_table(*columns: str) -> Table:
    """Make a table: with lines on a terminal, without in a pipe. A narrow terminal folds cells, and cuts none."""
    table = Table(box=HEAVY_HEAD if sys.stdout.isatty() else None)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


@contextmanager
def stream() -> Iterator[None]:
    """Let the reader of endless output end it: by Ctrl-C, or by closing the pipe."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:  # and nothing is left to be written when the interpreter ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def coloured(status: str) -> Text:
    """Return the status of a task in its colour."""
    return Text(brief(status), style=_COLOURS.get(status, ""))
