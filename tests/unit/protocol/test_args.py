"""Arguments of scripts: what Python values become, and which are refused."""

import json
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Any, NamedTuple

import pytest

from rhai_tasks.protocol import write_args


@dataclass
class Line:
    price: float
    tags: tuple[str, ...] = ()


class Point(NamedTuple):
    x: int
    y: int


class Colour(Enum):
    RED = "red"
    PAIR = (1, 2)


class Level(IntEnum):
    HIGH = 3


class Word(StrEnum):
    ONE = "one"


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0, "0"),
        (-(2**63), "-9223372036854775808"),
        (2**63 - 1, "9223372036854775807"),
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (1e300, "1e+300"),
        ("", '""'),
        ('ü\n"\0', r'"ü\n\"\u0000"'),
        (Text("t"), '"t"'),
        ([], "[]"),
        ([1, (2.5, [None])], "[1,[2.5,[null]]]"),
        ({}, "{}"),
        ({"a b": {"": 1}}, '{"a b":{"":1}}'),
        (OrderedDict(a=1), '{"a":1}'),
        (UserDict({"a": 1}), '{"a":1}'),
        (Line(2.5, ("a",)), '{"price":2.5,"tags":["a"]}'),
        (Point(1, 2), '{"x":1,"y":2}'),
        (Colour.RED, '"red"'),
        (Colour.PAIR, "[1,2]"),
        (Level.HIGH, "3"),
        (Word.ONE, '"one"'),
        (datetime(2026, 1, 31, 12, tzinfo=UTC), '"2026-01-31T12:00:00+00:00"'),
        (datetime(2026, 1, 31, 12, 0, 0, 5, timezone(timedelta(hours=1))), '"2026-01-31T12:00:00.000005+01:00"'),
        (date(2026, 1, 31), '"2026-01-31"'),
    ],
)
def test_a_value_becomes_json(value: object, text: str) -> None:
    assert write_args({"v": value}) == f'{{"v":{text}}}'


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (2**63, ValueError, "args.v: integer 9223372036854775808 does not fit a script's 64 bits"),
        (-(2**63) - 1, ValueError, "args.v: integer -9223372036854775809 does not fit"),
        pytest.param(10**5000, ValueError, "args.v: integer a huge number does not fit", id="huge"),
        (float("nan"), ValueError, "args.v: nan is not a JSON number"),
        ([1, -float("inf")], ValueError, r"args.v\[1\]: -inf is not a JSON number"),
        (Decimal("2.50"), TypeError, "args.v: a value of type Decimal has no JSON form"),
        (b"x", TypeError, "args.v: a value of type bytes has no JSON form"),
        ({1, 2}, TypeError, "args.v: a value of type set has no JSON form"),
        (range(3), TypeError, "args.v: a value of type range has no JSON form"),
        (object(), TypeError, "args.v: a value of type object has no JSON form"),
        (Line, TypeError, "args.v: a value of type type has no JSON form"),
        (1j, TypeError, "args.v: a value of type complex has no JSON form"),
        (
            {"a b": [{"c": timedelta(1)}]},
            TypeError,
            r"args.v\['a b'\]\[0\].c: a value of type timedelta has no JSON form",
        ),
        ({1: 2}, TypeError, "args.v: the key 1 is of type int: expected a string"),
        (datetime(2026, 1, 31), ValueError, "args.v: expected a datetime with an offset"),
        ("\ud800", ValueError, r"args.v: '\\ud800' has half of a pair of surrogates"),
        ({"\udc80": 1}, ValueError, "has half of a pair of surrogates"),
    ],
)
def test_a_value_that_no_script_could_hold_is_refused_by_its_place(
    value: object, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        write_args({"v": value})


@pytest.mark.parametrize("args", [[1], "text", 1, None, [("a", 1)]])
def test_arguments_are_a_mapping(args: Any) -> None:
    with pytest.raises(TypeError, match="args is of type .*: expected a mapping of names to values"):
        write_args(args)


def test_what_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(ValueError, match="nested deeper than 100 levels, or contain themselves"):
        write_args({"v": endless})


def test_a_hundred_levels_are_written() -> None:
    deep: Any = 1
    for _ in range(99):
        deep = [deep]

    assert json.loads(write_args({"v": deep})) == {"v": deep}
