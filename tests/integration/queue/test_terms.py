"""A task's own fields: its limits, alone and together, wherever it comes from."""

from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Client
from rhai_tasks.errors import ScriptError
from tests.conftest import Dispatcher, Worker, wait_until
from tests.unit.protocol.test_terms import UNREADABLE

HOARD = 'let a = []; loop { a.push("xxxxxxxxxxxxxxxxxxxxxxxx" + a.len()); }'

LIMITS = [
    ("loop {}", {"timeout": "0.2"}, "Script terminated: the task's time limit of 0.2 s exceeded (line 1, position 6)"),
    ("sleep(100)", {"timeout": "0.2"}, "Script terminated: the task's time limit of 0.2 s exceeded (line 1, "),
    ("loop {}", {"maxOperations": "1000"}, "Too many operations for the task's limit of 1000 (line 1, position 6)"),
    (HOARD, {"maxMemory": "1048576"}, "Script terminated: the task's memory limit of 1 MiB exceeded (line 1, "),
]
"""Script, fields, and how the error begins."""


@pytest.mark.parametrize(("script", "fields", "error"), LIMITS)
def test_a_task_has_limits_of_its_own_and_its_error_names_them(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], script: str, fields: dict[str, str], error: str
) -> None:
    start_worker("circle", "--task-timeout", "30")

    assert dispatcher.run("circle", script, **fields)["error"].startswith(error)
    generous = {"timeout": "20", "maxOperations": "9223372036854775807", "maxMemory": "60000000"}
    assert dispatcher.run("circle", script, **(generous | fields))["error"].startswith(error)
    assert dispatcher.run("circle", "40 + 2", **fields)["output"] == "42"


@pytest.mark.parametrize(
    ("script", "option", "field", "error"),
    [
        ("loop {}", ("--task-timeout", "0.2"), "timeout", "Script terminated: time limit of 0.2 s exceeded (line 1, "),
        ("loop {}", ("--max-operations", "1000"), "maxOperations", "Too many operations (line 1, position 6)"),
        (
            HOARD,
            ("--max-memory", "1048576"),
            "maxMemory",
            "Script terminated: memory limit of 1 MiB exceeded (line 1, ",
        ),
    ],
)
def test_a_lower_limit_of_the_worker_holds_in_its_own_words(
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    script: str,
    option: tuple[str, str],
    field: str,
    error: str,
) -> None:
    start_worker("circle", *option)

    for own in ({}, {field: option[1]}, {field: "1000000000"}):
        assert dispatcher.run("circle", script, **own)["error"].startswith(error)


def test_a_field_that_cannot_be_read_ends_its_task_alone(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    bad = [(field, text) for field, texts in UNREADABLE.items() for text in texts]
    tasks = [dispatcher.submit("circle", f"t{n}", "1", **{field: text}) for n, (field, text) in enumerate(bad)]
    tasks.append(dispatcher.submit("circle", "bytes", "1", timeout=b"\xff"))

    for (field, _), task in zip(bad, tasks, strict=False):
        details = dispatcher.result(task)
        assert details["status"] == "error"
        assert details["error"].startswith(f"Field '{field}' of the task is ")
    assert client.zcard("rhai_dramatiq:rhai-circle.XQ") == 0
    assert dispatcher.run("circle", "1")["output"] == "1"


def test_a_bad_field_is_told_in_the_reply_too(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")

    dispatcher.submit("circle", "t", "1", timeout="soon", replyToQueue="replies")

    _, reply = client.blpop(["replies"], 60)
    assert "Field 'timeout' of the task is 'soon'" in reply


def test_a_client_gives_a_task_its_limits(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")

    late = app.submit("loop {}", timeout=0.2)
    with pytest.raises(ScriptError, match="the task's time limit of 0.2 s"):
        late.result(60)
    greedy = app.submit("loop {}", timeout=30.0, max_operations=1000, max_memory=32 * 1024 * 1024)
    with pytest.raises(ScriptError, match="the task's limit of 1000"):
        greedy.result(60)
    assert greedy.details().items() >= {"timeout": "30.0", "maxOperations": "1000", "maxMemory": "33554432"}.items()
    with pytest.raises(ValueError, match="timeout=-1: wanted is a number of seconds from 0.001"):
        app.submit("1", timeout=-1)


def test_the_second_run_of_a_task_whose_worker_was_killed_has_the_same_limits(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    killed = start_worker("circle")
    dispatcher.submit("circle", "t", "loop {}", timeout="4")
    wait_until(lambda: dispatcher.status("t") == "processing")
    killed.kill()

    start_worker("circle")

    assert dispatcher.result("t")["error"].startswith("Script terminated: the task's time limit of 4 s exceeded")
