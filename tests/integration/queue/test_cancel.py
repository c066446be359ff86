"""Cancelling: a task that waits never runs, one that runs is stopped, and both end as `cancelled`."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.circle import CircleBridge
from rhai_tasks import Client, Settings
from rhai_tasks.errors import TaskCancelled, TaskNotFound
from rhai_tasks.protocol import Dialect
from tests.conftest import Dispatcher, Worker, wait_until

pytestmark = pytest.mark.each_dialect

ENGINE = ("--engine", "tests.engine_for_tests:make_engine", "--threads", "1")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A file in which scripts note that they run."""
    return tmp_path / "runs"


def nothing_is_left(client: Any) -> bool:
    queue = "rhai_dramatiq:rhai-circle"
    return not any(
        client.exists(key)
        for key in ("rhai_tasks:circle", "hero:work_queue:circle", queue, f"{queue}.msgs", f"{queue}.deliveries")
    )


def is_cancelled(app: Client, task_id: str) -> None:
    with pytest.raises(TaskCancelled, match="was cancelled"):
        app.task(task_id).result(timeout=60)
    details = app.task(task_id).details()
    assert (details["status"], details["error"], details.get("output")) == ("error", "cancelled", None)


def test_a_running_script_is_stopped_within_a_second(
    app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle", *ENGINE)
    task = app.submit("loop {}")
    wait_until(lambda: task.status() == "processing")

    cancelled = time.monotonic()
    assert app.cancel(task.id)

    assert app.submit("1").result(timeout=60) == "1"  # the only thread is free again
    print(f"free after {time.monotonic() - cancelled:.3f} s")
    is_cancelled(app, task.id)
    wait_until(lambda: nothing_is_left(client))


def test_a_task_in_the_native_list_never_runs(
    app: Client, start_worker: Callable[..., Worker], client: Any, runs: Path
) -> None:
    task = app.submit(f'note("{runs}", "ran")')

    assert app.cancel(task.id)
    assert app.cancel(task.id), "a second time is not an error"

    start_worker("circle", *ENGINE)
    wait_until(lambda: nothing_is_left(client))
    is_cancelled(app, task.id)
    assert not runs.exists()


def test_a_task_in_dramatiqs_queue_never_runs(
    app: Client, start_worker: Callable[..., Worker], client: Any, runs: Path, server_url: str, dialect: Dialect
) -> None:
    task = app.submit(f'note("{runs}", "ran")')
    bridge = CircleBridge(Settings(redis_url=server_url, dialect=dialect.name), "circle", client)
    bridge.forward(0)
    bridge.close()
    assert client.llen("rhai_dramatiq:rhai-circle") == 1

    app.cancel(task.id)

    start_worker("circle", *ENGINE)
    wait_until(lambda: nothing_is_left(client))
    is_cancelled(app, task.id)
    assert not runs.exists()


def test_a_delayed_task_never_runs(app: Client, start_worker: Callable[..., Worker], client: Any, runs: Path) -> None:
    task = app.submit(f'note("{runs}", "ran")', delay=0.2)

    app.cancel(task.id)

    start_worker("circle", *ENGINE)
    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-circle.delayed") and nothing_is_left(client))
    is_cancelled(app, task.id)
    assert not runs.exists()


def test_a_task_that_a_worker_holds_and_has_not_begun_with_never_runs(
    app: Client, start_worker: Callable[..., Worker], client: Any, runs: Path
) -> None:
    start_worker("circle", *ENGINE)
    for task in app.as_completed(app.submit_many(["1"] * 300), timeout=60):
        task.result()  # scripts are quick, so that it fetches ahead
    held, blocking = app.submit_many([f'note("{runs}", "ran")', "nap(2.0)"])  # the newest runs first
    wait_until(lambda: sum(client.scard(key) for key in client.keys("rhai_dramatiq:__acks__.*")) == 2)
    app.cancel(held.id)

    blocking.result(timeout=60)

    wait_until(lambda: nothing_is_left(client))
    is_cancelled(app, held.id)
    assert not runs.exists()


def test_what_a_script_came_to_after_it_was_cancelled_does_not_count(
    app: Client, start_worker: Callable[..., Worker], client: Any, dialect: Dialect
) -> None:
    start_worker("circle", *ENGINE)
    task = app.submit("nap(1); 5", fields={"replyToQueue": "answers"})  # Python's sleep hears nothing
    wait_until(lambda: task.status() == "processing")

    app.cancel(task.id)

    _, reply = client.blpop("answers", timeout=60)
    answer = json.loads(reply)
    assert (answer["status"], answer["error"], answer["output"]) == ("error", "cancelled", None)
    assert answer[dialect.id_field or "taskId"] == task.id
    is_cancelled(app, task.id)


def test_a_cancel_that_the_worker_did_not_hear_reaches_it_with_the_next_renewal(
    app: Client, start_worker: Callable[..., Worker], client: Any, dialect: Dialect
) -> None:
    start_worker("circle", *ENGINE)
    task = app.submit("loop {}")
    wait_until(lambda: task.status() == "processing")

    client.hset(dialect.prefixes.details + task.id, mapping={"status": "error", "error": "cancelled"})

    assert app.submit("1").result(timeout=60) == "1"


def test_a_finished_task_cannot_be_cancelled(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", *ENGINE)
    task = app.submit("1")
    task.result(timeout=60)

    assert not app.cancel(task.id)

    assert app.task(task.id).result(timeout=60) == "1"


def test_an_unknown_task_cannot_be_cancelled(app: Client, client: Any) -> None:
    with pytest.raises(TaskNotFound):
        app.cancel("nobody's")

    assert client.dbsize() == 0


def test_a_cancelled_id_that_is_submitted_again_runs(
    app: Client, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    for task_id in ("ours", "theirs"):
        app.submit("1", task_id=task_id)
        app.cancel(task_id)

    app.submit("2", task_id="ours")
    dispatcher.submit("circle", "theirs", "3")
    start_worker("circle", *ENGINE)

    assert app.task("ours").result(timeout=60) == "2"
    assert app.task("theirs").result(timeout=60) == "3"


def test_a_cancelled_task_stays_cancelled_when_its_worker_stops(
    app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    worker = start_worker("circle", *ENGINE, "--shutdown-timeout", "0")
    task = app.submit("nap(2); 5")
    wait_until(lambda: task.status() == "processing")

    app.cancel(task.id)
    worker.stop()

    is_cancelled(app, task.id)
    start_worker("circle", *ENGINE)
    wait_until(lambda: nothing_is_left(client))
    is_cancelled(app, task.id)


def test_a_worker_that_may_not_subscribe_finishes_tasks_and_hears_cancels_late(
    app: Client, start_worker: Callable[..., Worker], client: Any, server_url: str
) -> None:
    client.acl_setuser("mute", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"], reset=True)
    client.execute_command("ACL", "SETUSER", "mute", "resetchannels")
    worker = start_worker("circle", *ENGINE, "--redis-url", server_url.replace("redis://", "redis://mute:secret@"))

    assert app.submit("1").result(timeout=60) == "1"
    task = app.submit("loop {}")
    wait_until(lambda: task.status() == "processing")
    app.cancel(task.id)

    assert app.submit("2").result(timeout=60) == "2"
    assert worker.text().count("may not subscribe") == 1
    client.acl_deluser("mute")
