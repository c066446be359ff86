"""Why a task waits, when a circle has no task left, and how old the oldest one is."""

import json
import subprocess
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest

from rhai_tasks import Client, Settings
from rhai_tasks.errors import TaskNotFound
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.why import Why, explain
from rhai_tasks.operate.workers import read_workers, set_quiet
from rhai_tasks.protocol import Quota, Rule, script_hash, timestamp
from tests.commands import run_command
from tests.conftest import FINAL, Dispatcher, Worker, wait_until

CIRCLE = "circle"


@pytest.fixture
def queues(client: Any, server_url: str) -> Queues:
    return Queues(Settings(redis_url=server_url), "ada")


def command(server_url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_command("rhai-tasks", *arguments, env={"RHAI_TASKS_REDIS_URL": server_url})


def waits(queues: Queues, task_id: str, *words: str) -> Why:
    """Wait until the explanation has these words, and return it."""

    def found() -> Why | None:
        why = explain(queues, task_id)
        text = " ".join([why.place, *why.holds])
        return why if all(word in text for word in words) else None

    why: Why = wait_until(found, what=f"{words} in {explain(queues, task_id)}")
    return why


def test_a_task_of_a_circle_without_workers_says_its_place_and_that_nobody_serves_it(
    dispatcher: Dispatcher, queues: Queues
) -> None:
    for number in range(3):
        dispatcher.submit(CIRCLE, f"t{number}", "1")

    why = explain(queues, "t0")
    newest = explain(queues, "t2")

    assert (why.status, why.circle, why.caller, why.place) == ("pending", CIRCLE, "caller", "3 of 3 in the native list")
    assert (why.ahead, newest.ahead) == (2, 0)
    assert why.holds == ("no worker of this project serves the circle",)
    oldest_first = Queues(Settings(redis_url=queues.settings.redis_url, order="oldest"))
    assert explain(oldest_first, "t0").place == "1 of 3 in the native list"


def test_tasks_without_a_caller_are_called_so(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues
) -> None:
    start_worker(CIRCLE)
    queues.rules.set(CIRCLE, Rule("pause", "caller", ""))
    dispatcher.submit(CIRCLE, "t", "1", callerId="")

    why = waits(queues, "t", "1 of 1 in the line of tasks without a caller")
    assert why.holds[0].startswith("pause of tasks without a caller since ")


def test_each_rule_that_holds_a_task_up_is_named(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues
) -> None:
    start_worker(CIRCLE)
    rules = queues.rules
    rules.set(CIRCLE, Rule("limit", "callers", quota=Quota(concurrency=2)))
    running = [dispatcher.submit(CIRCLE, f"r{number}", "sleep(60.0)") for number in range(2)]
    wait_until(lambda: all(dispatcher.status(task_id) == "processing" for task_id in running))
    dispatcher.submit(CIRCLE, "first", "1")
    waits(queues, "first", "1 of 1 in the line of caller caller")
    dispatcher.submit(CIRCLE, "second", "1")

    why = waits(queues, "second", "2 of 2 in the line of caller caller")
    assert why.holds == ("limit of caller caller reached: 2 of 2 run",)
    assert explain(queues, "r0").place == "a worker runs it"
    rules.set(CIRCLE, Rule("pause", "caller", "caller", reason="why"))
    assert "pause of caller caller since" in explain(queues, "second").holds[0]
    rules.set(CIRCLE, Rule("pause", "circle"))
    assert "pause of the circle since" in explain(queues, "second").holds[0]


def test_a_rate_that_is_reached_is_named(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues
) -> None:
    start_worker(CIRCLE)
    queues.rules.set(CIRCLE, Rule("limit", "circle", quota=Quota(rate=0.01, burst=1)))
    for number in range(2):
        dispatcher.submit(CIRCLE, f"t{number}", "1")
    wait_until(lambda: any(dispatcher.status(f"t{number}") in FINAL for number in range(2)))
    waiting = next(f"t{number}" for number in range(2) if dispatcher.status(f"t{number}") == "pending")

    assert waits(queues, waiting, "limit of the circle reached: at most 0.01/s begin")


@pytest.mark.parametrize(
    ("block", "subject"),
    [
        (Rule("block", "caller", "caller"), "caller caller"),
        (Rule("block", "script", script_hash(sha256(b"1").hexdigest())), f"script sha256:{sha256(b'1').hexdigest()}"),
    ],
    ids=["caller", "script"],
)
def test_a_blocked_task_that_waits_says_so(dispatcher: Dispatcher, queues: Queues, block: Rule, subject: str) -> None:
    queues.rules.set(CIRCLE, block)
    dispatcher.submit(CIRCLE, "blocked", "1")
    dispatcher.submit(CIRCLE, "free", "2", callerId="other")

    assert (
        f"block of {subject} by ada: it ends as an error once a worker fetches it" in explain(queues, "blocked").holds
    )
    assert not [hold for hold in explain(queues, "free").holds if "block" in hold]


def test_a_task_behind_busy_threads_says_so(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues
) -> None:
    start_worker(CIRCLE, "--threads", "2")
    for number in range(2):
        dispatcher.submit(CIRCLE, f"r{number}", "sleep(60)")
    wait_until(lambda: {dispatcher.status(f"r{number}") for number in range(2)} == {"processing"})

    waiting = dispatcher.submit(CIRCLE, "w", "1")

    waits(queues, waiting, "all threads of the circle's workers are busy: 2")


def test_a_task_before_quiet_workers_says_so(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues
) -> None:
    start_worker(CIRCLE)
    (report,) = wait_until(lambda: read_workers(queues.client, "rhai_dramatiq"))
    set_quiet(queues.client, "rhai_dramatiq", report.process, quiet=True)
    wait_until(lambda: all(report.quiet for report in read_workers(queues.client, "rhai_dramatiq")))

    waiting = dispatcher.submit(CIRCLE, "w", "1")

    waits(queues, waiting, "the circle's workers are quiet")


def test_delayed_ended_and_unknown_tasks_are_told_apart(app: Client, dispatcher: Dispatcher, queues: Queues) -> None:
    app.submit("1", task_id="late", delay=1000.0)
    dispatcher.client.hset("rhai_task_details:lost", mapping={"script": "1", "status": "processing"})
    dispatcher.client.hset("rhai_task_details:done", mapping={"script": "1", "status": "completed"})

    assert "delayed until" in explain(queues, "late").holds[0]
    assert explain(queues, "done").place == "it has ended"
    assert explain(queues, "lost").place == "an original worker has it, or its worker died"
    with pytest.raises(TaskNotFound):
        explain(queues, "nothing")


def test_the_command_prints_the_reasons_and_json(dispatcher: Dispatcher, server_url: str) -> None:
    dispatcher.submit(CIRCLE, "t", "1")

    shown = command(server_url, "why", "t")

    assert shown.stdout.splitlines() == [
        "pending: 1 of 1 in the native list, circle circle",
        "- no worker of this project serves the circle",
    ]
    found = json.loads(command(server_url, "why", "t", "--json").stdout)
    assert (found["taskId"], found["ahead"]) == ("t", 0)
    assert command(server_url, "why", "nothing").returncode == 3


def test_an_estimate_follows_the_pace_of_the_last_minutes(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues
) -> None:
    start_worker(CIRCLE, "--threads", "1", "--buffer", "1", "--order", "oldest")
    for number in range(200):
        dispatcher.submit(CIRCLE, f"t{number}", "sleep(0.1)")
    oldest_first = Queues(Settings(redis_url=queues.settings.redis_url, order="oldest"))

    why = wait_until(lambda: (found := explain(oldest_first, "t199")).seconds and found, what="a heartbeat")

    assert 0.02 * why.ahead < why.seconds < why.ahead  # 0.1 s each, on a machine with other load


# --- drain and burst


def test_drain_ends_once_the_last_script_has(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], server_url: str
) -> None:
    start_worker(CIRCLE, "--threads", "2")
    ids = [dispatcher.submit(CIRCLE, f"t{number}", "sleep(0.3)") for number in range(6)]

    assert command(server_url, "drain", CIRCLE).returncode == 0

    assert {dispatcher.status(task_id) for task_id in ids} == {"completed"}
    assert command(server_url, "drain", CIRCLE).returncode == 0


def test_drain_says_that_a_rule_may_hold_the_rest_up(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues, server_url: str
) -> None:
    queues.rules.set(CIRCLE, Rule("pause", "caller", "caller"))
    start_worker(CIRCLE)
    dispatcher.submit(CIRCLE, "t", "1")
    wait_until(lambda: queues.count([CIRCLE])[0].parked == 1)

    ended = command(server_url, "drain", CIRCLE, "--timeout", "0.1")

    assert "1 task(s) of circle circle are left" in ended.stderr
    assert "; rules may hold them up: rhai-tasks why ID" in ended.stderr


def test_drain_says_what_is_left_at_its_timeout(dispatcher: Dispatcher, server_url: str) -> None:
    dispatcher.submit(CIRCLE, "t", "1")

    ended = command(server_url, "drain", CIRCLE, "--timeout", "0.5")

    assert ended.returncode == 4
    assert ended.stderr == (
        "1 task(s) of circle circle wait: no worker serves the circle.\n"
        "Error: 1 task(s) of circle circle are left; no worker serves the circle\n"
    )


def test_drain_says_at_once_that_the_circle_is_paused_and_goes_on_after_the_pause(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues, spawn: Callable[..., Worker]
) -> None:
    start_worker(CIRCLE)
    queues.rules.set(CIRCLE, Rule("pause", "circle"))
    dispatcher.submit(CIRCLE, "t", "1")
    wait_until(lambda: queues.count([CIRCLE])[0].workers)

    draining = spawn("rhai-tasks", "drain", CIRCLE)

    draining.await_text("1 task(s) of circle circle wait: the circle is paused.")
    queues.rules.clear(CIRCLE, Rule("pause", "circle"))
    assert draining.process.wait(60) == 0


def test_a_burst_runs_what_is_due_and_ends(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], app: Client
) -> None:
    ids = [dispatcher.submit(CIRCLE, f"t{number}", "sleep(0.2)") for number in range(20)]
    due = app.submit("1", delay=0.1)
    later = app.submit("1", delay=1000.0)
    time.sleep(0.2)

    worker = start_worker(CIRCLE, "--burst")

    assert worker.process.wait(60) == 0
    assert {dispatcher.status(task_id) for task_id in ids} == {"completed"}
    assert (due.status(), later.status()) == ("completed", "pending")


def test_a_burst_without_tasks_ends_at_once(start_worker: Callable[..., Worker]) -> None:
    assert start_worker(CIRCLE, "--burst").process.wait(60) == 0


@pytest.mark.parametrize(
    "pause", [Rule("pause", "circle"), Rule("pause", "caller", "caller")], ids=["circle", "caller"]
)
def test_a_burst_ends_with_paused_tasks_and_says_how_many(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues, pause: Rule
) -> None:
    queues.rules.set(CIRCLE, pause)
    for number in range(3):
        dispatcher.submit(CIRCLE, f"t{number}", "1")

    worker = start_worker(CIRCLE, "--burst")

    assert worker.process.wait(60) == 0
    assert "All 3 task(s) left of circle circle are paused, as rhai-tasks rules shows: stopping" in worker.text()
    assert dispatcher.client.llen(dispatcher.native_list(CIRCLE)) == 3


def test_a_burst_waits_for_a_limit_and_says_so(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], queues: Queues
) -> None:
    queues.rules.set(CIRCLE, Rule("limit", "callers", quota=Quota(rate=0.2, burst=1)))
    for number in range(2):
        dispatcher.submit(CIRCLE, f"t{number}", "1")

    worker = start_worker(CIRCLE, "--burst")

    assert worker.process.wait(60) == 0
    assert {dispatcher.status(f"t{number}") for number in range(2)} == {"completed"}
    assert "Limits of circle circle hold up 1 task(s): rhai-tasks why ID says which" in worker.text()


# --- age


def test_the_age_of_the_oldest_waiting_task_is_shown(dispatcher: Dispatcher, queues: Queues) -> None:
    (empty,) = queues.count([CIRCLE])
    dispatcher.submit(CIRCLE, "old", "1", createdAt=timestamp(time.time() - 100))
    dispatcher.submit(CIRCLE, "young", "1", createdAt=timestamp(time.time()))
    dispatcher.submit(CIRCLE, "unknown", "1", createdAt="yesterday")

    (queue,) = queues.count([CIRCLE])

    assert empty.oldest is None
    assert queue.oldest is not None
    assert 100 <= queue.oldest < 160


def test_a_circle_that_nobody_serves_is_shown(dispatcher: Dispatcher, server_url: str) -> None:
    dispatcher.submit(CIRCLE, "t", "1", createdAt=timestamp(time.time() - 100))

    table = command(server_url, "queues").stdout

    assert "circle not served" in table
    assert " s" in table
