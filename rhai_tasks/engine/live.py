"""Lists and dictionaries of the host that scripts use in place, without a copy."""

import sys
from collections.abc import Iterator
from typing import Any

from . import _engine
from .classes import HostType, make_type, take_slot

_PLACE = 16
"""Bytes that a value's place in a list takes, as the list is larger than it must be."""
_LIST = ("push", "append", "insert", "pop", "shift", "remove", "clear", "to_array")
_MAP = ("len", "keys", "values", "remove", "clear", "to_map")


# Not dataclasses: an engine that does not know the classes would pass a map of the fields, a copy.
class LiveList:
    """A list of the host as a value of scripts. Lists and dictionaries in it are live, too.

    Attributes:
        value: The list.
    """

    __slots__ = ("value",)

    def __init__(self, value: list[Any]) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"LiveList({self.value!r})"

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, place: int) -> Any:
        return shown(self.value[place])

    def __setitem__(self, place: int, value: Any) -> None:
        self.value[place] = _in_place(value)

    def __iter__(self) -> Iterator[Any]:
        return map(shown, self.value)

    def __contains__(self, value: Any) -> bool:
        return _plain(value) in self.value

    def __eq__(self, other: object) -> bool:
        return bool(self.value == _plain(other))

    __hash__ = None  # type: ignore[assignment]  # as lists

    def __str__(self) -> str:
        return str(self.value)

    def push(self, value: Any) -> None:
        """Add a value at the end."""
        self.value.append(_added(value))

    def append(self, values: "list[Any] | LiveList") -> None:
        """Add the items of a list at the end."""
        self.value.extend([_added(value) for value in values])  # a list first: the list may be this one

    def insert(self, place: int, value: Any) -> None:
        """Add a value before the one at a place."""
        self.value.insert(place, _added(value))

    def pop(self) -> Any:
        """Remove and return the last value; `None` if there is none."""
        return shown(self.value.pop()) if self.value else None

    def shift(self) -> Any:
        """Remove and return the first value; `None` if there is none."""
        return shown(self.value.pop(0)) if self.value else None

    def remove(self, place: int) -> Any:
        """Remove and return the value at a place."""
        return shown(self.value.pop(place))

    def clear(self) -> None:
        """Remove all values."""
        self.value.clear()

    def to_array(self) -> list[Any]:
        """Return the list: scripts get a copy of it."""
        return self.value


class LiveMap:
    """A dictionary of the host as a value of scripts. Lists and dictionaries in it are live, too.

    Attributes:
        value: The dictionary.
    """

    __slots__ = ("value",)

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value

    def __repr__(self) -> str:
        return f"LiveMap({self.value!r})"

    def __getitem__(self, name: str) -> Any:
        return shown(self.value.get(name))

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name is {name!r}: expected a text")
        if name in self.value:
            self.value[name] = _in_place(value)
        else:
            _engine.charge(sys.getsizeof(name) + 4 * _PLACE)
            self.value[name] = _added(value)

    def __contains__(self, name: object) -> bool:
        return name in self.value

    def __eq__(self, other: object) -> bool:
        return bool(self.value == _plain(other))

    __hash__ = None  # type: ignore[assignment]  # as dictionaries

    def __str__(self) -> str:
        return str(self.value)

    # Not `__len__`: that would also be the property `len`, in place of an entry of this name.
    def len(self) -> int:
        """Return the number of entries."""
        return len(self.value)

    def keys(self) -> list[str]:
        """Return the names."""
        return list(self.value)

    def values(self) -> list[Any]:
        """Return the values."""
        return [shown(value) for value in self.value.values()]

    def remove(self, name: str) -> Any:
        """Remove an entry and return its value; `None` if there is none."""
        return shown(self.value.pop(name, None))

    def clear(self) -> None:
        """Remove all entries."""
        self.value.clear()

    def to_map(self) -> dict[str, Any]:
        """Return the dictionary: scripts get a copy of it."""
        return self.value


def live_types(slots: dict[type, int]) -> dict[int, HostType]:
    """Describe the two classes, by slot. Scripts cannot make objects of them: nothing would count their memory."""
    for cls in (LiveList, LiveMap):
        take_slot(cls, slots)
    members = ((LiveList, _LIST), (LiveMap, _MAP))
    types = [make_type(cls, cls.__name__, names, slots, constructor=False) for cls, names in members]
    return {described.slot: described for described in types}


def shown(value: Any) -> Any:
    """Return the value that scripts get for a value: a live one for a list or a dictionary."""
    if isinstance(value, list):
        return LiveList(value)
    return LiveMap(value) if isinstance(value, dict) else value


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, LiveList | LiveMap) else value


def _added(value: Any) -> Any:
    """Return a script's value as the host holds it. It counts as memory of the script: nothing else would bound it.

    Raises:
        RuntimeError: It takes more than the script has left, and the script has been stopped.
    """
    if isinstance(value, LiveList | LiveMap):
        _engine.charge(_PLACE)
        return value.value
    _engine.charge(sys.getsizeof(value) + _PLACE)
    if isinstance(value, list):
        return [_added(item) for item in value]
    if isinstance(value, dict):
        _engine.charge(sum(map(sys.getsizeof, value)))
        return {name: _added(item) for name, item in value.items()}
    return value


def _in_place(value: Any) -> Any:
    """Return a script's value in place of another one. Numbers take no more room, however often."""
    if isinstance(value, LiveList | LiveMap | int | float | None):
        return _plain(value)
    return _added(value)
