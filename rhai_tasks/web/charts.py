"""Charts of lines over time: converts numbers to points, which the template draws."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil, floor, log10

WIDTH, HEIGHT = 480, 130
LEFT, RIGHT, TOP, BOTTOM = 52, 8, 8, 20  # around the plot
_GAP_SECONDS = 10.0  # without a sample, as no page was open; no line is drawn
_SHORTEST_SECONDS = 120.0
_TICKS = (30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600, 6 * 3600, 12 * 3600, 86400, 2 * 86400)
_MOST_TICKS = 5
_LONG = (
    60.0,
    600.0,
    3600.0,
    36_000.0,
    864_000.0,
    8_640_000.0,
)  # marks of long durations: their powers of ten are odd to read


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a chart, in pieces where samples are missing."""

    name: str
    kind: str  # class in the style sheet
    latest: str
    pieces: tuple[str, ...]  # SVG points


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart for the template; positions are in its own units, from the upper left."""

    title: str
    lines: tuple[Line, ...]
    levels: tuple[tuple[float, str], ...]  # position and label
    times: tuple[tuple[float, str], ...]


def draw(
    title: str,
    names: Sequence[str],
    points: Sequence[tuple[float, Sequence[float | None]]],
    *,
    seconds: bool = False,
    is_log: bool = False,
) -> Chart:
    """Lay out a chart.

    Args:
        title: Title of the chart.
        names: Names of the lines.
        points: In order of time: seconds since the epoch, and a value for each line, or `None`.
        seconds: The values are durations.
        is_log: The axis of the values is logarithmic: 20 s do not hide 20 ms.
    """
    write = duration if seconds else number
    gap = max(_GAP_SECONDS, 1.5 * (points[1][0] - points[0][0]) if len(points) > 1 else 0.0)
    end = points[-1][0] if points else 0.0
    span = max(end - points[0][0], _SHORTEST_SECONDS) if points else _SHORTEST_SECONDS
    known = [value for _, values in points for value in values if value is not None]
    top = _round_up(max(known, default=0.0))
    least, most = _decades(known)

    def x(at: float) -> float:
        return round(WIDTH - RIGHT - (end - at) / span * (WIDTH - LEFT - RIGHT), 1)

    def y(value: float) -> float:
        part = (log10(max(value, least)) - log10(least)) / (log10(most) - log10(least)) if is_log else value / top
        return round(HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for place, name in enumerate(names):
        values = [(at, row[place]) for at, row in points]
        latest = next((value for _, value in reversed(values) if value is not None), None)
        pieces = [
            " ".join(f"{x(at)},{y(value)}" for at, value in piece if value is not None)
            for piece in _pieces(values, gap)
        ]
        lines.append(Line(name, f"line-{name}", "-" if latest is None else write(latest), tuple(pieces)))
    marks = _marks(least, most, seconds=seconds) if is_log else [top * part for part in (0.0, 0.5, 1.0)]
    levels = tuple((y(mark), write(mark)) for mark in marks)
    times = tuple((x(end - past), _ago(past)) for past in _ticks(span))
    return Chart(title, tuple(lines), levels, times)


def _decades(values: Sequence[float]) -> tuple[float, float]:
    """Return the powers of ten around some values, at least one apart."""
    above = [value for value in values if value > 0]
    least = 10.0 ** floor(log10(min(above))) if above else 0.001
    return least, max(10.0 ** ceil(log10(max(above, default=1.0))), least * 10)


def _marks(least: float, most: float, *, seconds: bool) -> list[float]:
    """Return some powers of ten, four at most; of durations from a minute on, round minutes, hours and days."""
    marks = [least * 10.0**power for power in range(round(log10(most / least)) + 1)]
    if seconds:
        marks = [mark for mark in marks if mark < 60] + [mark for mark in _LONG if least <= mark <= most]
    return marks[:: -(-(len(marks) - 1) // 3) or 1]


def _ticks(span: float) -> list[float]:
    """Return times ago, in whole minutes, hours or days: the longest first, and the end."""
    step = next((tick for tick in _TICKS if span / tick <= _MOST_TICKS), span)
    return [step * number for number in range(int(span // step), -1, -1)]


def _pieces(values: Sequence[tuple[float, float | None]], gap: float) -> list[list[tuple[float, float | None]]]:
    """Break a line where samples are missing; where only its value is missing, the line goes on to the next value."""
    known = [pair for pair in values if pair[1] is not None]
    piece, pieces = 0, []
    for (at, value), before in zip(known, [None, *known], strict=False):
        piece += before is not None and at - before[0] > gap
        pieces.append((piece, (at, value)))
    return [[pair for _, pair in group] for _, group in groupby(pieces, key=lambda entry: entry[0])]


def _round_up(value: float) -> float:
    """Return the next number that begins with 1, 2 or 5."""
    if value <= 0:
        return 1.0
    size = 10.0 ** (len(f"{value:.0f}") - 1) if value >= 1 else 1.0
    while size > value:
        size /= 10
    return next(size * step for step in (1, 2, 5, 10) if size * step >= value)


def _ago(seconds: float) -> str:
    return "now" if seconds < 1 else f"-{duration(seconds)}"


def number(value: float) -> str:
    """Write a count or a rate in few characters."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Write a duration in few characters."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs" if seconds > 0 else "0 s"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    if seconds < 60:
        return f"{seconds:.3g} s"
    if seconds < 3600:
        return f"{seconds // 60:.0f} min {seconds % 60:02.0f} s" if seconds % 60 >= 1 else f"{seconds // 60:.0f} min"
    if seconds < 48 * 3600:
        hours, minutes = f"{seconds // 3600:.0f} h", f"{seconds % 3600 // 60:02.0f} min"
        return hours if minutes == "00 min" else f"{hours} {minutes}"
    return f"{seconds / 86400:.0f} days"
