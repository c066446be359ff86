"""A stopped worker gives back what it has not run, in order, and loses nothing."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Dispatcher, Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A file to which scripts write that they run: a task is `processing` from its fetch, a moment before."""
    (tmp_path / "begun").touch()
    return tmp_path / "begun"


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_sigterm_lets_running_scripts_finish_and_gives_the_rest_back_in_order(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, begun: Path, order: str
) -> None:
    script = f'note("{begun}", ""); nap(0.7); 1'
    tasks = [dispatcher.submit("circle", f"t{number:02}", script) for number in range(40)]
    worker = start_worker("circle", *ENGINE, "--processes", "2", "--threads", "2", "--buffer", "10", "--order", order)
    wait_until(lambda: begun.read_text().count("\n") >= 4)

    assert worker.stop() == 0

    statuses = {task: dispatcher.status(task) for task in tasks}
    done = [task for task in tasks if statuses[task] == "completed"]
    assert 4 <= len(done) <= 8
    assert all((int(task[1:]) < 20) == (order == "oldest") for task in done)
    assert set(statuses.values()) == {"completed", "pending"}
    assert client.lrange("rhai_tasks:circle", 0, -1) == [task for task in reversed(tasks) if task not in done]
    assert client.llen("rhai_dramatiq:rhai-circle") == 0


def test_a_long_script_finishes_beside_many_that_end_sooner(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], begun: Path
) -> None:
    scripts = [f'note("{begun}", ""); sleep({6 if number == 20 else 2}); 1' for number in range(32)]
    tasks = [dispatcher.submit("circle", f"t{number}", script) for number, script in enumerate(scripts)]
    worker = start_worker("circle", *ENGINE, "--threads", "32", "--shutdown-timeout", "10")
    wait_until(lambda: begun.read_text().count("\n") == 32)

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


def test_nothing_begins_once_a_worker_was_told_to_stop(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, tmp_path: Path
) -> None:
    """Not even what a fetch brings that was waiting when the signal came; it goes back in its order, unsuspected."""
    runs = tmp_path / "runs"
    worker = start_worker("circle", *ENGINE, "--threads", "4")
    long = dispatcher.submit("circle", "long", "nap(8); 1")
    wait_until(lambda: dispatcher.status(long) == "processing")

    worker.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "Stopping" in worker.text())
    time.sleep(2.0)  # for the signal to pass from the supervisor to the worker process, which says nothing then
    tasks = [f"t{number}" for number in range(20)]
    for task in tasks:
        client.hset(f"rhai_task_details:{task}", mapping={"script": f'note("{runs}", "{task}")', "status": "pending"})
        client.rpush("rhai_dramatiq:rhai-circle", task)

    assert worker.process.wait(60) == 0
    assert not runs.exists()
    assert dispatcher.status(long) == "completed"
    assert {dispatcher.status(task) for task in tasks} == {"pending"}
    assert client.lrange("rhai_tasks:circle", 0, -1) == tasks
    assert not client.exists("rhai_dramatiq:rhai-circle.deliveries")


def test_a_second_signal_does_not_wait(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    task = dispatcher.submit("circle", "t", "loop {}")
    worker = start_worker("circle")
    wait_until(lambda: dispatcher.status(task) == "processing")
    worker.process.send_signal(signal.SIGINT)
    wait_until(lambda: "Stopping" in worker.text())

    assert worker.stop(within=25.0) == 0

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

    assert worker.stop(within=25.0) == 0

    assert (dispatcher.status(task), client.lrange("rhai_tasks:circle", 0, -1)) == ("pending", ["t"])


def test_an_interrupt_of_a_whole_terminal_lets_running_scripts_finish_too(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle")
    task = dispatcher.submit("circle", "t", "sleep(0.5); 42")
    wait_until(lambda: dispatcher.status(task) == "processing")

    for pid in [*(child.pid for child in worker.children()), worker.process.pid]:
        os.kill(pid, signal.SIGINT)

    assert worker.process.wait(60) == 0
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


_STOPPED_AT_THE_START = """
import os, signal, time
import bridge.tree.supervisor
from bridge.cli import worker

def server_comes_right_after_sigterm(settings, give_up):
    os.kill(os.getpid(), signal.SIGTERM)
    give_up.wait(60)

bridge.tree.supervisor.await_servers = server_comes_right_after_sigterm
worker()
"""


def test_sigterm_just_before_the_server_answers_is_heeded(client: Any, spawn: Callable[..., Worker]) -> None:
    tree = spawn("python", "-c", _STOPPED_AT_THE_START, "--circle-public-key", "circle")

    assert tree.process.wait(60) == 0
