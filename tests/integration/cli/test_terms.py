"""The terms of a task at a terminal."""

import json
import subprocess
from collections.abc import Callable

import pytest

from rhai_tasks import Client
from tests.conftest import BIN, Worker

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(server_url: str) -> Run:
    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [str(BIN / "rhai-tasks"), "--redis-url", server_url, "submit", "--circle=circle", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

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


@pytest.mark.parametrize("option", ["timeout", "max-operations", "start-within"])
def test_a_limit_that_cannot_be_is_one_line_and_status_2(run: Run, option: str) -> None:
    ended = run("1", f"--{option}=0")

    assert ended.returncode == 2
    *_, line = ended.stderr.splitlines()
    assert line.startswith("Error: ")
    assert option in line.replace("_", "-")
