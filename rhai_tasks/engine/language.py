"""What an engine's scripts may say: which keywords, operators, functions, names and forms."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

from .functions import TYPES, Native, is_symbol, standard_functions, types_of
from .refusals import refusal


@dataclass(frozen=True, kw_only=True, slots=True)
class Language:
    """What scripts may say.

    Attributes:
        symbols: Keywords and operators, which the parser refuses.
        functions: Functions in place of the library's; they raise.
        strict: Whether scripts may name no other variables and properties than there are.
        expressions: Whether a script is a single expression; then it has no `eval`, either.
        modules: The names of the host's modules that are in no other one.
    """

    symbols: list[str]
    functions: list[Native]
    strict: bool
    expressions: bool
    modules: list[str] = field(default_factory=list)


def language(names: Iterable[str], *, strict: bool, expressions: bool) -> Language:
    """Return a language without keywords, operators, and functions and properties of Rhai's library.

    Raises:
        TypeError: `names` is not a collection of names, or the others are not `bool`.
        ValueError: Rhai has nothing of a name.
    """
    for argument, value in (("strict", strict), ("expressions", expressions)):
        if not isinstance(value, bool):
            raise refusal(argument, value)
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise refusal("disable", names)
    chosen = [*names, *(["eval"] if expressions else [])]
    symbols = [name for name in chosen if is_symbol(name)]
    functions: list[Native] = []
    for name in chosen:
        if name not in symbols:
            found = [native for form in (name, f"get${name}", f"set${name}") for native in _refusing(form, name)]
            if not found:
                raise ValueError(f"disable has {name!r}: no keyword, operator or function of Rhai has this name")
            functions += found
    return Language(symbols=symbols, functions=functions, strict=strict, expressions=expressions)


def _refusing(form: object, name: str) -> Iterable[Native]:
    """Return a function that raises for each of the library's with a name; values of other types no script has."""
    for function in standard_functions():
        if function.name == form:
            # In the place of one for any value, the engine has functions of its own for some types.
            known = [
                list(TYPES.values()) if each in {"_", "Dynamic"} else [TYPES.get(each)] for each in types_of(function)
            ]
            for types in itertools.product(*known):
                if None not in types:
                    yield function.name, [each for each in types if each], _raising(name)


def _raising(name: str) -> Callable[..., Any]:
    def refuse(*_: object) -> NoReturn:
        raise PermissionError(f"{name} is disabled")

    return refuse
