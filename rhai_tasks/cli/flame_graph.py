"""Profiles for viewers: a flame graph as SVG, and speedscope's JSON."""

from collections.abc import Callable, Iterator
from html import escape
from typing import Any, NamedTuple
from zlib import crc32

from rhai_tasks.engine.profile import Place, Profile
from rhai_tasks.terminal import visible

_WIDTH, _ROW, _TOP = 1200, 20, 34
_CHARACTER = 7.0  # width of one, in the font of the graph
_NARROWEST = 0.2
_STYLE = """
svg{background:#fff;font:12px ui-monospace,monospace}text{fill:#1a1c1b;pointer-events:none}rect{stroke:#fff}
rect:hover{stroke:#1a1c1b}
"""


class _Box(NamedTuple):
    place: Place
    depth: int
    start: float  # seconds
    seconds: float


def name_of(place: Place) -> str:
    """Return the function and the line of a place."""
    source, name, _ = place.function
    return f"{name or '(script)'}, {f'{source}:' if source else 'line '}{place.line}"


def flame_graph(profile: Profile, script: str) -> str:
    """Draw time as a flame graph that needs no other file: callers above what they call, as wide as their time.

    Args:
        profile: What to draw.
        script: The name of the script.
    """
    boxes = list(_boxes(profile))
    rows = max((box.depth for box in boxes), default=0) + 1
    height = _TOP + rows * _ROW + 6
    head = f"{script}: {profile.seconds:.6f} s, {profile.operations:,} operations"
    body = "".join(_drawn(box, profile) for box in boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">'
        f'<style>{_STYLE}</style><text x="6" y="20">{_text(head)}</text>{body}</svg>\n'
    )


def speedscope(profile: Profile, script: str) -> dict[str, Any]:
    """Return the profile in speedscope's format: once by time, once by operations.

    Args:
        profile: What to write.
        script: The name of the script.
    """
    frames: dict[tuple[str, str, int], int] = {}
    stacks = []
    for place in profile.places:
        keys = [(name_of(each), each.function.source or script, each.line) for each in place.path()]
        stacks.append([frames.setdefault(key, len(frames)) for key in keys])
    return {
        "$schema": "https://www.speedscope.app/file-format-schema.json",
        "exporter": "rhai-tasks",
        "name": script,
        "shared": {"frames": [{"name": name, "file": file, "line": line} for name, file, line in frames]},
        "profiles": [
            _sampled("time", "seconds", profile, stacks, lambda place: place.seconds),
            _sampled("operations", "none", profile, stacks, lambda place: place.operations),
        ],
    }


def _sampled(
    name: str, unit: str, profile: Profile, stacks: list[list[int]], spent: Callable[[Place], float]
) -> dict[str, Any]:
    weights = [spent(place) for place in profile.places]
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(weights),
        "samples": stacks,
        "weights": weights,
    }


def _boxes(profile: Profile) -> Iterator[_Box]:
    """Lay the places out: each inside its caller, from the left in the order in which they were reached."""
    seconds = {id(place): place.seconds for place in profile.places}
    for place in reversed(profile.places):
        if place.parent is not None:
            seconds[id(place.parent)] += seconds[id(place)]
    free: dict[int | None, float] = {None: 0.0}  # where the next child of a place begins
    depths: dict[int | None, int] = {None: -1}
    for place in profile.places:
        parent = None if place.parent is None else id(place.parent)
        start, width = free[parent], seconds[id(place)]
        free[parent] += width
        free[id(place)] = start
        depths[id(place)] = depths[parent] + 1
        yield _Box(place, depths[id(place)], start, width)


def _drawn(box: _Box, profile: Profile) -> str:
    scale = _WIDTH / (profile.seconds or 1.0)
    left, width = box.start * scale, box.seconds * scale
    if width < _NARROWEST:
        return ""
    name = name_of(box.place)
    hue = 20 + crc32(repr(box.place.function).encode(errors="replace")) % 40  # the lines of a function look alike
    top = _TOP + box.depth * _ROW
    title = f"{name}\n{box.seconds:.6f} s, {box.seconds * scale / _WIDTH:.1%}; {box.place.hits:,} statements"
    room = int((width - 6) / _CHARACTER)
    shown = name if len(name) <= room else f"{name[: room - 1]}…" if room > 2 else ""
    label = f'<text x="{left + 3:.1f}" y="{top + 14}">{_text(shown)}</text>' if shown else ""
    return (
        f'<g><title>{_text(title)}</title><rect x="{left:.2f}" y="{top}" width="{width:.2f}" height="{_ROW - 1}" '
        f'fill="hsl({hue} 80% 70%)"/>{label}</g>'
    )


def _text(text: str) -> str:
    return escape(visible(text))
