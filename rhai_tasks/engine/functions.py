"""How Python functions and classes look to scripts: their names, the types they take, their documentation."""

import collections
import datetime
import itertools
import pathlib
import re
import string
import types
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from ._engine import FnPtr, class_slot

MOST_ARGUMENTS = 16  # Rhai finds no function with more `Dynamic` parameters
_MOST_OF_A_MODULES = 8
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
_COMPARISONS = {"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"}
_REFLECTED = {"+": "__radd__", "-": "__rsub__", "*": "__rmul__", "/": "__rtruediv__", "%": "__rmod__"}
_PREFIXED = {"__neg__": "-", "__pos__": "+", "__invert__": "!"}

_IDENTIFIER = re.compile(r"_*[A-Za-z][A-Za-z0-9_]*")
_TEXTS = {"print", "debug"}  # what a host adds to them says how its values look
_RESERVED = _TEXTS | set(
    re.findall(
        r"\w+",
        """
        Fn as async await break call case catch const continue curry default do else eval exit export false fn for go
        goto if import in is is_def_fn is_def_var is_shared let loop match module new nil null package private protected
        public return shared spawn static super switch sync this thread throw true try type_of until use var void while
        with yield
        """,
    )
)
_CALLED_BY_OPERATORS = {*_OPERATORS.values(), *_PREFIXED.values(), "..", "..="} | {
    f"{operator}=" for operator in ("+", "-", "*", "/", "%", "**", "&", "|", "^", "<<", ">>")
}
_INDEXERS = {"index$get$", "index$set$"}
_INDEXED_BY_RHAI = {"i64", "string", "blob", "array", "map"}

_FORMATTING = (
    str.format,
    str.format_map,
    collections.UserString.format,
    collections.UserString.format_map,
    string.Formatter.format,
    string.Formatter.vformat,
    string.Formatter.get_field,
)
"""Methods that read any attribute of their arguments, `__globals__` too, if the text says so: not for scripts."""


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


def check_identifier(name: str) -> None:
    """Raise `ValueError` for what a script cannot call a function, constant or module."""
    if not _IDENTIFIER.fullmatch(name) or name in _RESERVED:
        raise ValueError(
            f"{name!r} is no name for scripts: wanted are ASCII letters, digits and underscores, no digit first, "
            "and no word that Rhai keeps for itself"
        )


def check_name(name: str) -> None:
    """Raise `ValueError` for a function's name that no script can call, by an operator or property either."""
    if name not in _CALLED_BY_OPERATORS | _INDEXERS | _TEXTS:
        check_identifier(re.sub(r"\A[gs]et\$", "", name))


def check_indexer(functions: Iterable[Native]) -> None:
    """Raise `TypeError` for an indexer of values that Rhai indexes itself: it would refuse, or not call it."""
    for name, accepted, _ in functions:
        if name in _INDEXERS and accepted and accepted[0] in _INDEXED_BY_RHAI:
            raise TypeError(f"{name}: Rhai itself indexes values of type {accepted[0]}; annotate another type, or none")


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


def arities(name: str, function: Callable[..., Any]) -> list[int]:
    """Return the numbers of arguments that a function of a module takes.

    Raises:
        TypeError: It has keyword-only parameters without defaults, or takes no less than 9 arguments.
    """
    counts = {len(types) for _, types, _ in overloads(name, function)}
    if min(counts) > _MOST_OF_A_MODULES:
        raise TypeError(f"{name}: functions of modules take at most {_MOST_OF_A_MODULES} arguments")
    return sorted(count for count in counts if count <= _MOST_OF_A_MODULES)


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


def make_type(
    cls: type, name: str, names: Iterable[str] | None, *, constructor: bool, arithmetic: bool = True
) -> HostType:
    """Describe a class: its methods, properties, operators, iteration, text and constructor.

    Args:
        cls: The class.
        name: Its name for scripts.
        names: The methods and attributes to be seen; by default all that do not begin with an underscore.
        constructor: Whether a script can make objects of it, by calling its name.
        arithmetic: Whether its operators are seen; comparisons always are.

    Raises:
        OverflowError: There are 64 such classes in this process.
        TypeError: A method that Python itself calls is a coroutine function.
    """
    for method in ("__str__", "__repr__", "__len__", "__iter__"):
        if is_coroutine_function(getattr(cls, method, None)):
            raise TypeError(
                f"{cls.__qualname__}.{method} is a coroutine function, but Python itself calls it and never waits"
            )
    slot = _slots[cls] = class_slot(cls)
    this = f"#{slot}"
    functions: list[Native] = []
    for attribute in names if names is not None else _public(cls):
        member = getattr(cls, attribute, None)
        if callable(member):
            functions += _methods(this, attribute, member, static=_is_static(cls, attribute, member))
        else:
            getter = _like(getattr(member, "fget", None), _getter(attribute))
            functions.append((f"get${attribute}", [this], getter))
            if not isinstance(member, property) or member.fset is not None:
                functions.append((f"set${attribute}", [this, "any"], _setter(attribute)))
    functions += _special(cls, this, arithmetic=arithmetic)
    if constructor:
        functions += overloads(name, cls)
    return HostType(name=name, slot=slot, iterable=_defines(cls, "__iter__"), functions=functions)


def _public(cls: type) -> list[str]:
    names = dict.fromkeys(name for base in cls.__mro__[:-1] for name in vars(base))
    names |= dict.fromkeys(name for base in cls.__mro__[:-1] for name in vars(base).get("__annotations__", {}))
    return [
        name
        for name in names
        if not name.startswith("_") and not any(getattr(cls, name, None) is method for method in _FORMATTING)
    ]


def _defines(cls: type, method: str) -> bool:
    """Whether objects of a class have a method that not all objects have; what its metaclass has does not count."""
    return any(method in vars(base) for base in cls.__mro__[:-1]) and getattr(cls, method) is not None


def _is_static(cls: type, name: str, member: Callable[..., Any]) -> bool:
    """Whether a member gets no object in front of its arguments, as a class inside the class does not."""
    static = any(isinstance(vars(base).get(name), staticmethod | classmethod) for base in cls.__mro__)
    return static or not hasattr(type(member), "__get__")


def _methods(this: str, name: str, member: Callable[..., Any], *, static: bool) -> list[Native]:
    if static:
        member = _like(member, _on_class(name))
        return [(name, [this, *["any"] * count], member) for count in range(MOST_ARGUMENTS)]
    try:
        forms = overloads(name, member)
    except TypeError:
        return []  # it needs keywords: not for scripts
    return [(name, [this, *types[1:]], function) for _, types, function in forms if types]


def is_coroutine_function(function: Any) -> bool:
    """Whether a call gives a coroutine: of a coroutine function, or of an object whose `__call__` is one."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


def _like(member: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Make a function that calls a member a coroutine function, if the member is one."""

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
    for method, operator in _OPERATORS.items():
        seen = arithmetic or method in _COMPARISONS
        if (seen and _defines(cls, method)) or operator in {"==", "!="}:
            operation = _like(getattr(cls, method), _operator(method))
            functions += [(operator, [this, "any"], operation), (operator, [this, this], operation)]
    for operator, method in _REFLECTED.items():
        if arithmetic and _defines(cls, method):
            functions.append((operator, ["any", this], _like(getattr(cls, method), _reflected(method))))
    for method, operator in _PREFIXED.items():
        if arithmetic and _defines(cls, method):
            functions.append((operator, [this], getattr(cls, method)))
    if _defines(cls, "__len__"):
        functions += [("get$len", [this], len), ("len", [this], len)]
    if _defines(cls, "__contains__"):
        functions.append(("contains", [this, "any"], getattr(cls, "__contains__")))  # noqa: B009
    if _defines(cls, "__getitem__"):
        functions.append(("index$get$", [this, "any"], getattr(cls, "__getitem__")))  # noqa: B009
    if _defines(cls, "__setitem__"):
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
    return [
        make_type(
            cls,
            cls.__name__.removeprefix("Pure"),
            names,
            constructor=False,
            arithmetic=not issubclass(cls, pathlib.PurePath),
        )
        for cls, names in known
    ]
