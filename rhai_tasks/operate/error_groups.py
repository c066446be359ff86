"""Errors in groups of one cause: those whose texts differ in positions and values alone."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .where import Found, pattern

MOST_GROUPS = 500
_SAMPLES = 5  # tasks that a group names
_NAMES = 1000  # callers and circles that a group counts


@dataclass(slots=True)
class ErrorGroup:
    """Tasks whose errors have one pattern. Times are seconds since the epoch, `None` if no task has one."""

    pattern: str
    count: int = 0
    first: float | None = None
    last: float | None = None
    callers: Counter[str] = field(default_factory=Counter)  # of the first thousand
    circles: Counter[str] = field(default_factory=Counter)
    samples: list[Found] = field(default_factory=list)  # the latest, last first

    def add(self, found: Found) -> None:
        """Add a task."""
        self.count += 1
        for names, name in ((self.callers, found.caller), (self.circles, found.circle)):
            if name in names or len(names) < _NAMES:
                names[name] += 1
        if found.at is not None:
            self.first = found.at if self.first is None else min(self.first, found.at)
            self.last = found.at if self.last is None else max(self.last, found.at)
        if len(self.samples) < _SAMPLES or (found.at or 0.0) > (self.samples[-1].at or 0.0):
            self.samples = sorted([*self.samples, found], key=lambda one: -(one.at or 0.0))[:_SAMPLES]


class ErrorGroups:
    """Groups errors, in bounded memory."""

    def __init__(self) -> None:
        self.total = 0
        self.left_out = 0  # errors of further groups than `MOST_GROUPS`
        self._groups: dict[str, ErrorGroup] = {}

    def add(self, tasks: Iterable[Found]) -> None:
        """Add tasks that have ended as errors."""
        for found in tasks:
            self.total += 1
            name = pattern(found.error)
            if name not in self._groups and len(self._groups) >= MOST_GROUPS:
                self.left_out += 1
            else:
                self._groups.setdefault(name, ErrorGroup(name)).add(found)

    def largest(self) -> list[ErrorGroup]:
        """Return the groups, the largest first."""
        return sorted(self._groups.values(), key=lambda group: (-group.count, group.pattern))
