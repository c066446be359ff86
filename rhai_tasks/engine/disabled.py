"""Parts of the language and functions of Rhai's library that an engine's scripts cannot use."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

from .functions import Native, is_symbol, standard_functions
from .wanted import refusal

_TYPES = {
    "Dynamic": "any",
    "&str": "string",
    "ImmutableString": "string",
    "char": "char",
    "bool": "bool",
    "i64": "i64",
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


@dataclass(frozen=True, kw_only=True, slots=True)
class Disabled:
    """What scripts cannot use.

    Attributes:
        symbols: Keywords and operators, which the parser refuses.
        functions: Functions in place of the library's; they raise.
    """

    symbols: list[str]
    functions: list[Native]


def disabled(names: Iterable[str]) -> Disabled:
    """Return what keeps scripts from using keywords, operators, and functions and properties of Rhai's library.

    Raises:
        TypeError: It is no collection of names.
        ValueError: Rhai has nothing of a name.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise refusal("disable", names)
    chosen = list(names)
    symbols = [name for name in chosen if is_symbol(name)]
    functions: list[Native] = []
    for name in chosen:
        if name not in symbols:
            found = [native for form in (name, f"get${name}", f"set${name}") for native in _refusing(form, name)]
            if not found:
                raise ValueError(f"disable has {name!r}: no keyword, operator or function of Rhai has this name")
            functions += found
    return Disabled(symbols=symbols, functions=functions)


def _refusing(form: object, name: str) -> Iterable[Native]:
    """Return a function that raises for each of the library's with a name; values of other types no script has."""
    for function in standard_functions():
        if function.name == form:
            types = [parameter.rpartition(": ")[2].removeprefix("&mut ") for parameter in function.parameters]
            if all(each in _TYPES for each in types):
                yield function.name, [_TYPES[each] for each in types], _raising(name)


def _raising(name: str) -> Callable[..., Any]:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(f"{name} is disabled")

    return refuse
