"""Leases against a server that refuses a command, or whose keys somebody has deleted or replaced."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import redis

from rhai_tasks import Settings
from rhai_tasks.operate.doctor import examine
from rhai_tasks.protocol import QueueKeys, completed, queue_name, workers_key
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.consumer import TaskConsumer
from rhai_tasks.queue.delivery import Details
from rhai_tasks.queue.leases import LEASE_SECONDS
from rhai_tasks.queue.strays import Strays
from tests.conftest import wait_until
from tests.lua import commands_of

QUEUE = queue_name("c")
KEYS = QueueKeys(Settings().namespace, QUEUE)
DEAD = "dead"
HELD = ["m-1", "m-2", "m-3"]


@pytest.fixture
def broker(server_url: str, client: Any) -> Iterator[TaskBroker]:
    """A broker that has an ACL user of its own."""
    client.acl_setuser("worker", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all"])
    broker = TaskBroker(Settings(redis_url=server_url.replace("://", "://worker:x@")))
    yield broker
    broker.client.close()
    broker.leases._client.close()
    client.acl_deluser("worker")


@pytest.fixture
def dead(client: Any, broker: TaskBroker) -> str:
    """The name of a broker that died with messages; its lease has run out."""
    client.sadd(KEYS.acks(DEAD), *HELD)
    client.hset(KEYS.bodies, mapping=dict.fromkeys(HELD, "{}"))
    client.zadd(KEYS.leases, {DEAD: 1})
    client.rpush(KEYS.messages, "waiting")
    broker.declare_circle("c")
    broker.leases._note_renewal(QUEUE, 0.0)  # it has been there for a while
    broker.leases.grace._ends.clear()
    return DEAD


def renew(broker: TaskBroker) -> None:
    """Renew as if the broker had been there for a while."""
    broker.leases.grace._renewed[QUEUE] = float("inf")
    try:
        broker.leases.renew(QUEUE, heartbeat="{}")
    finally:
        broker.leases.grace._ends.clear()


def recover(broker: TaskBroker) -> None:
    """Renew, and put back what the dead broker held."""
    renew(broker)


def recover_own(broker: TaskBroker) -> None:
    """Put back what a process of the same name held."""
    broker.leases.recover_own(QUEUE)


def place(client: Any, broker_id: str) -> tuple[list[str], set[str]]:
    """Tell what waits, and what a broker holds."""
    return client.lrange(KEYS.messages, 0, -1), client.smembers(KEYS.acks(broker_id))


def is_sound(client: Any, broker_id: str) -> bool:
    """Say whether each message is in one place: they wait or they are held, all of them."""
    waiting, held = place(client, broker_id)
    return sorted([*waiting, *held]) == sorted([*HELD, "waiting"])


@pytest.mark.parametrize("command", sorted(commands_of("recover") | commands_of("renew")))
@pytest.mark.parametrize("action", [recover, recover_own], ids=lambda action: action.__name__)
def test_a_command_that_is_refused_loses_and_doubles_nothing(
    broker: TaskBroker, dead: str, client: Any, action: Callable[[TaskBroker], None], command: str
) -> None:
    if action is recover_own:
        client.rename(KEYS.acks(dead), KEYS.acks(broker.broker_id))
        dead = broker.broker_id
    client.execute_command("ACL", "SETUSER", "worker", f"-{command}")

    for _ in range(2):
        try:
            action(broker)
        except redis.RedisError as error:
            assert re.search(r"no permissions|can't run", str(error))  # noqa: PT017  (not all of them are needed)
        assert is_sound(client, dead)
    client.execute_command("ACL", "SETUSER", "worker", "+@all")
    action(broker)

    assert place(client, dead) == ([*HELD, "waiting"], set())
    assert client.hgetall(KEYS.deliveries) == dict.fromkeys(HELD, "1")


@pytest.mark.parametrize("key", ["messages", "deliveries", "leases", "acks", "released", "bodies", "workers"])
@pytest.mark.parametrize("action", [recover, recover_own], ids=lambda action: action.__name__)
def test_a_key_of_another_type_loses_and_doubles_nothing(
    broker: TaskBroker, dead: str, client: Any, action: Callable[[TaskBroker], None], key: str
) -> None:
    if action is recover_own:
        client.rename(KEYS.acks(dead), KEYS.acks(broker.broker_id))
        dead = broker.broker_id
    names = {"acks": KEYS.acks(dead), "released": KEYS.released(dead), "workers": workers_key(KEYS.namespace)}
    name = names.get(key) or getattr(KEYS, key)
    if client.exists(name):
        client.rename(name, "aside")
    client.hset(name, "x", "x") if key in {"leases", "released"} else client.set(name, "x")

    for _ in range(2):
        try:
            action(broker)
        except redis.ResponseError as error:
            assert "WRONGTYPE" in str(error)  # noqa: PT017  (not all of them matter)
    client.delete(name)
    if client.exists("aside"):
        client.rename("aside", name)
    action(broker)

    assert place(client, dead) == ([*HELD, "waiting"], set())


def test_leases_of_one_dead_broker_that_cannot_be_swept_hold_no_other_up(
    broker: TaskBroker, dead: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.zadd(KEYS.leases, {"another": 0, b"\xff": 0})
    client.set(KEYS.acks("another"), "no set")

    renew(broker)

    assert "WRONGTYPE" in caplog.text
    assert place(client, dead) == ([*HELD, "waiting"], set())


def test_messages_of_a_dead_broker_go_back_though_the_server_has_no_memory(
    broker: TaskBroker, dead: str, client: Any
) -> None:
    client.config_set("maxmemory", "1")
    try:
        renew(broker)
    finally:
        client.config_set("maxmemory", "0")

    assert place(client, dead) == ([*HELD, "waiting"], set())


def test_a_heartbeat_that_is_refused_keeps_nobody_from_renewing(
    broker: TaskBroker, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    client.set(workers_key(KEYS.namespace), "no hash")

    renew(broker)

    assert client.zscore(KEYS.leases, broker.broker_id)
    assert not broker.leases.lapsed(QUEUE)
    assert "WRONGTYPE" in caplog.text


def test_a_lease_from_before_the_clock_went_back_ends_a_lease_after_it_was_seen(
    broker: TaskBroker, dead: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = client.time()[0] * 1000
    client.zadd(KEYS.leases, {dead: now + 3_600_000, broker.broker_id: now + 3_600_000, "living": now + 8_000})

    renew(broker)  # the first sight: the clock may jump ahead again at once
    assert client.zscore(KEYS.leases, dead) == now + 3_600_000
    assert client.zscore(KEYS.leases, broker.broker_id) == now + 3_600_000
    broker.leases._ahead_since[QUEUE] -= 60.0  # it was away since: the clock may have changed again
    renew(broker)
    assert client.zscore(KEYS.leases, dead) == now + 3_600_000
    broker.leases._ahead_since[QUEUE] -= 4.0
    renew(broker)

    assert client.zscore(KEYS.leases, dead) == pytest.approx(now + (LEASE_SECONDS - 4) * 1000, abs=2000)
    assert client.zscore(KEYS.leases, broker.broker_id) == pytest.approx(now + LEASE_SECONDS * 1000, abs=2000)
    assert client.zscore(KEYS.leases, "living") == now + 8_000
    renew(broker)
    assert not broker.leases._ahead_since


# --- keys that somebody has deleted


@pytest.fixture
def held(broker: TaskBroker, client: Any) -> Iterator[tuple[TaskConsumer, Any]]:
    """A consumer, and the message that it holds under a lease that stands."""
    broker.declare_circle("c")
    client.hset(b"rhai_task_details:t\xff", mapping={"script": "1", "status": "pending"})
    client.rpush(KEYS.messages, b"t\xff")
    consumer = broker.consume(QUEUE, 4, 100)
    broker.writer.start()
    message = consumer.__next__()
    renew(broker)
    yield consumer, message
    broker.writer.stop()
    consumer.close()


PLACES: dict[str, Callable[[Any, str], object]] = {
    "held by another": lambda client, name: (
        client.zadd(KEYS.leases, {"another": 2**53}) and client.sadd(KEYS.acks("another"), name)
    ),
    "waiting": lambda client, name: client.rpush(KEYS.messages, "first", name, "last"),
    "published": lambda client, name: client.zadd(KEYS.published, {name: 1}),
    "delayed": lambda client, name: client.zadd(KEYS.delayed_messages, {name: 1}),
    "ended": lambda client, name: client.hdel(KEYS.bodies, name),
}


def test_a_running_task_whose_acks_were_deleted_is_held_again_by_the_next_renewal(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any
) -> None:
    client.delete(KEYS.acks(broker.broker_id))

    renew(broker)

    assert client.smembers(KEYS.acks(broker.broker_id)) == {held[1].message_id}
    assert not held[1].run.cancel.cancelled


@pytest.mark.parametrize("where", PLACES)
def test_a_message_that_is_somewhere_else_is_not_taken_back(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any, where: str
) -> None:
    client.delete(KEYS.acks(broker.broker_id))
    PLACES[where](client, held[1].message_id)

    renew(broker)

    assert not client.exists(KEYS.acks(broker.broker_id))


@pytest.mark.parametrize("lost", ["by the server", "by our clock"])
def test_nothing_is_taken_back_without_a_lease_that_stood_all_the_time(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any, lost: str
) -> None:
    """Another broker may hold the message, whose lease was deleted too, or have held it meanwhile."""
    client.delete(KEYS.acks(broker.broker_id))
    if lost == "by the server":
        client.delete(KEYS.leases)
        assert broker.leases.hold_again([held[1].run.delivery]) == set()
    else:
        broker.leases._ends[QUEUE] = 0.0

    renew(broker)

    assert not client.exists(KEYS.acks(broker.broker_id))


def test_a_run_that_was_lost_is_not_held_again(broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any) -> None:
    client.delete(KEYS.acks(broker.broker_id))
    held[1].run.lose()

    renew(broker)

    assert not client.exists(KEYS.acks(broker.broker_id))


def test_a_message_whose_body_was_deleted_gets_it_back(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any
) -> None:
    client.delete(KEYS.bodies)

    renew(broker)

    assert client.hkeys(KEYS.bodies) == [held[1].message_id]
    held[0].requeue([held[1]])  # another run reads it
    next_message: Callable[[], Any] = held[0].__next__
    again = wait_until(next_message)
    assert (again.message_id, again.run.delivery.task_id) == (held[1].message_id, "t\udcff")
    assert again.run.delivery.details == Details(script=b"1")


def test_a_result_is_recorded_though_the_acks_were_deleted_a_moment_before(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any
) -> None:
    consumer, message = held
    client.delete(KEYS.acks(broker.broker_id))
    message.run.finish(completed("1"))

    consumer.ack(message)

    wait_until(lambda: client.hget(b"rhai_task_details:t\xff", "status") == "completed")
    assert not client.exists(KEYS.acks(broker.broker_id), KEYS.bodies)


@pytest.mark.parametrize("where", PLACES)
def test_a_result_is_dropped_if_the_message_is_somewhere_else(
    broker: TaskBroker,
    held: tuple[TaskConsumer, Any],
    client: Any,
    where: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    consumer, message = held
    client.delete(KEYS.acks(broker.broker_id))
    PLACES[where](client, message.message_id)
    message.run.finish(completed("1"))

    consumer.ack(message)

    wait_until(lambda: "Result dropped" in caplog.text)
    assert client.hget(b"rhai_task_details:t\xff", "status") == "processing"
    assert not client.exists(KEYS.acks(broker.broker_id))


@pytest.fixture
def strays(broker: TaskBroker) -> Strays:
    return Strays(broker.client, KEYS.namespace, lambda: [QUEUE, queue_name("other")], LEASE_SECONDS)


def test_messages_that_are_nowhere_go_back_at_the_second_look(strays: Strays, client: Any) -> None:
    client.hset(KEYS.bodies, mapping=dict.fromkeys(HELD, "{}"))
    client.rpush(KEYS.messages, "waiting")

    first = strays.find({QUEUE: set()})
    client.hset(KEYS.bodies, "m-4", "{}")  # nowhere for the first time
    second = strays.find(first)

    assert first == {QUEUE: set(HELD)}
    assert second == {QUEUE: {*HELD, "m-4"}}
    assert place(client, DEAD) == ([*HELD, "waiting"], set())
    assert client.hgetall(KEYS.deliveries) == dict.fromkeys(HELD, "1")
    assert strays.find(second) == {QUEUE: {"m-4"}}
    assert strays.find({QUEUE: set()}) == {}


@pytest.mark.parametrize("where", PLACES)
def test_messages_that_are_somewhere_are_no_strays(strays: Strays, client: Any, where: str) -> None:
    client.hset(KEYS.bodies, mapping={"m-1": "{}", "m-2": "{}"})
    client.rpush(KEYS.messages, "m-2")
    PLACES[where](client, "m-1")

    assert strays.find({QUEUE: {"m-1", "m-2"}}) == {}


def test_brokers_without_a_lease_get_one_that_ends(broker: TaskBroker, dead: str, strays: Strays, client: Any) -> None:
    client.delete(KEYS.leases)
    client.sadd(b"rhai_dramatiq:__acks__.\xff." + QUEUE.encode(), "m-4")
    client.hset(KEYS.bodies, "m-4", "{}")
    renew(broker)  # whoever lives has a lease again
    assert place(client, dead)[1] == set(HELD)

    found = strays.find({QUEUE: set()})
    strays.adopt(found, lambda: False)

    leases: Any = broker.client.zrange(KEYS.leases, 0, -1, withscores=True)
    now = client.time()[0] * 1000
    assert len(leases) == 3
    assert all(now < end <= now + LEASE_SECONDS * 1000 + 1000 for _, end in leases)
    assert strays.find(found) == {}
    client.zadd(KEYS.leases, dict.fromkeys([dead, b"\xff"], 1))  # as after nine seconds
    renew(broker)
    assert sorted(client.lrange(KEYS.messages, 0, -1)) == [*HELD, "m-4", "waiting"]


@pytest.mark.parametrize("script", ["strays", "hold_again"])
def test_a_search_for_strays_that_is_refused_loses_and_doubles_nothing(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], strays: Strays, client: Any, script: str
) -> None:
    mine, message = KEYS.acks(broker.broker_id), held[1].message_id
    for command in sorted(commands_of(script)):
        client.delete(mine, KEYS.messages, KEYS.deliveries)
        client.execute_command("ACL", "SETUSER", "worker", f"-{command}")
        for _ in range(2):
            with suppress(redis.ResponseError):
                if script == "strays":
                    strays.find({QUEUE: {message}})
                else:
                    renew(broker)
            assert client.llen(KEYS.messages) + client.scard(mine) <= 1, command
        client.execute_command("ACL", "SETUSER", "worker", "+@all")
        renew(broker)
        assert client.llen(KEYS.messages) + client.scard(mine) == 1, command


@pytest.mark.parametrize("told", [True, False])
def test_a_doctor_takes_nothing_from_a_living_worker_whose_lease_was_deleted(
    broker: TaskBroker, dead: str, client: Any, server_url: str, told: bool
) -> None:
    client.delete(KEYS.leases)
    client.sadd(KEYS.registry(KEYS.namespace), QUEUE)
    if told:
        at = client.time()[0] * 1000
        beat = broker.recorder.report().removeprefix("{")
        client.hset(workers_key(KEYS.namespace), dead, f'{{"at":{at},{beat}')

    found = [finding.what for finding in examine(Settings(redis_url=server_url)) if finding.repair]

    assert ("3 task(s) are held by a worker process that died" in found) is not told
