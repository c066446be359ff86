"""Where a script spends its time and operations, by function and line."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from . import _engine

K = TypeVar("K", bound=Hashable)


class ProfiledFunction(NamedTuple):
    """A function of a script.

    Attributes:
        source: Path of its module; `None`: the script itself.
        name: Its name with the parameters, or `closure`; empty for the statements outside of functions.
        line: Where it begins.
    """

    source: str | None
    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a function, as called from another such place.

    Attributes:
        parent: The place of the call; `None`: there is none.
        function: The function.
        line: The line on which a statement begins.
        calls: How often the function began here.
        hits: How often a statement began here.
        seconds: Time spent here, without script functions that it called.
        operations: Operations of the engine, counted the same way.
    """

    parent: "Place | None"
    function: ProfiledFunction
    line: int
    calls: int
    hits: int
    seconds: float
    operations: int

    def path(self) -> list["Place"]:
        """Return the places from the outermost one to this one."""
        path: list[Place] = []
        place: Place | None = self
        while place is not None:
            path.append(place)
            place = place.parent
        return path[::-1]


@dataclass(slots=True)
class Spent:
    """What several places have spent in sum; `total` includes the functions that they called."""

    calls: int = 0
    hits: int = 0
    seconds: float = 0.0
    operations: int = 0
    total_seconds: float = 0.0
    total_operations: int = 0


@dataclass(slots=True)
class Profile:
    """What a run has spent at each place.

    Attributes:
        places: In the order in which they were reached; a parent stands before its children.
        is_complete: Whether there was room for all places. If not, others count as their callers.
    """

    places: list[Place] = field(default_factory=list)
    is_complete: bool = True

    @property
    def seconds(self) -> float:
        """Time in all."""
        return sum(place.seconds for place in self.places)

    @property
    def operations(self) -> int:
        """Operations in all."""
        return sum(place.operations for place in self.places)

    def by_function(self) -> dict[ProfiledFunction, Spent]:
        """Add the places of each function up."""
        return self._by(lambda place: place.function)

    def by_line(self) -> dict[tuple[str | None, int], Spent]:
        """Add the places of each line up, by source and line."""
        return self._by(lambda place: (place.function.source, place.line))

    def _by(self, key: Callable[[Place], K]) -> dict[K, Spent]:
        found: dict[K, Spent] = {}
        for place in self.places:
            spent = found.setdefault(key(place), Spent())
            spent.calls += place.calls
            spent.hits += place.hits
            spent.seconds += place.seconds
            spent.operations += place.operations
            for each in {key(around) for around in place.path()}:  # a function that calls itself counts once
                found[each].total_seconds += place.seconds
                found[each].total_operations += place.operations
        return found


@contextmanager
def recording(profile: Profile) -> Iterator[None]:
    """Record what the scripts of this thread spend, and add it to a profile at the end.

    Run the scripts in a new engine: the profile does not name lines of scripts and modules that it compiled before.
    """
    _engine.begin_profile()
    try:
        yield
    finally:
        functions, nodes, profile.is_complete = _engine.end_profile()
        for number, (parent, function, line, calls, hits, nanoseconds, operations) in enumerate(nodes):
            caller = None if parent == number else profile.places[parent]
            known = ProfiledFunction(*functions[function])
            profile.places.append(Place(caller, known, line, calls, hits, nanoseconds / 1e9, operations))
