"""Scripts give arguments by name: in a map that no parameter could take."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from rhai_tasks import Engine
from rhai_tasks.errors import RhaiHostError, RhaiNameError


def only_names(*, a: int = 1, b: str = "x") -> list[Any]:
    return [a, b]


def needs_a_name(first: object, *, a: int) -> list[Any]:
    return [first, a]


def optional(first: str, second: int = 2, *, a: int = 3) -> list[Any]:
    return [first, second, a]


def optional_map(first: str, second: object = None, *, a: int = 3) -> list[Any]:
    return [first, second, a]


def any_names(first: int, **rest: int) -> list[Any]:
    return [first, rest]


def no_names(first: int, second: object = None) -> list[Any]:
    return [first, second]


def position_only(a: int = 0, /, **rest: object) -> list[Any]:
    return [a, rest]


@dataclass(kw_only=True)
class Point:
    x: int
    y: int = 0

    def moved(self, dx: int = 0, *, dy: int = 0) -> "Point":
        return Point(x=self.x + dx, y=self.y + dy)


CALLS: list[tuple[Callable[..., Any], str, object]] = [
    (only_names, "()", [1, "x"]),
    (only_names, "(#{})", [1, "x"]),
    (only_names, '(#{b: "y"})', [1, "y"]),
    (only_names, "(#{a: 5, b: 'y'})", [5, "y"]),
    (needs_a_name, "(0, #{a: 5})", [0, 5]),
    (needs_a_name, "(#{a: 1}, #{a: 5})", [{"a": 1}, 5]),
    (optional, '("f")', ["f", 2, 3]),
    (optional, '("f", #{a: 5})', ["f", 2, 5]),
    (optional, '("f", #{second: 7})', ["f", 7, 3]),
    (optional, '("f", 1, #{a: 5})', ["f", 1, 5]),
    (optional_map, '("f", #{a: 5})', ["f", {"a": 5}, 3]),
    (optional_map, '("f", (), #{a: 5})', ["f", None, 5]),
    (any_names, "(1)", [1, {}]),
    (any_names, "(1, #{x: 1, y: 2})", [1, {"x": 1, "y": 2}]),
    (no_names, "(1, #{second: 2})", [1, {"second": 2}]),
    (position_only, "(1, #{a: 2})", [1, {"a": 2}]),
    (position_only, "(#{a: 2})", [0, {"a": 2}]),
]


@pytest.mark.parametrize(("function", "call", "result"), CALLS, ids=lambda value: getattr(value, "__name__", None))
def test_a_map_that_no_parameter_takes_holds_names(function: Callable[..., Any], call: str, result: object) -> None:
    engine = Engine()
    engine.register("f", function)
    engine.register_module("m", {"f": function})

    assert engine.eval(f"f{call}") == result
    assert engine.eval(f"m::f{call}") == result


@pytest.mark.parametrize(
    ("function", "call", "reason"),
    [
        (only_names, "(#{c: 1})", "got an unexpected keyword argument 'c'"),
        (needs_a_name, "(0, #{})", "missing 1 required keyword-only argument: 'a'"),
        (optional, '("f", #{first: "g"})', "got multiple values for argument 'first'"),
        (only_names, '(#{a: "5"})', "a: expected int, not str"),
        (any_names, '(1, #{x: "5"})', "x: expected int, not str"),
    ],
)
def test_wrong_names_and_values_are_named(function: Callable[..., Any], call: str, reason: str) -> None:
    engine = Engine()
    engine.register("f", function)

    with pytest.raises(RhaiHostError, match=reason):
        engine.eval(f"f{call}")


def test_a_name_that_is_needed_cannot_be_left_out() -> None:
    engine = Engine()
    engine.register("f", needs_a_name)

    with pytest.raises(RhaiNameError, match="f \\(i64\\)"):
        engine.eval("f(0)")


def test_constructors_methods_and_coroutines_take_names() -> None:
    engine = Engine()

    engine.register_type(Point)

    @engine.function
    async def later(*, x: int) -> int:
        return x

    assert engine.eval("Point(#{x: 1}).moved(1, #{dy: 2}).moved(#{dy: 3}).moved(later(#{x: 7}))") == Point(x=9, y=5)


def test_the_list_of_functions_shows_names() -> None:
    engine = Engine()
    engine.register("f", optional)

    assert str(engine.functions(standard=False)[0]) == "f(first: string | char, second: i64, #{a: i64}) -> array"
