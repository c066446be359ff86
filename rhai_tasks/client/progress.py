"""A progress bar on terminals; otherwise no output."""

from collections.abc import Iterable, Sized
from types import TracebackType
from typing import Any, Self


class Progress:
    """Shows how much of something is done, if `shown` and stderr is a terminal.

    Args:
        what: The word before the bar.
        of: The whole; a bar of its length, if it has one.
        shown: Whether to show anything.
    """

    def __init__(self, what: str, of: Iterable[Any], *, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from rich.console import Console  # noqa: PLC0415  (its import takes longer than the whole client's)
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415
            from rich.progress import Progress as Bar  # noqa: PLC0415

            console = Console(stderr=True)
            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Bar(*columns, console=console, disable=not console.is_terminal)
            self._task = self._bar.add_task(what, total=len(of) if isinstance(of, Sized) else None)

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def advance(self, count: int) -> None:
        """Count `count` more as done."""
        if self._bar:
            self._bar.advance(self._task, count)
