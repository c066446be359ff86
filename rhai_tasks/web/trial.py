"""Checks and runs a script in the page's own engine: within narrow limits, and without a worker's functions."""

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from rhai_tasks.engine import Engine, Limits
from rhai_tasks.errors import RhaiError, ScriptError

SECONDS = 2.0
MEBIBYTES = 16
_AT_ONCE = 2  # scripts: they take the cores of the page's machine
_SHOWN = 64 * 1024  # characters


class Tried(NamedTuple):
    """What a check or a run came to."""

    is_bad: bool
    text: str
    printed: str = ""
    took: str = ""
    line: int | None = None
    column: int | None = None


class Trial:
    """The page's own engine."""

    def __init__(self) -> None:
        limits = Limits(timeout=SECONDS, max_memory=MEBIBYTES * 1024 * 1024)
        self._engine = Engine(limits=limits, print=lambda _: None, debug=lambda *_: None)
        self._free = threading.Semaphore(_AT_ONCE)

    def check(self, script: str) -> Tried:
        """Check the syntax of a script."""
        try:
            self._engine.compile(script)
        except RhaiError as error:
            return _failed(error)
        return Tried(False, "The syntax is correct.")

    def run(self, script: str, args: Mapping[str, Any], constants: Mapping[str, str]) -> Tried:
        """Run a script."""
        if not self._free.acquire(timeout=SECONDS):
            return Tried(True, "Other scripts run here. Try again in a moment.")
        try:
            result = self._engine.eval(script, args=args, constants=constants, details=True)
        except RhaiError as error:
            return _failed(error)
        finally:
            self._free.release()
        took = f"{result.elapsed:.6f} s, {result.operations:,} operations, {result.peak_memory:,} bytes"
        return Tried(False, result.text[:_SHOWN], "\n".join(result.printed)[:_SHOWN], took)


def _failed(error: RhaiError) -> Tried:
    text = str(error)
    place = ScriptError("", text)
    return Tried(True, text[:_SHOWN], line=place.line, column=place.column)
