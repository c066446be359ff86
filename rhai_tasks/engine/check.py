"""Finds mistakes in a script before it runs: unknown functions and variables, and code that never runs."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal, NamedTuple

from .functions import Function, standard_functions

Mention = tuple[str, str, int, int | None, int | None]
"""A use of a name in a script: kind, name, number of arguments, line, column."""

CONSTANTS = ("CALLER_ID", "CONTEXT_ID", "ARGS")
"""The constants that a worker gives its scripts."""

_ANY_NUMBER = {"Fn", "call", "curry", "debug", "eval", "is_def_fn", "is_def_var", "is_shared", "print", "type_of"}


@dataclass(frozen=True, slots=True)
class Finding:
    """A mistake in a script.

    Attributes:
        line: From 1; `None` if it is not known.
        column: From 1; `None` if it is not known.
        kind: `syntax`; `function` or `variable`: there is none of this name; `unreachable`: the code never runs.
        text: The mistake in words.
    """

    line: int | None
    column: int | None
    kind: Literal["syntax", "function", "variable", "unreachable"]
    text: str


class Names(NamedTuple):
    """The names that a script can use.

    Attributes:
        functions: The host's functions, and those of classes and modules: of these, only the name counts.
        own: Name and number of parameters of each function of the script.
        constants: Names of constants.
    """

    functions: Collection[str]
    own: Collection[tuple[str, int]]
    constants: Collection[str]


def find_mistakes(mentions: Iterable[Mention], names: Names) -> list[Finding]:
    """Return the mistakes among the names that a script uses, in the order of their places.

    A script that calls `eval`, or a function by `f!()`, may find names that nobody can know: of it, only unreachable
    code is reported.
    """
    listed = list(dict.fromkeys(mentions))
    kinds = {mention[0] for mention in listed}
    found = [
        *(
            Finding(line, column, "unreachable", "this code never runs")
            for kind, _, _, line, column in listed
            if kind == "unreachable"
        ),
        *(() if "dynamic" in kinds else _unknown(listed, names)),
    ]
    return sorted(found, key=lambda finding: (finding.line or 0, finding.column or 0))


def _unknown(mentions: list[Mention], names: Names) -> Iterator[Finding]:
    library = {(function.name, len(function.parameters)) for function in _callable(standard_functions())}
    forms = library | set(names.own)
    methods = {(name, count + 1) for name, count in names.own}  # the object is `this`
    free = {*names.functions, *_ANY_NUMBER}  # of these, the number of arguments is not known
    known = {name for name, _ in forms} | free
    keys = {name for kind, name, *_ in mentions if kind == "property"}  # a map's closure is called like a method
    modules = {name for kind, name, *_ in mentions if kind == "module"}
    declared = {*names.constants, *(name for name, _ in names.own)}
    for kind, name, count, line, column in mentions:
        if kind == "variable" and name not in declared:
            yield Finding(line, column, "variable", f"there is no variable {name!r}{_guess(name, declared)}")
        if kind not in {"call", "method"} or _is_elsewhere(kind, name, keys, modules):
            continue
        if name not in known:
            yield Finding(line, column, "function", f"there is no function {name!r}{_guess(name, known)}")
        elif name not in free and (name, count) not in (forms | methods if kind == "method" else forms):
            yield Finding(line, column, "function", f"no function {name!r} takes {count} argument(s)")


def _is_elsewhere(kind: str, name: str, keys: set[str], modules: set[str]) -> bool:
    """Whether a name may be a key of a map, or of a module that the script imports."""
    return (kind == "method" and name in keys) or name.partition("::")[0] in modules or name.startswith("global::")


def _callable(functions: Iterable[Function]) -> Iterator[Function]:
    return (function for function in functions if "$" not in function.name)


def _guess(name: str, known: Iterable[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    return f": {close[0]!r}?" if close else ""
