import json

import pytest

from rhai_tasks.errors import TaskMalformed
from rhai_tasks.protocol import (
    DETAIL_FIELDS,
    MISSING_SCRIPT,
    Task,
    circle_of,
    completed,
    failed,
    parse_task,
    parse_time,
    queue_name,
    reply_json,
    timestamp,
    to_bytes,
    to_text,
)


def values(**fields: str | bytes) -> list[bytes | None]:
    encoded = {name: value.encode() if isinstance(value, str) else value for name, value in fields.items()}
    return [encoded.get(name) for name in DETAIL_FIELDS]


@pytest.mark.parametrize(
    ("fields", "caller"),
    [
        pytest.param({"callerId": "new"}, "new", id="newer field"),
        pytest.param({"publicKey": "old"}, "old", id="older field"),
        pytest.param({"callerId": "new", "publicKey": "old"}, "new", id="both"),
        pytest.param({}, "", id="neither"),
    ],
)
def test_the_caller_is_read_from_either_field(fields: dict[str, str], caller: str) -> None:
    assert parse_task("t", values(script="1", **fields)).caller_id == caller


def test_a_hash_without_script_is_malformed_in_the_words_clients_know() -> None:
    with pytest.raises(TaskMalformed, match=f"^{MISSING_SCRIPT}$"):
        parse_task("t", values(callerId="me"))


def test_an_empty_script_is_a_script() -> None:
    assert parse_task("t", values(script="")).script == ""


@pytest.mark.parametrize("field", ["script", "callerId", "replyToQueue"])
def test_a_field_that_is_not_utf8_is_named(field: str) -> None:
    with pytest.raises(
        TaskMalformed, match=rf"Field '{field}' of the task is not valid UTF-8: byte 0xff at position 2"
    ):
        parse_task("t", values(**({"script": "1"} | {field: b"ab\xff"})))


@pytest.mark.parametrize(
    "circle", ["02abc", "Berlin_1", "a b:c.d\n%", "é😀", to_text(b"\xff\x00"), "x.DQ", "a.2eb", "*?[]"], ids=ascii
)
def test_a_circle_survives_the_way_through_a_queue_name(circle: str) -> None:
    name = queue_name(circle)

    assert circle_of(name) == circle
    assert not name.endswith((".DQ", ".XQ"))
    assert ":" not in name


def test_different_circles_never_share_a_queue() -> None:
    circles = ["a.b", "a b", "a_b", "a.2eb", "A.B", "rhai-a"]

    assert len({queue_name(circle) for circle in circles}) == len(circles)


def test_ids_of_any_bytes_survive_as_text() -> None:
    assert to_bytes(to_text(bytes(range(256)))) == bytes(range(256))


def test_times_are_rfc_3339_in_utc() -> None:
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"


def test_a_reply_holds_all_details_and_null_where_absent() -> None:
    task = Task("t1", "40+2", caller_id="me", created_at="1700000000")

    assert json.loads(reply_json(task, completed("42"), "now", {})) == {
        "taskId": "t1",
        "script": "40+2",
        "status": "completed",
        "output": "42",
        "error": None,
        "callerId": "me",
        "contextId": None,
        "createdAt": "1700000000",
        "updatedAt": "now",
    }
    assert json.loads(reply_json(task, failed("no", "Runtime"), "now", {}))["error"] == "no"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("2026-01-31T12:00:00Z", 1769860800.0, id="RFC 3339"),
        pytest.param(b"2026-01-31T13:00:00.500000+01:00", 1769860800.5, id="in another zone, as bytes"),
        pytest.param("1769860800.25", 1769860800.25, id="unix seconds"),
        pytest.param("1769860800", 1769860800.0, id="whole unix seconds"),
        pytest.param("yesterday", None, id="no moment"),
        pytest.param(b"\xff", None, id="no text"),
        pytest.param("inf", None, id="no number"),
        pytest.param("-1e308", None, id="before the epoch"),
        pytest.param("1969-12-31T23:59:59Z", None, id="a second before the epoch"),
        pytest.param("", None, id="nothing"),
    ],
)
def test_moments_are_read_as_dispatchers_write_them(text: str | bytes, seconds: float | None) -> None:
    assert parse_time(text) == seconds
