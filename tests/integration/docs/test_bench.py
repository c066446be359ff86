"""The benchmark runs, and reports also what an interrupted run left; its figures are nobody's business here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from bench.conditions import AS_THEY_COME, AWAKE, CONDITIONS, ONE_CORE
from bench.contenders import environment
from bench.engine import CALL, CONVERSION, SCRIPTS
from bench.report import DOCUMENTS, filled, growth_parts, parts
from bench.results import FOLDER, Results
from bench.targets import targets
from tests.conftest import wait_until

ROOT = Path(__file__).parents[3]


def bench(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_workers_of_ours_are_measured_and_who_fails_is_named(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    shown = bench(
        *("all", "--no-build", "--rounds", "1", "--seconds", "0.05", "--json", str(path)),
        *("--only", "ours 1x8,chasquimq", "--workload", "W1,W4,W7", "--condition", AS_THEY_COME),
    )

    figures = {(one["contender"], one["workload"]): one for one in json.loads(path.read_text())["records"]}
    assert figures["ours 1x8", "W1"]["tasks_per_second"] > 0
    assert figures["ours 1x8", "W1"]["tree_cpu_us"] >= figures["ours 1x8", "W1"]["tree_system_us"] >= 0  # in ticks
    assert figures["ours 1x8", "W1"]["wakeups"] > 0
    assert 0 < figures["ours 1x8", "W4"]["p50_ms"] <= figures["ours 1x8", "W4"]["p99_ms"]
    assert figures["ours 1x8", "W7"]["submit_many_per_second"] > 0
    assert "error" in figures["chasquimq", "W1"]
    assert "Not measured" in shown


def test_trivial_scripts_are_measured_in_every_condition_of_the_cores(tmp_path: Path) -> None:
    path = tmp_path / "results.json"

    shown = bench(
        *("all", "--no-build", "--rounds", "1", "--seconds", "0.02", "--json", str(path)),
        *("--only", "ours 1x8", "--workload", "W1,W2"),
    )

    measured = [(one["condition"], one["workload"]) for one in json.loads(path.read_text())["records"]]
    assert measured == [(ONE_CORE, "W1"), (AWAKE, "W1"), (AS_THEY_COME, "W1"), (AS_THEY_COME, "W2")]
    assert shown.index("Trivial scripts, one core") < shown.index("Trivial scripts, as they come")


def test_workers_keep_bytecode_as_installed_ones_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    assert "PYTHONDONTWRITEBYTECODE" not in environment("redis://127.0.0.1/")


def test_one_core_is_all_that_a_contender_gets() -> None:
    show = [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"]
    before = subprocess.check_output(show)

    with CONDITIONS[ONE_CORE]():
        assert subprocess.check_output(show) == b"1\n"

    assert subprocess.check_output(show) == before


def test_the_loops_that_keep_cores_awake_end() -> None:
    before = psutil.Process().children()
    with CONDITIONS[AWAKE]():
        loops = [child for child in psutil.Process().children() if child not in before]
        assert len(loops) == len(os.sched_getaffinity(0))
        wait_until(lambda: all(loop.nice() == 19 and len(loop.cpu_affinity()) == 1 for loop in loops))

    assert not any(loop.is_running() for loop in loops)


def test_an_interrupted_run_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    record = {"contender": "ours 1x8", "workload": "W1", "round": 1, "tasks_per_second": 4321.0}
    path.write_text(json.dumps({"machine": {"load before": "0.10, 0.10, 0.10"}, "records": [record]}))

    shown = bench("report", str(path), "--growth", str(tmp_path / "none.json"))

    assert "4,321" in shown


def test_the_engine_is_judged_by_what_each_work_allows(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    trivial, fib, *_ = SCRIPTS
    figures = {trivial: [0.6e-6, 0.2e-6], fib: [1.0, 0.94], CALL: [0.5e-6, 0.1e-6, 0.1e-6], CONVERSION: [2, 1, 3]}
    record = {"contender": "engine", "workload": "W8", "round": 1, **figures, "scaling": [1.95, 1.8, 2.0, 2.0]}
    path.write_text(json.dumps({"machine": {"load before": "0.10, 0.10, 0.10"}, "records": [record]}))

    judged = {title: (bound, met) for title, bound, _, met in targets(Results(path)).rows}

    assert list(judged.values()) == [
        ("at most 0.5", "yes"),  # 0.4 µs above Rust's
        ("at least 0.95", "no"),
        ("at most 0.5", "yes"),  # 0.4 µs above Python's own call
        ("at most 1", "yes"),
        ("at least 1.9", "yes"),
        ("at least 1.9", "no"),
        ("at least 1.9", "yes"),
        ("at least 1.9", "yes"),
    ]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_the_tables_of_documents_are_those_of_the_results(document: Path) -> None:
    found = parts(Results(FOLDER / "latest.json"))
    for axes in ("callers", "growth"):  # the last has all axes once all were measured in one run
        found |= growth_parts(Results(FOLDER / f"{axes}.json"))

    assert document.read_text() == filled(document.read_text(), found), "run: python -m bench report --docs"


def test_a_run_of_one_axis_leaves_the_tables_of_others_as_they_are() -> None:
    page = (
        "<!-- measured: growth-size -->\n\nas before\n\n<!-- end -->\n<!-- measured: growth-callers --><!-- end -->\n"
    )

    found = filled(page, growth_parts(Results(FOLDER / "callers.json")))

    assert "as before" in found
    assert "| 1, first come |" in found
    assert "load before: " in found
