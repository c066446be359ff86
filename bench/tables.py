"""Tables of what was measured, and how their figures are written."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from .results import Results


@dataclass(frozen=True)
class Table:
    """Rows of text under a title."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def rich(self) -> RichTable:
        """Make it one for a terminal."""
        table = RichTable(*self.columns, title=self.title, title_justify="left")
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """Make it one for a document."""
        lines = [self.columns, ["---", *["--:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Write three digits, and all of a large one."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def spread(values: Sequence[float]) -> str:
    """Write the median, and between which values it lies."""
    return f"{number(statistics.median(values))} ({number(min(values))} .. {number(max(values))})"


Where = tuple[str, str, str, str]
"""Where a figure stands: contender, workload, figure, condition."""


def ratios(results: Results, upper: Where, lower: Where) -> list[float]:
    """Divide figures of the same rounds."""
    above, below = results.values(*upper), results.values(*lower)
    return [above[one] / below[one] for one in sorted(above) if below.get(one)]
