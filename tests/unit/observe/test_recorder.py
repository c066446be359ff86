"""Reports of processes: what they count and name, and how garbage is read."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from rhai_tasks.observe.metrics import FINISHED, RUN, WAIT, Counts, quantile
from rhai_tasks.observe.recorder import Recorder, RunningTask, State, read_report, shorten
from rhai_tasks.protocol import Outcome, completed, failed


@dataclass
class Ended:
    task_id: str = "t"
    outcome: Outcome = field(default_factory=lambda: completed("1"))
    use: tuple[float, float, int, int] | None = (1000.0, 0.01, 10, 1000)
    ended: float = 1000.01
    crashes: int = 0
    created_at: bytes | None = b"998"


def fields(recorder: Recorder) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(recorder.report())
    return written


def test_a_report_is_read_as_it_was_written() -> None:
    running = RunningTask("odd \udcff", "a b", 999.0, 2)
    recorder = Recorder(threads=8, state=lambda: State(["rhai-a.20b"], [running], {"rhai_tasks_running": 1}))
    recorder.readiness.note("read of rhai-a.20b")
    recorder.readiness.expect("lease of rhai-a.20b")
    recorder.record("a b", [Ended(), Ended(), Ended(outcome=failed("broken", "Runtime"), crashes=1)])

    report = read_report("worker 1", json.dumps({"at": 5000, **fields(recorder)}))

    assert report is not None
    assert (report.process, report.at, report.threads) == ("worker 1", 5.0, 8)
    assert (report.circles, report.circle_count, report.running) == (("a b",), 1, (running,))
    assert report.counts.counters[FINISHED.name] == {("a b", "completed"): 2, ("a b", "error"): 1}
    assert [(task.status, task.ran, task.waited, task.delivery) for task in report.recent] == [
        ("completed", 0.01, 2.0, 1),
        ("completed", 0.01, 2.0, 1),
        ("error", 0.01, 2.0, 2),
    ]
    assert report.list_missing() == ["no lease of rhai-a.20b yet"]
    assert report.gauges == {"rhai_tasks_running": 1.0}
    assert report.memory > 1_000_000


def test_errors_are_not_drowned_by_what_completes() -> None:
    recorder = Recorder()
    recorder.record("a", [Ended("failed", failed("broken", "Runtime"))])
    recorder.record("a", [Ended(str(number)) for number in range(1000)])

    recent = [task[0] for task in fields(recorder)["recent"]]

    assert recent == [*(str(number) for number in range(975, 1000)), "failed"]


def test_a_task_whose_script_did_not_run_has_no_run_time() -> None:
    recorder = Recorder()
    recorder.record("a", [Ended(use=None)])

    (row,) = fields(recorder)["recent"]

    assert row[4:6] == [None, None]
    assert sum(recorder.counts.histograms[RUN.name]) == 0


def test_of_many_queues_a_report_names_the_oldest_reads_and_renewals() -> None:
    recorder = Recorder()
    for number in range(500):
        recorder.readiness.note(f"read of {number}")
        recorder.readiness.note(f"lease of {number}")
    recorder.readiness.expect("read of late")
    recorder.readiness.expect("publishing for late")

    named = fields(recorder)["succeeded"]

    assert len(named) == 201
    assert {"read of late", "read of 0", "lease of 0", "publishing for late"} <= named.keys()


@pytest.mark.parametrize("share", [0.5, 0.95])
@pytest.mark.parametrize("longest", [0.0005, 0.1, 1.0, 100.0])
def test_quantiles_are_near(share: float, longest: float) -> None:
    recorder = Recorder()
    recorder.record("a", [Ended(use=(1000.0, longest * number / 1000, 10, 1000)) for number in range(1, 1001)])

    found = quantile(RUN, recorder.counts.histograms[RUN.name], share)

    assert found == pytest.approx(longest * share, rel=0.2)
    assert quantile(RUN, Counts().histograms[RUN.name], share) is None


def test_a_quantile_beyond_all_bounds_is_the_last_one() -> None:
    recorder = Recorder()
    recorder.record("a", [Ended(created_at=b"0", use=(1e9, 0.1, 1, 1))])

    assert quantile(WAIT, recorder.counts.histograms[WAIT.name], 0.5) == 3600


def test_two_reports_say_what_was_counted_between_them() -> None:
    recorder = Recorder()
    recorder.record("a", [Ended()] * 2)
    before = Counts.from_json(fields(recorder)["counts"])
    recorder.record("a", [Ended()] * 3)
    recorder.record("b", [Ended(outcome=failed("broken", "Runtime"))])

    between = recorder.counts.since(before)

    assert between.counters[FINISHED.name] == {("a", "completed"): 3, ("b", "error"): 1}
    assert sum(between.histograms[RUN.name][:-1]) == 4


def test_bounds_that_dashboards_use_stay() -> None:
    bounds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)

    assert set(bounds) <= set(WAIT.bounds)
    assert set(bounds) <= set(RUN.bounds)
    assert list(RUN.bounds) == sorted(RUN.bounds)


def test_a_histogram_with_other_buckets_is_left_out() -> None:
    written = fields(Recorder())
    written["counts"]["histograms"][RUN.name] = [1, 2, 3.0]

    report = read_report("worker 1", json.dumps(written))

    assert report is not None
    assert sum(report.counts.histograms[RUN.name]) == 0


def test_a_long_id_is_cut() -> None:
    recorder = Recorder()
    recorder.record("a", [Ended("x" * 10_000_000)])

    assert len(fields(recorder)["recent"][0][0]) == 301
    assert shorten("short") == "short"


@pytest.mark.parametrize(
    "change",
    [
        {"at": "x"},
        {"since": 1e999},
        {"running": [[1]]},
        {"running": 5},
        {"recent": [["t", "c", "completed", "now", None, None, 1]]},
        {"counts": {"counters": {FINISHED.name: [[["a"], 1]]}, "histograms": {}}},
        {"succeeded": {"read of a": "now"}},
        {"threads": None},
    ],
)
def test_a_report_with_an_odd_field_is_passed_over(change: dict[str, Any]) -> None:
    written = {"at": 5000, **fields(Recorder(threads=1)), **change}

    assert read_report("worker 1", json.dumps(written)) is None


@pytest.mark.parametrize("text", [b"", b"\xff", b"[]", b"null", b"[" * 100_000, b"{}"])
def test_garbage_is_no_report(text: bytes) -> None:
    assert read_report("worker 1", text) is None
