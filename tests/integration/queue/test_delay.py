"""Tasks submitted with a delay, or past the native list."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rhai_tasks import Client
from tests.conftest import Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine", "--threads", "1")
DRAMATIQ = ("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "2")


@pytest.mark.parametrize("via", ["native", "dramatiq"])
def test_a_delayed_task_runs_when_it_is_due(app: Client, start_worker: Callable[..., Worker], via: Any) -> None:
    start_worker("circle")
    app.submit("1").result(timeout=10)
    app.submit("later", delay=60, via=via)

    submitted = time.monotonic()
    task = app.submit("2", delay=0.5, via=via)
    assert task.status() == "pending"

    assert task.result(timeout=10) == "2"
    assert time.monotonic() - submitted >= 0.5


@pytest.mark.parametrize("via", ["native", "dramatiq"])
def test_what_was_due_while_no_bridge_ran_runs_in_its_order(
    app: Client, start_worker: Callable[..., Worker], client: Any, tmp_path: Path, via: Any
) -> None:
    runs = tmp_path / "runs"
    for delay in (0.2, 0.1, 0.3):
        app.submit(f'note("{runs}", "{delay}")', delay=delay, via=via)
    last = app.submit("1", delay=0.4, via=via)
    zset = "rhai_dramatiq:rhai-circle." + ("delayed" if via == "native" else "delayed_messages")
    assert client.zcard(zset) == 4
    wait_until(lambda: client.zcount(zset, "-inf", client.time()[0] * 1000) == 4)  # all are due

    start_worker("circle", *ENGINE)

    assert last.result(timeout=10) == "1"
    assert runs.read_text().split() == ["0.1", "0.2", "0.3"]
    assert not client.exists(zset)


def test_a_circle_whose_list_is_none_holds_no_other_up(app: Client, spawn: Callable[..., Worker], client: Any) -> None:
    client.set("rhai_tasks:odd", "no list")
    held_up = app.submit("1", circle="odd", delay=0.1)
    task = app.submit("2", delay=0.2)

    spawn("rhai-bridge", "--circle", "odd", "--circle", "circle")
    spawn(*DRAMATIQ)

    assert task.result(timeout=20) == "2"
    assert held_up.status() == "pending"
    client.delete("rhai_tasks:odd")
    assert held_up.result(timeout=20) == "1"


def test_a_circle_with_nothing_but_delayed_tasks_is_found(
    app: Client, spawn: Callable[..., Worker], client: Any
) -> None:
    assert client.ping()
    task = app.submit("1", delay=0.1)

    spawn("rhai-bridge", "--all-circles")
    spawn(*DRAMATIQ)

    assert task.result(timeout=20) == "1"


def test_a_task_handed_to_dramatiq_needs_no_bridge(app: Client, spawn: Callable[..., Worker], client: Any) -> None:
    task = app.submit("CONTEXT_ID", via="dramatiq")
    assert not client.exists("rhai_tasks:circle")

    spawn(*DRAMATIQ)

    assert task.result(timeout=20) == "circle"


def test_urgent_tasks_run_before_others(app: Client, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    app.submit(f'note("{runs}", "native")')
    app.submit(f'note("{runs}", "dramatiq")', via="dramatiq")
    app.submit(f'note("{runs}", "urgent")', via="urgent")

    start_worker("circle", *ENGINE)

    wait_until(lambda: runs.exists() and runs.read_text().count("\n") == 3)
    assert runs.read_text().split() == ["urgent", "dramatiq", "native"]


def test_a_task_for_dramatiq_goes_back_to_the_native_list_when_nobody_is_left(
    app: Client, spawn: Callable[..., Worker], client: Any
) -> None:
    task = app.submit("1", via="dramatiq")
    bridge = spawn("rhai-bridge", "--circle", "circle")
    wait_until(lambda: "Bridging" in bridge.text())

    assert bridge.stop() == 0

    assert client.lrange("rhai_tasks:circle", 0, -1) == [task.id]
