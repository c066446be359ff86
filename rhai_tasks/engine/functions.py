"""Python functions as functions of scripts: their names, the types of their parameters, their documentation."""

import functools
import itertools
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, cleandoc, iscoroutinefunction, signature
from typing import Any

from ._engine import standard_library
from .hints import Slots, accepted, hints_of

MOST_ARGUMENTS = 16  # Rhai finds no function with more `Dynamic` parameters
MOST_OF_A_MODULES = 8  # Rhai tries all combinations of types and `Dynamic` at each call
_MOST_OVERLOADS = 64  # of one function; beyond, its parameters take anything

TYPES = {
    "Dynamic": "any",
    "&str": "string",
    "ImmutableString": "string",
    "char": "char",
    "()": "()",
    "bool": "bool",
    "i64": "i64",
    "u8": "u8",  # the items of a blob in a loop
    "f64": "f64",
    "Decimal": "decimal",
    "Array": "array",
    "Map": "map",
    "Blob": "blob",
    "FnPtr": "Fn",
    "Instant": "timestamp",
    "Range<i64>": "range",
    "RangeInclusive<i64>": "range=",
}
"""The types of values that scripts have, by Rust's names."""

Native = tuple[str, list[str], Callable[..., Any]]
"""A function as the extension registers it: name, Rhai's types of the parameters, callable."""

OPERATORS = {
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


PREFIXED = {"__neg__": "-", "__pos__": "+", "__invert__": "!"}

_IDENTIFIER = re.compile(r"_*[A-Za-z][A-Za-z0-9_]*")
_TEXTS = {"print", "debug"}  # a host may add overloads that print its values
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
_CALLED_BY_OPERATORS = {*OPERATORS.values(), *PREFIXED.values(), "..", "..="} | {
    f"{operator}=" for operator in ("+", "-", "*", "/", "%", "**", "&", "|", "^", "<<", ">>")
}
NAMED = {Parameter.KEYWORD_ONLY, Parameter.VAR_KEYWORD}
_INDEXERS = {"index$get$", "index$set$"}
_INDEXED_BY_RHAI = {"i64", "string", "blob", "array", "map"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Function:
    """A function that scripts can call.

    Attributes:
        name: The name, with the module's name before it if it is in one: `shop::price`.
        parameters: Name and type of each parameter, as in `n: i64`; a type that is not known is left out.
        returns: The type of the value; empty if it is not known.
        doc: The documentation.
    """

    name: str
    parameters: tuple[str, ...]
    returns: str
    doc: str

    def __str__(self) -> str:
        """Return the signature, as Rhai writes it."""
        returns = f" -> {self.returns}" if self.returns else ""
        return f"{self.name}({', '.join(self.parameters)}){returns}"


def is_symbol(name: object) -> bool:
    """Whether this is a keyword or an operator of Rhai, which no function can replace."""
    return name in (_RESERVED - {"exit"}) | _CALLED_BY_OPERATORS | {"&&", "||", "??", "?.", "?["}


def is_identifier(name: object) -> bool:
    """Whether a script can use this as the name of a function, constant or module."""
    return isinstance(name, str) and bool(_IDENTIFIER.fullmatch(name)) and name not in _RESERVED


def check_identifier(name: object, whole: str | None = None) -> None:
    """Raise `ValueError` unless a script can use this as the name of a function, constant or module.

    `whole` is the name that was given, of which this is the part that scripts write.
    """
    if not is_identifier(name):
        given = name if whole is None else whole
        raise ValueError(
            f"{given!r} is not a valid name in scripts: expected ASCII letters, digits and underscores, no digit "
            "first, and no word that Rhai keeps for itself"
        )


def check_name(name: object) -> None:
    """Raise `ValueError` unless a script can call a function of this name, also by an operator or as a property."""
    if not isinstance(name, str):
        check_identifier(name)
    elif name not in _CALLED_BY_OPERATORS | _INDEXERS | _TEXTS:
        check_identifier(re.sub(r"\A[gs]et\$", "", name), name)


def check_indexer(functions: Iterable[Native]) -> None:
    """Raise `TypeError` for an indexer of a type that Rhai indexes itself: Rhai would refuse it, or not call it."""
    for name, types, _ in functions:
        if name in _INDEXERS and types and types[0] in _INDEXED_BY_RHAI:
            raise TypeError(f"{name}: Rhai itself indexes values of type {types[0]}; annotate another type, or none")


def describe(name: str, function: Callable[..., Any], slots: Slots) -> Function:
    """Describe a host function."""
    hints = hints_of(function)
    try:
        parameters = list(signature(function).parameters.values())
    except ValueError:
        parameters = []
    shown = tuple(
        ("..." if parameter.kind is Parameter.VAR_POSITIONAL else "") + parameter.name + _shown(hints, parameter, slots)
        for parameter in parameters
        if parameter.kind not in NAMED
    )
    named = ", ".join(
        parameter.name + _shown(hints, parameter, slots) for parameter in parameters if parameter.kind in NAMED
    )
    returns = accepted(hints.get("return", Any), slots)
    return Function(
        name=name,
        parameters=(*shown, f"#{{{named}}}") if named else shown,
        returns="" if returns == ("any",) else " | ".join(returns),
        doc=cleandoc(function.__doc__ or ""),
    )


def _shown(hints: Mapping[str, Any], parameter: Parameter, slots: Slots) -> str:
    types = accepted(hints.get(parameter.name, Any), slots)
    return "" if types == ("any",) else f": {' | '.join(types)}"


def overloads(name: str, function: Callable[..., Any], slots: Slots, *, most: int = MOST_ARGUMENTS) -> list[Native]:
    """Return the overloads of a function: one for each number and each combination of types of its arguments.

    A function with parameters behind `*` or `**` also has overloads whose last argument is a map of arguments by name.
    The map stands where there is no parameter, or one that takes no map, so that it is never an argument itself.

    Args:
        name: The name.
        function: The function.
        slots: The classes that are types of scripts.
        most: The most arguments of a call.

    Raises:
        TypeError: The function needs more arguments than that, or there is no place for the names that it needs.
    """
    try:
        parameters = list(signature(function).parameters.values())
    except ValueError:  # some builtins have no signature
        return [(name, ["any"] * count, function) for count in range(most + 1)]
    hints = hints_of(function)
    types: list[tuple[str, ...]] = []
    required = 0
    named = [parameter for parameter in parameters if parameter.kind in NAMED]
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            types += [("any",)] * (most - len(types))
        elif parameter not in named:
            types.append(accepted(hints.get(parameter.name, Any), slots))
            required += parameter.default is Parameter.empty
    if required > most:
        who = "functions of modules" if most == MOST_OF_A_MODULES else "functions"
        raise TypeError(f"{name}: {who} take at most {most} arguments")
    counts = range(required, min(len(types), most) + 1)
    places = [count for count in counts if named and count < most and not _takes_map(types[count:])]
    needed = [
        parameter.name for parameter in named if parameter.kind is Parameter.KEYWORD_ONLY and _is_needed(parameter)
    ]
    if needed and not places:
        raise TypeError(f"{name}: no parameter can be the map with {needed[0]!r}, which has no default")
    by_name = _by_name(function)
    return [
        *((name, list(each), function) for count in counts if not needed for each in _combined(types[:count])),
        *((name, [*each, "map"], by_name) for count in places for each in _combined(types[:count])),
    ]


def are_too_many(types: Iterable[tuple[str, ...]]) -> bool:
    """Whether the parameters take anything, since their alternatives of types would need too many overloads in Rhai."""
    return math.prod(map(len, types)) > _MOST_OVERLOADS


def _takes_map(types: list[tuple[str, ...]]) -> bool:
    """Whether the first of these parameters takes a map."""
    return bool(types) and not {"any", "map"}.isdisjoint(types[0])


def _is_needed(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty


def _by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes a map of arguments by name as its last argument."""
    return lambda *arguments: function(*arguments[:-1], **arguments[-1])


def _combined(types: list[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    return [("any",) * len(types)] if are_too_many(types) else itertools.product(*types)


def is_coroutine_function(function: Any) -> bool:
    """Whether a call returns a coroutine: of a coroutine function, or of an object whose `__call__` is one."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


@functools.cache
def standard_functions() -> tuple[Function, ...]:
    """Return the functions of Rhai's own library."""
    return tuple(sorted((_parsed(*function) for function in standard_library()), key=order))


def warn_if_hidden(name: str, functions: Iterable[Native]) -> None:
    """Warn of a function without annotations that Rhai calls only where none of its own takes the values."""
    for _, types, _ in functions:
        if types and set(types) == {"any"} and (hiding := _library().get((name, len(types)))):
            warnings.warn(
                f"{name}: Rhai's own comes first for {', '.join(hiding)}; annotate the parameters, or change the name",
                stacklevel=4,
            )


def types_of(function: Function) -> list[str]:
    """Return the types of the parameters of a function of Rhai's library, by their names in Rust; `_`: not known."""
    types = (parameter.rpartition(": ")[2].removeprefix("&mut ") for parameter in function.parameters)
    return [name.removeprefix("std::ops::") for name in types]


@functools.cache
def _library() -> dict[tuple[str, int], list[str]]:
    """Return the types of the first parameters of Rhai's own functions, by name and number of parameters."""
    found: dict[tuple[str, int], list[str]] = {}
    for function in standard_functions():
        types = types_of(function)
        if types and set(types) != {"Dynamic"} and types[0] in TYPES:
            found.setdefault((function.name, len(types)), []).append(TYPES[types[0]])
    return {key: sorted(set(types)) for key, types in found.items()}


def order(function: Function) -> tuple[str, int, tuple[str, ...]]:
    """Return the key by which functions are listed, a different one for each: Rhai's order changes with the process."""
    return function.name, len(function.parameters), tuple(function.parameters)


def _parsed(name: str, signature: str, comments: list[str]) -> Function:
    """Parse Rhai's own signature of a function, as `get(map: Map, key: &str) -> Dynamic`."""
    head, arrow, returns = signature.removeprefix(name).rpartition(") -> ")
    parameters = (head if arrow else returns.removesuffix(")")).removeprefix("(")
    return Function(
        name=name,
        parameters=tuple(parameters.split(", ")) if parameters else (),
        returns=returns if arrow else "",
        doc="\n".join(
            line.removeprefix("///").removeprefix(" ").rstrip() for comment in comments for line in comment.splitlines()
        ),
    )
