"""A live bar on a terminal, drawn by rich; nothing elsewhere."""

from collections.abc import Iterable, Sized
from types import TracebackType
from typing import Any, Self


class Progress:
    """Counts what is done of what `of` holds; a bar only if `shown` and stderr is a terminal."""

    def __init__(self, what: str, of: Iterable[Any], *, shown: bool) -> None:
        self._bar: Any = None
        if shown:
            from rich.console import Console  # noqa: PLC0415  (takes longer to import than all of the client)
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
        """Say that so many more are done."""
        if self._bar:
            self._bar.advance(self._task, count)
