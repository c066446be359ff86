"""Python values that have no counterpart in Rhai: what scripts are given in their place."""

import collections
from collections.abc import Sequence, Set, ValuesView
from typing import Any


def plain(value: Any) -> Any:
    """Return what scripts are given in place of a value that the extension does not know; the value itself if nothing.

    Methods show the kind of an object, so that no library is imported here: `__index__` an integer, `dtype` and
    `tolist` one of numpy's scalars or arrays, `model_dump` one of pydantic's models.
    """
    cls = type(value)
    if hasattr(cls, "tolist") and hasattr(cls, "dtype"):  # first: an array has __index__, too
        listed = value.tolist()
        return value if type(listed) is cls else listed  # of a number that Python cannot hold, it is the same
    if hasattr(cls, "__index__"):
        return cls.__index__(value)
    if hasattr(cls, "model_dump"):
        return value.model_dump()
    if isinstance(value, collections.UserString):
        return str(value)
    if isinstance(value, Sequence | Set | ValuesView):
        return list(value)
    return value
