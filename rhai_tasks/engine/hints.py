"""Annotations: what they are, and which of Rhai's types they ask for."""

import functools
import operator
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import InitVar
from decimal import Decimal
from enum import Enum
from inspect import Parameter, signature, unwrap
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    LiteralString,
    NewType,
    NotRequired,
    Required,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from ._engine import FnPtr, Timestamp

Slots = Mapping[type, int]
"""The slot of each class that is a type of an engine's scripts."""

_TYPES: dict[Any, tuple[str, ...]] = {
    None: ("()",),
    type(None): ("()",),
    bool: ("bool",),
    int: ("i64",),
    float: ("f64", "i64"),  # an int passes for a float, as in Python
    str: ("string", "char"),
    Decimal: ("decimal",),
    bytes: ("blob",),
    list: ("array",),
    dict: ("map",),
    Mapping: ("map",),
    range: ("range", "range="),
    FnPtr: ("Fn",),
    Callable: ("Fn",),
    Timestamp: ("timestamp",),
}
"""Classes that Rhai's types are the counterparts of."""

_MADE: dict[Any, tuple[str, ...]] = {
    bytearray: ("blob",),
    memoryview: ("blob",),
    tuple: ("array",),
    set: ("array",),
    frozenset: ("array",),
    Sequence: ("array",),
    Collection: ("array",),
    Iterable: ("array",),
}
"""Classes that are made of values of Rhai's types."""


_AROUND = (Annotated, Final, ClassVar, Required, NotRequired)
"""What says more about a type."""


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function as types; of a class: those of what makes an object.

    Annotations with names that only a type checker knows are left out.
    """
    try:
        found = signature(function)
    except (TypeError, ValueError):
        return {}
    names = _names_of(function)
    annotations = {name: parameter.annotation for name, parameter in found.parameters.items()}
    if not isinstance(function, type):  # whose `__init__` returns nothing
        annotations["return"] = found.return_annotation
    hints: dict[str, Any] = {}
    for name, annotation in annotations.items():
        if annotation is Parameter.empty:
            continue
        try:
            hints |= get_type_hints(types.SimpleNamespace(__annotations__={name: annotation}), names)
        except (TypeError, NameError, AttributeError, SyntaxError):
            continue
    return {name: hint.type if isinstance(hint, InitVar) else hint for name, hint in hints.items()}


def _names_of(function: Any) -> dict[str, Any]:
    """Return the names that the annotations of a function or a class see."""
    if isinstance(function, type):
        modules = [sys.modules.get(cls.__module__) for cls in reversed(function.__mro__)]
        return {name: value for module in modules for name, value in getattr(module, "__dict__", {}).items()}
    while hasattr(function, "func"):  # functools.partial
        function = function.func
    function = unwrap(function)
    if not hasattr(function, "__globals__"):
        function = getattr(type(function), "__call__", None)  # noqa: B004
    return getattr(function, "__globals__", {})


def resolve(hint: Any) -> Any:
    """Return the type behind an `Annotated`, a `Final`, a `NewType` or a type variable."""
    while True:
        if get_origin(hint) in _AROUND:
            hint = get_args(hint)[0]
        elif hint is LiteralString:
            hint = str
        elif isinstance(hint, NewType):
            hint = hint.__supertype__
        elif isinstance(hint, TypeVar):
            hint = (
                functools.reduce(operator.or_, hint.__constraints__) if hint.__constraints__ else hint.__bound__ or Any
            )
        else:
            return hint


def parts_of_union(hint: Any) -> tuple[Any, ...] | None:
    """Return the alternatives of a union; `None` for any other annotation."""
    return get_args(hint) if get_origin(hint) in {Union, types.UnionType} else None


def is_anything(hint: Any) -> bool:
    """Whether an annotation says nothing."""
    return hint is Any or hint is object or hint is Parameter.empty


def accepted(hint: Any, slots: Slots) -> tuple[str, ...]:
    """Return Rhai's types for an annotation: the most that Rhai can check, and `any` if that is nothing."""
    hint = resolve(hint)
    parts = parts_of_union(hint)
    if parts is None and get_origin(hint) is Literal:
        parts = tuple(type(value.value if isinstance(value, Enum) else value) for value in get_args(hint))
    if parts is not None:
        alternatives = tuple(dict.fromkeys(name for part in parts for name in accepted(part, slots)))
        return ("any",) if "any" in alternatives else alternatives
    plain = get_origin(hint) or hint
    if isinstance(plain, type) and plain in slots:
        return (f"#{slots[plain]}",)
    if is_typeddict(plain):
        return ("map",)
    try:
        return _TYPES.get(plain) or _MADE.get(plain) or ("any",)
    except TypeError:  # not hashable
        return ("any",)


def is_checked_by_rhai(hint: Any, slots: Slots) -> bool:
    """Whether values of Rhai's types for an annotation are all that it asks for."""
    hint = resolve(hint)
    if is_anything(hint):
        return True
    parts = parts_of_union(hint)
    if parts is not None:
        return all(is_checked_by_rhai(part, slots) for part in parts)
    plain, inner = get_origin(hint) or hint, get_args(hint)
    if plain is dict or plain is Mapping:
        inner = inner[1:]  # Rhai's keys are texts
    try:
        is_known = plain in slots or plain in _TYPES
    except TypeError:  # not hashable
        return False
    return is_known and (plain in slots or plain is Callable or all(map(is_anything, inner)))
