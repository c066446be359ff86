"""Processes killed for real, with tasks running and waiting: every task ends, at most once more than once."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FINAL, RECOVERY, Dispatcher, Worker, wait_until

pytestmark = pytest.mark.each_dialect

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")
TASKS = 60


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def submit_many(dispatcher: Dispatcher, runs: Path, count: int = TASKS) -> list[str]:
    return [
        dispatcher.submit("circle", f"t{number}", f'note("{runs}", "{number}"); nap(0.05); {number}')
        for number in range(count)
    ]


def all_end(dispatcher: Dispatcher, tasks: list[str], runs: Path) -> None:
    """Wait for every task, and say how many ran more than once."""
    wait_until(lambda: all(dispatcher.status(task) in FINAL for task in tasks), what="all tasks to end")
    outputs = [dispatcher.details(task) for task in tasks]
    assert [details.get("output") for details in outputs] == [str(number) for number in range(len(tasks))]
    counts = Counter(runs.read_text().split())
    assert len(counts) == len(tasks)
    print(
        f"run twice: {sum(count > 1 for count in counts.values())} of {len(tasks)}; most often {max(counts.values())}"
    )


def test_a_worker_child_killed_loses_nothing_and_its_siblings_go_on(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path
) -> None:
    tasks = submit_many(dispatcher, runs)
    worker = start_worker("circle", *ENGINE, "--processes", "2", "--threads", "2")
    wait_until(lambda: runs.exists() and runs.read_text().count("\n") > 4)
    bridge, first, second = worker.children()

    os.kill(first.pid, signal.SIGKILL)

    all_end(dispatcher, tasks, runs)
    assert bridge.is_running()
    assert second.is_running()
    assert len(worker.children()) == 3


_SCARCE = """
import errno, os
from bridge.cli import worker

forks = iter([True, False, True, False, False])
fork = os.fork

def fork_if_there_is_room():
    if not next(forks, True):
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()

os.fork = fork_if_there_is_room
worker()
"""


def test_a_system_without_room_for_processes_is_waited_out_and_siblings_go_on(
    dispatcher: Dispatcher, spawn: Callable[..., Worker]
) -> None:
    tree = spawn(
        "python", "-c", _SCARCE, "--circle-public-key", "circle"
    )  # the worker's first fork fails, and two later
    assert dispatcher.run("circle", "1")["output"] == "1"
    bridge, worker = tree.children()

    os.kill(worker.pid, signal.SIGKILL)

    assert dispatcher.run("circle", "2")["output"] == "2"
    failures = [line for line in tree.text().splitlines() if "could not be started" in line]
    assert len(failures) == 3
    assert "The worker 1 process could not be started ([Errno 11]" in failures[0]
    assert tree.children()[0].pid == bridge.pid
    assert tree.stop() == 0


def test_long_scripts_of_a_killed_worker_all_run_again_soon(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path
) -> None:
    """They are suspected of its death, but do not wait for each other's end."""
    for number in range(6):
        dispatcher.submit("circle", f"t{number}", f'note("{runs}", "{number}"); sleep(600)')
    worker = start_worker("circle", *ENGINE, "--threads", "6", "--shutdown-timeout", "0")
    wait_until(lambda: runs.exists() and runs.read_text().count("\n") == 6)

    os.kill(worker.children()[1].pid, signal.SIGKILL)

    wait_until(lambda: runs.read_text().count("\n") == 12)
    assert set(Counter(runs.read_text().split()).values()) == {2}


def test_a_bridge_killed_loses_nothing(dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path) -> None:
    tasks = submit_many(dispatcher, runs)
    worker = start_worker("circle", *ENGINE, "--threads", "2", "--buffer", "8")
    wait_until(lambda: runs.exists() and runs.read_text().count("\n") > 4)

    os.kill(worker.children()[0].pid, signal.SIGKILL)

    all_end(dispatcher, tasks, runs)


def test_a_whole_tree_killed_loses_nothing(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path
) -> None:
    tasks = submit_many(dispatcher, runs)
    first = start_worker("circle", *ENGINE, "--threads", "4")
    wait_until(lambda: runs.exists() and runs.read_text().count("\n") > 4)

    first.kill()
    start_worker("circle", *ENGINE, "--threads", "4")

    all_end(dispatcher, tasks, runs)


def test_ids_that_a_bridge_moved_before_it_died_run_without_one(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    dispatcher.run("circle", "1")
    dispatcher.put("t", {"script": "1"})

    client.rpush("rhai_dramatiq:rhai-circle", "t")  # as a bridge that died just now left it

    assert dispatcher.result("t", within=RECOVERY)["status"] == "completed"


def test_a_killed_supervisor_takes_its_children_with_it(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle", *ENGINE)
    task = dispatcher.submit("circle", "t", "loop {}")
    wait_until(lambda: dispatcher.status(task) == "processing")
    children = worker.children()

    worker.process.kill()

    wait_until(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))
    assert dispatcher.status(task) == "pending"


def test_a_task_whose_process_dies_each_time_ends_as_an_error(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path
) -> None:
    start_worker("circle", *ENGINE, "--threads", "2", "--max-deliveries", "3")
    poison = dispatcher.submit("circle", "poison", f'note("{runs}", "p"); crash()')

    details = dispatcher.result(poison)

    assert details["status"] == "error"
    assert details["error"] == "The worker process died 3 times with this task; it is not tried again"
    assert runs.read_text().count("p") == 3
    assert dispatcher.run("circle", "1")["status"] == "completed"


def test_deaths_are_counted_on_by_another_worker_after_the_first_was_stopped(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path, client: Any
) -> None:
    worker = start_worker("circle", *ENGINE, "--max-deliveries", "3")
    poison = dispatcher.submit("circle", "poison", f'note("{runs}", "p"); nap(0.5); crash()')
    wait_until(lambda: runs.exists() and runs.read_text().count("p") == 2)
    worker.stop()
    assert client.lrange(dispatcher.native_list("circle"), 0, -1) == [poison]

    start_worker("circle", *ENGINE, "--max-deliveries", "3")

    assert dispatcher.result(poison)["error"].startswith("The worker process died 3 times")
    assert runs.read_text().count("p") == 3
    assert client.hlen("rhai_dramatiq:rhai-circle.deliveries") == 0


@pytest.mark.parametrize("script", ["nap(0.1); crash()", "crash()"], ids=["later", "at once"])
def test_tasks_beside_a_poison_task_complete(
    script: str, dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path
) -> None:
    dispatcher.submit("circle", "poison", script)
    tasks = submit_many(dispatcher, runs, 20)

    start_worker("circle", *ENGINE, "--threads", "4")

    all_end(dispatcher, tasks, runs)
    assert dispatcher.result("poison")["status"] == "error"


def test_tasks_on_their_last_delivery_run_alone_so_that_only_the_guilty_ends_as_an_error(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    poison = dispatcher.submit("circle", "poison", "nap(0.5); crash()")  # late: others have begun beside it
    tasks = [dispatcher.submit("circle", f"t{number}", f"sleep(1.5); {number}") for number in range(5)]

    start_worker("circle", *ENGINE, "--threads", "6", "--max-deliveries", "3")

    assert dispatcher.result(poison)["status"] == "error"
    assert [dispatcher.result(task)["status"] for task in tasks] == ["completed"] * 5


def test_tasks_on_their_last_delivery_hold_no_other_up(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    long = [dispatcher.submit("circle", f"long {number}", "sleep(600)") for number in range(3)]
    options = ("--threads", "3", "--max-deliveries", "2", "--shutdown-timeout", "0")
    worker = start_worker("circle", *options)
    wait_until(lambda: all(dispatcher.status(task) == "processing" for task in long))
    os.kill(worker.children()[1].pid, signal.SIGKILL)
    wait_until(lambda: "died (killed by SIGKILL)" in worker.text())

    assert [dispatcher.run("circle", "1")["status"] for _ in range(20)] == ["completed"] * 20


def test_a_thawed_worker_does_not_run_what_it_had_fetched_ahead(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, runs: Path
) -> None:
    frozen = start_worker("circle", *ENGINE, "--threads", "1")
    for number in range(100):  # quick ones: it learns to fetch ahead
        dispatcher.run("circle", f"{number}")
    tasks = [f"t{number}" for number in range(20)]
    for task in tasks:
        dispatcher.put(task, {"script": f'note("{runs}", "{task}"); sleep(0.1)'})
    client.lpush(dispatcher.native_list("circle"), *tasks)
    wait_until(lambda: runs.exists() and runs.read_text().count("\n") >= 2)
    (acks,) = client.keys("rhai_dramatiq:__acks__.*")
    assert client.scard(acks) > 4
    tree = [frozen.process.pid, *(child.pid for child in frozen.children())]
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    start_worker("circle", *ENGINE, "--threads", "1")
    wait_until(lambda: all(dispatcher.status(task) in FINAL for task in tasks))

    for pid in tree:
        os.kill(pid, signal.SIGCONT)

    wait_until(lambda: "taken over by another worker" in frozen.text())
    assert frozen.stop() == 0  # after it has looked at all that it held
    again = {number: count for number, count in Counter(runs.read_text().split()).items() if count > 1}
    assert len(again) <= 2, again  # the one that ran when it was frozen, and one whose result was not written yet


def test_a_worker_frozen_beyond_its_lease_cannot_overwrite_its_successor(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    frozen = start_worker("circle", *ENGINE, "--threads", "1")
    task = dispatcher.submit("circle", "t", "nap(5.0); pid()")  # until it is frozen, however late
    wait_until(lambda: dispatcher.status(task) == "processing")
    tree = [frozen.process.pid, *(child.pid for child in frozen.children())]
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    start_worker("circle", *ENGINE, "--threads", "1")
    details = dispatcher.result(task, within=RECOVERY)

    for pid in tree:
        os.kill(pid, signal.SIGCONT)

    wait_until(lambda: "taken over by another worker" in frozen.text())
    assert dispatcher.details(task) == details
