"""The terms of a task: each field is read and written by its row of one table."""

from dataclasses import fields
from datetime import UTC, datetime, timedelta

import pytest

from rhai_tasks import TaskSpec
from rhai_tasks.errors import TaskMalformed
from rhai_tasks.protocol import NO_TERMS, TERM_FIELDS, TERMS, Terms, parse_terms, write_terms

EXAMPLES = Terms(
    *(2.5, 1000, 1_000_000),
    start_before=2e9,
    json=True,
    stats=True,
    keep_prints=64_000,
    args='{"n":3}',
)
"""A value for each, as workers read it."""

GIVEN = EXAMPLES._replace(args={"n": 3})  # type: ignore[arg-type]
"""The same as applications give them."""

UNREADABLE = {
    "timeout": ("", "-1", "0", "nan", "inf", "1e999", "0x10", "1_0", " 2", "2s", "ten", "٢", "1e-9", "9" * 400, "\0"),
    "maxOperations": ("", "-1", "0", "1.5", "1e6", "many", "9223372036854775808", "9" * 5000, "٢"),
    "maxMemory": ("", "-1", "0", "1.5", "64MiB", "9223372036854775808"),
    "startBefore": (
        *("", "-1", "nan", "inf", "soon", "2026-01-31", "2026-01-31T12:00:00", "2026-02-30T12:00:00Z", "1767225600000"),
        *("2026-01-31T25:00:00Z", "2026-01-31T12:00:00+99:00", "10000-01-01T00:00:00Z", "9" * 400),
    ),
    "resultFormat": ("", "xml", "JSON", "1"),
    "stats": ("", "2", "true", "-1"),
    "keepPrints": ("", "-1", "0", "1.5", "64KiB", "16777217"),
    "args": ("", "1", "[1]", "null", '"{}"', '{"a": 1', "x{}", "{}x"),  # the engine reads what is within the braces
}
"""Texts that a worker refuses, by field."""


def values(**texts: str | bytes) -> list[bytes | None]:
    encoded = {name: text.encode() if isinstance(text, str) else text for name, text in texts.items()}
    return [encoded.get(field) for field in TERM_FIELDS]


def test_every_term_has_a_row_an_attribute_and_a_place_in_a_spec() -> None:
    assert len(TERMS) == len(Terms._fields) == len(EXAMPLES)
    assert set(Terms._fields) <= {field.name for field in fields(TaskSpec)}
    assert set(TERM_FIELDS) == set(UNREADABLE)


@pytest.mark.parametrize("name", Terms._fields)
def test_a_term_is_read_as_it_was_written(name: str) -> None:
    field, text = write_terms(NO_TERMS._replace(**{name: getattr(GIVEN, name)}))

    assert parse_terms(values(**{field: text})) == NO_TERMS._replace(**{name: getattr(EXAMPLES, name)})


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1767225600", 1767225600.0),
        ("1767225600.25", 1767225600.25),
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00.250000+01:00", 1767225600.25),
        ("2026-01-01 00:00:00Z", 1767225600.0),
        ("20260131", 20260131.0),  # digits alone are seconds
        ("1960-01-01T00:00:00Z", -315619200.0),
    ],
)
def test_a_time_is_rfc_3339_or_seconds_since_the_epoch(text: str, moment: float) -> None:
    assert parse_terms(values(startBefore=text)).start_before == moment


def test_a_time_of_a_zone_is_written_as_rfc_3339() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    assert write_terms(NO_TERMS._replace(start_before=moment)) == [  # type: ignore[arg-type]
        "startBefore",
        "2026-01-01T00:00:00+00:00",
    ]


def test_a_task_that_could_never_begin_is_refused() -> None:
    with pytest.raises(ValueError, match="start_within=5: the task would expire before its delay of 5 s is over"):
        TaskSpec("1", start_within=5, delay=5)
    with pytest.raises(ValueError, match="give one of them"):
        TaskSpec("1", start_within=5, start_before=datetime.now(UTC) + timedelta(seconds=5))
    with pytest.raises(ValueError, match="start_within=0: expected a number of seconds from 0.001"):
        TaskSpec("1", start_within=0)


def test_all_terms_together_are_read_as_they_were_written() -> None:
    details = iter(write_terms(GIVEN))

    assert parse_terms(values(**dict(zip(details, details, strict=True)))) == EXAMPLES


@pytest.mark.parametrize(("field", "text"), [(field, text) for field, texts in UNREADABLE.items() for text in texts])
def test_a_term_that_cannot_be_read_is_named_with_the_reason(field: str, text: str) -> None:
    with pytest.raises(TaskMalformed, match=rf"^Field '{field}' of the task is '.*: expected an? ") as raised:
        parse_terms(values(**{field: text}))

    assert len(str(raised.value)) < 300


@pytest.mark.parametrize("field", TERM_FIELDS)
def test_a_term_that_is_not_utf8_is_named(field: str) -> None:
    with pytest.raises(
        TaskMalformed, match=f"^Field '{field}' of the task is not valid UTF-8: byte 0xff at position 1"
    ):
        parse_terms(values(**{field: b"1\xff"}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", -1.0),
        ("timeout", float("nan")),
        ("timeout", float("inf")),
        ("timeout", True),
        ("max_operations", 0),
        ("max_operations", 1.5),
        ("max_memory", 2**63),
        ("json", "yes"),
        ("stats", 1.5),
        ("start_before", datetime(2026, 1, 31)),
        ("start_before", 1_767_225_600_000),
    ],
)
def test_a_value_that_no_worker_could_read_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*: expected an? "):
        write_terms([value if name == one else None for one in Terms._fields])
