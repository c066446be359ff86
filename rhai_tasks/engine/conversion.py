"""Converts Python values that have no counterpart in Rhai to values that scripts get for them."""

import collections
import operator
from collections.abc import Iterable, Sequence, Set, ValuesView
from dataclasses import fields, is_dataclass
from typing import Any


def plain(value: Any) -> Any:
    """Return the value that scripts get for one that the extension does not know; by default the value itself.

    Methods show the kind of an object, so that no library is imported here: `__index__` an integer, `dtype` and
    `tolist` one of numpy's scalars or arrays, `model_dump` one of pydantic's models.
    """
    cls = type(value)
    names = _fields_of(cls)
    if names is not None:
        return {name: getattr(value, name) for name in names}
    if hasattr(cls, "tolist") and hasattr(cls, "dtype"):  # first: an array has __index__, too
        listed = value.tolist()
        return value if type(listed) is cls else listed  # of a number that Python cannot hold, it is the same
    if hasattr(cls, "__index__"):
        return operator.index(value)
    if hasattr(cls, "model_dump"):
        return value.model_dump()
    if isinstance(value, collections.UserString):
        return str(value)
    return list(value) if isinstance(value, Sequence | Set | ValuesView) and not isinstance(value, tuple) else value


def _fields_of(cls: type) -> Iterable[str] | None:
    """Return the names of a named tuple's or a dataclass's fields, of which `ClassVar` and `InitVar` are none."""
    if issubclass(cls, tuple):
        names: Iterable[str] | None = getattr(cls, "_fields", None)
        return names
    return [field.name for field in fields(cls)] if is_dataclass(cls) else None
