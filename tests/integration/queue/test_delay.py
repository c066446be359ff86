"""Tasks submitted with a delay, or past the native list."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from bridge.circle import CircleBridge
from rhai_tasks import Client, ScriptActor, Settings
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.errors import TaskNotFound
from rhai_tasks.operate.doctor import examine
from rhai_tasks.operate.queues import Queues
from tests.conftest import FINAL, Worker, wait_until
from tests.lua import commands_of

ENGINE = ("--engine", "tests.engine_for_tests:make_engine", "--threads", "1")
DRAMATIQ = ("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "2")


@pytest.mark.parametrize("via", ["native", "dramatiq"])
def test_a_delayed_task_runs_when_it_is_due(app: Client, start_worker: Callable[..., Worker], via: Any) -> None:
    start_worker("circle")
    app.submit("1").result(timeout=60)
    app.submit("later", delay=60, via=via)

    submitted = time.monotonic()
    task = app.submit("2", delay=0.5, via=via)
    assert task.status() == "pending"

    assert task.result(timeout=60) == "2"
    assert time.monotonic() - submitted >= 0.5


def test_an_outage_of_the_wait_for_delayed_tasks_alone_ends(spawn: Callable[..., Worker], client: Any) -> None:
    bridge = spawn("rhai-bridge", "--circle", "circle")

    def waiting() -> list[str]:
        return [peer["id"] for peer in client.client_list() if peer["cmd"] == "blpop"]

    (connection,) = wait_until(waiting)
    client.client_kill_filter(_id=connection)

    wait_until(lambda: "Redis is back" in bridge.text())
    assert bridge.text().count("does not answer") == 1


@pytest.mark.parametrize(("via", "order"), [("native", "newest"), ("native", "oldest"), ("dramatiq", "newest")])
def test_what_was_due_while_no_bridge_ran_runs_in_its_order(
    app: Client, start_worker: Callable[..., Worker], client: Any, tmp_path: Path, via: Any, order: str
) -> None:
    runs = tmp_path / "runs"
    for delay in (0.2, 0.1, 0.3):
        app.submit(f'note("{runs}", "{delay}")', delay=delay, via=via)
    last = app.submit("1", delay=0.4, via=via)
    zset = "rhai_dramatiq:rhai-circle." + ("delayed" if via == "native" else "delayed_messages")
    assert client.zcard(zset) == 4
    wait_until(lambda: client.zcount(zset, "-inf", client.time()[0] * 1000) == 4)  # all are due

    start_worker("circle", *ENGINE, "--order", order)

    assert last.result(timeout=60) == "1"
    assert runs.read_text().split() == ["0.1", "0.2", "0.3"]
    assert not client.exists(zset)


def test_a_circle_whose_list_is_none_holds_no_other_up(app: Client, spawn: Callable[..., Worker], client: Any) -> None:
    client.set("rhai_tasks:odd", "no list")
    held_up = app.submit("1", circle="odd", delay=0.1)
    task = app.submit("2", delay=0.2)

    spawn("rhai-bridge", "--circle", "odd", "--circle", "circle")
    spawn(*DRAMATIQ)

    assert task.result(timeout=60) == "2"
    assert held_up.status() == "pending"
    client.delete("rhai_tasks:odd")
    assert held_up.result(timeout=60) == "1"


def test_a_circle_with_nothing_but_delayed_tasks_is_found(
    app: Client, spawn: Callable[..., Worker], client: Any
) -> None:
    assert client.ping()
    task = app.submit("1", delay=0.1)

    spawn("rhai-bridge", "--all-circles")
    spawn(*DRAMATIQ)

    assert task.result(timeout=60) == "1"


def test_a_task_handed_to_dramatiq_needs_no_bridge(app: Client, spawn: Callable[..., Worker], client: Any) -> None:
    task = app.submit("CONTEXT_ID", via="dramatiq")
    assert not client.exists("rhai_tasks:circle")

    spawn(*DRAMATIQ)

    assert task.result(timeout=60) == "circle"


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


# --- what dramatiq's own brokers delay


NS = "rhai_dramatiq"


@pytest.fixture
def plain(server_url: str) -> Iterator[RedisBroker]:
    broker = RedisBroker(url=server_url, namespace=NS)  # type: ignore[no-untyped-call]
    yield broker
    broker.close()


@pytest.fixture
def scripts(server_url: str, app: Client) -> Iterator[ScriptActor]:
    actor = ScriptActor(server_url, circle="circle")
    yield actor
    actor.broker.close()


def test_what_a_plain_broker_delays_runs_when_it_is_due(
    app: Client, plain: RedisBroker, scripts: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    app.submit("1").result(timeout=60)
    early, late = scripts.message("`early`"), scripts.message("`late`")
    submitted = time.monotonic()

    plain.enqueue(late, delay=900_000)
    plain.enqueue(early, delay=700)

    wait_until(lambda: client.zcard(f"{NS}:rhai-circle.delayed_messages") == 2)
    wait_until(lambda: _has_ended(app, early))
    assert time.monotonic() - submitted >= 0.7
    assert app.task(early.args[0]).result() == "early"
    assert not client.exists(f"{NS}:rhai-circle.DQ", f"{NS}:rhai-circle.DQ.msgs")
    with pytest.raises(TaskNotFound):
        app.task(late.args[0]).status()


def _has_ended(app: Client, message: Message[Any]) -> bool:
    try:
        return app.task(message.args[0]).status() in FINAL
    except TaskNotFound:
        return False


def test_what_a_plain_broker_delays_outlives_restarts_and_is_seen(
    app: Client, plain: RedisBroker, scripts: ScriptActor, start_worker: Callable[..., Worker], server_url: str
) -> None:
    queues = Queues(Settings(redis_url=server_url))
    messages = [scripts.message(str(number)) for number in range(1200)]  # more than are moved at once
    for message in messages:
        plain.enqueue(message, delay=10)

    assert queues.circles() == ["circle"]
    assert queues.count(["circle"])[0].delayed == 1200
    assert any("no bridge hands them over" in finding.what for finding in examine(Settings(redis_url=server_url)))
    start_worker("circle")

    wait_until(lambda: all(_has_ended(app, message) for message in messages[-5:]))
    wait_until(lambda: _has_ended(app, messages[0]))
    assert queues.count(["circle"])[0].delayed == 0
    assert not any("no bridge hands them over" in finding.what for finding in examine(Settings(redis_url=server_url)))


def test_what_a_plain_broker_delays_is_purged(
    app: Client, plain: RedisBroker, scripts: ScriptActor, server_url: str, client: Any
) -> None:
    queues = Queues(Settings(redis_url=server_url))
    for _ in range(1100):
        plain.enqueue(scripts.message("1"), delay=60_000)
    plain.enqueue(scripts.message("1"))

    assert queues.purge("circle") == 1101

    assert queues.count(["circle"])[0].delayed == 0
    assert not client.keys(f"{NS}:rhai-circle.*msgs")


def test_what_a_plain_broker_delays_is_listed_handed_over_and_forgotten(
    app: Client, plain: RedisBroker, scripts: ScriptActor, server_url: str, client: Any
) -> None:
    queues = Queues(Settings(redis_url=server_url))
    app.submit("1", task_id="native", delay=60)
    app.submit("1", task_id="message", delay=60, via="dramatiq")
    for number in (3, 1, 2):
        plain.enqueue(scripts.message("1", task_id=f"plain {number}"), delay=60_000 * number)
    for name, body in GARBAGE.items():
        client.hset(f"{NS}:rhai-circle.DQ.msgs", name, body)

    listed = queues.delayed.read("circle", 0, 100)
    assert [one.task_id for one in listed if one.task_id] == ["native", "message", "plain 1", "plain 2", "plain 3"]
    assert len(listed) == queues.count(["circle"])[0].delayed == 5 + len(GARBAGE)
    assert [queues.delayed.read("circle", start, 2) for start in range(0, 14, 2)] == [
        listed[i : i + 2] for i in range(0, 14, 2)
    ]
    now, gone = listed[-3], listed[-2]
    assert now.due == pytest.approx(time.time() + 60, abs=5)

    assert queues.delayed.hand_over([now]) == 1
    assert queues.delayed.remove([gone]) == 1

    assert now.name in client.lrange(f"{NS}:rhai-circle", 0, -1)
    assert [one.task_id for one in queues.delayed.read("circle", 0, 100)] == ["native", "message", "plain 3"]


def test_a_circle_with_nothing_but_messages_of_a_plain_broker_is_found(
    app: Client, plain: RedisBroker, scripts: ScriptActor, server_url: str, spawn: Callable[..., Worker]
) -> None:
    other = ScriptActor(server_url, circle="é.DQ")
    now, later = scripts.message("1"), other.message("2")
    plain.enqueue(now)
    plain.enqueue(later, delay=10)

    spawn("rhai-bridge", "--all-circles")
    spawn(*DRAMATIQ)

    wait_until(lambda: _has_ended(app, now) and _has_ended(app, later))


GARBAGE = {
    "no-json": b"{",
    "binary": b"\xff\x00",
    "empty": b"",
    "no-map": b"5",
    "no-options": b'{"actor_name": "run_script"}',
    "odd-options": b'{"actor_name": "run_script", "options": 5}',
    "odd-eta": b'{"actor_name": "run_script", "options": {"eta": "soon"}}',
    "nan-eta": b'{"actor_name": "run_script", "options": {"eta": NaN}}',
    "past-eta": b'{"actor_name": "run_script", "options": {"eta": -1e400}}',
    "deep": b"[" * 5000 + b"]" * 5000,
}


def test_garbage_in_dramatiqs_delay_queue_stops_nothing(
    app: Client, plain: RedisBroker, scripts: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    for name, body in GARBAGE.items():
        client.hset(f"{NS}:rhai-circle.DQ.msgs", name, body)
        client.rpush(f"{NS}:rhai-circle.DQ", name)
    client.hset(f"{NS}:rhai-circle.DQ.msgs", "far", b'{"actor_name": "run_script", "options": {"eta": 1e400}}')
    client.rpush(f"{NS}:rhai-circle.DQ", "names", "nothing", "")
    message = scripts.message("`fine`")
    plain.enqueue(message, delay=100)

    worker = start_worker("circle")

    wait_until(lambda: _has_ended(app, message))
    wait_until(lambda: client.zcard(f"{NS}:rhai-circle.XQ") == len(GARBAGE))
    assert client.zrange(f"{NS}:rhai-circle.delayed_messages", 0, -1) == ["far"]
    assert not client.exists(f"{NS}:rhai-circle.DQ", f"{NS}:rhai-circle.DQ.msgs", f"{NS}:rhai-circle.msgs.")
    assert app.submit("1", delay=0.1).result(timeout=60) == "1"
    assert worker.text().count("does not answer") == 0


@pytest.mark.parametrize("part", ["DQ", "DQ.msgs", "wake"])
def test_a_delay_queue_that_is_none_stops_nothing(
    app: Client, start_worker: Callable[..., Worker], client: Any, part: str
) -> None:
    task = app.submit("1", delay=0.1, via="dramatiq")
    client.delete(f"{NS}:rhai-circle.{part}")
    client.set(f"{NS}:rhai-circle.{part}", "text")

    worker = start_worker("circle")

    assert task.result(timeout=60) == "1"
    assert "refuses" not in worker.text()


def test_a_message_of_the_same_name_replaces_none(
    app: Client, scripts: ScriptActor, client: Any, server_url: str
) -> None:
    bridge = CircleBridge(Settings(redis_url=server_url), "circle", client)
    waits = scripts.send("`waits`")
    name = waits.options["redis_message_id"]
    client.hset(f"{NS}:rhai-circle.DQ.msgs", name, scripts.message("`delayed`").encode())

    load_script(client, "bridge", "queue/due")(keys=bridge.delayed_keys, args=[500])

    bodies = client.hgetall(f"{NS}:rhai-circle.msgs")
    assert "waits" in bodies.pop(name)
    assert ["delayed" in body for body in bodies.values()] == [True]
    assert client.lrange(f"{NS}:rhai-circle", 0, -1) == [name, *bodies]


# --- nothing lost, nothing twice, whatever is refused


@pytest.mark.parametrize("command", sorted(commands_of("due")))
def test_a_refused_command_loses_and_doubles_nothing(
    app: Client, plain: RedisBroker, scripts: ScriptActor, server_url: str, client: Any, command: str
) -> None:
    bridge = CircleBridge(Settings(redis_url=server_url), "circle", client)
    expected = _delay_some(app, plain, scripts)
    client.execute_command("ACL", "SETUSER", "due", "reset", "on", ">due", "~*", "&*", "+@all", f"-{command}")
    try:
        with redis.Redis.from_url(server_url.replace("://", "://due:due@")) as refused:
            due = load_script(refused, "bridge", "queue/due")
            for _ in range(3):
                with suppress(redis.ResponseError):
                    due(keys=bridge.delayed_keys, args=[500])
                assert _places(client) == expected
    finally:
        client.execute_command("ACL", "DELUSER", "due")

    _hand_over(client, bridge)

    assert _ready(client) == expected


KEYS = [
    "rhai_tasks:circle",
    *(f"{NS}:rhai-circle{part}" for part in ("", ".delayed", ".delayed_messages", ".msgs", ".DQ", ".DQ.msgs")),
]


@pytest.mark.parametrize("odd", ["string", "stream"])
@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_wrong_type_loses_and_doubles_nothing_and_holds_no_other_circle_up(
    app: Client, plain: RedisBroker, scripts: ScriptActor, server_url: str, client: Any, key: str, odd: str
) -> None:
    bridge, other = (CircleBridge(Settings(redis_url=server_url), name, client) for name in ("circle", "other"))
    expected = _delay_some(app, plain, scripts)
    app.submit("1", circle="other", delay=0.001, task_id="o")
    wait_until(lambda: client.zcount(f"{NS}:rhai-other.delayed", "-inf", time.time() * 1000) == 1)
    client.exists(key) and client.rename(key, "aside")
    client.set(key, "text") if odd == "string" else client.xadd(key, {"a": "b"})
    due = load_script(client, "bridge", "queue/due")
    for _ in range(3):
        due(keys=[*bridge.delayed_keys, *other.delayed_keys], args=[500])
    assert client.lrange("rhai_tasks:other", 0, -1) == ["o"]
    assert client.type(key) == odd

    client.delete(key)
    client.exists("aside") and client.rename("aside", key)
    _hand_over(client, bridge)

    assert _ready(client) == expected


def _delay_some(app: Client, plain: RedisBroker, scripts: ScriptActor) -> Counter[str]:
    """Delay three of each kind, all of them due; return their tasks."""
    for number in range(3):
        app.submit("1", task_id=f"native {number}", delay=0.001)
        app.submit("1", task_id=f"message {number}", delay=0.001, via="dramatiq")
        scripts.send_with_options(args=("1",), kwargs={"task_id": f"actor {number}"}, delay=1)
        plain.enqueue(scripts.message("1", task_id=f"plain {number}"), delay=1)
    time.sleep(0.02)  # all of them are due
    return Counter(f"{kind} {number}" for kind in ("native", "message", "actor", "plain") for number in range(3))


def _hand_over(client: Any, bridge: CircleBridge) -> None:
    due = load_script(client, "bridge", "queue/due")
    wait_until(lambda: due(keys=bridge.delayed_keys, args=[500])[1] == -1)


def _named(client: Any, names: list[str]) -> Counter[str]:
    bodies = client.hmget(f"{NS}:rhai-circle.msgs", names) if names else []
    return Counter(json.loads(body)["args"][0] if body else name for name, body in zip(names, bodies, strict=True))


def _ready(client: Any) -> Counter[str]:
    native = client.lrange("rhai_tasks:circle", 0, -1)
    return Counter(native) + _named(client, client.lrange(f"{NS}:rhai-circle", 0, -1))


def _places(client: Any) -> Counter[str]:
    """Count where each task stands, delayed or ready."""
    delayed = Counter(client.zrange(f"{NS}:rhai-circle.delayed", 0, -1))
    messages = _named(client, client.zrange(f"{NS}:rhai-circle.delayed_messages", 0, -1))
    plain = Counter(json.loads(body)["args"][0] for body in client.hvals(f"{NS}:rhai-circle.DQ.msgs"))
    return delayed + messages + plain + _ready(client)
