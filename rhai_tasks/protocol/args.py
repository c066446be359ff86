"""The arguments of a script: from values of Python to the JSON object that a task carries."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from typing import Any

from .text import shown

_DEEPEST = 100  # levels: the worker's parser reads 127
_LEAST_BEYOND = 2**63  # scripts' integers are smaller
_MOST_DIGITS = 21


def write_args(args: Mapping[str, Any]) -> str:
    """Write arguments as JSON text, in which no number is rounded.

    A dictionary or another mapping becomes an object, and so does a dataclass or a named tuple, by its fields. A list
    or tuple becomes an array. An `Enum` stands for its value. A `datetime` with an offset and a `date` become text in
    the form of RFC 3339.

    Raises:
        TypeError: A value has no JSON form. The text says where it is.
        ValueError: A number or a text cannot be held by a script: an integer beyond 64 bits, NaN, infinity, half of a
            pair of surrogates. Or values are nested deeper than 100 levels.
    """
    if not isinstance(args, Mapping):
        raise TypeError(f"args is of type {type(args).__name__}: expected a mapping of names to values")
    return json.dumps(_plain(args, "args", 0), ensure_ascii=False, separators=(",", ":"))


def read_args(text: str) -> dict[str, Any]:
    """Read arguments, for a second constant beside `ARGS`; empty if the engine will refuse the text."""
    try:
        args = json.loads(text, parse_int=_script_integer, parse_constant=_no_number)
        text_of_all = json.dumps(args, ensure_ascii=False)
        text_of_all.encode()
    except (ValueError, RecursionError):
        return {}
    return args if isinstance(args, dict) else {}


def _script_integer(digits: str) -> int:
    number = int(digits) if len(digits) < _MOST_DIGITS else _LEAST_BEYOND
    if not -_LEAST_BEYOND <= number < _LEAST_BEYOND:
        raise ValueError("beyond a script's 64 bits")
    return number


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is not a JSON number")


def _plain(value: Any, path: str, depth: int) -> Any:
    """Return a value of JSON's own types."""
    if depth > _DEEPEST:
        raise ValueError(f"{path[:200]}...: values are nested deeper than {_DEEPEST} levels, or contain themselves")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return _plain(value.value, path, depth + 1)
    if isinstance(value, str):
        return _text(value, path)
    if isinstance(value, int):
        if not -_LEAST_BEYOND <= value < _LEAST_BEYOND:
            raise ValueError(f"{path}: integer {shown(value)} does not fit a script's 64 bits")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path}: {value} is not a JSON number")
        return float(value)
    return _plain_parts(value, path, depth)


def _plain_parts(value: Any, path: str, depth: int) -> Any:
    if isinstance(value, Mapping):
        return _object(value.items(), path, depth)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _object(zip(value._fields, value, strict=True), path, depth)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{path}[{place}]", depth + 1) for place, item in enumerate(value)]
    if is_dataclass(value) and not isinstance(value, type):
        return _object(((field.name, getattr(value, field.name)) for field in fields(value)), path, depth)
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueError(f"{path}: expected a datetime with an offset: give it a timezone")
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    raise TypeError(f"{path}: a value of type {type(value).__name__} has no JSON form")


def _object(items: Iterable[tuple[Any, Any]], path: str, depth: int) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in items:
        if not isinstance(key, str):
            raise TypeError(f"{path}: the key {shown(key)} is of type {type(key).__name__}: expected a string")
        within = f"{path}.{key}" if key.isidentifier() else f"{path}[{shown(key)}]"
        plain[_text(key, within)] = _plain(value, within, depth + 1)
    return plain


def _text(text: str, path: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{path}: {shown(text)} has half of a pair of surrogates, which is not a text") from None
    return str(text)
