"""Dialects: tables of names that lose nothing."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks.connection.scripts import script_source
from rhai_tasks.errors import ConfigurationError, TaskMalformed
from rhai_tasks.protocol import (
    DETAIL_FIELDS,
    FIELDS,
    HERO,
    RHAI,
    TERM_FIELDS,
    Dialect,
    Field,
    Prefixes,
    Status,
    Task,
    check_names,
    completed,
    parse_task,
    parse_terms,
    reply_json,
)
from tests.lua import FILES, LIBRARIES, package_of

BOTH = pytest.mark.parametrize("dialect", [RHAI, HERO], ids=lambda dialect: dialect.name)
PAGE = (Path(__file__).parents[3] / "docs/hero.md").read_text()


@BOTH
def test_each_field_and_status_has_a_name_of_its_own(dialect: Dialect) -> None:
    assert set(dialect.fields) == set(FIELDS)
    assert set(dialect.words) == {status.value for status in Status}
    assert len(set(dialect.words.values())) == len(Status)
    shared = [name for name in FIELDS if dialect.own_name(dialect.stored(name)) != name]
    assert shared == ([Field.PUBLIC_KEY] if dialect is HERO else [])  # older dispatchers of the first one write it


def test_the_first_dialect_renames_nothing() -> None:
    assert not RHAI.renames
    assert all(name == stored for name, stored in [*RHAI.fields.items(), *RHAI.words.items()])
    assert RHAI.prefixes == Prefixes()


@BOTH
@pytest.mark.parametrize("name", sorted(set(FILES) - LIBRARIES))
def test_each_script_can_be_put_together(dialect: Dialect, name: str) -> None:
    text = re.sub(r"--.*", "", script_source(package_of(name), name, dialect).decode())

    assert not re.search(r"\b(FIELD|STATUS)\b", text)
    if dialect is HERO:
        others = {*RHAI.fields.values()} - {*HERO.fields.values()} - {"circle", "args"}  # keys of tables, too
        assert {word for word in others if f"'{word}'" in text} == set()


@BOTH
@given(details=st.dictionaries(st.sampled_from([name for name in FIELDS if name != Field.PUBLIC_KEY]), st.text()))
def test_what_is_written_is_read_again(dialect: Dialect, details: dict[str, str]) -> None:
    details = {**details, Field.STATUS: Status.PROCESSING}

    flat = dialect.write([text for pair in details.items() for text in pair])

    stored = dict(zip(flat[::2], flat[1::2], strict=True))
    assert stored[dialect.stored(Field.STATUS)] == dialect.words[Status.PROCESSING]
    assert dialect.read(stored) == details


def test_a_name_of_another_dialect_hides_no_field() -> None:
    assert HERO.read({"callerId": "mallory", "caller_id": "ada"})["callerId"] == "ada"
    assert HERO.read({"caller_id": "ada", "callerId": "mallory"})["callerId"] == "ada"
    assert HERO.read({"status": "completed"})["status"] == "'completed'"
    assert HERO.read({"status": "paused"})["status"] == "paused"


def test_errors_name_the_field_as_the_hash_has_it() -> None:
    names = HERO.stored_names(DETAIL_FIELDS)
    with pytest.raises(TaskMalformed, match="Field 'caller_id' of the task is not valid UTF-8"):
        parse_task("t", [b"1", b"\xff", *[None] * (len(names) - 2)], names)
    values: list[bytes | None] = [b"-1" if name == Field.MAX_OPERATIONS else None for name in TERM_FIELDS]
    with pytest.raises(TaskMalformed, match="Field 'max_operations' of the task is '-1'"):
        parse_terms(values, HERO.terms)


def test_a_reply_has_the_dialects_names() -> None:
    reply = json.loads(reply_json(Task("t", "1"), completed("1"), "now", {Field.RUN_SECONDS: "1"}, HERO.reply))

    assert reply["id"] == "t"
    assert reply["status"] == "finished"
    assert reply["run_seconds"] == "1"
    assert not [name for name in reply if name != name.lower()]


def test_prefixes_that_are_left_are_the_dialects() -> None:
    own = HERO.complete(Prefixes(queue="rhai:queue:"))

    assert own == Prefixes("rhai:queue:", "hero:job:", "hero:reply:", "hero:stop_queue:")
    for dialect in (RHAI, HERO):
        check_names(dialect.prefixes, "rhai_dramatiq")
    with pytest.raises(ConfigurationError, match="--stop-prefix 'hero:job:s:'|--details-prefix 'hero:job:'"):
        check_names(HERO.complete(Prefixes(stop="hero:job:s:")), "rhai_dramatiq")


def test_the_page_names_keys_fields_and_words() -> None:
    assert {prefix for prefix in HERO.prefixes.__slots__ if getattr(HERO.prefixes, prefix) not in PAGE} == set()
    assert {word for word in HERO.words.values() if f"`{word}`" not in PAGE} == set()
    odd = {stored for name, stored in HERO.fields.items() if name.lower() != stored.replace("_", "")}
    assert {name for name in odd if f"`{name}`" not in PAGE} == set()
