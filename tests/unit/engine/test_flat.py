"""Whatever an engine is used for again and again, its process does not grow."""

import gc
import threading
from collections.abc import Callable

import psutil
import pytest

from rhai_tasks import errors
from rhai_tasks.engine import Engine, Limits, Scope

MIB = 1024 * 1024


def grown(repeat: Callable[[int], object], times: int) -> int:
    """Return the bytes by which the process grew in the last nine tenths."""
    process = psutil.Process()
    repeat(times // 10)
    gc.collect()
    before = process.memory_info().rss
    repeat(times - times // 10)
    gc.collect()
    return int(process.memory_info().rss - before)


def test_a_million_evaluations_leave_nothing_behind() -> None:
    engine = Engine()

    def evaluate(times: int) -> None:
        for _ in range(times):
            engine.eval("40 + 2")

    assert grown(evaluate, 1_000_000) < 2 * MIB


def test_a_million_host_calls_leave_nothing_behind() -> None:
    engine = Engine()
    engine.register("pair", lambda number: [number, str(number)])

    def call(times: int) -> None:
        engine.eval("for i in 0..times { pair(i); }", scope={"times": times})

    assert grown(call, 1_000_000) < 2 * MIB


def test_ten_thousand_scripts_beyond_the_cache_leave_nothing_behind() -> None:
    engine = Engine()
    numbers = iter(range(1_000_000))

    def compile_(times: int) -> None:
        for _ in range(times):
            engine.eval(f"fn f(x) {{ x * {next(numbers)} }} let m = #{{a: [1, 2, 3]}}; f(m.a.len())")

    assert grown(compile_, 20_000) < 4 * MIB


def test_small_scripts_that_compile_to_much_leave_little_behind() -> None:
    """Of constants that are named again and again, what is compiled holds as many copies."""
    engine = Engine()
    numbers = iter(range(1000))

    def compile_(times: int) -> None:
        for _ in range(times):
            table, copies = "1, " * 1000, "T, " * 500
            engine.eval(f"const T = [{table}{next(numbers)}]; const C = [{copies}]; 1")

    assert grown(compile_, 60) < 40 * MIB


def test_errors_values_and_scopes_leave_nothing_behind() -> None:
    engine = Engine()
    engine.register("fail", lambda: int("x"))
    scope = Scope(x=1)
    value = {"list": [1, 2.5, "text", None], "inner": {"k": [b"bytes"]}}

    def mix(times: int) -> None:
        for _ in range(times):
            engine.eval("x", scope={"x": value})
            engine.eval("x += 1", scope=scope)
            with pytest.raises(errors.RhaiHostError):
                engine.eval("fail()")
            with pytest.raises(errors.RhaiThrow):
                engine.eval("throw #{a: [1]}")
            engine.eval("print(1)", details=True, print=str)

    assert grown(mix, 20_000) < 4 * MIB


def test_engines_leave_nothing_behind() -> None:
    """Each is in a cycle with its function: collected here, as memory of many at once is not given back."""

    def make(times: int) -> None:
        for number in range(times):
            engine = Engine()
            engine.register("again", lambda engine=engine: engine)
            engine.eval("40 + 2")
            if number % 100 == 99:
                gc.collect()

    assert grown(make, 1_000) < 8 * MIB


def test_threads_that_come_and_go_leave_nothing_behind() -> None:
    """Each keeps small blocks of memory for its next evaluation, until it ends."""
    engine = Engine()
    script = 'let m = #{}; for i in 0..200 { m[`key ${i}`] = `${i}`.split(""); } m.len()'

    def start(times: int) -> None:
        for _ in range(times):
            thread = threading.Thread(target=engine.eval, args=(script,))
            thread.start()
            thread.join()

    assert grown(start, 2_000) < 4 * MIB


def test_what_an_attack_took_is_given_back() -> None:
    engine = Engine(limits=Limits(max_memory=64 * MIB))

    def attack(times: int) -> None:
        for _ in range(times):
            with pytest.raises(errors.RhaiMemoryLimit):
                engine.eval("let f = || 1; loop { let g = f; f = || g; }")

    before = psutil.Process().memory_info().rss
    attack(2)

    assert psutil.Process().memory_info().rss - before < 16 * MIB
