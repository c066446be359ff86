"""Wrong arguments: the exceptions that say what was expected."""

import reprlib
from pathlib import PurePath

from .limits import check_bound, check_timeout

_EXPECTED = {
    "cancel": "a CancelToken",
    "cls": "a class",
    "constants": "a mapping of names to values",
    "debug": "a function of text, source name, line and column",
    "disable": "a collection of names",
    "expressions": "True or False",
    "function": "a function",
    "limits": "an instance of Limits",
    "members": "a collection of names",
    "modules": "a Path of a folder, a mapping of paths to sources, or a function from a path to a source",
    "name": "a text",
    "other": "an AST of Engine.compile",
    "print": "a function of a text",
    "scope": "a Scope, or a mapping of names to values",
    "script": "a source, or an AST of Engine.compile",
    "source": "a text",
    "strict": "True or False",
    "target": "the name of a function, or a FnPtr",
    "value": "a list, or a dictionary",
    "variables": "a collection of names",
}


def refusal(name: str, value: object) -> Exception:
    """Return the exception for an argument of a wrong type or value."""
    try:
        if name == "timeout":
            check_timeout(value)
        elif name in {"max_operations", "max_memory"}:
            check_bound(name, value)
    except ValueError as error:
        return error
    if name == "variable":
        if not isinstance(value, str):
            return TypeError(f"a variable is named {reprlib.repr(value)}: expected a text")
        return ValueError(
            f"{value!r} is not a valid name of a variable: expected ASCII letters, digits and underscores, no digit "
            "first, and no word that Rhai keeps for itself"
        )
    hint = ""
    if name in {"script", "source"} and isinstance(value, PurePath):
        hint = "; its text is path.read_text()"
    elif name == "modules" and isinstance(value, str):
        hint = f"; the folder is Path({value!r})"
    return TypeError(f"{name} is {reprlib.repr(value)}: expected {_EXPECTED.get(name, 'something else')}{hint}")
