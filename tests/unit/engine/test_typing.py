"""Type checkers know what the engine returns: mypy checks this file, and the tests run what it claims."""

import asyncio
from dataclasses import dataclass
from typing import Any, assert_type

from rhai_tasks import Engine
from rhai_tasks.engine import Result


@dataclass
class Point:
    x: int

    def moved(self, dx: int) -> "Point":
        return Point(self.x + dx)


def test_eval_returns_a_result_only_with_details() -> None:
    engine = Engine()
    asked = bool(engine.functions())

    assert assert_type(engine.eval("1"), Any) == 1
    assert assert_type(engine.eval("1", details=False), Any) == 1
    assert assert_type(engine.eval("1", details=True, timeout=60), Result).value == 1
    assert assert_type(engine.eval("1", details=asked), Any).value == 1


async def _evaluate(engine: Engine) -> None:
    assert assert_type(await engine.eval_async("1"), Any) == 1
    assert assert_type(await engine.eval_async("1", details=False), Any) == 1
    assert assert_type(await engine.eval_async("1", details=True, timeout=60), Result).text == "1"
    assert assert_type(await engine.eval_async("1", details=bool(engine)), Any).text == "1"


def test_eval_async_returns_a_result_only_with_details() -> None:
    asyncio.run(_evaluate(Engine()))


def test_read_returns_an_instance_of_the_class() -> None:
    engine = Engine()

    assert assert_type(engine.read({"x": 1}, Point), Point).x == 1
    assert assert_type(engine.read([{"x": 1}], list[Point]), list[Point]) == [Point(1)]


def test_decorators_keep_types() -> None:
    engine = Engine()

    @engine.function
    def half(number: int) -> int:
        return number // 2

    @engine.function(name="twice")
    def double(number: int) -> int:
        return number * 2

    point = engine.register_type(Point)

    assert assert_type(half(4), int) + assert_type(double(1), int) == 4
    assert assert_type(point, type[Point])(1).moved(2) == engine.eval("Point(1).moved(2)")
