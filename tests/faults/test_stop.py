"""A stopped worker gives back what it has not run, in order, and loses nothing."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import Dispatcher, Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")


def test_sigterm_lets_running_scripts_finish_and_gives_the_rest_back_in_order(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    tasks = [dispatcher.submit("circle", f"t{number:02}", "nap(0.7); 1") for number in range(40)]
    worker = start_worker("circle", *ENGINE, "--processes", "2", "--threads", "2", "--buffer", "10")
    wait_until(lambda: sum(dispatcher.status(task) == "processing" for task in tasks) == 4)

    assert worker.stop() == 0

    statuses = {task: dispatcher.status(task) for task in tasks}
    done = [task for task in tasks if statuses[task] == "completed"]
    assert 4 <= len(done) <= 8
    assert set(statuses.values()) == {"completed", "pending"}
    assert client.lrange("rhai_tasks:circle", 0, -1) == [task for task in reversed(tasks) if task not in done]
    assert client.llen("rhai_dramatiq:rhai-circle") == 0


def test_a_long_script_finishes_beside_many_that_end_sooner(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    tasks = [dispatcher.submit("circle", f"t{number}", f"sleep({6 if number == 20 else 2}); 1") for number in range(32)]
    worker = start_worker("circle", "--threads", "32", "--shutdown-timeout", "10")
    wait_until(lambda: all(dispatcher.status(task) == "processing" for task in tasks))

    assert worker.stop() == 0

    assert {dispatcher.status(task) for task in tasks} == {"completed"}


def test_scripts_that_do_not_finish_in_time_are_interrupted_and_given_back(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    tasks = [dispatcher.submit("circle", f"t{number}", "loop {}") for number in range(6)]
    worker = start_worker("circle", "--threads", "2", "--shutdown-timeout", "0.2")
    wait_until(lambda: sum(dispatcher.status(task) == "processing" for task in tasks) == 2)

    assert worker.stop() == 0

    assert {dispatcher.status(task) for task in tasks} == {"pending"}
    assert client.lrange("rhai_tasks:circle", 0, -1) == list(reversed(tasks))


def test_a_second_signal_does_not_wait(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    task = dispatcher.submit("circle", "t", "loop {}")
    worker = start_worker("circle")
    wait_until(lambda: dispatcher.status(task) == "processing")
    worker.process.send_signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in worker.text())

    assert worker.stop(within=8.0) == 0

    assert dispatcher.status(task) == "pending"
    assert client.lrange("rhai_tasks:circle", 0, -1) == ["t"]


def test_a_process_stuck_in_a_host_function_is_killed_and_its_task_given_back(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    task = dispatcher.submit("circle", "t", "nap(1000)")
    worker = start_worker("circle", *ENGINE)
    wait_until(lambda: dispatcher.status(task) == "processing")
    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Stopping" in worker.text())

    assert worker.stop(within=10.0) == 0

    assert (dispatcher.status(task), client.lrange("rhai_tasks:circle", 0, -1)) == ("pending", ["t"])


def test_an_interrupt_of_a_whole_terminal_lets_running_scripts_finish_too(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle")
    task = dispatcher.submit("circle", "t", "sleep(0.5); 42")
    wait_until(lambda: dispatcher.status(task) == "processing")

    for pid in [*(child.pid for child in worker.children()), worker.process.pid]:
        os.kill(pid, signal.SIGINT)

    assert worker.process.wait(10) == 0
    assert dispatcher.details(task)["output"] == "42"
    assert "Traceback" not in worker.text()


def test_the_original_can_take_over_from_a_bridge_that_stopped(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], client: Any
) -> None:
    tasks = [dispatcher.submit("circle", f"t{number}", "1") for number in range(10)]
    bridge = spawn("rhai-bridge", "--circle", "circle", "--buffer", "4")
    wait_until(lambda: client.llen("rhai_tasks:circle") == 6)

    assert bridge.stop() == 0

    assert client.lrange("rhai_tasks:circle", 0, -1) == list(reversed(tasks))


def test_a_stop_leaves_no_process_behind(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    worker = start_worker("circle", "--processes", "2")
    dispatcher.run("circle", "1")
    children = worker.children()

    assert worker.stop() == 0

    assert not [child for child in children if child.is_running()]
