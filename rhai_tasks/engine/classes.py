"""Python classes as types of scripts: their methods, fields and operators."""

import collections
import datetime
import pathlib
import re
import string
import types
import uuid
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from operator import contains
from typing import Any

from ._engine import CancelToken, FnPtr, NativeScope, Timestamp
from .coroutines import make_blocking
from .functions import (
    MOST_ARGUMENTS,
    MOST_OF_A_MODULES,
    OPERATORS,
    PREFIXED,
    Native,
    is_coroutine_function,
    is_identifier,
    overloads,
)
from .hints import Slots

_COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
_REFLECTED = {"+": "__radd__", "-": "__rsub__", "*": "__rmul__", "/": "__rtruediv__", "%": "__rmod__"}
_SWAPPED = {
    "__eq__": "__eq__",
    "__ne__": "__ne__",
    "__lt__": "__gt__",
    "__gt__": "__lt__",
    "__le__": "__ge__",
    "__ge__": "__le__",
}
"""The methods by which Python asks the other operand of a comparison."""
_FORMATTING = (
    str.format,
    str.format_map,
    collections.UserString.format,
    collections.UserString.format_map,
    string.Formatter.format,
    string.Formatter.vformat,
    string.Formatter.get_field,
)
"""Methods that scripts must not call: a format string can read any attribute of their arguments, `__globals__` too."""


_RHAIS = {
    *(object, type, type(None), bool, int, float, complex, str, Decimal, bytes, bytearray, memoryview, range, slice),
    *(list, tuple, dict, set, frozenset, FnPtr, Timestamp, CancelToken, NativeScope),
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.CoroutineType, types.ModuleType),
}
"""Classes that are not types of their own: scripts have values in their place, or can do nothing with their objects."""

_MOST_SLOTS = 64  # of an engine

_DATE, _TIME = ("year", "month", "day"), ("hour", "minute", "second", "microsecond")
_STANDARD: dict[type, tuple[str, ...]] = {
    datetime.datetime: (*_DATE, *_TIME, "isoformat", "timestamp"),
    datetime.date: (*_DATE, "isoformat"),
    datetime.time: (*_TIME, "isoformat"),
    datetime.timedelta: ("days", "seconds", "microseconds", "total_seconds"),
    uuid.UUID: ("hex",),
    # No method of a path, nor `/`: scripts must not reach files.
    pathlib.PurePath: ("name", "stem", "suffix", "parent"),
}
"""Classes of Python's own library that every engine knows, with their members."""

registered = weakref.WeakSet(_STANDARD)
"""The classes that an engine of the process knows. A `Scope`, which belongs to no engine, holds their objects."""


def take_slot(cls: type, slots: dict[type, int]) -> int:
    """Return the slot of a class, and give it the next if it has none.

    Raises:
        OverflowError: All are taken.
        TypeError: `cls` is not a class, or scripts have their own values for its objects.
    """
    if not isinstance(cls, type):
        raise TypeError(f"{cls!r} is not a class")
    if cls in _RHAIS:
        raise TypeError(f"{cls.__name__} cannot be a type of scripts, which have their own values, or none, for it")
    if cls not in slots and len(slots) >= _MOST_SLOTS:
        raise OverflowError(f"the scripts of an engine can know at most {_MOST_SLOTS} classes")
    registered.add(cls)
    return slots.setdefault(cls, len(slots))


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """A module of host functions and constants."""

    functions: list[Native]
    constants: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class HostType:
    """A Python class as a type of scripts, with its shared members."""

    name: str
    slot: int
    iterable: bool
    functions: list[Native]
    shared: Module | None = None


def make_type(
    cls: type,
    name: str,
    names: Iterable[str] | None,
    slots: Slots,
    *,
    adapt: Callable[[Callable[..., Any]], Callable[..., Any]] = make_blocking,
    constructor: bool = True,
    arithmetic: bool = True,
) -> HostType:
    """Describe a class: its methods, properties, operators, iteration, text and constructor.

    Args:
        cls: The class.
        name: Its name for scripts.
        names: The methods and attributes that scripts can use; by default all without a leading underscore.
        slots: The classes that are types of scripts, this one among them.
        adapt: Makes of a method, or of the class itself, the function that scripts call.
        constructor: Whether scripts can make objects by calling the name.
        arithmetic: Whether scripts can use the operators; comparisons they always can.

    Raises:
        TypeError: A method that Python itself calls is a coroutine function.
    """
    for method in ("__str__", "__repr__", "__len__", "__iter__"):
        if is_coroutine_function(getattr(cls, method, None)):
            raise TypeError(
                f"{cls.__qualname__}.{method} is a coroutine function, but Python itself calls it and never waits"
            )
    slot = slots[cls]
    this = f"#{slot}"
    functions: list[Native] = []
    for attribute in names if names is not None else _public(cls):
        member = getattr(cls, attribute, None)
        if callable(member):
            static = _is_static(cls, attribute, member)
            functions += _methods(this, attribute, member if static else adapt(member), slots, static=static)
        else:
            getter = _like(getattr(member, "fget", None), _getter(attribute))
            functions.append((f"get${attribute}", [this], getter))
            if not isinstance(member, property) or member.fset is not None:
                functions.append((f"set${attribute}", [this, "any"], _setter(attribute)))
    functions += _special(cls, this, arithmetic=arithmetic)
    if constructor:
        functions += overloads(name, adapt(constructor_of(cls)), slots)
    return HostType(name=name, slot=slot, iterable=_defines(cls, "__iter__"), functions=functions)


def _public(cls: type) -> list[str]:
    names = dict.fromkeys(name for base in cls.__mro__[:-1] for name in vars(base))
    names |= dict.fromkeys(name for base in cls.__mro__[:-1] for name in vars(base).get("__annotations__", {}))
    return [
        name
        for name in names
        if not name.startswith("_") and not any(getattr(cls, name, None) is method for method in _FORMATTING)
    ]


def constructor_of(cls: type) -> Callable[..., Any]:
    """Return what makes objects of a class. An enumeration's takes a value alone: more would make another class."""

    def member(value: Any) -> Any:
        return cls(value)

    member.__doc__ = cls.__doc__
    return member if issubclass(cls, Enum) else cls


def shared_members(
    cls: type, names: Iterable[str] | None, slots: Slots, passes: Callable[[Any], bool]
) -> dict[str, Any]:
    """Return what a class has without an object: static and class methods, nested classes, constants, enum members.

    Members that no module can have are left out, and so is what is annotated as an attribute of objects.

    Args:
        cls: The class.
        names: As of `make_type`.
        slots: As of `make_type`.
        passes: Says whether a value can be passed to scripts.
    """
    members = {name: getattr(cls, name, None) for name in (names if names is not None else _public(cls))}
    return {
        name: member
        for name, member in members.items()
        if is_identifier(name)
        and (
            _is_shared_function(cls, name, member, slots)
            if callable(member)
            else _is_constant(cls, name, member) and passes(member)
        )
    }


def _is_shared_function(cls: type, name: str, member: Callable[..., Any], slots: Slots) -> bool:
    try:
        return _is_static(cls, name, member) and bool(overloads(name, member, slots, most=MOST_OF_A_MODULES))
    except TypeError:
        return False


def _is_constant(cls: type, name: str, member: Any) -> bool:
    annotations = [vars(base).get("__annotations__", {}).get(name) for base in cls.__mro__]
    of_objects = any(each is not None and not re.search(r"\b(ClassVar|Final)\b", str(each)) for each in annotations)
    return (
        member is not None and not of_objects and not hasattr(type(member), "__get__")
    )  # the last: a property, a slot


def _defines(cls: type, method: str) -> bool:
    """Whether a class, not counting `object` and its metaclass, defines a method."""
    return any(method in vars(base) for base in cls.__mro__[:-1]) and getattr(cls, method) is not None


def _is_static(cls: type, name: str, member: Callable[..., Any]) -> bool:
    """Whether a member is called without the object as first argument, as a nested class is."""
    static = any(isinstance(vars(base).get(name), staticmethod | classmethod) for base in cls.__mro__)
    return static or not hasattr(type(member), "__get__")


def _methods(this: str, name: str, member: Callable[..., Any], slots: Slots, *, static: bool) -> list[Native]:
    try:
        forms = overloads(name, member, slots, most=MOST_ARGUMENTS - static)
    except TypeError:
        return []  # it needs more arguments than a call has, or names for which there is no place
    if static:
        of_class = _like(member, _on_class(name))
        return [(name, [this, *types], of_class) for _, types, function in forms if function is member]
    return [(name, [this, *types[1:]], function) for _, types, function in forms if types]


def _like(member: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls a member; a coroutine function if the member is one."""

    async def wait(*arguments: Any) -> Any:
        return await function(*arguments)

    wait.__name__ = getattr(member, "__name__", type(member).__name__)
    return wait if is_coroutine_function(member) else function


def _on_class(name: str) -> Callable[..., Any]:
    return lambda this, *arguments: getattr(this, name)(*arguments)


def _getter(name: str) -> Callable[[Any], Any]:
    return lambda this: getattr(this, name)


def _setter(name: str) -> Callable[[Any, Any], None]:
    return lambda this, value: setattr(this, name, value)


def _special(cls: type, this: str, *, arithmetic: bool) -> list[Native]:
    functions: list[Native] = [
        (name, [this], repr if "debug" in name else str) for name in ("to_string", "print", "debug", "to_debug")
    ]
    for method, operator in OPERATORS.items():
        seen = arithmetic or method in _COMPARISONS
        if (seen and _defines(cls, method)) or operator in {"==", "!="}:
            operation = _like(getattr(cls, method), _operator(method))
            functions += [(operator, [this, "any"], operation), (operator, [this, this], operation)]
    for operator, method in _REFLECTED.items():
        if arithmetic and _defines(cls, method):
            functions.append((operator, ["any", this], _like(getattr(cls, method), _reflected(method))))
    for method, operator in PREFIXED.items():
        if arithmetic and _defines(cls, method):
            functions.append((operator, [this], getattr(cls, method)))
    if _defines(cls, "__len__"):
        functions += [("get$len", [this], len), ("len", [this], len)]
    if _defines(cls, "__contains__"):
        functions.append(("contains", [this, "any"], contains))
    if _defines(cls, "__getitem__"):
        functions.append(("index$get$", [this, "any"], getattr(cls, "__getitem__")))  # noqa: B009
    if _defines(cls, "__setitem__"):
        functions.append(("index$set$", [this, "any", "any"], getattr(cls, "__setitem__")))  # noqa: B009
    return functions


def _operator(method: str) -> Callable[[Any, Any], Any]:
    swapped = _SWAPPED.get(method) or f"__r{method[2:]}"

    def apply(this: Any, other: Any) -> Any:
        result = getattr(this, method)(other)
        if result is NotImplemented and type(other) not in _RHAIS and hasattr(type(other), swapped):
            result = getattr(other, swapped)(this)
        if result is NotImplemented:
            if method in {"__eq__", "__ne__"}:
                return method == "__ne__"
            raise TypeError(f"{type(this).__name__} and {type(other).__name__} do not support {OPERATORS[method]}")
        return result

    return apply


def _reflected(method: str) -> Callable[[Any, Any], Any]:
    def apply(other: Any, this: Any) -> Any:
        result = getattr(this, method)(other)
        if result is NotImplemented:
            raise TypeError(f"{type(other).__name__} and {type(this).__name__} do not support {method}")
        return result

    return apply


def standard_types(slots: dict[type, int]) -> list[HostType]:
    """Return the types of Python's own library that every engine has: scripts can read their fields and print them.

    They take the first slots.
    """
    for cls in _STANDARD:
        take_slot(cls, slots)
    return [
        make_type(
            cls,
            cls.__name__.removeprefix("Pure"),
            names,
            slots,
            constructor=False,
            arithmetic=not issubclass(cls, pathlib.PurePath),
        )
        for cls, names in _STANDARD.items()
    ]
