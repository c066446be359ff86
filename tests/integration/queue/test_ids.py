"""Ids of tasks are data: whatever its bytes, however often it is submitted, an id is in one place and runs once."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from dramatiq import Message, pipeline
from dramatiq.brokers.redis import RedisBroker

from rhai_tasks import Client, ScriptActor, Task, TaskSpec
from rhai_tasks.errors import TaskExists
from rhai_tasks.protocol import QueueKeys, queue_name
from tests.conftest import Dispatcher, Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")
SLOW = "let n = 0; while n < 3_000_000 { n += 1 } `slow`"
Start = Callable[..., Worker]
KEYS = QueueKeys("rhai_dramatiq", queue_name("circle"))


def plain_broker(url: str) -> RedisBroker:
    return RedisBroker(url=url, namespace="rhai_dramatiq")  # type: ignore[no-untyped-call]


def held_message(client: Any) -> str:
    """Return the id of the message that some worker holds."""

    def find() -> str:
        names = [name for key in client.keys("rhai_dramatiq:__acks__*") for name in client.smembers(key)]
        return str(names[0]) if names else ""

    return str(wait_until(find, what="a worker to hold a message"))


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_task_whose_id_is_that_of_a_message_which_is_held_runs_beside_it(
    dispatcher: Dispatcher, start_worker: Start, client: Any, threads: str
) -> None:
    start_worker("circle", "--threads", threads)
    dispatcher.submit("circle", "first", SLOW, replyToQueue="replies")
    name = held_message(client)

    dispatcher.submit("circle", name, "`second`", replyToQueue="replies")

    assert dispatcher.result(name)["output"] == "second"
    assert dispatcher.result("first")["output"] == "slow"
    assert sorted(json.loads(reply)["taskId"] for reply in client.lrange("replies", 0, -1)) == sorted(["first", name])


def test_a_task_whose_id_is_that_of_a_message_which_waits_beside_it_runs_too(
    dispatcher: Dispatcher, start_worker: Start, client: Any
) -> None:
    message: Message[Any] = Message(KEYS.queue, "run_script", ("first",), {}, {"redis_message_id": "m-1"})
    for task_id in ("first", "m-1"):
        client.hset(f"rhai_task_details:{task_id}", mapping={"script": f"`{task_id}`", "replyToQueue": "replies"})
    client.hset(KEYS.bodies, "m-1", message.encode())
    client.rpush(KEYS.messages, "m-1", "m-1")

    start_worker()

    assert dispatcher.result("first")["output"] == "first"
    assert dispatcher.result("m-1")["output"] == "m-1"
    assert client.llen("replies") == 2


def test_a_stop_gives_both_back(dispatcher: Dispatcher, start_worker: Start, client: Any) -> None:
    worker = start_worker("circle", "--threads", "1", "--shutdown-timeout", "0")
    dispatcher.submit("circle", "first", "loop { }")
    name = held_message(client)
    dispatcher.submit("circle", name, "loop { }")  # it may begin, once the first is stopped
    wait_until(lambda: client.lrange(KEYS.messages, 0, -1) == [name], what="the second to wait")

    worker.stop()

    assert sorted(client.lrange("rhai_tasks:circle", 0, -1)) == sorted(["first", name])


@pytest.mark.parametrize("actor", ["other", "run_script"])
def test_a_foreign_message_changes_no_details_but_those_of_its_own_task(
    client: Any, server_url: str, actor: str, dispatcher: Dispatcher
) -> None:
    dispatcher.submit("circle", "victim", "1")
    client.hset("rhai_task_details:victim", "status", "completed")
    before = dispatcher.details("victim")
    scripts = ScriptActor(server_url, circle="circle")
    message: Message[Any] = Message(KEYS.queue, actor, ("victim",), {"details": {"script": "2"}}, {})

    if actor == "other":
        scripts.broker.enqueue(message)
    else:
        plain_broker(server_url).enqueue(message)

    assert dispatcher.details("victim") == before


def test_a_message_of_another_actor_leaves_the_task_that_its_argument_names_as_it_is(
    client: Any, server_url: str, dispatcher: Dispatcher, start_worker: Start
) -> None:
    client.hset("rhai_task_details:victim", mapping={"script": "1", "status": "pending"})
    message: Message[Any] = Message(KEYS.queue, "other", ("victim",), {}, {})
    plain_broker(server_url).enqueue(message)

    start_worker()

    wait_until(lambda: client.zcard(KEYS.dead) == 1, what="the message to be a dead letter")
    assert dispatcher.details("victim") == {"script": "1", "status": "pending"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sequence", "many"),
        ("sequence", "-inf"),
        ("sequence", "9" * 400),
        ("deliveries", "often"),
        ("deliveries", "-1"),
        ("deliveries", ""),
    ],
)
def test_a_number_that_is_none_stops_nothing(
    dispatcher: Dispatcher, start_worker: Start, client: Any, key: str, value: str
) -> None:
    for number in range(20):
        dispatcher.submit("circle", f"t{number}", "40 + 2")
    if key == "sequence":
        client.set(KEYS.sequence, value)
    else:
        client.hset(KEYS.deliveries, mapping={f":t{number}": value for number in range(20)})

    start_worker()

    assert {dispatcher.result(f"t{number}")["output"] for number in range(20)} == {"42"}


# --- the same id, submitted again

Again = Callable[[Client], Task]
WAYS: dict[str, Again] = {
    "native": lambda app: app.submit("`new`", task_id="t"),
    "dramatiq": lambda app: app.submit("`new`", task_id="t", via="dramatiq"),
    "urgent": lambda app: app.submit("`new`", task_id="t", via="urgent"),
    "other circle": lambda app: app.submit("`new`", task_id="t", circle="other"),
    "delayed": lambda app: app.submit("`new`", task_id="t", delay=0.3),
    "delayed message": lambda app: app.submit("`new`", task_id="t", delay=0.3, via="dramatiq"),
    "many": lambda app: app.submit_many([TaskSpec("`old`", task_id="t"), TaskSpec("`new`", task_id="t")])[-1],
}


def places(client: Any) -> list[str]:
    found = []
    for circle in ("circle", "other"):
        keys = QueueKeys("rhai_dramatiq", queue_name(circle))
        for name in (f"rhai_tasks:{circle}", keys.messages):
            found += [name] * client.lrange(name, 0, -1).count("t")
        found += [name for name in (keys.delayed, keys.delayed_messages) if client.zscore(name, "t") is not None]
    return found


@pytest.mark.parametrize("cancelled", [False, True], ids=["pending", "cancelled"])
@pytest.mark.parametrize("first", WAYS)
@pytest.mark.parametrize("second", WAYS)
def test_a_task_that_is_submitted_again_while_it_waits_is_in_one_place(
    app: Client, client: Any, first: str, second: str, cancelled: bool
) -> None:
    task = WAYS[first](app)
    if cancelled:
        task.cancel()

    WAYS[second](app)

    assert len(places(client)) == 1
    assert app.task("t").details()["script"] == "`new`"
    assert str(app.task("t").status()) == "pending"


@pytest.mark.parametrize("second", WAYS)
def test_it_runs_once(app: Client, client: Any, start_worker: Start, second: str) -> None:
    app.submit("throw `old`", task_id="t")
    app.cancel("t")

    WAYS[second](app)
    start_worker("circle", "--reply-lists")
    start_worker("other", "--reply-lists")

    assert app.task("t").result(30) == "new"
    assert client.llen("rhai_reply:t") == 1
    assert places(client) == []


@pytest.mark.parametrize("cancelled", [False, True], ids=["running", "cancelled"])
def test_a_task_that_is_submitted_again_while_it_runs_keeps_the_new_outcome_alone(
    app: Client, client: Any, start_worker: Start, cancelled: bool
) -> None:
    start_worker("circle", "--threads", "2", *ENGINE)
    app.submit("sleep(1.5); `old`" if not cancelled else "loop { }", task_id="t", fields={"replyToQueue": "replies"})
    wait_until(lambda: str(app.task("t").status()) == "processing")
    if cancelled:
        app.cancel("t")

    app.submit("`new`", task_id="t", fields={"replyToQueue": "replies"})

    assert app.task("t").result(30) == "new"
    wait_until(lambda: not client.keys("rhai_dramatiq:__acks__*"), what="the old run to end")
    assert app.task("t").details()["output"] == "new"
    assert [json.loads(reply)["output"] for reply in client.lrange("replies", 0, -1)] == ["new"]


def test_the_run_of_an_earlier_submission_that_is_given_back_does_not_run_again(
    app: Client, client: Any, start_worker: Start
) -> None:
    worker = start_worker("circle", "--threads", "1", "--shutdown-timeout", "0")
    app.submit("loop { }", task_id="t")
    wait_until(lambda: str(app.task("t").status()) == "processing")
    app.submit("`new`", task_id="t")

    worker.stop()

    assert client.lrange("rhai_tasks:circle", 0, -1) == ["t"]
    assert client.hlen(KEYS.bodies) == 0


def test_an_id_that_stands_twice_in_one_unique_submission_is_taken(app: Client, client: Any) -> None:
    with pytest.raises(TaskExists):
        app.submit_many([TaskSpec("1", task_id="t", unique=True)] * 2)

    assert places(client) == []
    assert client.exists("rhai_task_details:t") == 0


def test_a_message_of_a_script_actor_replaces_the_task_of_its_id(
    app: Client, client: Any, server_url: str, start_worker: Start
) -> None:
    app.submit("`old`", task_id="t")
    scripts = ScriptActor(server_url, circle="circle")

    scripts.send("`new`", task_id="t")

    assert places(client) == []
    start_worker()
    assert app.task("t").result(30) == "new"
    assert client.llen("rhai_tasks:circle") == 0


def test_steps_of_a_pipeline_have_ids_of_their_own(client: Any, server_url: str, start_worker: Start) -> None:
    scripts = ScriptActor(server_url, circle="circle")
    start_worker()

    steps = pipeline(
        [scripts.message("`a`", task_id="t"), scripts.message("INPUT + `b`", task_id="u")], broker=scripts.broker
    )
    steps.run()

    wait_until(lambda: client.hget("rhai_task_details:u", "output") == "ab")


def test_counts_of_deaths_and_reasons_for_what_is_gone_are_removed(
    dispatcher: Dispatcher, start_worker: Start, client: Any
) -> None:
    client.hset(KEYS.deliveries, mapping={f"m-{number}": 1 for number in range(3)})
    client.hset(KEYS.dead_reasons, mapping={f"gone-{number}": "odd" for number in range(3)})
    client.hset(KEYS.deliveries, ":kept", 1)
    client.hset("rhai_task_details:kept", "script", "1")
    client.set("rhai_task_details:odd", "no hash")
    start_worker("circle", "--threads", "1")

    for number in range(40):
        client.hset(KEYS.deliveries, f":t{number}", 1)
        dispatcher.submit("circle", f"t{number}", "1")
        client.lpush("rhai_tasks:circle", "odd")
        dispatcher.result(f"t{number}")
        if client.hlen(KEYS.deliveries) == 1 and client.hlen(KEYS.dead_reasons) == client.zcard(KEYS.dead):
            break

    wait_until(lambda: client.hkeys(KEYS.deliveries) == [":kept"])
    wait_until(lambda: client.hlen(KEYS.dead_reasons) == client.zcard(KEYS.dead))


def test_an_output_that_the_server_does_not_take_ends_its_task_alone(
    dispatcher: Dispatcher, start_worker: Start, client: Any
) -> None:
    client.config_set("proto-max-bulk-len", 1024 * 1024)
    try:
        worker = start_worker("circle", "--threads", "2")
        dispatcher.submit("circle", "large", 'let s = ""; s.pad(2_000_000, "x"); s')
        for number in range(50):
            dispatcher.submit("circle", f"t{number}", str(number))

        assert "output of 2000000 bytes is larger" in dispatcher.result("large")["error"]
        assert [dispatcher.result(f"t{number}")["output"] for number in range(50)] == [str(n) for n in range(50)]
        assert dispatcher.run("circle", "1")["output"] == "1"
        assert worker.stop() == 0
    finally:
        client.config_set("proto-max-bulk-len", 512 * 1024 * 1024)


def test_a_reply_that_the_server_does_not_take_is_left_out(
    dispatcher: Dispatcher, start_worker: Start, client: Any
) -> None:
    client.config_set("proto-max-bulk-len", 1024 * 1024)
    try:
        start_worker("circle", "--threads", "2")
        script = "/*" + "\x01" * 500_000 + "*/ 1"  # six times as long in JSON
        dispatcher.submit("circle", "large", script, replyToQueue="replies")

        assert "larger than the server takes" in dispatcher.result("large")["error"]
        assert client.llen("replies") == 0
    finally:
        client.config_set("proto-max-bulk-len", 512 * 1024 * 1024)
