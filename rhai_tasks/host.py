"""How Python functions and classes look to scripts: their names, the types they take, their documentation."""

import datetime
import itertools
import pathlib
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from inspect import Parameter, signature
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from ._engine import FnPtr, class_slot

MOST_ARGUMENTS = 16  # Rhai finds no function with more `Dynamic` parameters
_MOST_OVERLOADS = 64  # of one function; beyond, its parameters take anything

Native = tuple[str, list[str], Callable[..., Any]]
"""What the extension registers: name, Rhai's types of the parameters, callable."""

_TYPES: dict[Any, tuple[str, ...]] = {
    None: ("()",),
    type(None): ("()",),
    bool: ("bool",),
    int: ("i64",),
    float: ("f64", "i64"),  # as Python has it: an int will do
    str: ("string", "char"),
    Decimal: ("decimal",),
    bytes: ("blob",),
    bytearray: ("blob",),
    list: ("array",),
    tuple: ("array",),
    set: ("array",),
    frozenset: ("array",),
    dict: ("map",),
    Mapping: ("map",),
    range: ("range", "range="),
    FnPtr: ("Fn",),
    Callable: ("Fn",),
}

_OPERATORS = {
    "__eq__": "==",
    "__ne__": "!=",
    "__lt__": "<",
    "__le__": "<=",
    "__gt__": ">",
    "__ge__": ">=",
    "__add__": "+",
    "__sub__": "-",
    "__mul__": "*",
    "__truediv__": "/",
    "__mod__": "%",
    "__pow__": "**",
    "__and__": "&",
    "__or__": "|",
    "__xor__": "^",
    "__lshift__": "<<",
    "__rshift__": ">>",
}
_REFLECTED = {"+": "__radd__", "-": "__rsub__", "*": "__rmul__", "/": "__rtruediv__", "%": "__rmod__"}
_PREFIXED = {"__neg__": "-", "__pos__": "+", "__invert__": "!"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A function that scripts can call."""

    name: str  # with its module's, if it is in one: `shop::price`
    parameters: tuple[str, ...]  # a name and a type each, as in `n: i64`; what is not known is left out
    returns: str  # the type, or the empty text
    doc: str

    def __str__(self) -> str:
        """Return the signature, as Rhai writes it."""
        returns = f" -> {self.returns}" if self.returns else ""
        return f"{self.name}({', '.join(self.parameters)}){returns}"


def describe(name: str, function: Callable[..., Any]) -> Function:
    """Describe a host function."""
    hints = _hints(function)
    try:
        parameters = list(signature(function).parameters.values())
    except ValueError:
        parameters = []
    shown = tuple(
        ("..." if parameter.kind is Parameter.VAR_POSITIONAL else "") + parameter.name + _shown(hints, parameter.name)
        for parameter in parameters
        if parameter.kind not in {Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD}
    )
    return Function(
        name=name, parameters=shown, returns=_shown(hints, "return").removeprefix(": "), doc=function.__doc__ or ""
    )


def _shown(hints: Mapping[str, Any], name: str) -> str:
    accepted = _accepted(hints[name]) if name in hints else ("any",)
    return "" if accepted == ("any",) else f": {' | '.join(accepted)}"


def overloads(name: str, function: Callable[..., Any]) -> list[Native]:
    """Return a function's forms for scripts: one for each number and each combination of types it takes.

    Raises:
        TypeError: It has keyword-only parameters without defaults, or more than 16 parameters.
    """
    try:
        parameters = list(signature(function).parameters.values())
    except ValueError:  # some builtins do not tell
        return [(name, ["any"] * count, function) for count in range(MOST_ARGUMENTS + 1)]
    hints = _hints(function)
    accepted: list[tuple[str, ...]] = []
    required = 0
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            accepted += [("any",)] * (MOST_ARGUMENTS - len(accepted))
        elif parameter.kind is Parameter.KEYWORD_ONLY:
            if parameter.default is Parameter.empty:
                raise TypeError(f"{name}: scripts have no keyword arguments, and {parameter.name!r} has no default")
        elif parameter.kind is not Parameter.VAR_KEYWORD:
            accepted.append(_accepted(hints[parameter.name]) if parameter.name in hints else ("any",))
            required += parameter.default is Parameter.empty
    if required > MOST_ARGUMENTS:
        raise TypeError(f"{name}: scripts can pass at most {MOST_ARGUMENTS} arguments")
    return [
        (name, list(types), function)
        for count in range(required, min(len(accepted), MOST_ARGUMENTS) + 1)
        for types in _combined(accepted[:count])
    ]


def arities(function: Callable[..., Any]) -> list[int]:
    """Return the numbers of arguments that a function takes."""
    return sorted({len(types) for _, types, _ in overloads(getattr(function, "__name__", "?"), function)})


def _combined(accepted: list[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    combinations = 1
    for alternatives in accepted:
        combinations *= len(alternatives)
    if combinations > _MOST_OVERLOADS:
        return [("any",) * len(accepted)]
    return itertools.product(*accepted)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (TypeError, NameError, AttributeError):  # a callable object, or names known to a type checker only
        return {}


def _accepted(hint: Any) -> tuple[str, ...]:
    """Return Rhai's types for an annotation; `any` where it says nothing that Rhai could check."""
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        accepted = tuple(dict.fromkeys(name for part in get_args(hint) for name in _accepted(part)))
        return ("any",) if "any" in accepted else accepted
    plain = origin or hint
    if isinstance(plain, type) and plain in _slots:
        return (f"#{_slots[plain]}",)
    if is_typeddict(plain):
        return ("map",)
    try:
        return _TYPES.get(plain, ("any",))
    except TypeError:  # not hashable
        return ("any",)


_slots: dict[type, int] = {}
"""The slots of classes that scripts know, in this process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HostType:
    """A Python class as scripts see it."""

    name: str
    slot: int
    iterable: bool
    functions: list[Native]


def make_type(cls: type, name: str, names: Iterable[str] | None, constructor: bool) -> HostType:
    """Describe a class: its methods, properties, operators, iteration, text and constructor.

    Args:
        cls: The class.
        name: Its name for scripts.
        names: The methods and attributes to be seen; by default all that do not begin with an underscore.
        constructor: Whether a script can make objects of it, by calling its name.

    Raises:
        OverflowError: There are 64 such classes in this process.
    """
    slot = _slots[cls] = class_slot(cls)
    this = f"#{slot}"
    functions: list[Native] = []
    for attribute in names if names is not None else _public(cls):
        member = getattr(cls, attribute, None)
        if callable(member):
            functions += _methods(this, attribute, member, static=_is_static(cls, attribute))
        else:
            functions.append((f"get${attribute}", [this], _getter(attribute)))
            if not isinstance(member, property) or member.fset is not None:
                functions.append((f"set${attribute}", [this, "any"], _setter(attribute)))
    functions += _special(cls, this)
    if constructor:
        functions += overloads(name, cls)
    return HostType(name=name, slot=slot, iterable=hasattr(cls, "__iter__"), functions=functions)


def _public(cls: type) -> list[str]:
    names = dict.fromkeys(name for base in cls.__mro__[:-1] for name in vars(base))
    names |= dict.fromkeys(name for base in cls.__mro__[:-1] for name in vars(base).get("__annotations__", {}))
    return [name for name in names if not name.startswith("_")]


def _is_static(cls: type, name: str) -> bool:
    return any(isinstance(vars(base).get(name), staticmethod | classmethod) for base in cls.__mro__)


def _methods(this: str, name: str, member: Callable[..., Any], *, static: bool) -> list[Native]:
    if static:
        member = _on_class(name)
        return [(name, [this, *["any"] * count], member) for count in range(MOST_ARGUMENTS)]
    try:
        forms = overloads(name, member)
    except TypeError:
        return []  # it needs keywords: not for scripts
    return [(name, [this, *types[1:]], function) for _, types, function in forms if types]


def _on_class(name: str) -> Callable[..., Any]:
    return lambda this, *arguments: getattr(this, name)(*arguments)


def _getter(name: str) -> Callable[[Any], Any]:
    return lambda this: getattr(this, name)


def _setter(name: str) -> Callable[[Any, Any], None]:
    return lambda this, value: setattr(this, name, value)


def _special(cls: type, this: str) -> list[Native]:
    functions: list[Native] = [
        (name, [this], repr if "debug" in name else str) for name in ("to_string", "print", "debug", "to_debug")
    ]
    for method, operator in _OPERATORS.items():
        member = getattr(cls, method, None)
        if (member is not None and member is not getattr(object, method, None)) or operator in {"==", "!="}:
            functions.append((operator, [this, "any"], _operator(method)))
            functions.append((operator, [this, this], _operator(method)))
    for operator, method in _REFLECTED.items():
        if hasattr(cls, method):
            functions.append((operator, ["any", this], _reflected(method)))
    for method, operator in _PREFIXED.items():
        if hasattr(cls, method):
            functions.append((operator, [this], getattr(cls, method)))
    if hasattr(cls, "__len__"):
        functions += [("get$len", [this], len), ("len", [this], len)]
    if hasattr(cls, "__contains__"):
        functions.append(("contains", [this, "any"], getattr(cls, "__contains__")))  # noqa: B009
    if hasattr(cls, "__getitem__"):
        functions.append(("index$get$", [this, "any"], getattr(cls, "__getitem__")))  # noqa: B009
    if hasattr(cls, "__setitem__"):
        functions.append(("index$set$", [this, "any", "any"], getattr(cls, "__setitem__")))  # noqa: B009
    return functions


def _operator(method: str) -> Callable[[Any, Any], Any]:
    def apply(this: Any, other: Any) -> Any:
        result = getattr(this, method)(other)
        if result is NotImplemented:
            if method in {"__eq__", "__ne__"}:
                return method == "__ne__"
            raise TypeError(f"{type(this).__name__} and {type(other).__name__} do not support {_OPERATORS[method]}")
        return result

    return apply


def _reflected(method: str) -> Callable[[Any, Any], Any]:
    def apply(other: Any, this: Any) -> Any:
        result = getattr(this, method)(other)
        if result is NotImplemented:
            raise TypeError(f"{type(other).__name__} and {type(this).__name__} do not support {method}")
        return result

    return apply


def standard_types() -> list[HostType]:
    """Return the classes of Python's own library that every engine knows: they can be read, and written as text."""
    date, time = ["year", "month", "day"], ["hour", "minute", "second", "microsecond"]
    known: list[tuple[type, list[str]]] = [
        (datetime.datetime, [*date, *time, "isoformat", "timestamp"]),
        (datetime.date, [*date, "isoformat"]),
        (datetime.time, [*time, "isoformat"]),
        (datetime.timedelta, ["days", "seconds", "microseconds", "total_seconds"]),
        (uuid.UUID, ["hex"]),
        # No method of a path, nor `/`: nothing here may reach files.
        (pathlib.PurePath, ["name", "stem", "suffix", "parent"]),
    ]
    return [make_type(cls, cls.__name__.removeprefix("Pure"), names, constructor=False) for cls, names in known]
