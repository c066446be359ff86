"""Logs name tasks, and show nothing of their contents."""

import json
import logging
import re
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from rhai_tasks.log import about, configure_logging
from tests.conftest import Dispatcher, Worker, wait_until
from tests.observed import ADDRESS, Observed

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
    (ended,) = wait_until(lambda: lines(worker, "rhai_tasks.worker.actor"))
    assert ended["message"].startswith("Task completed after ")
    assert ended.items() >= TASK.items()


def test_lines_about_a_task_name_it_in_text(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("c", env={"RUST_LOG": "rhai_tasks.worker.actor=debug"})

    dispatcher.submit("c", "my-task", "1")

    task = "task_id='my-task' circle='c' caller_id='caller'"
    line = rf"\[.{{20}} DEBUG rhai_tasks.worker.actor\] Task completed after .* s {task}\n"
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

    (line,) = wait_until(lambda: lines(worker, "rhai_tasks.queue.writer"))

    assert line["level"] == "error"
    assert line["message"].startswith("Task goes to the dead letters: WRONGTYPE")
    assert line.items() >= {**TASK, "caller_id": ""}.items()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_nothing_of_a_script_or_its_output_shows_by_default(
    log_format: str, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("c", "--engine", "tests.engine_for_tests:make_engine", "--log-format", log_format)

    for script in ["print(`secret`)", "debug(`secret`)", "`secret`", "throw `secret`", "let secret"]:
        dispatcher.run("c", script, callerId="somebody")
    dispatcher.run("c", 'fail("secret")', callerId="another")
    assert worker.stop() == 0

    assert "secret" not in worker.text()
    assert "somebody" not in worker.text(), "no line names a task"


RAISING = {
    'fail("secret")': "ValueError",
    "fn f() { fail(`secret`) } f()": "ValueError",
    "[1].map(|x| fail(`secret`))": "ValueError",
    "try { fail(`secret`) } catch (e) { throw e }": "ValueError",
    "Shelf().stock": "KeyError",
    "Shelf()[`secret`]": "KeyError",
    "Shelf() + `secret`": "tests.engine_for_tests.OutOfStock",
    "Shelf().take(`secret`)": "tests.engine_for_tests.OutOfStock",
    "fail_later(`secret`)": "tests.engine_for_tests.OutOfStock",
}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_exception_of_a_host_function_is_logged_with_its_class_and_its_traceback(
    log_format: str, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("c", "--engine", "tests.engine_for_tests:make_engine", "--log-format", log_format)
    for number, script in enumerate(RAISING):
        dispatcher.result(dispatcher.submit("c", f"task-{number}", script))
    dispatcher.run("c", "try { fail(`secret`) } catch { 1 }", callerId="caught")
    assert worker.stop() == 0

    text = worker.text()
    assert "secret" not in text
    assert "caught" not in text
    if log_format == "json":
        found = lines(worker, "rhai_tasks.host")
        assert [line["task_id"] for line in found] == [f"task-{number}" for number in range(len(RAISING))]
        assert [line["message"] for line in found] == [f"A host function raised {kind}" for kind in RAISING.values()]
        for line, kind in zip(found, RAISING.values(), strict=True):
            assert line["level"] == "warn"
            assert 'engine_for_tests.py", line ' in line["exception"]
            assert line["exception"].endswith(f"\n{kind}")
    else:
        for number, kind in enumerate(RAISING.values()):
            assert f"WARN  rhai_tasks.host] A host function raised {kind} task_id='task-{number}'" in text
        assert text.count('engine_for_tests.py", line ') >= len(RAISING)


def test_the_log_of_host_functions_can_be_turned_off(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    options = {"RUST_LOG": "info,rhai_tasks.host=off"}
    worker = start_worker("c", "--engine", "tests.engine_for_tests:make_engine", env=options)
    dispatcher.run("c", 'fail("no")')
    assert worker.stop() == 0

    assert "ValueError" not in worker.text()


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
        logging.root.handlers[0].flush()
    finally:
        logging.root.handlers, logging.root.level = before[0], before[1]

    (line,) = capfd.readouterr().err.splitlines()

    read = json.loads(line)
    assert read["task_id"] == "\udcff\n"
    assert read["exception"].endswith("invalid literal for int() with base 10: 'no'")


FORGED = "\n[2001-01-31T12:00:00Z INFO  bridge.bridge] forged \x1b[2J\r\u2028forged"


@pytest.mark.parametrize("through_dramatiqs_command", [False, True])
@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_value_forges_a_line_or_steers_a_terminal(
    log_format: str,
    through_dramatiqs_command: bool,
    dispatcher: Dispatcher,
    spawn: Callable[..., Worker],
    start_worker: Callable[..., Worker],
    client: Any,
) -> None:
    circle = f"c{FORGED}"
    options = {"RHAI_TASKS_ENGINE": "tests.engine_for_tests:make_engine", "RHAI_TASKS_LOG_FORMAT": log_format}
    if through_dramatiqs_command:
        bridge = spawn("rhai-bridge", "--all-circles", env={**options, "RUST_LOG": "debug"})
        worker = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--verbose", env=options)
    else:
        bridge = worker = start_worker(circle, env={**options, "RUST_LOG": "debug"})

    client.set(f"rhai_task_details:dead{FORGED}", "no hash")
    client.lpush(f"rhai_tasks:{circle}", f"dead{FORGED}")
    script = f"print(`{FORGED}`); debug(`{FORGED}`); log(`{FORGED}`); to_stderr(`{FORGED}`); 1"
    dispatcher.submit(circle, f"task{FORGED}", script, callerId=FORGED)
    assert dispatcher.result(f"task{FORGED}")["output"] == "1"
    wait_until(lambda: "Task completed" in worker.text() and "dead letters" in worker.text())

    shown = bridge.log.read_bytes().decode() + worker.log.read_bytes().decode()
    assert shown.count("forged") >= 9
    for line in shown.split("\n"):
        assert line.isprintable()
        if log_format == "json" and not line.startswith("["):  # the few lines of dramatiq's main process
            assert not line or json.loads(line)
        else:
            assert not line or re.match(r"\[\d{4}-|  ", line)
            assert not line.startswith("[2001-")


def test_a_metrics_port_that_strangers_misuse_logs_nothing_but_lines(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    tree = Observed(start_worker("c", "--log-format", "json", *ADDRESS, env={"RUST_LOG": "debug"}))
    port = int(tree.address.rpartition(":")[2])
    get = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    heavy = b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n"
    tls = bytes.fromhex("1603010200010001fc0303") + bytes(range(256))
    many_headers = b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 1000 + b"\r\n"
    requests = [b"", get[:10], get, get * 50, heavy, tls, many_headers, b"BREW / HTTP/1.1\r\n\r\n", b"GET /\r\n\r\n"]

    for request in requests:
        for reset in (True, False):
            with socket.create_connection(("127.0.0.1", port)) as connection, suppress(ConnectionError):
                if reset:  # the end of the connection is an error for whoever reads or writes
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.sendall(request)

    wait_until(lambda: "failed: [Errno" in tree.worker.text())
    assert tree.worker.stop() == 0
    said = [json.loads(line) for line in tree.worker.text().splitlines()]
    assert {line["level"] for line in said if line["logger"] == "rhai_tasks.observe.monitor"} <= {"info", "debug"}
    assert not [line for line in said if line["logger"] == "stderr"]


def test_of_a_task_whose_keys_are_gone_no_other_worker_is_said_to_run_it(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    worker = start_worker("c", "--log-format", "json")
    tasks = [dispatcher.submit("c", f"t{seconds}", f"sleep({seconds})") for seconds in (1, 60)]
    wait_until(lambda: all(dispatcher.status(task) == "processing" for task in tasks))

    client.flushall()

    told = [line["message"] for line in wait_until(lambda: _about_two(worker))]
    assert [message for message in told if "another worker" in message and "keys are gone" not in message] == []


def _about_two(worker: Worker) -> list[dict[str, Any]] | None:
    """Return what is told of tasks, once it is told of two that their results are dropped."""
    told = [json.loads(line) for line in worker.text().splitlines() if "task_id" in line]
    return told if sum("Result dropped" in line["message"] for line in told) == 2 else None


@pytest.mark.parametrize(
    "options",
    [
        ("--log-format", "json", "--nonsense"),
        ("--threads", "0", "--log-format=json"),
        ("--log-format", "json", "--redis-url", "nonsense://x"),
        ("--log-format", "json", "--engine", "tests.engine_for_tests:missing"),
        ("--log-format", "json", "--engine", "tests.engine_for_tests:not_an_engine"),
        ("--log-format", "json", "--metrics-address", "nowhere"),
    ],
)
@pytest.mark.parametrize("environment", [{}, {"RUST_LOG": "off"}])
def test_a_start_that_fails_says_so_in_json(
    environment: dict[str, str], options: tuple[str, ...], client: Any, spawn: Callable[..., Worker]
) -> None:
    worker = spawn("rhai-worker", "--circle-public-key", "c", *options, env=environment)

    assert worker.process.wait(60) == 2

    said = [json.loads(line) for line in worker.text().splitlines()]
    silent = environment and "tests.engine_for_tests:not_an_engine" in options  # a child process finds it, and logs it
    assert silent or "error" in {line["level"] for line in said}


def test_a_start_under_dramatiqs_command_that_fails_says_so_in_json(client: Any, spawn: Callable[..., Worker]) -> None:
    environment = {"RHAI_TASKS_LOG_FORMAT": "json", "RHAI_TASKS_TASK_TIMEOUT": "nonsense"}
    worker = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", env=environment)

    assert worker.process.wait(60) != 0

    (line,) = [json.loads(line) for line in worker.text().splitlines() if line.startswith("{")]
    assert "--task-timeout" in line["message"]
