"""The constant ARGS: from JSON to a map of the script, without a number that changes."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks.engine import ArgsError, Engine, Scope
from rhai_tasks.errors import RhaiConstantError, RhaiError, RhaiIndexError, RhaiMemoryLimit, RhaiNameError

ENGINE = Engine()

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


def exactly(value: Any) -> Any:
    """Tell 1 from 1.0 and from True, and 0.0 from -0.0."""
    if isinstance(value, dict):
        return {key: exactly(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exactly(item) for item in value]
    return type(value), repr(value)


@given(args=st.dictionaries(KEYS, VALUES))
def test_arguments_come_back_as_the_same_json(args: dict[str, Any]) -> None:
    _, value = ENGINE.run_json("fn all() { ARGS } all()", args=args)

    assert exactly(json.loads(value)) == exactly(args)


@given(number=st.floats(allow_nan=False, allow_infinity=False))
def test_no_digit_of_a_number_is_lost(number: float) -> None:
    for text in (repr(number), f"{number:.40g}"):
        if any(sign in text for sign in ".e"):
            read = ENGINE.eval("ARGS.n", args=f'{{"n": {text}}}')
            assert (type(read), read, math.copysign(1, read)) == (float, float(text), math.copysign(1, float(text)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it begins with no brace"),
        ("[1]", "it begins with no brace"),
        ("null", "it begins with no brace"),
        ('{"a": }', "expected value at line 1 column 7"),
        ('{"a": 1', "EOF while parsing an object"),
        ('{"a": 1} 2', "trailing characters"),
        ("{'a': 1}", "key must be a string"),
        ('{"a": NaN}', "expected value"),
        ('{"a": 01}', "invalid number"),
        ('{"a": 1e400}', "number out of range"),
        ('{"a": "\\ud800"}', "unexpected end of hex escape"),
        ('{"a": [1, 9223372036854775808]}', "integer 9223372036854775808 does not fit a script's 64 bits"),
        ('{"a": -9223372036854775809}', "integer -9223372036854775809 does not fit a script's 64 bits"),
        ('{"a\\"": 1, "b": 18446744073709551616}', "integer 18446744073709551616 does not fit"),
        ('{"a": ' + "9" * 400 + "}", "does not fit"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "recursion limit exceeded"),
    ],
)
def test_a_text_that_is_no_object_or_would_lose_digits_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ArgsError) as raised:
        ENGINE.eval("1", args=text)

    assert reason in str(raised.value)


@pytest.mark.parametrize("text", [' { "a" : "99999999999999999999" } ', '{"99999999999999999999\\\\": 1}', "{}"])
def test_digits_in_texts_are_no_numbers(text: str) -> None:
    assert ENGINE.eval("ARGS", args=text) == json.loads(text)


def test_arguments_count_towards_the_limits() -> None:
    for args in ({"list": list(range(100_000))}, {"maps": [{"": 0}] * 10_000}):
        with pytest.raises(RhaiMemoryLimit):
            ENGINE.run("1", args=args, max_memory=1_000_000)


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("ARGS = 1", RhaiConstantError),
        ("ARGS.a = 1", RhaiConstantError),
        ("ARGS.a += 1", RhaiConstantError),
        ("ARGS.list[0] = 1", RhaiConstantError),
        ("fn f() { ARGS = 1 } f()", RhaiConstantError),
        ("fn f() { ARGS.a = 1 } f()", RhaiConstantError),
        ("(|| { ARGS.list[0] += 1; }).call()", RhaiConstantError),
        ("fn f() { ARGS.a = ARGS.list[7] } f()", RhaiIndexError),
    ],
)
def test_arguments_cannot_be_assigned(script: str, error: type[RhaiError]) -> None:
    with pytest.raises(error) as raised:
        ENGINE.eval(script, args={"a": 1, "list": [1]})

    assert raised.value.line == 1


def test_a_script_without_arguments_has_no_such_constant() -> None:
    script = 'is_def_var("ARGS")'

    assert ENGINE.eval(script, args={}) is True
    assert ENGINE.eval(script) is False
    with pytest.raises(RhaiNameError, match="Variable not found: ARGS"):
        ENGINE.eval("fn f() { ARGS.a } f()")


def test_arguments_may_be_given_with_variables_and_constants() -> None:
    script, scope = "x += ARGS.n + K; x", Scope(x=1)

    assert [ENGINE.eval(script, scope=scope, constants={"K": 1}, args={"n": n}) for n in (1, 2)] == [3, 6]
    assert dict(scope.items()) == {"x": 6}
    assert ENGINE.eval(script, scope={"x": 1}, constants={"K": 1}, args={"n": 1}) == 3
    assert ENGINE.eval("ARGS", constants={"ARGS": 1}, args={"n": 1}) == {"n": 1}
    assert ENGINE.call("fn f(x) { x + ARGS.n }", "f", 1, args={"n": 2}) == 3
    assert ENGINE.eval("ARGS.n", args={"n": 1}, details=True).value == 1
