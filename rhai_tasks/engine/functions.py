"""Python functions as functions of scripts: their names, the types of their parameters, their documentation."""

import functools
import itertools
import json
import re
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from inspect import Parameter, iscoroutinefunction, signature
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from ._engine import FnPtr, standard_library

MOST_ARGUMENTS = 16  # Rhai finds no function with more `Dynamic` parameters
_MOST_OF_A_MODULES = 8
_MOST_OVERLOADS = 64  # of one function; beyond, its parameters take anything

Native = tuple[str, list[str], Callable[..., Any]]
"""A function as the extension registers it: name, Rhai's types of the parameters, callable."""

_TYPES: dict[Any, tuple[str, ...]] = {
    None: ("()",),
    type(None): ("()",),
    bool: ("bool",),
    int: ("i64",),
    float: ("f64", "i64"),  # an int passes for a float, as in Python
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


def is_identifier(name: str) -> bool:
    """Whether a script can use this as the name of a function, constant or module."""
    return bool(_IDENTIFIER.fullmatch(name)) and name not in _RESERVED


def check_identifier(name: str, whole: str | None = None) -> None:
    """Raise `ValueError` unless a script can use this as the name of a function, constant or module.

    `whole` is the name that was given, of which this is the part that scripts write.
    """
    if not is_identifier(name):
        given = name if whole is None else whole
        raise ValueError(
            f"{given!r} is no name for scripts: wanted are ASCII letters, digits and underscores, no digit first, "
            "and no word that Rhai keeps for itself"
        )


def check_name(name: str) -> None:
    """Raise `ValueError` unless a script can call a function of this name, also by an operator or as a property."""
    if name not in _CALLED_BY_OPERATORS | _INDEXERS | _TEXTS:
        check_identifier(re.sub(r"\A[gs]et\$", "", name), name)


def check_indexer(functions: Iterable[Native]) -> None:
    """Raise `TypeError` for an indexer of a type that Rhai indexes itself: Rhai would refuse it, or not call it."""
    for name, accepted, _ in functions:
        if name in _INDEXERS and accepted and accepted[0] in _INDEXED_BY_RHAI:
            raise TypeError(f"{name}: Rhai itself indexes values of type {accepted[0]}; annotate another type, or none")


def describe(name: str, function: Callable[..., Any]) -> Function:
    """Describe a host function."""
    hints = hints_of(function)
    try:
        parameters = list(signature(function).parameters.values())
    except ValueError:
        parameters = []
    shown = tuple(
        ("..." if parameter.kind is Parameter.VAR_POSITIONAL else "") + parameter.name + _shown(hints, parameter.name)
        for parameter in parameters
        if parameter.kind not in NAMED
    )
    named = ", ".join(
        parameter.name + _shown(hints, parameter.name) for parameter in parameters if parameter.kind in NAMED
    )
    return Function(
        name=name,
        parameters=(*shown, f"#{{{named}}}") if named else shown,
        returns=_shown(hints, "return").removeprefix(": "),
        doc=function.__doc__ or "",
    )


def _shown(hints: Mapping[str, Any], name: str) -> str:
    accepted = _accepted(hints[name]) if name in hints else ("any",)
    return "" if accepted == ("any",) else f": {' | '.join(accepted)}"


def overloads(name: str, function: Callable[..., Any]) -> list[Native]:
    """Return the overloads of a function: one for each number and each combination of types of its arguments.

    A function with parameters behind `*` or `**` also has overloads whose last argument is a map of arguments by name.
    The map stands where there is no parameter, or one that takes no map, so that it is never an argument itself.

    Raises:
        TypeError: The function has more than 16 parameters, or there is no place for the names that it needs.
    """
    try:
        parameters = list(signature(function).parameters.values())
    except ValueError:  # some builtins have no signature
        return [(name, ["any"] * count, function) for count in range(MOST_ARGUMENTS + 1)]
    hints = hints_of(function)
    accepted: list[tuple[str, ...]] = []
    required = 0
    named = [parameter for parameter in parameters if parameter.kind in NAMED]
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            accepted += [("any",)] * (MOST_ARGUMENTS - len(accepted))
        elif parameter not in named:
            accepted.append(_accepted(hints[parameter.name]) if parameter.name in hints else ("any",))
            required += parameter.default is Parameter.empty
    if required > MOST_ARGUMENTS:
        raise TypeError(f"{name}: scripts can pass at most {MOST_ARGUMENTS} arguments")
    counts = range(required, min(len(accepted), MOST_ARGUMENTS) + 1)
    places = [count for count in counts if named and count < MOST_ARGUMENTS and not _takes_map(accepted[count:])]
    needed = [
        parameter.name for parameter in named if parameter.kind is Parameter.KEYWORD_ONLY and _is_needed(parameter)
    ]
    if needed and not places:
        raise TypeError(f"{name}: there is no place for a map with {needed[0]!r}, which has no default")
    by_name = _by_name(function)
    return [
        *((name, list(types), function) for count in counts if not needed for types in _combined(accepted[:count])),
        *((name, [*types, "map"], by_name) for count in places for types in _combined(accepted[:count])),
    ]


def _takes_map(accepted: list[tuple[str, ...]]) -> bool:
    """Whether the first of these parameters takes a map."""
    return bool(accepted) and not {"any", "map"}.isdisjoint(accepted[0])


def _is_needed(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty


def _by_name(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that takes a map of arguments by name as its last argument."""
    return lambda *arguments: function(*arguments[:-1], **arguments[-1])


def arities(name: str, function: Callable[..., Any]) -> list[tuple[int, Callable[..., Any]]]:
    """Return the numbers of arguments that a function of a module takes, and what to call with each.

    Raises:
        TypeError: As `overloads`, or the function needs more than 8 arguments.
    """
    forms: dict[int, set[Callable[..., Any]]] = {}
    for _, accepted, called in overloads(name, function):
        forms.setdefault(len(accepted), set()).add(called)
    if min(forms) > _MOST_OF_A_MODULES:
        raise TypeError(f"{name}: functions of modules take at most {_MOST_OF_A_MODULES} arguments")
    return [
        (count, called.pop() if len(called) == 1 else _by_last(function, *(called - {function})))
        for count, called in sorted(forms.items())
        if count <= _MOST_OF_A_MODULES
    ]


def _by_last(function: Callable[..., Any], by_name: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls `by_name` if its last argument is a map: types do not choose between a module's."""
    return lambda *arguments: (by_name if type(arguments[-1]) is dict else function)(*arguments)


def _combined(accepted: list[tuple[str, ...]]) -> Iterable[tuple[str, ...]]:
    combinations = 1
    for alternatives in accepted:
        combinations *= len(alternatives)
    if combinations > _MOST_OVERLOADS:
        return [("any",) * len(accepted)]
    return itertools.product(*accepted)


def hints_of(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the annotations of a function, or of a class's fields, as types."""
    try:
        return get_type_hints(function)
    except (TypeError, NameError, AttributeError):  # a callable object, or names known to a type checker only
        return {}


def _accepted(hint: Any) -> tuple[str, ...]:
    """Return Rhai's types for an annotation; `any` if Rhai cannot check it."""
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        accepted = tuple(dict.fromkeys(name for part in get_args(hint) for name in _accepted(part)))
        return ("any",) if "any" in accepted else accepted
    plain = origin or hint
    if isinstance(plain, type) and plain in slots:
        return (f"#{slots[plain]}",)
    if is_typeddict(plain):
        return ("map",)
    try:
        return _TYPES.get(plain, ("any",))
    except TypeError:  # not hashable
        return ("any",)


slots: dict[type, int] = {}
"""The slot of each class that is a type of scripts, in this process."""


def is_coroutine_function(function: Any) -> bool:
    """Whether a call returns a coroutine: of a coroutine function, or of an object whose `__call__` is one."""
    return iscoroutinefunction(function) or iscoroutinefunction(getattr(type(function), "__call__", None))  # noqa: B004


@functools.cache
def standard_functions() -> tuple[Function, ...]:
    """Return the functions of Rhai's own library."""
    functions = json.loads(standard_library())["functions"]
    return tuple(
        Function(
            name=function["name"],
            parameters=tuple(_parameter(parameter) for parameter in function.get("params", ())),
            returns=function.get("returnType", ""),
            doc="\n".join(line.removeprefix("///").strip() for line in function.get("docComments", ())),
        )
        for function in functions
    )


def _parameter(parameter: dict[str, str]) -> str:
    return f"{parameter.get('name', '_')}{': ' + parameter['type'] if 'type' in parameter else ''}"
