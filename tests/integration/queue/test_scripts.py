"""Lua scripts whose commands fail halfway: Redis undoes nothing, so each script must leave every id in one place.

Each operation is tried with each command of its script refused, and with each key holding another type. Afterwards
every task is in exactly one place or has ended; once the fault is gone, the operation succeeds.
"""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, cast

import pytest
import redis
from dramatiq import Message

from bridge.circle import CircleBridge
from bridge.relay.publisher import Publisher
from bridge.relay.relay import Relay
from bridge.stops import Stops
from rhai_tasks import Client, Settings
from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.outage import Outage
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.errors import RhaiTasksError, ScriptNotFound
from rhai_tasks.observe.metrics import FINISHED
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import (
    RHAI,
    Prefixes,
    QueueKeys,
    Quota,
    Rule,
    changes_key,
    completed,
    queue_name,
    script_history_key,
    script_names_key,
    scripts_key,
    workers_key,
)
from rhai_tasks.queue import native
from rhai_tasks.queue.acceptances import Acceptances
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.consumer import TaskConsumer
from rhai_tasks.queue.endings import Dead, Finished, Released
from rhai_tasks.queue.follow_ups import FollowUp
from rhai_tasks.queue.message import TaskMessage
from rhai_tasks.queue.prints import Prints
from rhai_tasks.queue.rabbitmq import RabbitBroker, RabbitSource
from rhai_tasks.queue.strays import Strays
from rhai_tasks.settings import Settings as _Settings
from tests.conftest import Dispatcher
from tests.lua import FILES, LIBRARIES, commands_of

CIRCLE = "c"
IDS = [f"t{number}" for number in range(5)]
GONE = "gone"  # a broker that died
Failed = (redis.RedisError, RhaiTasksError)


class FakePublisher(Publisher):
    """RabbitMQ that takes everything."""

    def __init__(self) -> None:
        self.outage = Outage("amqp://nobody", server="RabbitMQ")

    def open(self, queue: str) -> None:
        pass

    def is_open(self) -> bool:
        return True

    def publish(self, queue: str, bodies: Any) -> None:
        pass


@dataclass
class World:
    """A circle whose processes use a user of their own, so that rights can be taken away."""

    admin: Any
    url: str
    expected: set[str] = field(default_factory=lambda: set(IDS))
    lost: bool = False  # somebody has deleted a key, and the operation is to find what is nowhere

    @cached_property
    def settings(self) -> Settings:
        return Settings(redis_url=self.url, reply_lists=True)

    @cached_property
    def keys(self) -> QueueKeys:
        return QueueKeys(self.settings.namespace, queue_name(CIRCLE))

    @cached_property
    def broker(self) -> TaskBroker:
        return TaskBroker(self.settings, broker_id="alive")  # its writer does not run: the test writes

    @cached_property
    def consumer(self) -> TaskConsumer:
        consumer = self.broker.consume(self.keys.queue, 20, 10)
        consumer._leftovers._recovered = True
        return consumer

    @cached_property
    def rabbit(self) -> RabbitSource:
        settings = _Settings(redis_url=self.url, broker_url="amqp://127.0.0.1:1")
        broker = RabbitBroker(settings, broker_id="alive")
        source = broker.consume(self.keys.queue, 20, 10).source
        assert isinstance(source, RabbitSource)
        return source

    @cached_property
    def bridge(self) -> CircleBridge:
        return CircleBridge(self.settings, CIRCLE, connect(self.url))

    @cached_property
    def oldest_first(self) -> CircleBridge:
        return CircleBridge(replace(self.settings, order="oldest"), CIRCLE, connect(self.url))

    @cached_property
    def fair_bridge(self) -> CircleBridge:
        return CircleBridge(replace(self.settings, fair=True), CIRCLE, connect(self.url))

    @cached_property
    def relay(self) -> Relay:
        return Relay(self.settings, CIRCLE, FakePublisher(), Outage(self.url))

    @cached_property
    def queues(self) -> Queues:
        return Queues(self.settings)

    @cached_property
    def app(self) -> Client:
        return Client(self.url, circle=CIRCLE, retry_timeout=0.0)

    # --- stages that tasks are brought to

    def submit(self) -> None:
        dispatcher = Dispatcher(self.admin)
        for task_id in IDS:
            dispatcher.submit(CIRCLE, task_id, "1", replyToQueue=f"reply-{task_id}")

    def take(self) -> None:
        self.submit()
        self.take_all()

    def take_all(self) -> None:
        while self.admin.lmove(f"rhai_tasks:{CIRCLE}", self.keys.messages):
            pass

    def fetch(self) -> list[TaskMessage]:
        self.take()
        return self.fetch_again()

    def fetch_again(self, count: int = 100) -> list[TaskMessage]:
        source: Any = self.consumer.source
        source.more = True
        self.consumer._hold(source.fetch(count), size=1)
        fetched = list(self.consumer._fetched)
        self.consumer._fetched.clear()
        return fetched

    def add_foreign(self) -> None:
        """Put a message into the queue that cannot go to the native list."""
        message: Message[Any] = Message(
            self.keys.queue, "run_script", ("foreign",), {}, {"redis_message_id": "f", "pipe_target": {}}
        )
        self.admin.hset("rhai_task_details:foreign", mapping={"script": "1", "status": "pending"})
        self.admin.hset(self.keys.bodies, "f", message.encode())
        self.admin.rpush(self.keys.messages, "f")
        self.expected.add("foreign")

    # --- where everything is

    def places(self) -> dict[str, list[str]]:
        """Name the places of each task."""
        keys = self.keys
        found: dict[str, list[str]] = {}
        bodies = self.admin.hgetall(keys.bodies)
        for place, ids in self._ids().items():
            for name in ids:
                body = self.admin.hget(keys.dead_bodies, name) if place == "dead" else bodies.get(name)
                task_id = json.loads(body)["args"][0] if body else name
                found.setdefault(task_id, []).append(place)
        for task_id in self.expected:
            if self.admin.hget(f"rhai_task_details:{task_id}", "status") in {"completed", "error"}:
                found.setdefault(task_id, []).append("ended")
        return found

    def _ids(self) -> dict[str, list[str]]:
        keys, admin = self.keys, self.admin
        held = [key for key in admin.keys("*__acks__*") if admin.type(key) == "set"]
        return {
            "native": admin.lrange(f"rhai_tasks:{CIRCLE}", 0, -1),
            "other": admin.lrange("rhai_tasks:other", 0, -1),
            "messages": admin.lrange(keys.messages, 0, -1),
            "published": admin.zrange(keys.published, 0, -1),
            "delayed": admin.zrange(keys.delayed, 0, -1),
            "delayed messages": admin.zrange(keys.delayed_messages, 0, -1),
            "line": [
                parked.split(" ", 1)[1]
                for caller in ("caller", "")
                if admin.type(keys.line(caller)) == "list"
                for parked in admin.lrange(keys.line(caller), 0, -1)
            ],
            "dead": admin.zrange(keys.dead, 0, -1),
            **{key: admin.smembers(key) for key in held},
        }

    def orphans(self) -> set[str]:
        """Name the messages with a body that are nowhere."""
        somewhere = {name for ids in self._ids().values() for name in ids}
        return set(self.admin.hkeys(self.keys.bodies)) - somewhere

    def check(self) -> None:
        places = self.places()
        found = {task_id: places.get(task_id, []) for task_id in self.expected}
        allowed = (0, 1) if self.lost else (1,)
        assert {task_id: where for task_id, where in found.items() if len(where) not in allowed} == {}
        assert self.lost or self.orphans() == set()


Act = Callable[[], object]


def take(world: World) -> Act:
    world.submit()
    return lambda: world.bridge.take(**world.bridge.call)


def take_oldest(world: World) -> Act:
    world.submit()
    return lambda: world.oldest_first.take(**world.oldest_first.call)


def give_back(world: World) -> Act:
    world.fetch()
    world.admin.rename(world.keys.acks("alive"), world.keys.acks(GONE))
    world.admin.hset(world.keys.deliveries, mapping=dict.fromkeys(world.admin.hkeys(world.keys.bodies), 1))
    world.add_foreign()
    bridge = world.bridge
    return lambda: native.give_back(bridge._client, bridge._settings, bridge.circle, held_by=[GONE])


def give_back_unheld(world: World) -> Act:
    world.take()
    world.add_foreign()
    return world.bridge.give_back


def give_back_oldest(world: World) -> Act:
    give_back_unheld(world)
    return world.oldest_first.give_back


def fetch(world: World) -> Act:
    world.take()
    world.add_foreign()
    world.admin.hset(world.keys.deliveries, ":t0", 1)
    world.admin.set(world.keys.full, "1")
    return world.fetch_again


def fetch_by_rules(world: World) -> Act:
    world.submit()
    block = Rule("block", "caller", "caller", reason="why")
    Rules(world.admin, world.keys.namespace, "me").set(CIRCLE, block)
    world.take_all()

    def act() -> None:
        world.fetch_again()
        world.broker.writer._write()

    return act


def claim(world: World) -> Act:
    world.take()
    world.relay._certain = True
    world.relay._forward()
    names = world.admin.zrange(world.keys.published, 0, -1)
    return lambda: world.rabbit.claim(names, 2)


def limited(world: World, **figures: float) -> None:
    """Limit the caller of all tasks; one task is a message that a worker has released."""
    world.fetch()
    for run in list(world.consumer._room.held.values()):
        world.broker.writer.release(Released(run.delivery))
    world.broker.writer._write()
    world.consumer._room.held.clear()
    for message_id in world.admin.lrange(world.keys.messages, 1, -1):
        world.admin.lrem(world.keys.messages, 0, message_id)
        task_id = json.loads(world.admin.hget(world.keys.bodies, message_id))["args"][0]
        world.admin.hdel(world.keys.bodies, message_id)
        world.admin.rpush(world.keys.messages, task_id)
    rule = Rule("limit", "caller", "caller", quota=Quota(**figures))  # type: ignore[arg-type]
    Rules(world.admin, world.keys.namespace, "me").set(CIRCLE, rule)


def fetch_limited(world: World) -> Act:
    limited(world, concurrency=2, rate=1000.0)
    return world.fetch_again


def fetch_parked(world: World) -> Act:
    park(world)
    world.admin.hset("rhai_task_details:late", mapping={"script": "1", "status": "pending", "callerId": "caller"})
    world.admin.rpush(world.keys.messages, "late")
    world.expected.add("late")
    Rules(world.admin, world.keys.namespace, "me").set(
        CIRCLE, Rule("limit", "caller", "caller", quota=Quota(concurrency=3))
    )
    return world.fetch_again


def park(world: World) -> None:
    """Park all tasks in their caller's line, one of them as a message."""
    limited(world, concurrency=1)
    Rules(world.admin, world.keys.namespace, "me").set(CIRCLE, Rule("pause", "caller", "caller"))
    world.fetch_again()
    assert world.admin.llen(world.keys.line("caller")) == len(IDS)


def give_back_parked(world: World) -> Act:
    park(world)
    return world.bridge.give_back


def purge_parked(world: World) -> Act:
    park(world)
    world.expected.remove("t0")  # a task without a hash is removed without an end
    return lambda: world.queues.purge(CIRCLE)


def find_strays_beside_parked(world: World) -> Act:
    park(world)
    strays = Strays(connect(world.url), world.settings.namespace, lambda: [world.keys.queue], 9.0)
    return lambda: strays.find({world.keys.queue: set(world.admin.hkeys(world.keys.bodies))})


def give_back_many(world: World) -> Act:
    world.submit()
    bridge = world.fair_bridge
    bridge.take(**bridge.call)
    world.add_foreign()
    return bridge.give_back


def sort(world: World) -> Act:
    world.submit()
    world.add_foreign()
    world.admin.lmove(f"rhai_tasks:{CIRCLE}", world.keys.messages, "RIGHT", "RIGHT")
    bridge = world.fair_bridge
    return lambda: bridge.take(**bridge.call)


def fetch_by_turns(world: World) -> Act:
    sort(world)()
    (message,) = world.fetch_again(1)
    world.broker.writer.release(Released(message.run.delivery))
    world.broker.writer._write()
    world.consumer._room.held.clear()
    return world.fetch_again


def finish_by_turns(world: World) -> Act:
    sort(world)()
    for message in world.fetch_again():
        ending = Finished(message.run.delivery, completed("done"), [], ended=0.0, use=(0.0, 0.5, 1, 1))
        world.broker.writer.finish(ending, at_once=False)
    return world.broker.writer._write


def publish(world: World) -> Act:
    world.take()
    world.add_foreign()
    world.admin.hset(world.keys.deliveries, ":t0", 1)
    world.relay._certain = True
    return world.relay._forward


def release_published(world: World) -> Act:
    world.take()
    world.relay._certain = True
    world.relay._forward()
    keys = world.keys
    return lambda: world.relay._release(keys=[keys.messages, keys.published, keys.bodies])


def finish(world: World) -> Act:
    for number, message in enumerate(world.fetch()):
        if number == 0:
            body = Message("rhai-other", "next", (), {}, {"redis_message_id": "next"}).encode()
            follow_up = FollowUp("completed", "message", b"rhai-other", "next", body)
        following = [] if number else [follow_up]
        world.broker.writer.finish(
            Finished(message.run.delivery, completed("done"), following, ended=0.0), at_once=False
        )
    return world.broker.writer._write


def accept(world: World) -> Act:
    first, *_ = world.fetch()
    world.broker.context.draining.set()  # one try
    acceptances = Acceptances(world.broker.context)
    return lambda: acceptances.accept(first.run.delivery, b"form", time.time(), 1.0)


def finish_signed(world: World) -> Act:
    world.settings = replace(world.settings, signatures="require")
    acceptances = Acceptances(world.broker.context)
    for number, message in enumerate(world.fetch()):
        run = message.run
        run.acceptance = acceptances.accept(run.delivery, b"form %d" % number, time.time(), 1.0).key
        run.finish(completed("done"))
        assert isinstance(run.ending, Finished)
        world.broker.writer.finish(run.ending, at_once=False)
    return world.broker.writer._write


def release(world: World) -> Act:
    for number, message in enumerate(world.fetch()):
        released = Released(message.run.delivery, postponed=number == 1, crash_counted=number == 2)
        world.broker.writer.release(released)
    return world.broker.writer._write


def release_for_later(world: World) -> Act:
    for message in world.fetch():
        world.broker.writer.release(Released(message.run.delivery, delay=1000.0))
    return world.broker.writer._write


def dead_letter(world: World) -> Act:
    for message in world.fetch():
        world.broker.writer.dead_letter(Dead(message.run.delivery, "no hash"))
    return world.broker.writer._write


def mark(world: World) -> Act:
    for message in world.fetch():
        message.run.marked, message.run.started = False, 0.0
        world.broker.writer.running._by_thread[hash(message.run.delivery.task_id)] = message.run
    return world.broker.writer._mark


def write_prints(world: World) -> Act:
    run = world.fetch()[0].run
    world.broker.prints._written[run] = 0
    run.prints = Prints(100)
    run.prints.add("printed")
    script = load_script(world.broker.client, "rhai_tasks.queue", "prints", RHAI)
    return lambda: world.broker.prints._write(script, run, 0)


def deliver(world: World) -> Act:
    first, *_ = world.fetch()
    world.broker.writer._give_up.set()  # one try
    return lambda: world.broker.writer.count_crash(first.run.delivery)


def renew(world: World) -> Act:
    world.fetch()
    world.admin.rename(world.keys.acks("alive"), world.keys.acks(GONE))
    world.admin.zadd(world.keys.leases, {GONE: 1})
    world.consumer._room.held.clear()
    return lambda: world.broker.leases.renew(world.keys.queue, heartbeat='{"a":1}')


def hold_again(world: World) -> Act:
    held = [message.run.delivery for message in world.fetch()]
    world.admin.delete(world.keys.acks("alive"))
    world.admin.hdel(world.keys.bodies, held[0].message_id)  # as if it had ended
    world.expected.remove(held[0].task_id)
    return found(world, lambda: world.broker.leases.hold_again(held))


def find_strays(world: World) -> Act:
    names = {message.run.delivery.message_id for message in world.fetch()}
    world.admin.delete(world.keys.acks("alive"))
    strays = Strays(connect(world.url), world.settings.namespace, lambda: [world.keys.queue], 9.0)
    return found(world, lambda: strays.find({world.keys.queue: names}))


def found(world: World, act: Act) -> Act:
    world.lost = True

    def find() -> None:
        act()
        world.lost = False

    return find


def recover(world: World) -> Act:
    world.fetch()
    world.consumer._room.held.clear()
    return lambda: world.broker.leases.recover_own(world.keys.queue)


def leave(world: World) -> Act:
    world.fetch()
    keys = world.keys
    leave = world.broker.leases._leave_script
    return lambda: leave(keys=[keys.leases, keys.acks("alive")], args=["alive"])


def enqueue(world: World, delay: int = 0, task_id: str = "new") -> Act:
    world.submit()
    details = {"script": "1", "status": "pending", "circle": CIRCLE}
    message: Message[Any] = Message(world.keys.queue, "run_script", (task_id,), {"details": details}, {})

    def act() -> None:
        world.broker.enqueue(message, delay=delay)
        world.expected.add(task_id)

    return act


def enqueue_limited(world: World) -> Act:
    limit_waiting(world)
    return enqueue(world)


def submit(world: World, **options: Any) -> Act:
    world.submit()

    def act() -> None:
        task = world.app.submit(**{"script": "2", "task_id": "new", **options})
        world.expected.add(task.id)

    return act


def limit_waiting(world: World) -> None:
    rule = Rule("limit", "callers", quota=Quota(waiting=6))
    Rules(world.admin, world.keys.namespace, "me").set(CIRCLE, rule)
    world.admin.sadd(world.keys.waiting(""), "gone", *IDS)


def submit_limited(world: World) -> Act:
    limit_waiting(world)
    return submit(world)


def submit_again(world: World, **options: Any) -> Act:
    world.app.submit("1", task_id="new", **options)
    world.expected.add("new")
    return submit(world, circle="other")


def submit_stored(world: World) -> Act:
    world.app.scripts.put("2", name="n")
    return submit(world, script="@n", materialize=True)


def delete_script(world: World) -> Act:
    world.submit()
    world.app.scripts.put("2", name="n")
    return lambda: suppressed(world.app.scripts.delete, "@n")


def forget(world: World) -> Act:
    world.submit()
    world.admin.hset("rhai_task_details:ended", mapping={"script": "1", "status": "completed", "output": "1"})
    names = [f"rhai_task_details:{name}" for name in (*IDS, "ended", "none")]
    return lambda: load_script(world.bridge._client, "rhai_tasks.operate", "forget", RHAI)(keys=names)


def write_history(world: World) -> Act:
    world.fetch()
    world.broker.context.recorder.counts.add(FINISHED, CIRCLE, "completed", count=3)
    return world.broker.leases._history.write


def suppressed(act: Callable[[str], object], reference: str) -> None:
    with suppress(ScriptNotFound):  # the try before has deleted it
        act(reference)


def store_script(world: World) -> Act:
    world.submit()
    return lambda: world.app.scripts.put("2", name="n")


def cancel(world: World) -> Act:
    world.take()
    world.expected.remove("t0")  # it has ended, and the fetch that passes it over has not come yet
    return lambda: world.app.cancel("t0")


def stop(world: World) -> Act:
    cancel(world)
    settings = replace(world.settings, prefixes=Prefixes(stop="stops:"))
    stops = Stops(settings, Outage(world.url), threading.Event())
    stops._lists.append(f"stops:{CIRCLE}".encode())
    world.admin.rpush(f"stops:{CIRCLE}", "t0", "gone")
    return stops._cancel


def purge(world: World) -> Act:
    world.fetch()
    for run in list(world.consumer._room.held.values())[:2]:
        world.broker.writer.release(Released(run.delivery))
    world.broker.writer._write()
    world.app.submit("1", task_id="delayed", delay=1000.0)
    world.app.submit("1", task_id="delayed message", delay=1000.0, via="dramatiq")
    world.app.submit("1", task_id="new")
    world.expected |= {"delayed", "delayed message", "new"}
    return lambda: world.queues.purge(CIRCLE)


def retry(world: World) -> Act:
    dead_letter(world)()
    letters = world.queues.dead_letters.read(CIRCLE)
    return lambda: world.queues.dead_letters.retry(letters)


def due(world: World) -> Act:
    world.app.submit("1", task_id="delayed", delay=1000.0)
    world.app.submit("1", task_id="delayed message", delay=1000.0, via="dramatiq")
    world.expected = {"delayed", "delayed message"}
    for key in (world.keys.delayed, world.keys.delayed_messages):
        for name in world.admin.zrange(key, 0, -1):
            world.admin.zadd(key, {name: 1})
    bridge = world.bridge
    due = load_script(world.queues.client, "rhai_tasks.queue", "due")
    return lambda: due(keys=bridge.delayed_keys, args=[500, "newest"])


SCENARIOS: dict[str, tuple[str, Callable[[World], Act]]] = {
    "take": ("take", take),
    "take the oldest": ("take", take_oldest),
    "give back": ("give_back", give_back),
    "give back what no worker held": ("give_back", give_back_unheld),
    "give back the oldest": ("give_back", give_back_oldest),
    "fetch": ("fetch", fetch),
    "fetch blocked tasks": ("fetch finish", fetch_by_rules),
    "fetch under limits": ("fetch", fetch_limited),
    "fetch parked tasks": ("fetch", fetch_parked),
    "give back parked tasks": ("give_back give_back_ids", give_back_parked),
    "give back sorted tasks": ("give_back give_back_ids", give_back_many),
    "sort": ("sort", sort),
    "fetch by turns": ("fetch", fetch_by_turns),
    "finish by turns": ("finish", finish_by_turns),
    "purge parked tasks": ("purge cancel_held", purge_parked),
    "find strays beside parked tasks": ("strays", find_strays_beside_parked),
    "claim": ("claim", claim),
    "publish": ("publish", publish),
    "release what was published": ("release_published", release_published),
    "finish": ("finish", finish),
    "accept": ("accept", accept),
    "finish signed tasks": ("finish", finish_signed),
    "release": ("release", release),
    "release for later": ("release", release_for_later),
    "dead letter": ("dead_letter", dead_letter),
    "mark": ("mark", mark),
    "deliver": ("deliver", deliver),
    "write prints": ("prints", write_prints),
    "renew": ("renew recover", renew),
    "hold again": ("hold_again", hold_again),
    "find strays": ("strays", find_strays),
    "recover": ("recover", recover),
    "leave": ("leave", leave),
    "enqueue": ("enqueue", enqueue),
    "enqueue delayed": ("enqueue", partial(enqueue, delay=1_000_000)),
    "enqueue where few may wait": ("enqueue", enqueue_limited),
    "enqueue a task that waits": ("enqueue", partial(enqueue, task_id="t0")),
    "submit": ("submit", submit),
    "submit where few may wait": ("submit", submit_limited),
    "submit to dramatiq": ("submit", partial(submit, via="dramatiq")),
    "submit urgently": ("submit", partial(submit, via="urgent")),
    "submit delayed": ("submit", partial(submit, delay=1000.0)),
    "submit a task that waits": ("submit", partial(submit, task_id="t0")),
    "submit a task that waits, delayed": ("submit", partial(submit, task_id="t0", delay=1000.0)),
    "submit a delayed task now": ("submit", partial(submit_again, delay=1000.0)),
    "submit a message of dramatiq's again": ("submit", partial(submit_again, via="dramatiq")),
    "submit a stored script": ("submit", submit_stored),
    "store a script": ("store_script", store_script),
    "delete a script": ("delete_script", delete_script),
    "cancel": ("cancel", cancel),
    "forget": ("forget", forget),
    "write the history": ("history", write_history),
    "stop": ("stop", stop),
    "purge": ("purge cancel_held", purge),
    "retry": ("retry", retry),
    "due": ("due", due),
}
READ_ONLY = {"states", "count", "details", "find", "watch", "new_prints", "prerequisites"}  # they change nothing


def commands_called(scripts: str) -> list[str]:
    """List the commands that these scripts call."""
    return sorted({command for name in scripts.split() for command in commands_of(name)})


CASES = [(name, command) for name, (scripts, _) in SCENARIOS.items() for command in commands_called(scripts)]
KEYS = ["messages", "bodies", "dead", "dead_bodies", "dead_reasons", "sequence", "published", "leases", "deliveries"]
KEYS += ["full", "room", "delayed", "delayed_messages", "wake", "rules", "callers", "lines"]
KEYS += ["line_number", "turns", "charges", "buckets"]
OTHERS = [
    "acks",
    "released",
    "registry",
    "workers",
    "native",
    "details",
    "reply",
    "scripts",
    "names",
    "history",
    "next messages",
    "next bodies",
]
OTHERS += ["line", "waiting", "changes"]


@pytest.fixture
def world(client: Any, server_url: str) -> Iterator[World]:
    client.acl_setuser("limited", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"], channels=["*"])
    yield World(client, server_url.replace("://", "://limited:secret@"))
    client.acl_deluser("limited")


@contextmanager
def refused(world: World, command: str) -> Iterator[None]:
    world.admin.execute_command("ACL", "SETUSER", "limited", f"-{command.lower()}")
    yield
    world.admin.execute_command("ACL", "SETUSER", "limited", f"+{command.lower()}")


@contextmanager
def of_another_type(world: World, key: str | bytes) -> Iterator[None]:
    """Put a value of another type in the key's place, and the old one back."""
    admin = world.admin
    existed = admin.exists(key)
    other = admin.type(key) == "string"
    if existed:
        admin.rename(key, "away")
    if other:
        admin.rpush(key, "odd")
    else:
        admin.set(key, "odd")
    yield
    intact = admin.type(key) == ("list" if other else "string")
    if intact:
        admin.delete(key)
    if existed and intact:
        admin.rename("away", key)


def fails(act: Act) -> bool:
    try:
        act()
    except Failed:
        return True
    return False


def test_every_script_that_changes_something_has_an_operation_here() -> None:
    tried = {name for scripts, _ in SCENARIOS.values() for name in scripts.split()}

    assert {*FILES} - READ_ONLY - LIBRARIES == tried


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_operation_leaves_each_task_in_one_place(world: World, name: str) -> None:
    act = SCENARIOS[name][1](world)

    act()

    world.check()


@pytest.mark.parametrize(("name", "command"), CASES, ids=[f"{name}-{command}" for name, command in CASES])
def test_a_refused_command_loses_and_doubles_nothing(world: World, name: str, command: str) -> None:
    act = SCENARIOS[name][1](world)

    with refused(world, command):
        failed = fails(act)

    world.check()
    if failed:
        act()
    world.check()
    assert not [reply for reply in world.admin.keys("reply-*") if world.admin.llen(reply) != 1]


def named_key(world: World, key: str) -> str | bytes:
    keys = world.keys
    named: dict[str, str | bytes] = {
        "acks": keys.acks("alive"),
        "released": keys.released("alive"),
        "registry": keys.registry(keys.namespace),
        "workers": workers_key(keys.namespace),
        "line": keys.line("caller"),
        "waiting": keys.waiting(""),
        "changes": changes_key(keys.namespace),
        "native": f"rhai_tasks:{CIRCLE}",
        "details": "rhai_task_details:t0",
        "reply": "reply-t0",
        "scripts": scripts_key(keys.namespace),
        "names": script_names_key(keys.namespace),
        "history": script_history_key(keys.namespace, "n"),
        "next messages": f"{keys.namespace}:rhai-other",
        "next bodies": f"{keys.namespace}:rhai-other.msgs",
    }
    return named.get(key) or cast("str", getattr(keys, key))


@pytest.mark.parametrize(("name", "key"), list(itertools.product(SCENARIOS, [*KEYS, *OTHERS])))
def test_a_key_of_another_type_loses_and_doubles_nothing(world: World, name: str, key: str) -> None:
    act = SCENARIOS[name][1](world)

    with of_another_type(world, named_key(world, key)):
        failed = fails(act)

    world.check()
    if failed:
        act()
    world.check()
