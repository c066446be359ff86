"""The terms of a task at a terminal."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rhai_tasks import Client
from tests.commands import BIN, run_command
from tests.conftest import Worker

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(server_url: str) -> Run:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run_command("rhai-tasks", "--redis-url", server_url, "submit", "--circle=circle", *arguments)

    return run


def test_options_of_submit_are_terms_of_the_task(run: Run, app: Client) -> None:
    limits = ("--timeout=2", "--max-operations=1000", "--max-memory=8", "--start-within=30")

    ended = run("1", "--task-id=t", *limits, "--json", "--stats")

    assert json.loads(ended.stdout) == {"taskId": "t"}
    details = app.task("t").details()
    assert details.items() >= {"timeout": "2.0", "maxOperations": "1000", "maxMemory": "8388608"}.items()
    assert details.items() >= {"resultFormat": "json", "stats": "1"}.items()
    assert "startBefore" in details


def test_a_value_and_stats_are_printed_with_the_result(run: Run, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")

    (outcome,) = json.loads(run("[1, 2.5]", "--wait", "--json", "--stats").stdout)
    plain = run("[1, 2.5]", "--wait", "--stats")
    slow = run("loop {}", "--wait", "--timeout", "0.2")

    assert (outcome["output"], outcome["result"]) == ("[1, 2.5]", [1, 2.5])
    assert outcome["stats"]["deliveries"] == 1
    assert plain.stdout == "[1, 2.5]\n"
    assert "deliveries 1, " in plain.stderr
    assert "the task's time limit of 0.2 s exceeded" in slow.stderr


def test_status_shows_terms_and_answers_in_a_table(
    run: Run, server_url: str, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    run("[ARGS.n]", "--task-id=t", "--wait", "--timeout=9", "--arg", "n=\x1b[31m", "--json", "--stats")
    run("1", "--task-id=plain", "--wait")

    def status(*tasks: str) -> str:
        ended = run_command("rhai-tasks", "--redis-url", server_url, "status", *tasks)
        assert ended.returncode == 0, ended
        return ended.stdout

    rows = [line.split(maxsplit=2) for line in status("t", "plain").partition("\n\n")[2].splitlines()]
    values = {name: value.strip() for task, name, value in rows[1:] if task == "t"}
    assert values.items() >= {"timeout": "9.0", "resultFormat": "json", "stats": "1", "deliveries": "1"}.items()
    assert "\x1b" not in values["args"] + values["result"]
    assert not [row for row in rows if row[0] == "plain"]
    assert "term" not in status("plain")


@pytest.mark.parametrize("option", ["timeout", "max-operations", "start-within"])
def test_a_limit_that_cannot_be_is_one_line_and_status_2(run: Run, option: str) -> None:
    ended = run("1", f"--{option}=0")

    assert ended.returncode == 2
    *_, line = ended.stderr.splitlines()
    assert line.startswith("Error: ")
    assert option in line.replace("_", "-")


def test_arguments_are_options_of_submit(run: Run, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")

    given = ("--args", '{"a": [1, 2.5], "n": 1}', "--arg", "n=3", "--arg", "t=007", "--arg", 's="x"', "--arg", "e==")
    (outcome,) = json.loads(run("ARGS", "--wait", "--json", *given).stdout)

    assert outcome["result"] == {"a": [1, 2.5], "n": 3, "t": "007", "s": "x", "e": "="}


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--args=[1]", "--args is not a JSON object"),
        ("--args={", "--args is not JSON"),
        ('--args={"n": NaN}', "NaN is not a JSON number"),
        ("--arg=n", "expected NAME=VALUE"),
        ("--arg==3", "expected NAME=VALUE"),
        ("--arg=n=9223372036854775808", "args.n: integer 9223372036854775808 does not fit"),
    ],
)
def test_arguments_that_cannot_be_are_one_line_and_status_2(run: Run, option: str, reason: str) -> None:
    ended = run("1", option)

    assert ended.returncode == 2
    assert reason in ended.stderr.splitlines()[-1]


def test_a_file_is_run_with_arguments(tmp_path: Path) -> None:
    file = tmp_path / "script.rhai"
    file.write_text("fn f() { ARGS.n + 1 } f()")
    command = [str(BIN / "rhai-tasks"), "run", str(file), "--arg", "n=3"]

    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == "4\n"
