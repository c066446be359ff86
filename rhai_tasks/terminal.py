"""Prints untrusted text: escaped for people, byte by byte for programs.

A terminal and stderr are read by people, stdout of a pipe or file by a program.
"""

import re
import sys
from typing import Any

import click

from .protocol import to_bytes

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """Escape characters that control a terminal or the direction of a line, or that are invisible."""
    return _HIDDEN.sub(_code, text.replace("\r\n", "\n"))


def _code(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shown(text: str, *, err: bool = False) -> str:
    """Return the text for stdout or stderr: unchanged for stdout that is not a terminal, otherwise `visible`."""
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():
        return visible(text) if err else text  # a log of stderr is read on a terminal later
    encoding = stream.encoding or "ascii"
    return visible(text).encode(encoding, "backslashreplace").decode(encoding)


def echo(text: object = "", *, err: bool = False) -> None:
    """Print a line, as `shown`, to stdout or stderr; a byte that is not UTF-8 stays as it is in a pipe."""
    if not hasattr(sys.stderr if err else sys.stdout, "buffer"):  # the log escapes text itself
        click.echo(str(text), err=err, color=True)
        return
    line = shown(str(text), err=err)
    try:
        data = to_bytes(line)
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        data = line.encode(errors="backslashreplace")
    click.echo(data, err=err)


class Failure(click.ClickException):
    """Ends a command with one line and an exit status."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from either

    def show(self, file: Any = None) -> None:  # noqa: ARG002  (click's)
        """Print the line."""
        echo(f"Error: {self.format_message()}", err=True)
