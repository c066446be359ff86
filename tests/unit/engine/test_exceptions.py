"""Exceptions of host functions: which one ends a script, and which it has dealt with."""

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import Engine, FnPtr


class Missing(Exception):
    pass


@pytest.fixture
def engine() -> Engine:
    engine = Engine()

    @engine.function
    def fetch(name: str) -> str:
        raise Missing(f"no {name}")

    @engine.function
    def attempt(function: FnPtr) -> str:
        try:
            return str(function())
        except errors.RhaiError as error:
            return f"{type(error).__name__} {error.__cause__!r}"

    return engine


@pytest.mark.parametrize(
    "script",
    [
        'try { fetch("x") } catch {} throw "no x"',
        'try { fetch("x") } catch (e) { throw "no " + "x" }',
        'let seen = ""; try { fetch("x") } catch (e) { seen = e } throw "no x"',
        'fn f() { try { fetch("x") } catch {} } f(); throw "no x"',
        'attempt(|| fetch("x")); throw "no x"',
        'attempt(|| { try { fetch("x") } catch {} throw "no x" }); throw "no x"',
    ],
)
def test_a_throw_with_the_text_of_an_exception_is_none(engine: Engine, script: str) -> None:
    with pytest.raises(errors.RhaiThrow, match="no x") as raised:
        engine.run(script)
    assert not isinstance(raised.value, errors.RhaiHostError)
    assert raised.value.__cause__ is None
    assert raised.value.thrown == "no x"


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ('try { fetch("x") } catch (e) { throw e }', "no x"),
        ('try { fetch("x") } catch { throw }', "no x"),
        ('let first = (); try { fetch("x") } catch (e) { first = e } try { fetch("y") } catch {} throw first', "no x"),
        ('try { fetch("x") } catch {} fetch("y")', "no y"),
        ('try { fetch("x") } catch {} fetch("x")', "no x"),
        ('fn f() { fetch("x") } [1].map(|x| f())', "no x"),
        ('try { fetch("") } catch (e) { throw e }', "no "),
    ],
)
def test_an_exception_thrown_on_is_the_cause(engine: Engine, script: str, text: str) -> None:
    with pytest.raises(errors.RhaiHostError) as raised:
        engine.run(script)
    assert isinstance(raised.value.__cause__, Missing)
    assert str(raised.value.__cause__) == text


def test_an_exception_that_a_script_has_dealt_with_is_freed(engine: Engine) -> None:
    alive: list[int] = []
    seen: list[weakref.ref[Exception]] = []

    @engine.function
    def fail() -> None:
        error = Missing("again")
        seen.append(weakref.ref(error))
        raise error

    @engine.function
    def count() -> None:
        gc.collect()
        alive.append(sum(1 for error in seen if error() is not None))

    engine.eval("for i in 0..20 { try { fail() } catch {} } count()")
    assert alive[0] <= 1


class Failing:
    def __init__(self, after: int = 0) -> None:
        self.after = after

    def __iter__(self) -> Iterator[int]:
        yield from range(self.after)
        raise Missing("no more")


class Unstarted:
    def __iter__(self) -> Iterator[int]:
        raise Missing("no more")


@pytest.mark.parametrize("make", [Unstarted, Failing, lambda: Failing(3)])
@pytest.mark.parametrize(
    "loop",
    [
        "for x in o {}",
        "for x in o { }; 1",
        "for x in o { 1; }",
        "for x in o { let y = 1; }",
        "for (x, i) in o {}",
        "for x in o { x }",
        "fn f(o) { for x in o {} } f(o)",
        "[o].map(|o| { for x in o {} })",
        "[3, 1].sort(|a, b| { for x in o {} a - b })",
        "while true { for x in o {} }",
        "if true { for x in o {} }",
    ],
)
def test_an_exception_of_an_iteration_ends_the_script(make: Callable[[], Any], loop: str) -> None:
    engine = Engine()
    engine.register_type(Failing)
    engine.register_type(Unstarted)

    with pytest.raises(errors.RhaiHostError, match="Runtime error: no more") as raised:
        engine.run(loop, scope={"o": make()})
    assert isinstance(raised.value.__cause__, Missing)
    assert raised.value.line == 1
    assert engine.eval("let n = 0; for x in [1, 2] {} n") == 0


def test_a_loop_without_a_body_takes_all_items() -> None:
    engine = Engine()
    taken: list[int] = []

    class Counting:
        def __iter__(self) -> Iterator[int]:
            for number in range(3):
                taken.append(number)
                yield number

    engine.register_type(Counting)
    assert engine.eval("for x in Counting() {} 5") == 5
    assert taken == [0, 1, 2]


def test_a_body_can_catch_what_an_iteration_raises() -> None:
    engine = Engine()
    engine.register_type(Failing)

    script = "let seen = []; try { for x in Failing(2) { seen.push(x) } } catch (e) { seen.push(e) } seen"
    assert engine.eval(script) == [0, 1, "no more"]
