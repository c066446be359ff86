"""What workers log of tasks: which, and nothing of what is in them."""

import json
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks.log import about, configure_logging
from tests.conftest import Dispatcher, Worker, wait_until

TASK = {"task_id": "my-task", "circle": "c", "caller_id": "caller"}


def lines(worker: Worker, logger: str) -> list[dict[str, Any]]:
    """Read the lines of one logger; each line is JSON."""
    found = [json.loads(line) for line in worker.text().splitlines()]
    return [line for line in found if line["logger"] == logger]


def test_lines_about_a_task_name_it_in_json(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("c", "--log-format", "json", env={"RUST_LOG": "debug"})

    dispatcher.submit("c", "my-task", 'print("100 %s\\n")')
    dispatcher.result("my-task")

    (printed,) = wait_until(lambda: lines(worker, "rhai_tasks.script"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", printed.pop("time"))
    assert printed == {"level": "debug", "logger": "rhai_tasks.script", "message": "100 %s\n", **TASK}
    (ended,) = wait_until(lambda: lines(worker, "rhai_tasks.actor"))
    assert ended["message"].startswith("Task completed after ")
    assert ended.items() >= TASK.items()


def test_lines_about_a_task_name_it_in_text(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("c", env={"RUST_LOG": "rhai_tasks.actor=debug"})

    dispatcher.submit("c", "my-task", "1")

    line = (
        r"\[.{20} DEBUG rhai_tasks.actor\] Task completed after .* s task_id='my-task' circle='c' caller_id='caller'\n"
    )
    wait_until(lambda: re.search(line, worker.text()))


def test_a_host_functions_own_lines_name_the_task(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("c", "--engine", "tests.engine_for_tests:make_engine", "--log-format", "json")

    dispatcher.submit("c", "my-task", 'log("from Python")')
    dispatcher.result("my-task")

    (line,) = wait_until(lambda: lines(worker, "tests.engine_for_tests"))
    assert line["message"] == "from Python"
    assert line.items() >= TASK.items()


def test_a_dead_letters_line_names_its_task(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    worker = start_worker("c", "--log-format", "json")
    client.set("rhai_task_details:my-task", "no hash")
    client.lpush("rhai_tasks:c", "my-task")

    (line,) = wait_until(lambda: lines(worker, "rhai_tasks.store"))

    assert line["level"] == "error"
    assert line["message"].startswith("Task goes to the dead letters: WRONGTYPE")
    assert line.items() >= {**TASK, "caller_id": ""}.items()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_of_a_script_or_its_output_shows_by_default(
    log_format: str, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("c", "--engine", "tests.engine_for_tests:make_engine", "--log-format", log_format)

    for script in ["print(`secret`)", "debug(`secret`)", "`secret`", "throw `secret`", "let secret", 'fail("secret")']:
        dispatcher.run("c", script, callerId="somebody")
    assert worker.stop() == 0

    assert "secret" not in worker.text()
    assert "somebody" not in worker.text(), "no line a task"


def test_workers_of_dramatiqs_command_log_json_too(dispatcher: Dispatcher, spawn: Callable[..., Worker]) -> None:
    spawn("rhai-bridge", "--circle", "c")
    environment = {"RHAI_TASKS_LOG_FORMAT": "json", "RHAI_TASKS_ENGINE": "tests.engine_for_tests:make_engine"}
    worker = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", env=environment)

    dispatcher.submit("c", "my-task", 'log("from Python")')
    dispatcher.result("my-task")

    (line,) = wait_until(lambda: [json.loads(line) for line in worker.text().splitlines() if "from Python" in line])
    assert line.items() >= TASK.items()


def test_workers_of_dramatiqs_command_name_tasks_in_dramatiqs_own_format(
    dispatcher: Dispatcher, spawn: Callable[..., Worker]
) -> None:
    spawn("rhai-bridge", "--circle", "c")
    environment = {"RHAI_TASKS_ENGINE": "tests.engine_for_tests:make_engine"}
    worker = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", env=environment)

    dispatcher.submit("c", "my-task", 'log("from Python")')

    line = r"\] from Python task_id='my-task' circle='c' caller_id='caller'\n"
    wait_until(lambda: re.search(line, worker.text()))


def test_a_line_of_json_holds_tracebacks_and_ids_that_are_no_text(capfd: pytest.CaptureFixture[str]) -> None:
    before = logging.root.handlers[:], logging.root.level
    configure_logging("warn", "json")
    try:
        try:
            int("no")
        except ValueError:
            logging.getLogger("some").exception("failed", extra=about("\udcff\n", "c", ""))
    finally:
        logging.root.handlers, logging.root.level = before[0], before[1]

    (line,) = capfd.readouterr().err.splitlines()

    read = json.loads(line)
    assert read["task_id"] == "\udcff\n"
    assert read["exception"].endswith("invalid literal for int() with base 10: 'no'")
