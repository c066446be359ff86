"""Operators of classes mean in scripts what they mean in Python."""

import operator
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks.engine import Engine
from rhai_tasks.errors import RhaiHostError

# Of each operator: Python's function, the method of the first operand, and that of the other one.
OPERATORS: dict[str, tuple[Callable[[Any, Any], Any], str, str]] = {
    "==": (operator.eq, "__eq__", "__eq__"),
    "!=": (operator.ne, "__ne__", "__ne__"),
    "<": (operator.lt, "__lt__", "__gt__"),
    "<=": (operator.le, "__le__", "__ge__"),
    ">": (operator.gt, "__gt__", "__lt__"),
    ">=": (operator.ge, "__ge__", "__le__"),
    "+": (operator.add, "__add__", "__radd__"),
    "-": (operator.sub, "__sub__", "__rsub__"),
    "*": (operator.mul, "__mul__", "__rmul__"),
    "/": (operator.truediv, "__truediv__", "__rtruediv__"),
    "%": (operator.mod, "__mod__", "__rmod__"),
    "**": (operator.pow, "__pow__", "__rpow__"),
    "&": (operator.and_, "__and__", "__rand__"),
    "|": (operator.or_, "__or__", "__ror__"),
    "^": (operator.xor, "__xor__", "__rxor__"),
    "<<": (operator.lshift, "__lshift__", "__rlshift__"),
    ">>": (operator.rshift, "__rshift__", "__rrshift__"),
}


def answer(sign: str) -> Callable[[object, object], str]:
    return lambda _, other: f"{type(other).__name__} {sign}"


Silent = type("Silent", (), {first: lambda *_: NotImplemented for _, first, _ in OPERATORS.values()})
Answering = type("Answering", (), {other: answer(sign) for sign, (_, _, other) in OPERATORS.items()})


@pytest.fixture(scope="module")
def engine() -> Engine:
    engine = Engine()
    engine.register_type(Silent)
    engine.register_type(Answering)
    return engine


@pytest.mark.parametrize("sign", OPERATORS)
def test_the_other_operand_is_asked_where_the_first_has_no_answer(engine: Engine, sign: str) -> None:
    expected = OPERATORS[sign][0](Silent(), Answering())

    assert expected == f"Silent {sign}"
    assert engine.eval(f"Silent() {sign} Answering()") == expected


def test_no_operator_of_a_scripts_own_value_is_asked(engine: Engine) -> None:
    """A text as the other operand of `%` would be a format of Python's."""
    with pytest.raises(RhaiHostError, match="Silent and str do not support %"):
        engine.eval('Silent() % "%s"')
    assert engine.eval("Silent() == 1") is False
    assert engine.eval("Silent() != 1") is True


def test_in_is_a_truth_value_whatever_the_class_returns() -> None:
    class Crowd:
        def __init__(self, answer: object) -> None:
            self.answer = answer

        def __contains__(self, _: object) -> object:
            return self.answer

    engine = Engine()
    engine.register_type(Crowd)

    for answer in (5, 0, "maybe", "", None, True, False):
        assert engine.eval("1 in crowd", scope={"crowd": Crowd(answer)}) is bool(answer)
        assert engine.eval("1 !in crowd", scope={"crowd": Crowd(answer)}) is not bool(answer)
