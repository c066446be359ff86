"""Values as JSON: each type has its form, or is refused by name and place."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from rhai_tasks import Engine, Limits
from rhai_tasks.errors import RhaiError, RhaiMemoryLimit, RhaiTypeError


class Money:
    """A class of the host."""


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.register_type(Money)
    engine.register("money", Money)
    return engine


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("()", "null"),
        ("let x = 1;", "null"),
        ("true", "true"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775807", "9223372036854775807"),
        ("1.0", "1.0"),
        ("-0.0", "-0.0"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("1e20", "1e20"),
        ("1.5e-7", "1.5e-7"),
        ("'a'", '"a"'),
        ('"é😀 \\"q\\" \\\\ \\n\\t\\x01"', '"é😀 \\"q\\" \\\\ \\n\\u0009\\u0001"'),
        ("[]", "[]"),
        ("#{}", "{}"),
        ('[1, [2.5, "s"], #{b: (), a: [true]}]', '[1,[2.5,"s"],{"a":[true],"b":null}]'),
        ('#{"k \\"y": 1}', '{"k \\"y":1}'),
        ("let x = 1; let f = || x += 1; f.call(); [x]", "[2]"),
        ("exit(7)", "7"),
    ],
)
def test_a_value_has_its_json_form_beside_its_text(engine: Engine, script: str, expected: str) -> None:
    text, written = engine.run_json(script)

    assert written == expected
    assert text == engine.run(script)
    json.loads(written)


@pytest.mark.parametrize(
    ("script", "what"),
    [
        ("0.0 / 0.0", "the number NaN"),
        ("[1, -1.0 / 0.0]", "the number -inf at [1]"),
        ("#{a: [0, || 1]}", "a function pointer at .a[1]"),
        ('Fn("f")', "a function pointer"),
        ("blob(2, 1)", "a blob"),
        ("1..3", "a range"),
        ("[1..=3]", "a range at [0]"),
        ("timestamp()", "a timestamp"),
        ("money()", "an object of the class Money"),
        ("let a = 1; for i in 0..101 { a = [a]; } a", "it is nested deeper than 100 levels at [0][0][0]"),
    ],
)
def test_a_value_without_a_json_form_is_an_error_that_says_where_it_is(engine: Engine, script: str, what: str) -> None:
    with pytest.raises(RhaiTypeError) as raised:
        engine.run_json(script)

    assert str(raised.value).startswith(f"The result has no JSON form: {what}")
    assert len(str(raised.value)) < 300


def test_a_decimal_is_not_rounded_but_refused(engine: Engine) -> None:
    with pytest.raises(RhaiTypeError, match="a decimal"):
        engine.run_json("D", constants={"D": Decimal("0.1")})


def test_json_takes_no_more_memory_than_the_script_may() -> None:
    engine = Engine(limits=Limits(max_memory=4 * 1024 * 1024))

    with pytest.raises(RhaiMemoryLimit):
        engine.run_json('let s = "\\x01"; for i in 0..18 { s += s; } let a = []; for i in 0..9 { a.push(s); } a')


def test_a_failed_script_fails_as_without_json(engine: Engine) -> None:
    with pytest.raises(RhaiError, match="boom"):
        engine.run_json("throw `boom`")


values = some.recursive(
    some.none()
    | some.booleans()
    | some.integers(-(2**63), 2**63 - 1)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(), inner, max_size=4),
    max_leaves=12,
)
shared = Engine()


@given(value=values)
def test_any_value_comes_back_from_json_as_it_was(value: object) -> None:
    _, written = shared.run_json("V", constants={"V": value})

    assert json.loads(written) == value
