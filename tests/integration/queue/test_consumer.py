"""The consumer against a real server, in this process."""

import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dramatiq
import pytest
import redis
from dramatiq.middleware import CurrentMessage

from bridge.circle import CircleBridge
from rhai_tasks import Engine, Settings
from rhai_tasks.connection.direct import DirectConnection
from rhai_tasks.protocol import completed, failed, queue_name
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.consumer import TaskConsumer
from rhai_tasks.queue.endings import Finished, Released
from rhai_tasks.queue.leftovers import Leftovers
from rhai_tasks.queue.sources import Taken
from rhai_tasks.worker import actor
from rhai_tasks.worker.make import make_worker
from tests.conftest import Dispatcher, wait_until


@pytest.fixture
def broker(server_url: str) -> TaskBroker:
    return TaskBroker(Settings(redis_url=server_url))


def test_tasks_whose_fetch_was_cut_off_are_not_lost(
    dispatcher: Dispatcher, broker: TaskBroker, server_url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    dispatcher.submit("c", "t", "1")
    CircleBridge(Settings(redis_url=server_url), "c", client).forward(0)
    consumer = broker.consume(queue_name("c"), 2, 100)

    def cut_off(*arguments: Any) -> Any:
        monkeypatch.undo()
        DirectConnection.run(*arguments)
        raise redis.ConnectionError("cut off after the server had done it")

    monkeypatch.setattr(DirectConnection, "run", cut_off)
    broker.writer.start()
    next_message: Callable[[], Any] = consumer.__next__

    message = wait_until(next_message)

    assert list(message.args) == ["t"]
    assert message.run.delivery.details.script == b"1"
    broker.writer.stop()


def test_a_delivery_is_acknowledged_when_its_message_cannot_be_held(
    broker: TaskBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is released: until then, RabbitMQ would count the delivery against the prefetch."""
    consumer = broker.consume(queue_name("c"), 2, 100)
    acknowledged: list[str] = []
    taken = Taken(0, [], 0, 1, time.monotonic(), acknowledgements={"m-1": lambda: acknowledged.append("m-1")})

    def cut_off(taken: Taken) -> None:
        raise redis.ConnectionError("cut off")

    monkeypatch.setattr(consumer._reader, "read", cut_off)

    with pytest.raises(redis.ConnectionError):
        consumer._hold(taken, size=1)

    assert acknowledged == ["m-1"]


def test_tasks_of_a_fetch_that_the_network_held_up_until_it_was_given_up_are_not_lost(
    dispatcher: Dispatcher, server_url: str, client: Any
) -> None:
    broker, worker = make_worker(Settings(redis_url=server_url, threads=1), Engine())
    broker.declare_circle("c")
    worker.start()
    wait_until(broker.readiness.is_ready)
    keys = broker.keys(queue_name("c"))
    for number in range(3):  # as such a fetch leaves them: held by this broker, which has long looked for such
        message: dramatiq.Message[Any] = dramatiq.Message(
            keys.queue, "run_script", (f"t{number}",), {}, {"redis_message_id": f"m-{number}"}
        )
        client.hset(f"rhai_task_details:t{number}", mapping={"script": "40 + 2", "status": "pending"})
        client.hset(keys.bodies, f"m-{number}", message.encode())
        client.sadd(keys.acks(broker.broker_id), f"m-{number}")

    assert [dispatcher.result(f"t{number}")["output"] for number in range(3)] == ["42"] * 3

    worker.stop()


def test_a_task_whose_release_is_repeated_stays_with_who_has_fetched_it_anew_meanwhile(
    dispatcher: Dispatcher, broker: TaskBroker, client: Any
) -> None:
    dispatcher.submit("c", "t", "1")
    keys = broker.keys(queue_name("c"))
    client.lmove("rhai_tasks:c", keys.messages)
    consumer = broker.consume(keys.queue, 2, 100)
    write: Any = broker.writer._writes[Released]
    release = write.script
    next_message: Callable[[], Any] = consumer.__next__
    first = wait_until(next_message)
    again: list[Any] = []

    def lose_the_reply(**call: Any) -> Any:
        reply = release(**call)
        if not again:
            again.append(wait_until(next_message))
            raise redis.ConnectionError("cut off after the server had done it")
        return reply

    write.script = lose_the_reply
    broker.writer.start()
    consumer.requeue([first])
    broker.writer.stop()

    assert [message.run.delivery.message_id for message in again] == [first.run.delivery.message_id]
    assert client.smembers(keys.acks(broker.broker_id)) == {first.run.delivery.message_id}
    assert client.llen(keys.messages) == 0


def test_a_message_that_cannot_be_read_is_a_dead_letter(broker: TaskBroker, client: Any) -> None:
    keys = broker.keys(queue_name("c"))
    client.hset(keys.bodies, "odd", "no JSON")
    client.rpush(keys.messages, "odd")
    broker.writer.start()
    consumer = broker.consume(keys.queue, 2, 100)

    assert consumer.__next__() is None

    wait_until(lambda: client.zcard(keys.dead) == 1)
    assert client.hget(keys.dead_bodies, "odd") == "no JSON"
    broker.writer.stop()


@pytest.mark.parametrize(
    "body",
    [
        '{"queue_name":"q","actor_name":"run_script","args":5,"kwargs":{},"options":{},"message_id":"m"}',
        '{"queue_name":"q","actor_name":"run_script","args":[],"kwargs":{},"options":7,"message_id":"m"}',
        '{"queue_name":"q","actor_name":[],"args":[],"kwargs":{},"options":{},"message_id":"m"}',
        '{"queue_name":"q","actor_name":"run_script","args":["\\ud800"],"kwargs":{},"options":{},"message_id":"m"}',
        "[" * 100_000,
        "[]",
        "null",
    ],
    ids=["arguments", "options", "actor", "half a character", "nested", "list", "null"],
)
def test_a_message_that_is_none_of_ours_is_a_dead_letter(broker: TaskBroker, client: Any, body: str) -> None:
    keys = broker.keys(queue_name("c"))
    client.hset(keys.bodies, "odd", body)
    client.rpush(keys.messages, "odd")
    broker.writer.start()
    consumer = broker.consume(keys.queue, 2, 100)

    assert consumer.__next__() is None

    wait_until(lambda: client.zcard(keys.dead) == 1)
    broker.writer.stop()


def test_a_task_whose_name_no_key_can_hold_is_put_back_like_any_other(broker: TaskBroker, client: Any) -> None:
    keys = broker.keys(queue_name("c"))
    body = '{"queue_name":"q","actor_name":"run_script","args":["\\ud800"],"kwargs":{},"options":{},"message_id":"m"}'
    client.hset(keys.bodies, "odd", body)
    client.sadd(keys.acks(broker.broker_id), "odd")  # by a fetch whose reply got lost
    broker.context.held.by_id(keys.queue)  # dramatiq starts a consumer after one that failed
    broker.writer.start()

    broker.consume(keys.queue, 2, 100).__next__()

    wait_until(lambda: client.zcard(keys.dead) == 1 or client.llen(keys.messages) == 1)
    assert client.scard(keys.acks(broker.broker_id)) == 0
    broker.writer.stop()


def test_a_task_that_ended_before_the_last_fetch_makes_no_room_after_it(
    broker: TaskBroker, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = broker.keys(queue_name("c"))
    consumer = broker.consume(keys.queue, 2, 100)
    client.rpush(keys.messages, "t")
    assert consumer.__next__() is not None
    waiting = consumer._room._freed.clear

    def told_late() -> None:
        waiting()
        consumer._room._freed.set()  # by a thread that found room when there still was some

    monkeypatch.setattr(consumer._room._freed, "clear", told_late)
    monkeypatch.setattr(consumer.source, "fetch", lambda count: pytest.fail(f"fetched {count}"))

    assert consumer.__next__() is None


def test_details_that_no_hash_can_hold_do_not_stop_the_queue(broker: TaskBroker, client: Any) -> None:
    keys = broker.keys(queue_name("c"))
    details = '{"script":"1","a":null,"b":{},"c":true}'
    for name, kwargs in (("odd", f'{{"details":{details}}}'), ("good", "{}")):
        client.hset(
            keys.bodies,
            name,
            f'{{"queue_name":"q","actor_name":"run_script","args":["{name}"],"kwargs":{kwargs},"options":{{}}}}',
        )
        client.rpush(keys.messages, name)
    consumer = broker.consume(keys.queue, 200, 100)

    fetched = [consumer.__next__(), consumer.__next__()]

    assert [list(message.args) for message in fetched if message] == [["odd"], ["good"]]
    assert client.hget("rhai_task_details:odd", "script") == "1"


def test_a_lease_with_messages_under_it_outlasts_the_worker(
    broker: TaskBroker, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = broker.keys(queue_name("c"))
    monkeypatch.setattr(Leftovers, "release", lambda _: None)  # it came too early to see what follows
    broker.declare_circle("c")
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=20)
    worker.start()
    thread = worker.consumers[keys.queue]
    wait_until(
        lambda: isinstance(thread.consumer, TaskConsumer) and thread.consumer._leftovers._recovered
    )  # what it held when it died is seen to
    wait_until(lambda: client.zscore(keys.leases, broker.broker_id))
    client.sadd(keys.acks(broker.broker_id), "m")  # by a fetch that the server did after we had given it up

    worker.stop()

    assert client.zscore(keys.leases, broker.broker_id)
    assert client.zcard(keys.leases) == 1


def test_a_worker_that_holds_nothing_gives_its_lease_up(broker: TaskBroker, client: Any) -> None:
    leases = broker.keys(queue_name("c")).leases
    broker.declare_circle("c")
    worker = dramatiq.Worker(broker, worker_threads=1, worker_timeout=20)
    worker.start()
    wait_until(lambda: client.zscore(leases, broker.broker_id))

    worker.stop()

    assert not client.exists(leases)


def test_message_ids_are_not_given_out_again_after_the_server_lost_its_last_writes(
    broker: TaskBroker, client: Any
) -> None:
    keys = broker.keys(queue_name("c"))
    consumer = broker.consume(keys.queue, 200, 100)
    client.rpush(keys.messages, "t")
    first = consumer.__next__()

    client.delete(keys.sequence, keys.bodies, keys.acks(broker.broker_id))  # as before the first one
    client.rpush(keys.messages, "t")
    second = consumer.__next__()

    assert first is not None
    assert second is not None
    assert second.message_id > first.message_id


def test_a_task_of_any_name_is_told_from_a_message(broker: TaskBroker, client: Any) -> None:
    keys = broker.keys(queue_name("c"))
    consumer = broker.consume(keys.queue, 200, 100)
    for name in ("m-1", "1", "{}", "", "m-1"):
        client.rpush(keys.messages, name)

    messages = [consumer.__next__() for _ in range(5)]

    assert [list(message.args) for message in messages if message] == [["m-1"], ["1"], ["{}"], [""], ["m-1"]]
    assert len({message.message_id for message in messages if message}) == 5


def test_a_task_that_a_waiting_fetch_brings_is_marked_by_the_servers_clock(broker: TaskBroker, client: Any) -> None:
    keys = broker.keys(queue_name("c"))
    client.hset("rhai_task_details:t", mapping={"script": "1", "status": "pending"})
    consumer = broker.consume(keys.queue, 2, 100)
    timer = threading.Timer(0.3, client.rpush, (keys.messages, "t"))
    timer.start()
    before = datetime.now(UTC) + timedelta(seconds=0.2)

    message = consumer.__next__()

    assert message is not None
    status, updated = client.hmget("rhai_task_details:t", "status", "updatedAt")
    assert status == "processing"
    assert before < datetime.fromisoformat(updated) < datetime.now(UTC)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", updated)


def test_leases_that_ran_out_while_the_server_was_away_get_time_to_be_renewed(
    dispatcher: Dispatcher, server_url: str, client: Any
) -> None:
    queue = queue_name("c")
    alive, other = TaskBroker(Settings(redis_url=server_url)), TaskBroker(Settings(redis_url=server_url))
    dispatcher.submit("c", "t", "1")
    CircleBridge(Settings(redis_url=server_url), "c", client).forward(0)
    alive.consume(queue, 2, 100).__next__()
    held = alive.keys(queue).acks(alive.broker_id)
    client.zadd(alive.keys(queue).leases, {alive.broker_id: 1})  # long ago: nobody could renew

    other.leases.renew(queue)  # it comes back first

    assert client.scard(held) == 1

    def is_taken_back() -> bool:
        other.leases.renew(queue)
        return not client.exists(held)

    wait_until(is_taken_back, what="a lease that nobody renews to be judged")
    assert client.llen(alive.keys(queue).messages) == 1


def test_a_renewal_whose_reply_got_lost_does_not_hide_what_was_lost_before_it(
    dispatcher: Dispatcher, broker: TaskBroker, server_url: str, client: Any
) -> None:
    queue = queue_name("c")
    dispatcher.submit("c", "t", "1")
    CircleBridge(Settings(redis_url=server_url), "c", client).forward(0)
    message = broker.consume(queue, 4, 100).__next__()
    same = TaskBroker(Settings(redis_url=server_url), broker_id=broker.broker_id)
    same.leases.recover_own(queue)  # as if the lease had run out
    same.leases.renew(queue)  # the server has done it, and nobody here heard of it
    broker.leases._ends[queue] = 0.0

    broker.leases.renew(queue)

    assert message
    assert message.run.is_lost()


def test_a_run_that_was_lost_writes_nothing_though_this_process_has_fetched_its_task_anew(
    dispatcher: Dispatcher, broker: TaskBroker, server_url: str, client: Any
) -> None:
    queue = queue_name("c")
    dispatcher.submit("c", "t", "1")
    CircleBridge(Settings(redis_url=server_url), "c", client).forward(0)
    consumer = broker.consume(queue, 4, 100)
    first = consumer.__next__()
    broker.writer.start()
    other = TaskBroker(Settings(redis_url=server_url), broker_id=broker.broker_id)
    other.leases.recover_own(queue)  # as if its lease had run out

    broker.leases.renew(queue)
    assert first
    assert first.run.is_lost()
    second = consumer.__next__()
    first.run.finish(failed("stopped half-way", "Cancelled"))
    consumer.ack(first)
    broker.writer.stop()

    assert second
    assert (dispatcher.status("t"), client.smembers(broker.keys(queue).acks(broker.broker_id))) == (
        "processing",
        {second.run.delivery.message_id},
    )


def test_an_idle_look_at_a_full_buffer_waits_for_room(dispatcher: Dispatcher, server_url: str, client: Any) -> None:
    settings = Settings(redis_url=server_url, buffer=2)
    for number in range(5):
        dispatcher.submit("c", f"t{number}", "1")
    bridge = CircleBridge(settings, "c", client)

    room = bridge.forward(0)

    assert (room, client.llen("rhai_tasks:c"), client.llen(f"rhai_dramatiq:{queue_name('c')}")) == (0, 3, 2)
    bridge.close()


def test_middleware_of_an_application_is_called_in_its_order_and_may_fail(
    dispatcher: Dispatcher, server_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    called: list[tuple[Any, ...]] = []

    class Middleware(dramatiq.Middleware):
        def before_process_message(self, _broker: Any, message: Any) -> None:
            called.append(("before", self, message.args, message.copy().message_id == message.message_id))

        def after_process_message(self, *_: Any, **__: Any) -> None:
            called.append(("after", self))

    class Failing(Middleware):
        def before_process_message(self, *_: Any) -> None:
            raise ValueError("of this middleware, before")

        def after_process_message(self, *_: Any, **__: Any) -> None:
            raise ValueError("of this middleware, after")

    first, second = Middleware(), Middleware()
    broker, worker = make_worker(Settings(redis_url=server_url, threads=1), Engine())
    for middleware in (first, Failing(), second):
        broker.add_middleware(middleware)
    broker.declare_circle("c")
    dispatcher.submit("c", "t", "40 + 2")
    bridge = CircleBridge(broker.settings, "c", broker.client)
    bridge.forward(0)
    worker.start()

    assert dispatcher.result("t")["output"] == "42"

    wait_until(lambda: len(called) == 4)
    worker.stop()
    bridge.close()
    assert called == [
        ("before", first, ("t",), True),
        ("before", second, ("t",), True),
        ("after", second),
        ("after", first),
    ]
    for when in ("before", "after"):
        assert f"of this middleware, {when}" in caplog.text


# --- what is done late, or twice, by a network that lets go of it


@pytest.fixture
def held(broker: TaskBroker, client: Any) -> tuple[TaskConsumer, Any]:
    """A consumer, and the message that it holds."""
    queue = queue_name("c")
    client.hset("rhai_task_details:t", mapping={"script": "1", "status": "pending"})
    client.rpush(broker.keys(queue).messages, "t")
    consumer = broker.consume(queue, 4, 100)
    return consumer, consumer.__next__()  # the writer writes nothing yet


@pytest.fixture
def successor(broker: TaskBroker, server_url: str) -> TaskBroker:
    """Of the same name: what it recovers is gone for the broker, as if its lease had run out."""
    return TaskBroker(Settings(redis_url=server_url), broker_id=broker.broker_id)


def test_what_was_to_go_back_stays_once_it_has_been_fetched_anew(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], successor: TaskBroker, client: Any
) -> None:
    consumer, first = held
    keys = broker.keys(first.queue_name)
    consumer.requeue([first])  # not written yet
    successor.leases.recover_own(keys.queue)
    again = consumer.__next__()

    broker.writer.start()
    broker.writer.stop()

    assert again
    assert client.smembers(keys.acks(broker.broker_id)) == {first.run.delivery.message_id}
    assert client.llen(keys.messages) == 0


def test_a_delivery_is_not_counted_once_another_broker_holds_the_message(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], successor: TaskBroker, client: Any
) -> None:
    _, message = held
    assert broker.writer.count_crash(message.run.delivery)
    keys = broker.keys(message.queue_name)
    successor.leases.recover_own(keys.queue)
    client.delete(keys.deliveries)

    assert not broker.writer.count_crash(message.run.delivery)
    assert client.hgetall(keys.deliveries) == {}


def test_outcomes_are_written_before_a_task_starts_that_may_end_the_process(
    broker: TaskBroker, dispatcher: Dispatcher, client: Any
) -> None:
    keys = broker.keys(queue_name("c"))
    for task_id in ("quick", "suspect"):
        client.hset(f"rhai_task_details:{task_id}", "timeout", "5")  # so that each is a message of its own
        dispatcher.submit("c", task_id, "1")
        client.lmove("rhai_tasks:c", keys.messages)
    consumer = broker.consume(keys.queue, 2, 100)
    source: Any = consumer.source
    consumer._hold(source.fetch(2), size=1)
    first, second = consumer._fetched
    broker.writer.finish(Finished(first.run.delivery, completed("1"), [], ended=0.0), at_once=False)

    assert broker.writer.count_crash(second.run.delivery)

    assert dispatcher.status(first.run.delivery.task_id) == "completed"


def test_a_process_recovers_what_its_name_held_before_it_holds_anything_itself(broker: TaskBroker, client: Any) -> None:
    keys = broker.keys(queue_name("c"))
    client.hset(keys.bodies, "m-1", dramatiq.Message(keys.queue, "run_script", ("t",), {}, {}).encode())
    client.sadd(keys.acks(broker.broker_id), "m-1")  # by who had its name
    broker.leases.recover_own(keys.queue)
    assert client.lrange(keys.messages, 0, -1) == ["m-1"]
    client.lmove(keys.messages, "elsewhere")
    client.sadd(keys.acks(broker.broker_id), "m-1")  # fetched

    broker.leases.recover_own(keys.queue)  # the same call, which the network had held up

    assert client.smembers(keys.acks(broker.broker_id)) == {"m-1"}


def test_what_was_lost_and_has_not_begun_is_acknowledged_where_it_came_from(held: tuple[TaskConsumer, Any]) -> None:
    consumer, message = held
    acknowledged = threading.Event()
    message.run.delivery = message.run.delivery._replace(acknowledge=acknowledged.set)
    message.run.lose()

    consumer.requeue([message])

    assert acknowledged.is_set()


def test_a_run_that_was_lost_is_reported_as_running_no_longer_once_it_has_ended(
    broker: TaskBroker, held: tuple[TaskConsumer, Any]
) -> None:
    consumer, message = held
    broker.writer.begin(message.run)
    assert [task.task_id for task in broker.writer.running.tasks()] == ["t"]

    message.run.lose()
    consumer.ack(message)

    assert broker.writer.running.tasks() == []


def test_a_cancel_that_comes_late_does_not_stop_a_task_that_was_submitted_again(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any
) -> None:
    _, message = held

    broker.cancels.cancel("t")
    assert not message.run.cancel.cancelled
    client.hset("rhai_task_details:t", mapping={"status": "error", "error": "cancelled"})
    broker.cancels.cancel("t")

    assert message.run.cancel.cancelled


def test_a_jump_of_the_servers_clock_takes_nothing_from_the_living(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], server_url: str, client: Any
) -> None:
    _, message = held
    keys, other = broker.keys(message.queue_name), TaskBroker(Settings(redis_url=server_url))
    other.declare_circle("c")
    other.consume(keys.queue, 1, 10)
    other.leases.renew(keys.queue)
    other.leases.grace._ends.clear()  # it has been there for a while
    other.leases.grace._server_ahead -= 10.0  # as far as it knows, the clock was 10 s earlier
    client.zadd(keys.leases, {broker.broker_id: 1})  # to the clock of now, this lease has run out

    other.leases.renew(keys.queue)
    assert client.scard(keys.acks(broker.broker_id)) == 1
    broker.leases.renew(keys.queue)
    other.leases.grace._ends.clear()
    other.leases.renew(keys.queue)

    assert client.scard(keys.acks(broker.broker_id)) == 1


def test_leases_are_renewed_while_the_server_has_no_memory(
    broker: TaskBroker, held: tuple[TaskConsumer, Any], client: Any
) -> None:
    _, message = held
    leases = broker.keys(message.queue_name).leases
    before = client.zscore(leases, broker.broker_id)
    client.config_set("maxmemory", "1")
    try:
        broker.leases.renew(message.queue_name, heartbeat="{}")
    finally:
        client.config_set("maxmemory", "0")

    assert client.zscore(leases, broker.broker_id) > before


def test_a_task_that_waits_behind_another_circles_is_not_said_to_be_processed(
    dispatcher: Dispatcher, server_url: str
) -> None:
    broker, worker = make_worker(Settings(redis_url=server_url, threads=1), Engine())
    bridges = [CircleBridge(Settings(redis_url=server_url), circle, broker.client) for circle in ("c1", "c2")]
    for circle in ("c1", "c2"):
        broker.declare_circle(circle)
    worker.start()
    long = dispatcher.submit("c1", "long", "sleep(7)")
    bridges[0].forward(0)
    wait_until(lambda: dispatcher.status(long) == "processing")
    began = time.monotonic()  # a fetch that already waits believes that the thread is free: let it come back
    wait_until(lambda: broker.readiness.times()[f"read of {queue_name('c2')}"] > began)

    waits = dispatcher.submit("c2", "waits", "1")
    bridges[1].forward(0)
    statuses = {dispatcher.status(waits) for _ in range(500) if dispatcher.details(long)["status"] == "processing"}

    assert statuses == {"pending"}
    assert dispatcher.result(waits)["output"] == "1"
    worker.stop()


@pytest.mark.parametrize("is_shared", [False, True], ids=["of its own", "shared"])
def test_what_a_waiting_fetch_brings_once_the_process_drains_goes_back_unsuspected(
    dispatcher: Dispatcher, broker: TaskBroker, client: Any, monkeypatch: pytest.MonkeyPatch, is_shared: bool
) -> None:
    """By a connection of its own, or one that many consumers share."""
    if is_shared:
        monkeypatch.setattr("rhai_tasks.queue.broker.DEDICATED_LIMIT", 0)
    keys = broker.keys(queue_name("c"))
    client.hset("rhai_task_details:t", mapping={"script": "1", "status": "pending"})
    consumer = broker.consume(keys.queue, 2, 100)
    broker.writer.start()

    def drain() -> None:
        broker.context.draining.set()
        client.rpush(keys.messages, "t")

    timer = threading.Timer(0.3, drain)
    timer.start()
    first = consumer.__next__()
    wait_until(lambda: consumer.__next__() is None and consumer.drained)
    broker.writer.stop()

    assert first is None
    assert client.llen(keys.messages) == 1
    assert not client.exists(keys.acks(broker.broker_id), keys.deliveries)
    assert dispatcher.status("t") == "pending"
    broker.context.stopping.set()
    broker.lists.stop()
    consumer.close()


def test_what_waits_for_a_thread_when_the_process_drains_does_not_begin(
    held: tuple[TaskConsumer, Any], broker: TaskBroker, client: Any
) -> None:
    _, message = held
    actor.declare_actor(broker, Engine())
    run = broker.actors["run_script"]

    broker.context.draining.set()
    CurrentMessage().before_process_message(broker, message)  # type: ignore[no-untyped-call]  # dramatiq's is not
    run(*message.args)

    assert message.run.ending == Released(message.run.delivery)
    assert message.run.started is None
