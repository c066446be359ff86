"""What a script holds, and what is made of its values, counts in its limits."""

import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rhai_tasks.engine import CancelToken, Engine, Limits, Scope, last_use
from rhai_tasks.errors import (
    RhaiCancelled,
    RhaiError,
    RhaiMemoryLimit,
    RhaiOperationLimit,
    RhaiSyntaxError,
    RhaiThrow,
    RhaiTimeout,
)

MIB = 1024 * 1024
INTERPOLATED = "`" + "${1}" * 40_000 + "`"


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


# The parser takes it for granted that an interpolated string has an end, and panics where the reading is ended.
def test_a_limit_of_memory_that_ends_the_reading_of_an_interpolated_string_is_no_panic() -> None:
    engine = Engine(limits=Limits(max_memory=MIB))

    with pytest.raises(RhaiMemoryLimit):
        engine.eval('let s = ""; s.pad(40000, "${1}"); eval("`" + s + "`").len')
    with pytest.raises(RhaiMemoryLimit):
        engine.compile(INTERPOLATED * 4)
    with pytest.raises(RhaiMemoryLimit):
        engine.eval(INTERPOLATED * 4)


@cache
def stopped_after(operations: int) -> Engine:
    """Make an engine that stops scripts there; all cases together run a thousand, and to make one takes longest."""
    return Engine(limits=Limits(max_memory=6 * MIB, max_operations=operations))


# Rhai writes the text itself, without bounds, if the check before `to_string` ends the script.
@pytest.mark.parametrize(
    "expression",
    [
        *("v", "[v]", "#{v: v}", "take(v)", "f(v)", "if true { v }", "{ let w = v; w }", "()}${v", "'a'}b${[v, v]"),
        *("w[0]", "w.pop()", "w.shift()", "w.remove(0)", "w.remove(-1)", "w.drain(0, 1)", "w.map(|x| x)"),
        *("m.v", "m.remove(`v`)", "m.values()", "w.reduce(|sum, x| x, 0)", "w.filter(|x| true)", "v ?? 1", "eval(`v`)"),
    ],
)
def test_a_stop_at_any_operation_leaves_the_text_of_an_interpolated_value_bounded(expression: str) -> None:
    scope = Scope()
    Engine().run("let v = []; let s = blob(200_000, 97).as_string(); for i in 0..500 { v += s; }", scope=scope)
    source = f"fn f(x) {{ x }} let w = [v, v]; let m = #{{v: v}}; `${{{expression}}}`"
    ends = set()
    for operations in range(1, 45):
        with pytest.raises(RhaiError) as raised:
            stopped_after(operations).run(source, scope=scope.copy())
        ends.add(raised.type)

        assert last_use()[1] < 12 * MIB, f"after {operations} operations"
    assert ends == {RhaiOperationLimit, RhaiMemoryLimit}


# Rhai looks for a function in 65,536 ways without a check between them, each by the types of all arguments.
@pytest.mark.parametrize("source", ["f({})", "#{{}}.f({})", "Fn(`f`).call({})", "fn f({}) {{}}", "m::f({})"])
def test_a_call_has_no_more_arguments_than_rhai_finds_a_function_for_in_time(source: str) -> None:
    engine = Engine(limits=Limits(max_memory=0))

    def parameters(number: int) -> str:
        return source.format(", ".join(f"x{place}" for place in range(number)))

    with pytest.raises(RhaiSyntaxError, match="A function takes at most 255 arguments"):
        engine.compile(parameters(256))
    engine.compile(parameters(255))
    engine.compile(f"[{', '.join('1' * 1_000)}]; #{{{', '.join(f'x{place}: (1)' for place in range(300))}}}; f(1, 2)")
    with pytest.raises(RhaiSyntaxError, match="A function takes at most 255 arguments"):
        engine.eval("eval(s)", scope={"s": parameters(256)})
    assert engine.eval("eval(`[1, 2].len()`)") == 2


@pytest.mark.parametrize(
    "before", ["", " " * 70_000, "\n" * 70_000], ids=["here", "in a long line", "behind many lines"]
)
@pytest.mark.parametrize(
    "argument",
    [
        "1",
        "`${1}`",
        "`\n${1 + 1}\n`",
        "#{a: 1}",
        "[1, 2]",
        "|x| x",
        "g(1, 2)",
        "1 // one\n",
        "1 /* \n */",
        '#"\n"#',
        "{ 1 }",
    ],
)
def test_arguments_are_counted_whatever_they_are_and_wherever(argument: str, before: str) -> None:
    engine = Engine(limits=Limits(max_memory=0))

    with pytest.raises(RhaiSyntaxError, match="A function takes at most 255 arguments"):
        engine.compile(f"{before}f({','.join([argument] * 256)})")
    with pytest.raises(RhaiSyntaxError, match="Expecting|expected|missing|Unexpected"):
        engine.compile("f(1, 2")
    engine.compile(";".join(["|a, b| a"] * 300))  # the brackets that an error left open count no commas of these


@pytest.mark.parametrize(
    "call",
    ["hit()", "hit(1, [2])", "hits::hit()", "Hit()", "hit.hit()", "hit.count", "hit[0]", "hit + 1", "given.call()"],
)
def test_no_function_of_the_host_begins_in_a_script_that_has_been_stopped(call: str) -> None:
    calls: list[object] = []

    class Hit:
        def __init__(self) -> None:
            calls.append(self)

        @property
        def count(self) -> int:
            calls.append(self)
            return 1

        def hit(self) -> None:
            calls.append(self)

        __getitem__ = __add__ = lambda self, _: calls.append(self)

    def run(operations: int) -> bool:
        engine = Engine(limits=Limits(max_operations=operations))
        engine.register("hit", lambda *values: calls.append(values))
        engine.register_module("hits", {"hit": lambda: calls.append(1)})
        engine.register_type(Hit)
        scope = Scope(hit=Hit(), given=lambda: calls.append(1))
        calls.clear()
        try:
            engine.run(call, scope=scope)
        except RhaiOperationLimit:
            return False
        return True

    enough = next(operations for operations in range(1, 50) if run(operations))

    assert len(calls) == 1
    for operations in range(1, enough):
        assert not run(operations)
        assert calls == [], f"after {operations} of {enough} operations"


def test_a_limit_of_time_that_ends_the_reading_of_an_interpolated_string_is_no_panic() -> None:
    engine = Engine(limits=Limits(timeout=1e-4, max_memory=0))

    with pytest.raises(RhaiTimeout):
        engine.compile(INTERPOLATED)
    with pytest.raises(RhaiTimeout):
        engine.eval("eval(s)", scope={"s": INTERPOLATED})


def test_a_cancellation_that_ends_the_reading_of_an_interpolated_string_is_no_panic() -> None:
    token, engine = CancelToken(), Engine()
    token.cancel()

    with pytest.raises(RhaiCancelled):
        engine.eval(INTERPOLATED, cancel=token)


def test_a_panic_of_a_closure_that_a_host_function_calls_is_the_stop_that_stands() -> None:
    engine, seen = Engine(limits=Limits(max_memory=MIB)), list[BaseException]()

    @engine.function
    def apply(function: Any) -> None:
        try:
            function()
        except RhaiError as error:
            seen.append(error)

    with pytest.raises(RhaiMemoryLimit):
        engine.eval('let s = ""; s.pad(40000, "${1}"); apply(|| eval("`" + s + "`").len)')
    assert [type(error) for error in seen] == [RhaiMemoryLimit]


# Values whose Python objects take several times their own memory, and much longer to make.
WIDE = "let a = []; a.pad(600_000, '🦀');"
MANY = "let a = []; a.pad(150_000, []);"


def given(engine: Engine) -> list[Any]:
    got: list[Any] = []
    engine.register("give", got.append)
    return got


CONVERSIONS: dict[str, Callable[[Engine, str], object]] = {
    "result": lambda engine, make: engine.eval(f"{make} a"),
    "details": lambda engine, make: engine.eval(f"{make} a", details=True),
    "in a map": lambda engine, make: engine.eval(f"{make} #{{a: a}}"),
    "thrown": lambda engine, make: engine.eval(f"{make} throw a"),
    "argument": lambda engine, make: given(engine) or engine.eval(f"{make} give(a)"),
}


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_the_python_objects_of_a_value_count_as_memory(convert: Callable[[Engine, str], object]) -> None:
    with pytest.raises(RhaiMemoryLimit, match="memory limit of 32 MiB exceeded"):
        convert(Engine(limits=Limits(max_memory=32 * MIB)), WIDE)


@pytest.mark.parametrize("convert", CONVERSIONS.values(), ids=CONVERSIONS)
def test_a_value_is_converted_within_the_time_limit(convert: Callable[[Engine, str], object]) -> None:
    def seconds(engine: Engine) -> float:
        start = time.process_time()
        with pytest.raises(RhaiThrow) if convert is CONVERSIONS["thrown"] else nullcontext():
            convert(engine, MANY)
        return time.process_time() - start

    needed = min(seconds(Engine(limits=Limits(max_memory=0))) for _ in range(3))

    with pytest.raises(RhaiTimeout, match="time limit of"):
        convert(Engine(limits=Limits(max_memory=0, timeout=needed / 3)), MANY)


def test_what_a_host_function_returns_counts_as_memory_and_time() -> None:
    engine = Engine(limits=Limits(max_memory=8 * MIB))
    engine.register("numbers", lambda: [0] * 1_000_000)
    engine.register("nested", lambda: [[[0] * 90] * 90] * 90)

    for function in ("numbers", "nested"):
        with pytest.raises(RhaiMemoryLimit):
            engine.eval(f"{function}().len")

    engine = Engine(limits=Limits(max_memory=0, timeout=0.01))
    engine.register("nested", lambda: [[[0] * 90] * 90] * 90)
    with pytest.raises(RhaiTimeout):
        engine.eval("nested().len")


def test_large_values_within_the_limits_are_converted() -> None:
    engine = Engine(limits=Limits(timeout=60.0))

    assert engine.eval("let a = []; a.pad(1_000_000, 7); a") == [7] * 1_000_000
    assert engine.eval('let s = ""; s.pad(1_000_000, "é🦀"); s') == "é🦀" * 500_000
    assert engine.run('let s = ""; s.pad(10_000_000, "a"); s') == "a" * 10_000_000
    assert len(engine.eval("blob(50_000_000, 1)")) == 50_000_000


def test_a_scope_keeps_only_the_newest_variable_of_a_name() -> None:
    engine, scope = Engine(), Scope()
    engine.eval("let b = 0", scope=scope)
    before = resident()

    for number in range(30):
        engine.eval(f"let b = blob(10_000_000, {number})", scope=scope)

    assert resident() - before < 100 * MIB
    assert list(scope) == ["b"]
    assert scope["b"][:1] == b"\x1d"
    del scope["b"]
    assert "b" not in scope


def test_no_variable_of_a_scope_is_uncovered() -> None:
    engine, scope = Engine(), Scope(x=1)
    engine.eval("let y = 1; let x = 2; const x = 3; let y = 4; let z = 5", scope=scope)

    assert dict(scope) == {"x": 3, "y": 4, "z": 5}
    assert len(scope) == 3
    assert scope.is_constant("x")
    del scope["x"]
    assert dict(scope) == {"y": 4, "z": 5}

    scope.set_constant("z", 6)
    assert scope.constants() == {"z": 6}
    del scope["z"]
    assert list(scope) == ["y"]


def test_variables_of_a_call_stay_out_of_its_scope() -> None:
    engine, scope = Engine(), Scope(x=1)

    assert engine.eval("let c = 5; c + x", scope=scope, constants={"c": 1}) == 6
    assert dict(scope) == {"c": 5, "x": 1}


def test_what_a_scope_holds_counts_as_memory() -> None:
    engine, scope = Engine(limits=Limits(max_memory=32 * MIB)), Scope()

    def fill() -> None:
        for number in range(30):
            engine.eval(f"let b{number} = blob(4_000_000, 1)", scope=scope)

    with pytest.raises(RhaiMemoryLimit):
        fill()
    assert 4 <= len(scope) <= 8

    for name in list(scope)[2:]:
        del scope[name]
    assert engine.eval("let c = blob(16_000_000, 1); c.len", scope=scope) == 16_000_000


def test_what_an_application_puts_into_a_scope_counts_as_memory() -> None:
    engine, scope = Engine(limits=Limits(max_memory=32 * MIB)), Scope(x=bytes(30 * MIB))

    with pytest.raises(RhaiMemoryLimit):
        engine.eval("blob(4_000_000).len", scope=scope)
    scope["x"] = b""
    assert engine.eval("blob(4_000_000).len", scope=scope) == 4_000_000


def test_an_array_that_grows_in_a_scope_counts_as_memory() -> None:
    engine, scope = Engine(limits=Limits(max_memory=16 * MIB)), Scope(a=[])

    def grow() -> None:
        for _ in range(40):
            engine.eval("for i in 0..50_000 { a.push(i) }", scope=scope)

    with pytest.raises(RhaiMemoryLimit):
        grow()
    assert len(scope["a"]) < 1_100_000


def test_results_and_what_scripts_free_do_not_count_as_a_scopes() -> None:
    engine, scope = Engine(limits=Limits(max_memory=16 * MIB)), Scope(a=[1] * 10_000)

    for _ in range(40):
        assert len(engine.eval("let b = blob(4_000_000, 1); let c = b; b = (); let r = c; c = (); r", scope=scope)) > 0
        engine.eval("r = (); a.pad(20_000, 1); a.truncate(10_000)", scope=scope)
