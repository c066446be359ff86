"""The server's clock jumps: nothing is lost, no living worker loses what it runs, and a dead one's tasks run again."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clock import ClockedServer
from tests.conftest import FINAL, Dispatcher, Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")
YEARS = 10 * 365 * 86_400
PROMISED = 15.0  # seconds until what a killed process ran begins again
SLOW_MACHINE = 15.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClockedServer]:
    server = ClockedServer(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def move_clock(server: ClockedServer, client: Any) -> Callable[[int], None]:
    """Move the server's clock, and return once scripts see it."""

    def move(seconds: int) -> None:
        goal = server.clock(client) + seconds
        server.move_clock(seconds)
        wait_until(lambda: abs(server.clock(client) - goal) < 0.5)

    return move


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def begun(runs: Path) -> Counter[str]:
    """Count how often each task has begun."""
    return Counter(runs.read_text().split()) if runs.exists() else Counter()


def submit(dispatcher: Dispatcher, runs: Path, name: str, seconds: float) -> str:
    return dispatcher.submit("circle", name, f'note("{runs}", "{name}"); sleep({seconds}); 1')


@pytest.mark.parametrize("seconds", [-5, -60, -3600, -YEARS], ids=lambda seconds: f"{seconds}s")
def test_what_a_killed_tree_ran_begins_again_in_time_though_the_clock_went_back(
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    move_clock: Callable[[int], None],
    runs: Path,
    seconds: int,
) -> None:
    killed = start_worker("circle", *ENGINE, "--threads", "2")
    for name in ("a", "b"):
        submit(dispatcher, runs, name, 60)
    wait_until(lambda: len(begun(runs)) == 2)
    start_worker("circle", *ENGINE, "--threads", "1")
    dispatcher.run("circle", "1")
    living = submit(dispatcher, runs, "living", 22)
    wait_until(lambda: dispatcher.status(living) == "processing")

    killed.kill()
    move_clock(seconds)
    start_worker("circle", *ENGINE, "--threads", "2")

    wait_until(lambda: begun(runs)["a"] == 2, within=PROMISED + SLOW_MACHINE)
    assert dispatcher.result(living)["output"] == "1"
    assert begun(runs)["living"] == 1


@pytest.mark.parametrize("seconds", [-5, -3600])
def test_a_tree_that_is_started_after_the_clock_went_back_runs_what_a_dead_one_left(
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    move_clock: Callable[[int], None],
    runs: Path,
    seconds: int,
) -> None:
    killed = start_worker("circle", *ENGINE)
    submit(dispatcher, runs, "a", 60)
    wait_until(lambda: begun(runs)["a"] == 1)
    killed.kill()

    move_clock(seconds)
    start_worker("circle", *ENGINE)

    wait_until(lambda: begun(runs)["a"] == 2, within=PROMISED + SLOW_MACHINE)


@pytest.mark.parametrize(
    ("jumps", "pause"),
    [
        ([-5], 0),
        ([-60], 0),
        ([-3600], 0),
        ([-YEARS], 0),
        ([-60, 60], 1.0),  # within a renewal: some workers renew while it is back, and some see nothing
        ([-8, 8], 1.0),
        ([-3600, 3600], 2.0),
        ([-60, 60], 4.0),
        ([-60, 60], 12.0),
        ([-60, 60, -60, 60, -60, 60], 2.5),
        ([3600], 0),
        ([3600, -3600], 1.0),
        ([3600, -3600], 5.0),
    ],
    ids=str,
)
def test_no_living_worker_loses_what_it_runs_however_the_clock_jumps(
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    move_clock: Callable[[int], None],
    runs: Path,
    jumps: list[int],
    pause: float,
) -> None:
    trees = [start_worker("circle", *ENGINE, "--threads", "1") for _ in range(4)]
    # Who judges a lease by a clock that jumped does so within 13 s.
    seconds = 15 + round(pause * len(jumps))
    tasks = [submit(dispatcher, runs, f"t{number}", seconds) for number in range(4)]
    wait_until(lambda: len(begun(runs)) == 4)

    for jump in jumps:
        move_clock(jump)
        time.sleep(pause)  # what the jumps are about

    wait_until(lambda: all(dispatcher.status(task) in FINAL for task in tasks))
    assert set(begun(runs).values()) == {1}
    assert not any("lost" in tree.text().lower() or "taken over" in tree.text() for tree in trees)


def test_message_ids_rise_though_the_clock_goes_back(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, move_clock: Callable[[int], None]
) -> None:
    start_worker("circle")
    dispatcher.run("circle", "1")
    before = int(client.get("rhai_dramatiq:rhai-circle.sequence"))

    move_clock(-3600)
    dispatcher.run("circle", "1")

    assert int(client.get("rhai_dramatiq:rhai-circle.sequence")) == before + 1


def test_the_heartbeat_of_a_dead_worker_goes_though_the_clock_went_back(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, move_clock: Callable[[int], None]
) -> None:
    killed = start_worker("circle")
    dispatcher.run("circle", "1")
    (dead,) = wait_until(lambda: client.hkeys("rhai_dramatiq:__workers__"))
    killed.kill()

    move_clock(-3600)
    start_worker("circle")

    wait_until(lambda: client.hkeys("rhai_dramatiq:__workers__") not in ([], [dead]))
    wait_until(lambda: not client.hexists("rhai_dramatiq:__workers__", dead))
