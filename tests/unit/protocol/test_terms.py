"""The terms of a task: each field is read and written by its row of one table."""

from dataclasses import fields

import pytest

from rhai_tasks import TaskSpec
from rhai_tasks.errors import TaskMalformed
from rhai_tasks.protocol import NO_TERMS, TERM_FIELDS, TERMS, Terms, parse_terms, write_terms

EXAMPLES = Terms(timeout=2.5, max_operations=1000, max_memory=1_000_000)
"""A value for each."""

UNREADABLE = {
    "timeout": ("", "-1", "0", "nan", "inf", "1e999", "0x10", "1_0", " 2", "2s", "ten", "٢", "1e-9", "9" * 400, "\0"),
    "maxOperations": ("", "-1", "0", "1.5", "1e6", "many", "9223372036854775808", "9" * 5000, "٢"),
    "maxMemory": ("", "-1", "0", "1.5", "64MiB", "9223372036854775808"),
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
    alone = NO_TERMS._replace(**{name: getattr(EXAMPLES, name)})
    field, text = write_terms(alone)

    assert parse_terms(values(**{field: text})) == alone


def test_all_terms_together_are_read_as_they_were_written() -> None:
    details = iter(write_terms(EXAMPLES))

    assert parse_terms(values(**dict(zip(details, details, strict=True)))) == EXAMPLES


@pytest.mark.parametrize(("field", "text"), [(field, text) for field, texts in UNREADABLE.items() for text in texts])
def test_a_term_that_cannot_be_read_is_named_with_the_reason(field: str, text: str) -> None:
    with pytest.raises(TaskMalformed, match=rf"^Field '{field}' of the task is '.*: wanted is an? ") as raised:
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
    ],
)
def test_a_value_that_no_worker_could_read_is_refused_by_its_name(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name}=.*: wanted is an? "):
        write_terms([value if name == one else None for one in Terms._fields])
