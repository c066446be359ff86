"""Definition files of an engine: which functions, types and modules an editor for scripts can offer."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from .classes import HostType, Module
from .functions import MOST_ARGUMENTS, Function, standard_functions

_NAMES = {
    "any": "?",
    "Dynamic": "?",
    "()": "()",
    "i64": "int",
    "f64": "float",
    "f64 | i64": "float",  # an integer passes for one
    "string": "String",
    "string | char": "String",
    "&str": "String",
    "ImmutableString": "String",
    "array": "Array",
    "map": "Map",
    "blob": "Blob",
    "decimal": "Decimal",
    "timestamp": "Instant",
    "range": "Range",
    "range | range=": "Range",
    "Fn": "FnPtr",
}
_CONSTANTS = {bool: "bool", int: "int", float: "float", str: "String", list: "Array", tuple: "Array", dict: "Map"}
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[gs]et [A-Za-z_][A-Za-z0-9_]*")
_MOST_FORMS = MOST_ARGUMENTS - 1
_OWN = "Functions of the application"


def files(functions: Iterable[Function], types: Iterable[HostType], modules: Mapping[str, Module]) -> dict[str, str]:
    """Return the texts of definition files and of a page of Markdown, by name.

    Args:
        functions: The host's functions, those of modules too.
        types: The classes that are types of scripts.
        modules: The modules, by name.
    """
    known = list(functions)
    slots = {f"#{cls.slot}": cls.name for cls in types}
    own = [_definition(function) for function in known if "::" not in function.name]
    parts = [*own, *dict.fromkeys(line for cls in types for line in _members(cls, slots)), *_modules(known, modules)]
    library = [_definition(function, returns="()") for function in standard_functions()]
    return {
        "__builtin__.d.rhai": _file(library),
        "__static__.d.rhai": _file(parts),
        "functions.md": _page(known),
    }


def _file(definitions: Iterable[str]) -> str:
    return "module static;\n\n" + "\n\n".join(definitions) + "\n"


def _page(functions: Iterable[Function]) -> str:
    entries = (f"## `{function}`\n\n{function.doc.strip()}".rstrip() for function in functions)
    return "\n\n".join([f"# {_OWN}", *entries]) + "\n"


def _modules(functions: list[Function], modules: Mapping[str, Module]) -> Iterable[str]:
    """Define each outermost module with all that is in it."""
    names = {*modules, *(function.name.rpartition("::")[0] for function in functions)} - {""}
    for outer in sorted({name.partition("::")[0] for name in names}):
        yield _module(outer, "", names, functions, modules)


def _module(
    name: str,
    within: str,
    names: set[str],
    functions: list[Function],
    modules: Mapping[str, Module],
) -> str:
    whole = f"{within}{name}"
    inner = {other.removeprefix(f"{whole}::").partition("::")[0] for other in names if other.startswith(f"{whole}::")}
    constants = modules[whole].constants if whole in modules else {}
    parts = [
        *(_module(other, f"{whole}::", names, functions, modules) for other in sorted(inner)),
        *(f"const {key}: {_CONSTANTS.get(type(value), '?')};" for key, value in constants.items()),
        *(_definition(function) for function in functions if function.name.rpartition("::")[0] == whole),
    ]
    return f"module {name} {{\n" + "\n\n".join(parts) + "\n}"


def _definition(function: Function, *, returns: str = "?") -> str:
    """Return the definition of a function with its documentation; `returns`: its value's type, if that is not known."""
    parameters = ("named: map" if text.startswith("#{") else text for text in function.parameters)
    parted = [parameter.partition(": ")[::2] for parameter in parameters]
    named = [(re.sub(r"\W", "", name) or "_", _type(kind)) for name, kind in parted]
    doc = "".join(f"/// {line}".rstrip() + "\n" for line in function.doc.strip().splitlines())
    return doc + _line(function.name.rpartition("::")[2], named, _type(function.returns, unknown=returns))


def _members(cls: HostType, slots: Mapping[str, str]) -> Iterable[str]:
    """Define the methods, properties and operators of a class."""
    forms = Counter((name, function) for name, _, function in cls.functions)
    for name, types, function in cls.functions:
        is_unknown = forms[name, function] > _MOST_FORMS and len(types) > 1  # without a signature, any number would do
        if name != cls.name and not name.startswith("index$") and not is_unknown:
            named = [("_" if place else "this", _type(slots.get(kind, kind))) for place, kind in enumerate(types)]
            yield _line(name, named, "?")


def _line(name: str, parameters: list[tuple[str, str]], returns: str) -> str:
    name = re.sub(r"\A([gs]et)\$", r"\1 ", name)
    if not _IDENTIFIER.fullmatch(name):
        return f"op {name}({', '.join(kind for _, kind in parameters)}) -> {returns};"
    return f"fn {name}({', '.join(f'{parameter}: {kind}' for parameter, kind in parameters)}) -> {returns};"


def _type(text: str, *, unknown: str = "?") -> str:
    """Return a type's name in definitions."""
    text = re.sub(r"\AResult<(.*), ?Box<EvalAltResult>>\Z", r"\1", text.removeprefix("&mut ").strip())
    if text in _NAMES:
        return _NAMES[text]
    return "|".join(_NAMES.get(part, part) for part in text.split(" | ")) if text else unknown
