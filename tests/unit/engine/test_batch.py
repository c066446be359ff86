"""Batches: many scripts in one call."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Engine, Limits
from rhai_tasks.engine import Batch, CancelToken
from rhai_tasks.engine.output import log_debug
from rhai_tasks.errors import RhaiMemoryLimit, RhaiSyntaxError, RhaiTerminated, RhaiThrow, RhaiTimeout


def batch_of(*scripts: str | bytes, tokens: dict[int, CancelToken] | None = None) -> Batch:
    """Make a batch whose scripts have the constants `FIRST`, which is `a`, and `PLACE`, their position."""
    sources = [script if isinstance(script, bytes) else script.encode() for script in scripts]
    return Batch(
        ("FIRST", "PLACE"),
        [
            (source, (b"a", str(place).encode()), (tokens or {}).get(place, CancelToken()))
            for place, source in enumerate(sources)
        ],
    )


def run(engine: Engine, batch: Batch, **options: Any) -> list[Any]:
    """Run a batch to its end, and return how each script has ended."""
    options = {"timeout": None, "patience": 10.0, "print": lambda _: None, "debug": log_debug, **options}
    engine.run_batch(batch, **options)
    return [ended for _, ended, *_ in batch.take_ended()]


def test_each_script_has_its_own_constants_and_output() -> None:
    batch = batch_of("FIRST + PLACE", "fn f() { PLACE } f()", '"x"', "()", "[1, #{a: 2}]")

    assert run(Engine(), batch) == ["a0", "1", "x", "", '[1, #{"a": 2}]']
    assert (batch.left, batch.begun, batch.running) == (0, 5, None)


def test_outputs_are_those_of_single_runs() -> None:
    scripts = ["40 + 2", "1.5", "true", "'c'", '"é"', "#{}", "timestamp() - timestamp() < 1.0", "FIRST", "|x| x + 1"]
    engine = Engine()

    alone = [engine.run(script, constants={"FIRST": "a", "PLACE": str(place)}) for place, script in enumerate(scripts)]

    assert run(engine, batch_of(*scripts)) == alone


def test_a_script_that_fails_keeps_no_other_from_running() -> None:
    scripts: list[str | bytes] = ["1", "throw 5", "1 +", b"\xff", "loop {}", 'let s = "x"; loop { s += s }', "6"]

    one, threw, syntax, not_utf8, late, large, six = run(
        Engine(limits=Limits(max_memory=2**20)), batch_of(*scripts), timeout=0.05
    )

    assert (one, six) == ("1", "6")
    assert isinstance(threw, RhaiThrow)
    assert "5" in str(threw)
    assert isinstance(syntax, RhaiSyntaxError)
    assert not_utf8 is None
    assert isinstance(late, RhaiTimeout)
    assert isinstance(large, RhaiMemoryLimit)


def test_a_constant_that_is_no_text_ends_its_script_alone() -> None:
    token = CancelToken()
    batch = Batch(("CALLER",), [(b"1", (b"\xff",), token), (b"CALLER", (b"c",), token)])

    assert run(Engine(), batch) == [None, "c"]


def test_a_token_stops_its_own_script() -> None:
    stopped = CancelToken()
    stopped.cancel()

    first, second = run(Engine(), batch_of("1", "2", tokens={0: stopped}))

    assert isinstance(first, RhaiTerminated)
    assert second == "2"


def test_it_tells_what_each_script_took() -> None:
    batch = batch_of("sleep(0.01)", "let x = 0; while x < 10000 { x += 1 } sleep(0.3)", "blob(100000, 1).len")

    start = time.perf_counter()
    Engine().run_batch(batch, timeout=None, patience=10.0, print=lambda _: None, debug=log_debug)
    elapsed = time.perf_counter() - start

    (_, _, short, few, _), (_, _, long, many, _), (_, _, last, _, peak) = batch.take_ended()
    assert short >= 0.01
    assert long >= 0.3
    assert last > 0
    assert short + long + last <= elapsed
    assert few < 10
    assert many > 10_000
    assert 100_000 < peak < 200_000


def test_no_further_script_begins_after_a_while() -> None:
    batch = batch_of("1", "sleep(0.02)", "3", "4")
    engine = Engine()

    assert run(engine, batch, patience=0.01) == ["1", ""]
    assert (batch.left, batch.begun) == (2, 2)
    assert run(engine, batch, patience=0.01) == ["3", "4"]


def test_another_thread_takes_the_scripts_that_have_not_begun() -> None:
    engine, batch = Engine(), batch_of("1", "wait(); 2", "3", "4")
    waits, taken = threading.Event(), threading.Event()

    @engine.function
    def wait() -> None:
        waits.set()
        assert taken.wait(10)

    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend(run(engine, batch)))
    thread.start()
    assert waits.wait(10)

    position, seconds = batch.running or (None, 0.0)
    assert position == 1
    assert [(position, ended) for position, ended, *_ in batch.take_ended()] == [(0, "1")]
    assert 0 <= seconds < 10
    assert (batch.left, batch.split(), batch.split()) == (2, (2, 4), (2, 2))
    taken.set()
    thread.join()
    assert found == ["2"]


def test_before_each_script_its_position_is_told() -> None:
    engine, told = Engine(), list[int]()

    @engine.function
    def last() -> int:
        return told[-1]

    assert run(engine, batch_of("last()", "last()", "last()"), begin=told.append) == ["0", "1", "2"]
    assert told == [0, 1, 2]


def test_what_that_raises_ends_the_script() -> None:
    def begin(position: int) -> None:
        if position == 1:
            raise ValueError("not this one")

    first, second, third = run(Engine(), batch_of("1", "2", "3"), begin=begin)

    assert (first, third) == ("1", "3")
    assert repr(second) == "ValueError('not this one')"


def test_scripts_print_as_in_single_runs() -> None:
    printed: list[str] = []

    run(Engine(), batch_of('print("a")', 'print("b" + PLACE)'), print=printed.append)

    assert printed == ["a", "b1"]


def test_the_time_limit_is_each_scripts_own() -> None:
    began = time.monotonic()

    ended = run(Engine(), batch_of("loop {}", "1", "loop {}", "2"), timeout=0.05)

    assert [type(one) for one in ended] == [RhaiTimeout, str, RhaiTimeout, str]
    assert time.monotonic() - began >= 0.1


@pytest.mark.parametrize(
    "make",
    [
        lambda: Batch("A", [("1", (b"",), CancelToken())]),  # type: ignore[list-item]
        lambda: Batch("A", [(b"1", ("",), CancelToken())]),  # type: ignore[list-item]
        lambda: Batch("A", [(b"1", (b"",), None)]),  # type: ignore[list-item]
        lambda: Batch(None, []),  # type: ignore[arg-type]
    ],
    ids=["script", "value", "token", "names"],
)
def test_wrong_types_are_refused(make: Callable[[], Batch]) -> None:
    with pytest.raises(TypeError):
        make()


def test_a_value_too_few_leaves_a_constant_undefined() -> None:
    (ended,) = run(Engine(), Batch(("A", "B"), [(b"A + B", (b"1",), CancelToken())]))

    assert "Variable not found: B" in str(ended)
