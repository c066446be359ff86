"""Filters of tasks, and the patterns that group errors."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.operate.error_groups import MOST_GROUPS, ErrorGroups
from rhai_tasks.operate.where import Found, Where, parse_age, parse_where, pattern
from rhai_tasks.web.render import age

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


def found(error: str = "", *, status: str = "error", at: float | None = 100.0, caller: str = "ada") -> Found:
    return Found("t", status, caller, "c", error, at)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (
            [
                "Runtime error: stock is empty (line 3, position 5)",
                "Runtime error: stock is empty (line 12, position 1)",
            ],
            "Runtime error: stock is empty",
        ),
        (["no customer 42", "no customer 4711", "no customer -3.5e7"], "no customer …"),
        (["no 'Ada'", 'no "Grace"', "no `a b c`", "no ''"], "no …"),
        (["id 6f1c2d3e-aaaa-4bbb-8ccc-0123456789ab", "id 02abcdef", "id 0xff"], "id …"),
        (["at 2026-11-30T20:00:00.5Z", "at 12:30"], "at …"),
        (
            [
                "oops in call to function 'f' (line 1, position 9)",
                "oops\nin call to  function 'f' (line 7, position 2)",
            ],
            "oops in call to function 'f'",
        ),
    ],
)
def test_errors_that_differ_in_positions_and_values_have_one_pattern(texts: list[str], expected: str) -> None:
    assert {pattern(text) for text in texts} == {expected}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Function not found: f (i64, f64)", "Function not found: f (i64, i64)"),
        ("in function 'f'", "in function 'g'"),
        ("stock is empty", "stock is full"),
        ("I can't and won't", "I can't and don't"),
    ],
)
def test_errors_of_different_causes_have_different_patterns(one: str, other: str) -> None:
    assert pattern(one) != pattern(other)


@given(st.text(alphabet="a1 '\"`.:-…\n(line position,)functio", max_size=80) | texts)
def test_the_pattern_of_a_pattern_is_itself(text: str) -> None:
    assert pattern(pattern(text)) == pattern(text)


values = st.builds(
    Where,
    status=st.sampled_from(["", "pending", "processing", "completed", "error"]),
    circle=texts,
    caller=texts,
    contains=texts,
    error=texts,
    older=st.none() | st.integers(0, 10**6).map(float),
    younger=st.none() | st.integers(0, 10**6).map(float),
)


@given(values)
def test_a_filter_is_read_as_it_is_written(where: Where) -> None:
    assert parse_where(str(where)) == where


@pytest.mark.parametrize(
    "text",
    [
        *("caller", "caller~ada", "status=eror", "colour=red", "error~'stock", "older=soon", "older=-1"),
        *("caller=a caller=b", "caller=", "matches=x", "is_any=1", "contains=x", "ERROR~x", "older=1e400"),
        "older=99999999999",
    ],
)
def test_a_filter_that_cannot_be_read_is_refused_and_named(text: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_where(text)

    assert text.split("=", maxsplit=1)[0].split("~", maxsplit=1)[0] in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("1h", 3600), ("7d", 604800), ("1.5h", 5400)]
)
def test_an_age_is_read_and_written(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds
    assert parse_age(age(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("status=error", True),
        ("status=completed", False),
        ("caller=ada circle=c", True),
        ("caller=bob", False),
        ("error~stock", True),
        ("error~Stock", False),
        ("error='stock 7 is empty (line 9, position 9)'", True),
        ("error=stock", False),
        ("older=1h", True),
        ("older=2h", False),
        ("younger=2h", True),
        ("younger=1h", False),
    ],
)
def test_a_filter_means_what_it_says(text: str, matches: bool) -> None:
    assert parse_where(text).matches(found("stock 42 is empty (line 1, position 2)", at=0.0), 5400.0) is matches


def test_a_task_without_times_has_no_age() -> None:
    assert not parse_where("older=1s").matches(found(at=None), 1e9)
    assert not parse_where("younger=1h").matches(found(at=None), 0.0)


def test_groups_count_callers_and_know_the_first_and_last() -> None:
    groups = ErrorGroups()

    groups.add(found(f"no {number}", at=float(number), caller="ada" if number % 3 else "bob") for number in range(30))
    groups.add([found("other", at=None)])

    largest, other = groups.largest()
    assert (largest.pattern, largest.count, largest.first, largest.last) == ("no …", 30, 0.0, 29.0)
    assert largest.callers == {"ada": 20, "bob": 10}
    assert [sample.at for sample in largest.samples] == [29.0, 28.0, 27.0, 26.0, 25.0]
    assert (other.first, other.last) == (None, None)


def test_errors_that_are_all_different_take_bounded_memory() -> None:
    groups = ErrorGroups()

    groups.add(found("x" * (1 + number % 300) + "y" * (number // 300)) for number in range(MOST_GROUPS + 7))
    groups.add(found("x", caller=str(number)) for number in range(5000))

    assert len(groups.largest()) == MOST_GROUPS
    assert groups.left_out == 7
    largest = groups.largest()[0]
    assert groups.total == MOST_GROUPS + 7 + 5000
    assert (largest.count, len(largest.callers)) == (5001, 1000)
