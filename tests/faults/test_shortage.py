"""A system without memory for scripts is not a fault of the scripts."""

from collections.abc import Callable

from tests.commands import BIN
from tests.conftest import Dispatcher, Worker, wait_until

GIB = 2**30


def test_tasks_that_the_system_has_no_memory_for_go_back_to_their_queue(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], start_worker: Callable[..., Worker]
) -> None:
    tasks = [dispatcher.submit("circle", f"t{number}", "6 * 7") for number in range(3)]
    limited = ("--circle-public-key", "circle", "--max-memory", "4096")  # which needs a stack of 16 GiB
    worker = spawn("/usr/bin/prlimit", f"--as={8 * GIB}", str(BIN / "rhai-worker"), *limited)
    refusals = wait_until(lambda: worker.text().count("Task goes back to its queue: The system has no memory"))
    assert refusals < 100, "it pauses"
    assert worker.stop() == 0
    assert [dispatcher.status(task) for task in tasks] == ["pending"] * 3

    start_worker("circle", "--max-memory", "4096")

    assert [dispatcher.result(task)["output"] for task in tasks] == ["42"] * 3
