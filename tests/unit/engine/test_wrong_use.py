"""Wrong use: each argument of each public function of Engine, Limits and Scope, with every odd value."""

import asyncio
import functools
import re
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import CancelToken, Engine, Limits, Scope

ODD: list[Any] = [
    *(None, True, 0, 1, -1, 2**70, 1.5, float("nan"), float("inf"), -0.5),
    *(
        "",
        "a b",
        "if",
        "1a",
        "\ud800",
        b"bytes",
        [],
        [1],
        (),
        {},
        {1: 2},
        {"a b": 1},
        {"if": 1},
        {"": 1},
        {"x": object()},
    ),
    *(object(), object, Path("/nowhere"), PurePath("x"), len, lambda: 1, Engine, Limits(), Scope(x=1), CancelToken()),
]
REFUSALS = (TypeError, ValueError, OverflowError, OSError, KeyError, errors.RhaiError)
RUST = re.compile(r"Py(String|Any|Dict|Tuple|Int|Float|Mapping)\b|::|rhai_tasks_engine|has no attribute|<'a>|Option<")
"""What an error does not show: names of Rust's types, and attributes that the author has never heard of."""


NO_NAME = (
    " is not a valid name of a variable: expected ASCII letters, digits and underscores, no digit first, and no word "
    "that Rhai keeps for itself"
)

SHARED = Engine(limits=Limits(timeout=5))


def run_async(call: Callable[[], Any]) -> Any:
    async def wait() -> Any:
        return await call()

    return asyncio.run(wait())


def with_option(method: str, name: str, value: Any) -> Any:
    arguments = ("fn f(x) { 1 } 1", "f", 1) if method.startswith("call") else ("1",)
    call = getattr(SHARED, method)
    if method.endswith("_async"):
        return run_async(lambda: call(*arguments, **{name: value}))
    return call(*arguments, **{name: value})


def limits(name: str, value: Any) -> Limits:
    return Limits(**{name: value})


def refusal(use: str, value: Any) -> str | None:
    """Return the text of the error that refuses a value, if one does. Any other error is a defect."""
    try:
        USES[use](value)
    except REFUSALS as error:
        return str(error)
    return None


OPTIONS = ("scope", "constants", "timeout", "cancel", "print", "debug", "args")
METHODS = ("eval", "run", "run_json", "call", "eval_async", "run_async", "call_async")
BOUNDS = ("max_operations", "max_memory")

USES: dict[str, Callable[[Any], Any]] = {
    **{
        f"{method}({name}=)": functools.partial(with_option, method, name)
        for method in METHODS
        for name in (*OPTIONS, *(BOUNDS if method.startswith("run") else ()))
    },
    "eval(script)": lambda value: Engine().eval(value),
    "run(script)": lambda value: Engine().run(value),
    "run_json(script)": lambda value: Engine().run_json(value),
    "live(value)": lambda value: Engine().live(value),
    "call(script)": lambda value: Engine().call(value, "f"),
    "call(target)": lambda value: Engine().call("fn f() { 1 }", value),
    "call(arguments)": lambda value: Engine().call("fn f(x) { 1 }", "f", value),
    "call(this=)": lambda value: Engine().call("fn f() { 1 }", "f", this=value),
    "eval_async(script)": lambda value: run_async(lambda: Engine().eval_async(value)),
    "compile(source)": lambda value: Engine().compile(value),
    "check(source)": lambda value: Engine().check(value),
    "compile(name=)": lambda value: Engine().compile("1", name=value),
    "compile(variables=)": lambda value: Engine().compile("1", variables=value),
    "compile(variables=[...])": lambda value: Engine().compile("1", variables=[value]),
    "Engine(limits=)": lambda value: Engine(limits=value),
    "Engine(print=)": lambda value: Engine(print=value),
    "Engine(debug=)": lambda value: Engine(debug=value),
    "Engine(modules=)": lambda value: Engine(modules=value),
    "Engine(disable=)": lambda value: Engine(disable=value),
    "Engine(strict=)": lambda value: Engine(strict=value),
    "Engine(expressions=)": lambda value: Engine(expressions=value),
    "Engine(threads=)": lambda value: Engine(threads=value),
    **{f"Limits({name}=)": functools.partial(limits, name) for name in Limits.__slots__},
    "register(name)": lambda value: Engine().register(value, lambda: 1),
    "register(function)": lambda value: Engine().register("f", value),
    "function(name=)": lambda value: Engine().function(name=value)(lambda: 1),
    "register_type(cls)": lambda value: Engine().register_type(value),
    "register_type(name=)": lambda value: Engine().register_type(type("T", (), {}), name=value),
    "register_type(members=)": lambda value: Engine().register_type(type("T", (), {}), members=value),
    "register_module(name)": lambda value: Engine().register_module(value, {}),
    "register_module(members)": lambda value: Engine().register_module("m", value),
    "register_module(member)": lambda value: Engine().register_module("m", {"x": value}),
    "convert(cls)": lambda value: Engine().convert(value, to=str),
    "convert(to=)": lambda value: Engine().convert(type("T", (), {}), to=value, from_=str),
    "convert(from_=)": lambda value: Engine().convert(type("T", (), {}), to=str, from_=value),
    "authorize(function)": lambda value: Engine().authorize(value),
    "read(value)": lambda value: Engine().read(value, int),
    "Scope(variable)": lambda value: Scope(x=value),
    "Scope[name]": lambda value: Scope(x=1)[value],
    "Scope[name] = 1": lambda value: Scope().__setitem__(value, 1),
    "del Scope[name]": lambda value: Scope(x=1).__delitem__(value),
    "name in Scope": lambda value: value in Scope(x=1),
    "Scope.set_constant(name)": lambda value: Scope().set_constant(value, 1),
    "Scope.is_constant(name)": lambda value: Scope(x=1).is_constant(value),
    "AST.with_functions_of(other)": lambda value: Engine().compile("1").with_functions_of(value),
    "Scope.rewind(snapshot)": lambda value: Scope().rewind(value),
}


@pytest.mark.parametrize("use", USES)
def test_every_odd_value_passes_or_is_refused_in_pythons_terms(use: str) -> None:
    for value in ODD:
        text = refusal(use, value)
        assert text != "", f"{use} with {value!r}"
        assert not RUST.search(text or ""), f"{use} with {value!r}: {text}"


def test_every_public_function_is_tried() -> None:
    tried = {re.split(r"[(\[. ]", use)[0].split("(")[0] for use in USES} | {"Scope"}
    public = {name for name in dir(Engine) if not name.startswith("_")}
    without_arguments = {
        "functions",
        "definitions",
        "limits",
        "close",
        "authorizers",
        "refusal_of",
        "run_batch",
    }  # the last two: a worker calls them

    assert public - without_arguments <= tried, public - tried


@pytest.mark.parametrize(
    ("use", "value", "text"),
    [
        ("eval(script)", None, "script is None: expected a source, or an AST of Engine.compile"),
        (
            "eval(script)",
            Path("a.rhai"),
            "script is PosixPath('a.rhai'): expected a source, or an AST of Engine.compile; "
            "its text is path.read_text()",
        ),
        ("compile(source)", b"1", "source is b'1': expected a text"),
        ("check(source)", None, "source is None: expected a text"),
        ("call(target)", 5, "target is 5: expected the name of a function, or a FnPtr"),
        (
            "Engine(modules=)",
            "dir",
            "modules is 'dir': expected a Path of a folder, a mapping of paths to sources, or a function from a "
            "path to a source; the folder is Path('dir')",
        ),
        ("Engine(modules=)", Path(__file__), f"modules is {__file__!r}: expected a folder"),
        ("Engine(limits=)", {}, "limits is {}: expected an instance of Limits"),
        ("Engine(print=)", "x", "print is 'x': expected a function of a text"),
        ("Engine(threads=)", 0, "threads is 0: expected at least 1"),
        ("Limits(timeout=)", "5", "timeout is '5': expected a number"),
        ("eval(timeout=)", "5", "timeout is '5': expected a number"),
        ("eval(timeout=)", True, "timeout is True: expected a number"),
        ("eval(timeout=)", 0, "timeout is 0: it must be finite and above 0; None means no bound"),
        ("run(max_operations=)", -1, "max_operations is -1: a limit cannot be negative"),
        ("run(max_memory=)", 1.5, "max_memory is 1.5: expected a whole number"),
        ("eval(cancel=)", 5, "cancel is 5: expected a CancelToken"),
        ("eval_async(cancel=)", 5, "cancel is 5: expected a CancelToken"),
        ("eval(debug=)", 5, "debug is 5: expected a function of text, source name, line and column"),
        ("eval(scope=)", {1: 2}, "a variable is named 1: expected a text"),
        ("eval(scope=)", {"a b": 1}, "'a b'" + NO_NAME),
        ("eval(constants=)", {"if": 1}, "'if'" + NO_NAME),
        ("eval(scope=)", [1], "scope is [1]: expected a Scope, or a mapping of names to values"),
        ("eval(constants=)", 5, "constants is 5: expected a mapping of names to values"),
        ("Scope[name] = 1", "", "''" + NO_NAME),
        ("register(function)", 5, "function is 5: expected a function"),
        ("register_module(name)", 5, "name is 5: expected a text"),
        ("register_module(members)", [1], "members is [1]: expected a mapping of names to functions and constants"),
        ("register_type(members=)", "x", "members is 'x': expected a collection of names"),
        ("convert(cls)", 5, "cls is 5: expected a class"),
        ("convert(to=)", 5, "to is 5: expected a function"),
        ("AST.with_functions_of(other)", 5, "other is 5: expected an AST of Engine.compile"),
    ],
)
def test_a_refusal_says_what_is_wanted(use: str, value: Any, text: str) -> None:
    with pytest.raises((TypeError, ValueError, OSError)) as error:
        USES[use](value)
    assert str(error.value) == text


@pytest.mark.parametrize("name", ["print", "this", "void", "switch", "_", "__", "_1", "Über", "a-b", "$x", "a.b"])
def test_a_name_that_no_script_can_use_is_refused_wherever_it_enters(name: str) -> None:
    uses: list[Callable[[], Any]] = [
        lambda: Engine().eval("1", scope={name: 1}),
        lambda: Engine().eval("1", constants={name: 1}),
        lambda: Scope(**{name: 1}),
        lambda: Scope().set_constant(name, 1),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="not a valid name of a variable"):
            use()


@pytest.mark.parametrize("name", ["x", "self", "_x", "exit", "x1", "X"])
def test_a_name_that_scripts_can_use_is_taken(name: str) -> None:
    assert Engine().eval(name, scope={name: 1}) == Engine().eval(name, scope=Scope(**{name: 1})) == 1


def test_a_path_within_a_value_is_named() -> None:
    with pytest.raises(TypeError, match=r"^cfg\.a\[1\]\.b: an object of object cannot be passed"):
        Engine().eval("1", scope={"cfg": {"a": [0, {"b": object()}]}})


def test_register_type_is_a_decorator_with_arguments() -> None:
    engine = Engine()

    @engine.register_type(name="Colour", members=iter(["loud"]))
    class Color:
        def loud(self) -> str:
            return "RED"

    assert engine.eval("Colour().loud()") == Color().loud()


@pytest.mark.parametrize("mark", ["\ufeff", "#!/usr/bin/env rhai\n", "\ufeff#!/bin/rhai\n"])
def test_marks_of_files_are_no_part_of_a_module(mark: str) -> None:
    assert Engine(modules={"m": f"{mark}fn f() {{ 1 }}"}).eval('import "m" as m; m::f()') == 1


@pytest.mark.parametrize("find", [lambda _: 5, {"m": b"fn f() {}"}, {"m": Path("m")}])
def test_a_loader_that_returns_no_text_is_named_with_the_position(find: Any) -> None:
    with pytest.raises(
        errors.RhaiHostError, match=r"the source of module 'm' is of type .*: expected a text, or None"
    ) as error:
        Engine(modules=find).eval('1;\nimport "m" as m;')
    assert (error.value.line, error.value.column) == (2, 8)


def test_an_exception_of_a_loader_has_the_position() -> None:
    def find(path: str) -> str:
        raise LookupError(path)

    with pytest.raises(errors.RhaiHostError) as error:
        Engine(modules=find).eval('import "m" as m;')
    assert (error.value.line, error.value.column) == (1, 8)
    assert isinstance(error.value.__cause__, LookupError)


def test_a_function_that_a_library_function_hides_is_named() -> None:
    engine = Engine()

    with pytest.warns(UserWarning, match="len: Rhai's own comes first for array, blob, map, string; annotate"):
        engine.register("len", lambda _: 1)
    with pytest.warns(UserWarning, match="sin: Rhai's own comes first for decimal, f64; annotate"):
        engine.register("sin", lambda _: 1)
    assert engine.eval('["abc".len(), true.len()]') == [3, 1]


@pytest.mark.filterwarnings("error")
def test_a_function_that_nothing_hides_is_taken_silently() -> None:
    engine = Engine()

    def length(value: bool) -> int:
        return 7

    engine.register("len", length)
    engine.register("fetch", lambda _: 1)
    engine.register("len", lambda _, __, ___: 1)
    assert engine.eval("true.len()") == 7
