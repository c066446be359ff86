"""Workers with a policy, and engines that decide: which tasks run."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.commands import run_command
from tests.conftest import Dispatcher, Worker, wait_until

POLICY = """
[[allow]]
callers = ["02*"]

[[allow]]
callers = ["03*"]
circles = ["circle"]
limits = { timeout = 0.2 }
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return file


def error_of(details: dict[str, str]) -> tuple[str, str]:
    return details.get("errorKind", ""), details.get("error", "")


def test_a_policy_decides_who_may_run_what_within_which_limits(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], policy: Path
) -> None:
    start_worker("circle", "--policy", str(policy))

    assert dispatcher.run("circle", "1", callerId="02alice")["output"] == "1"
    assert dispatcher.run("circle", "1", callerId="03bob")["output"] == "1"
    slow = dispatcher.run("circle", "loop {}", callerId="03bob", timeout="30")
    assert slow["error"].startswith("Script terminated: the task's time limit of 0.2 s exceeded")
    assert error_of(dispatcher.run("circle", "1", callerId="04eve")) == (
        "Forbidden",
        "not allowed: the worker's policy allows caller '04eve' nothing here",
    )
    assert error_of(dispatcher.run("circle", "1", callerId=""))[0] == "Forbidden"


def test_sighup_has_all_workers_read_the_policy_again_and_a_broken_one_changes_nothing(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], policy: Path
) -> None:
    worker = start_worker(
        "circle", "--policy", str(policy), "--processes", "2", "--threads", "1", env={"RUST_LOG": "info"}
    )
    assert error_of(dispatcher.run("circle", "1", callerId="04eve"))[0] == "Forbidden"
    processes = worker.children()

    policy.write_text('[[allow]]\ncallers = ["04*"]\n')
    worker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: worker.text().count("Read the policy again: 1 rules") == 3)
    for _ in range(6):
        assert dispatcher.run("circle", "1", callerId="04eve")["output"] == "1"
        assert error_of(dispatcher.run("circle", "1", callerId="02alice"))[0] == "Forbidden"

    policy.write_text("[[allow]]\ncaller = 4\n")
    worker.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "Kept the policy" in worker.text())
    processes[1].kill()
    wait_until(lambda: worker.children()[1:] != processes[1:] and len(worker.children()) == 3)
    for _ in range(6):  # by the worker process that has just been started, too
        assert dispatcher.run("circle", "1", callerId="04eve")["output"] == "1"
    assert processes[0].is_running()
    assert worker.stop() == 0


def test_without_a_policy_sighup_ends_a_worker_as_before(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle")
    dispatcher.run("circle", "1")
    children = worker.children()

    worker.process.send_signal(signal.SIGHUP)

    assert worker.process.wait(60) == -signal.SIGHUP
    wait_until(lambda: not any(child.is_running() for child in children))


@pytest.mark.parametrize("command", ["rhai-worker", "dramatiq"])
def test_a_policy_that_cannot_be_used_ends_the_command_at_its_start(
    spawn: Callable[..., Worker], policy: Path, command: str
) -> None:
    policy.write_text("[[allow]]\ncaller = 4\n")
    rest = ["--circle-public-key", "c"] if command == "rhai-worker" else ["rhai_tasks.worker:setup", "--processes=1"]

    worker = spawn(command, *rest, env={"RHAI_TASKS_POLICY": str(policy)})

    assert worker.process.wait(60) != 0
    assert "[[allow]] number 1: 'caller' is unknown: expected callers, circles, limits" in worker.text()


def test_a_worker_of_the_dramatiq_command_obeys_the_policy_too(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], policy: Path
) -> None:
    spawn("rhai-bridge", "--circle", "circle")
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes=1", env={"RHAI_TASKS_POLICY": str(policy)})

    assert dispatcher.run("circle", "1", callerId="02alice")["output"] == "1"
    assert error_of(dispatcher.run("circle", "1", callerId="04eve"))[0] == "Forbidden"


def test_a_function_of_the_engine_decides_and_one_that_fails_refuses(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle", "--engine", "tests.engine_for_tests:make_engine_with_rights")

    assert dispatcher.run("circle", "1", callerId="alice")["output"] == "1"
    assert error_of(dispatcher.run("circle", "1", callerId="eve", args="{}")) == (
        "Forbidden",
        "not allowed: eve, in circle, unverified, {}",
    )
    assert error_of(dispatcher.run("circle", "1", callerId="")) == (
        "Forbidden",
        "not allowed: the worker's engine refuses it",
    )
    assert error_of(dispatcher.run("circle", "1", callerId="broken")) == (
        "Forbidden",
        "not allowed: the worker's engine could not decide: KeyError",
    )
    worker.await_text("KeyError: 's3cret'")


def test_the_command_line_tries_a_policy(policy: Path, tmp_path: Path) -> None:
    def check(*options: str) -> tuple[int, str]:
        ended = run_command("rhai-tasks", "policy", "check", str(policy), *options)
        return ended.returncode, ended.stdout + ended.stderr

    (tmp_path / "script").write_text("1")

    for more in ([], ["--script", str(tmp_path / "script")]):
        assert check("--caller", "02a", "--circle", "c", *more) == (0, "allowed by [[allow]] number 1: any script\n")
    assert check("--caller", "03a", "--circle", "circle") == (
        0,
        "allowed by [[allow]] number 2: any script; timeout 0.2\n",
    )
    assert check("--caller", "03a", "--circle", "other") == (
        1,
        "not allowed: the policy allows this caller nothing in this circle\n",
    )
    policy.write_text("[[allow]]\ncaller = 4\n")
    status, text = check("--caller", "03a", "--circle", "other")
    assert (status, "'caller' is unknown" in text) == (2, True)


def test_a_task_that_costs_its_process_in_the_function_that_decides_ends_as_an_error(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle", "--engine", "tests.engine_for_tests:make_engine_with_rights", "--max-deliveries", "2")

    assert error_of(dispatcher.run("circle", "1", callerId="crash"))[0] == "Poison"
