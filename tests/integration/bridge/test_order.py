"""Which task of a native list is next: the newest, as with the original worker, or the oldest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Dispatcher, Worker, wait_until
from tests.integration.cli.test_cli import ok
from tests.integration.conftest import Run

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")
NATIVE = "rhai_tasks:circle"


def submit(dispatcher: Dispatcher, count: int, runs: Path) -> list[str]:
    return [dispatcher.submit("circle", f"t{number:02}", f'note("{runs}", "t{number:02}")') for number in range(count)]


@pytest.mark.parametrize(("options", "is_reversed"), [((), True), (("--order", "oldest"), False)])
@pytest.mark.parametrize("program", ["rhai-worker", "rhai-bridge"])
def test_tasks_run_in_the_order_that_the_option_names(
    dispatcher: Dispatcher,
    spawn: Callable[..., Worker],
    tmp_path: Path,
    program: str,
    options: tuple[str, ...],
    *,
    is_reversed: bool,
) -> None:
    tasks = submit(dispatcher, 30, tmp_path / "runs")

    if program == "rhai-worker":
        spawn(program, "--circle-public-key", "circle", *ENGINE, "--threads", "1", "--buffer", "4", *options)
    else:
        spawn(program, "--all-circles", "--buffer", "4", *options)
        spawn(
            *("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "1"),
            env={"RHAI_TASKS_ENGINE": ENGINE[1]},
        )

    for task in tasks:
        assert dispatcher.result(task)["status"] == "completed"
    ran = (tmp_path / "runs").read_text().split()
    assert ran == (tasks[::-1] if is_reversed else tasks)


def test_the_oldest_task_ends_though_more_arrive_than_can_run(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    quiet = [dispatcher.submit("circle", f"quiet{number}", "1") for number in range(3)]
    noisy = [dispatcher.submit("circle", f"noisy{number}", "sleep(0.02)") for number in range(300)]
    start_worker("circle", "--order", "oldest", "--threads", "1", "--buffer", "2")

    def feed() -> bool:
        """Submit more than can run in the meantime; say whether the quiet caller's tasks have ended."""
        noisy.append(dispatcher.submit("circle", f"noisy{len(noisy)}", "sleep(0.02)"))
        return {dispatcher.status(task) for task in quiet} == {"completed"}

    wait_until(feed)
    assert client.llen(NATIVE) > 200


def test_it_takes_the_other_end_of_the_list_than_an_original_worker(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, tmp_path: Path
) -> None:
    tasks = submit(dispatcher, 10, tmp_path / "runs")
    popped = [client.lpop(NATIVE) for _ in range(4)]  # as the original's BLPOP

    start_worker("circle", *ENGINE, "--threads", "1", "--order", "oldest")

    assert popped == tasks[:-5:-1]
    wait_until(lambda: {dispatcher.status(task) for task in tasks[:6]} == {"completed"})
    assert (tmp_path / "runs").read_text().split() == tasks[:6]


@pytest.mark.parametrize("order", ["newest", "oldest"])
def test_returned_tasks_are_the_next_ones_again(
    dispatcher: Dispatcher,
    spawn: Callable[..., Worker],
    client: Any,
    run: Run,
    order: str,
) -> None:
    bridge = spawn("rhai-bridge", "--circle", "circle", "--buffer", "3", "--order", order)
    tasks = [dispatcher.submit("circle", f"t{number}", "1") for number in range(3)]
    wait_until(lambda: client.llen("rhai_dramatiq:rhai-circle") == 3)
    bridge.kill()
    taken = client.lrange("rhai_dramatiq:rhai-circle", 0, -1)
    tasks += [dispatcher.submit("circle", f"t{number}", "1") for number in range(3, 6)]

    ok(run("return", "--circle", "circle", "--order", order))

    returned = client.lrange(NATIVE, 0, -1)
    assert sorted(returned) == tasks
    next_ones = returned[:3] if order == "newest" else returned[:-4:-1]
    assert next_ones == taken
