"""Tests in Rhai: the functions `test_...` of files `*.test.rhai`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .engine import AST, Engine, FnPtr
from .errors import RhaiError

SUFFIX = ".test.rhai"
"""How the name of a file with tests ends."""

_TEST_SECONDS = 60.0
_CONSTANTS = {"CALLER_ID": "caller", "CONTEXT_ID": "circle"}


@dataclass(frozen=True, slots=True)
class ScriptTest:
    """One test.

    Attributes:
        engine: Runs it.
        script: The file, with the functions of the script that it tests.
        name: The function.
    """

    engine: Engine
    script: AST
    name: str

    def run(self, **options: Any) -> None:
        """Run the test, with these further options of `Engine.call`.

        Raises:
            RhaiError: It failed.
        """
        self.engine.call(self.script, self.name, constants=_CONSTANTS, timeout=_TEST_SECONDS, **options)


def find_files(path: Path) -> list[Path]:
    """List the files with tests in a folder and below it; a file is listed itself."""
    return [path] if path.is_file() else sorted(path.rglob(f"*{SUFFIX}"))


def add_assertions(engine: Engine) -> Engine:
    """Give an engine the functions `assert`, `assert_eq`, `assert_ne` and `assert_throws`, and return it."""
    for function in (_assert_eq, _assert_ne, _assert_throws):
        engine.register(function.__name__.removeprefix("_"), function)
    engine.register("assert", _assert)
    return engine


def find_tests(engine: Engine, file: Path) -> Iterator[ScriptTest]:
    """Yield the tests of a file, in the order of their names.

    Of `shop.test.rhai`, the tests can call the functions of `shop.rhai` beside it. A function that the tests define
    takes the place of the one in the script, or of the host's, with its name and number of parameters.

    Raises:
        RhaiSyntaxError: One of both does not compile.
        OSError, UnicodeDecodeError: One of both cannot be read.
    """
    script = engine.compile(file.read_text(encoding="utf-8"), name=file.name)
    tests = [function.name for function in script.functions if _is_test(function.name, function.parameters)]
    tested = file.with_name(f"{file.name.removesuffix(SUFFIX)}.rhai")
    if tested.exists():
        script = script.with_functions_of(engine.compile(tested.read_text(encoding="utf-8"), name=tested.name))
    return (ScriptTest(engine, script, name) for name in tests)


def _is_test(name: str, parameters: tuple[str, ...]) -> bool:
    return name.startswith("test_") and not parameters


def _assert(condition: bool) -> None:
    if not condition:
        raise AssertionError("assert: the value is false")


def _assert_eq(actual: Any, expected: Any) -> None:
    if not _are_equal(actual, expected):
        raise AssertionError(f"assert_eq: expected {expected!r}, not {actual!r}")


def _assert_ne(actual: Any, other: Any) -> None:
    if _are_equal(actual, other):
        raise AssertionError(f"assert_ne: expected another value than {actual!r}")


def _assert_throws(function: FnPtr) -> str:
    """Call a function that must fail, and return the text of its error."""
    try:
        function()
    except RhaiError as error:
        return str(error)
    raise AssertionError("assert_throws: the function did not fail")


def _are_equal(one: Any, other: Any) -> bool:
    """Whether values are equal as Rhai has it: `1` is not `true`."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_are_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_equal(one[key], other[key]) for key in one)
    return bool(one == other)
