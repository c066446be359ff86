"""Heartbeats: what is counted, how it is told, and what a reader makes of garbage."""

import json
from typing import Any

import pytest

from rhai_tasks.activity import Activity, EndedTask, RunningTask, quantile, read_heartbeat, shorten, step_of


def ended(task_id: str = "t", status: str = "completed", ran: float | None = 0.01) -> EndedTask:
    return EndedTask(task_id, "a b", status, 1000.0, ran, 2.0, 1)


def told(activity: Activity, *running: RunningTask) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(activity.heartbeat({"rhai-a.20b"}, running))
    return fields


def test_a_heartbeat_is_read_as_it_was_told() -> None:
    activity = Activity(threads=8)
    for status in ("completed", "completed", "error"):
        activity.ended("rhai-a.20b", ended(status=status))
    running = RunningTask("odd \udcff", "a b", 999.0, 2)

    beat = read_heartbeat(json.dumps({"at": 5000, **told(activity, running)}).encode())

    assert beat is not None
    assert (beat.at, beat.threads, beat.circles, beat.circle_count) == (5.0, 8, ("a b",), 1)
    assert beat.ended == {"a b": (2, 1)}
    assert beat.running == (running,)
    assert [task.status for task in beat.recent] == ["completed", "completed", "error"]
    assert beat.memory > 1_000_000


def test_errors_are_not_drowned_by_what_completes() -> None:
    activity = Activity(threads=1)
    activity.ended("rhai-a.20b", ended("failed", "error"))
    for number in range(1000):
        activity.ended("rhai-a.20b", ended(str(number)))

    recent = [task[0] for task in told(activity)["recent"]]

    assert "failed" in recent
    assert recent[:-1] == [str(number) for number in range(975, 1000)]


def test_a_task_that_could_not_begin_has_no_run_time() -> None:
    activity = Activity(threads=1)
    activity.ended("rhai-a.20b", ended(ran=None))

    assert told(activity)["ran"] == {}


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_quantiles_are_near(share: float) -> None:
    histogram: dict[int, int] = {}
    for milliseconds in range(1, 1001):
        step = step_of(milliseconds / 1000)
        histogram[step] = histogram.get(step, 0) + 1

    assert quantile(histogram, share) == pytest.approx(share, rel=0.15)
    assert quantile({}, share) is None
    assert step_of(0.0) == step_of(1e-9)


def test_a_long_id_is_cut() -> None:
    assert len(shorten("x" * 10_000_000)) == 301
    assert shorten("short") == "short"


@pytest.mark.parametrize(
    "change",
    [
        {"at": "x"},
        {"since": 1e999},
        {"running": [[1]]},
        {"running": 5},
        {"recent": [["t", "c", "completed", "now", None, None, 1]]},
        {"ended": []},
        {"ran": {"x": 1}},
        {"threads": None},
    ],
)
def test_what_is_no_heartbeat_is_passed_over(change: dict[str, Any]) -> None:
    fields = {"at": 5000, **told(Activity(threads=1)), **change}

    assert read_heartbeat(json.dumps(fields).encode()) is None


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b"{}"])
def test_garbage_is_no_heartbeat(text: bytes) -> None:
    assert read_heartbeat(text) is None
