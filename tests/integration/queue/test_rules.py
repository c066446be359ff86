"""Rules of a circle: an operator pauses it, and blocks callers and scripts."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Client, Settings
from rhai_tasks.errors import ConfigurationError, ScriptError
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.rules import AUDITED, Rules
from rhai_tasks.protocol import Rule, queue_name
from rhai_tasks.queue.rabbitmq import RabbitBroker
from tests.conftest import FINAL, Dispatcher, Worker, wait_until

CIRCLE = "circle"
PAUSE = Rule("pause", "circle", reason="a look at the database")
SLOW = "sleep(1.0)"


@pytest.fixture
def rules(client: Any, server_url: str) -> Rules:
    return Queues(Settings(redis_url=server_url), "me").rules


def begun(dispatcher: Dispatcher, ids: list[str]) -> int:
    return sum(dispatcher.status(task_id) != "pending" for task_id in ids)


def queue_of(server_url: str) -> Any:
    with Queues(Settings(redis_url=server_url)) as queues:
        return queues.count([CIRCLE])[0]


def test_nothing_begins_in_a_paused_circle_until_it_is_resumed(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, server_url: str
) -> None:
    start_worker(CIRCLE)
    dispatcher.run(CIRCLE, "1")

    rules.set(CIRCLE, PAUSE)
    ids = [dispatcher.submit(CIRCLE, f"t{number}", "1") for number in range(40)]
    wait_until(lambda: queue_of(server_url).buffered, what="the bridge to take them")
    time.sleep(1.0)  # for anything to go wrong

    assert begun(dispatcher, ids) == 0
    assert queue_of(server_url).paused
    assert rules.clear(CIRCLE, PAUSE)
    assert [dispatcher.result(task_id)["output"] for task_id in ids] == ["1"] * 40
    assert not queue_of(server_url).paused
    assert not rules.clear(CIRCLE, PAUSE)


def test_a_pause_lets_running_scripts_end_and_recalls_prefetched_tasks(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, server_url: str
) -> None:
    start_worker(CIRCLE, "--threads", "1", "--order", "oldest")
    for number in range(60):  # quick ones: the worker begins to prefetch
        dispatcher.submit(CIRCLE, f"quick{number}", "1")
    wait_until(lambda: dispatcher.status("quick59") in FINAL)
    rules.set(CIRCLE, PAUSE)
    dispatcher.submit(CIRCLE, "slow", SLOW)
    ids = [dispatcher.submit(CIRCLE, f"t{number}", "1") for number in range(20)]
    wait_until(lambda: queue_of(server_url).buffered == 21)
    rules.clear(CIRCLE, PAUSE)
    wait_until(lambda: dispatcher.status("slow") == "processing", what="the slow script to run")
    held = wait_until(lambda: queue_of(server_url).prefetched, within=0.8, what="tasks to wait behind it")

    rules.set(CIRCLE, PAUSE)
    wait_until(lambda: queue_of(server_url).prefetched == 0, within=1.0, what="the worker to release them")

    assert held
    assert dispatcher.result("slow")["status"] == "completed"
    time.sleep(1.0)  # for anything to go wrong
    assert begun(dispatcher, ids) == 0
    rules.clear(CIRCLE, PAUSE)
    assert [dispatcher.result(task_id)["status"] for task_id in ids] == ["completed"] * 20
    finished = sorted(ids, key=lambda task_id: dispatcher.details(task_id)["updatedAt"])
    assert finished == ids  # still in their order


def test_a_pause_outlives_the_workers_and_a_stopped_worker_gives_everything_back(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any, server_url: str
) -> None:
    rules.set(CIRCLE, PAUSE)
    ids = [dispatcher.submit(CIRCLE, f"t{number}", "1") for number in range(30)]
    before = client.lrange(f"rhai_tasks:{CIRCLE}", 0, -1)
    first = start_worker(CIRCLE)
    wait_until(lambda: queue_of(server_url).buffered)

    assert first.stop() == 0

    assert client.lrange(f"rhai_tasks:{CIRCLE}", 0, -1) == before
    start_worker(CIRCLE)
    wait_until(lambda: queue_of(server_url).buffered)
    assert begun(dispatcher, ids) == 0


def test_tasks_of_a_blocked_caller_end_as_errors_that_say_why(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, server_url: str
) -> None:
    start_worker(CIRCLE)
    rules.set(CIRCLE, Rule("block", "caller", "noisy", reason="it floods us"))

    ended = dispatcher.run(CIRCLE, "1", callerId="noisy", replyToQueue="reply")
    old = dispatcher.run(CIRCLE, "1", callerId="", publicKey="noisy")

    assert (ended["status"], ended["error"], ended["errorKind"]) == ("error", "blocked: it floods us", "Blocked")
    (reply,) = dispatcher.client.lrange("reply", 0, -1)
    assert json.loads(reply)["error"] == "blocked: it floods us"
    assert old["status"] == "completed"  # an empty callerId is a caller
    assert dispatcher.run(CIRCLE, "1", callerId="quiet")["output"] == "1"
    with Client(server_url, circle=CIRCLE, caller_id="noisy") as app, pytest.raises(ScriptError) as caught:
        app.submit("1").result(timeout=60)
    assert caught.value.kind == "Blocked"
    rules.clear(CIRCLE, Rule("block", "caller", "noisy"))
    assert dispatcher.run(CIRCLE, "1", callerId="noisy")["output"] == "1"


def test_a_blocked_script_ends_as_an_error_whoever_calls_it(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    start_worker(CIRCLE)
    rules.set(CIRCLE, Rule("block", "script", hashlib.sha256(b"6 * 7").hexdigest()))

    assert dispatcher.run(CIRCLE, "6 * 7")["error"] == "blocked: "
    assert dispatcher.run(CIRCLE, "6 * 8")["output"] == "48"


def test_the_log_of_changes_is_bounded_and_says_who_when_what_and_why(rules: Rules, client: Any) -> None:
    for number in range(AUDITED + 5):
        rules.set(CIRCLE, Rule("block", "caller", f"c{number}", reason="why"))
    rules.set("other", PAUSE)

    first, *rest = rules.changes()

    assert (first.by, first.circle, first.what, first.reason) == ("me", "other", "pause the circle", PAUSE.reason)
    assert abs(first.at - time.time()) < 60
    assert len(rest) == AUDITED - 1
    assert rest[0].what == f"block caller c{AUDITED + 4}"
    assert [change.circle for change in rules.changes("other")] == ["other"]


def test_without_rules_a_fetch_asks_the_server_no_more_than_with_one_that_says_nothing(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    def calls() -> int:
        client.config_resetstat()
        dispatcher.run(CIRCLE, "1")
        return int(client.info("commandstats").get("cmdstat_hgetall", {"calls": 0})["calls"])

    start_worker(CIRCLE)
    dispatcher.run(CIRCLE, "1")
    without = calls()
    client.hset("rhai_dramatiq:rhai-circle.rules", "of a later version", "1")

    assert calls() == without + 1


# --- through RabbitMQ, where workers hold what has not begun


def test_a_worker_through_rabbitmq_refuses_a_circle_with_rules(rules: Rules, server_url: str) -> None:
    broker = RabbitBroker(Settings(redis_url=server_url, broker_url="amqp://127.0.0.1:1"))
    rules.set(CIRCLE, PAUSE)

    broker.declare_circle("other")
    with pytest.raises(ConfigurationError, match="circle circle has rules.*do not hold through RabbitMQ"):
        broker.declare_circle(CIRCLE)


def test_no_rule_is_set_for_a_circle_that_is_served_through_rabbitmq(
    rules: Rules, client: Any, server_url: str
) -> None:
    broker = RabbitBroker(Settings(redis_url=server_url, broker_url="amqp://127.0.0.1:1"), broker_id="rabbit")
    broker.consume(queue_name(CIRCLE), 2, 10)
    broker.leases.renew(queue_name(CIRCLE), heartbeat=broker.recorder.report())

    with pytest.raises(ConfigurationError, match="rules do not hold through RabbitMQ, by which process"):
        rules.set(CIRCLE, PAUSE)
    rules.set("other", PAUSE)
    assert not rules.read(CIRCLE)
