"""dramatiq's Redis broker with a consumer that blocks, leases, and acknowledgements that carry results.

Key layout and hook points are dramatiq's, so its own tools see the queues; the Lua is ours.
"""

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import cached_property
from itertools import chain, repeat
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import dramatiq
import redis
from dramatiq import Message, MessageProxy, Middleware
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage, MiddlewareError

from .arrivals import ALONE, Arrivals
from .cancellation import hear_cancels
from .connection import BLOCK_SECONDS, Outage, break_off, connect, connect_blocking, run_each, wait_and_run
from .metrics import IN_FLIGHT, RECOVERED, RUNNING, Counts
from .protocol import (
    ACTOR,
    DETAIL_FIELDS,
    TRACEPARENT,
    QueueKeys,
    failed,
    message_head,
    queue_name,
    state_channel,
    to_bytes,
    to_text,
    workers_key,
)
from .readiness import Readiness
from .settings import Settings
from .store import Held, TaskStore, load_script
from .threads import vital_thread
from .work_queue import WorkQueue

if TYPE_CHECKING:  # an extra
    from .tracing import Tracer

logger = logging.getLogger(__name__)

LEASE_SECONDS = 9.0
"""How long a broker's messages stay its own without a word from it; with the sweep below, a killed worker's
tasks run again within 13 s."""
RENEW_SECONDS = 3.0
INTERRUPT_SECONDS = 5.0
"""For interrupted scripts to end and be given back when a worker stops."""

_FETCHES = 8  # at a time by consumers that share connections: more would only wait for the interpreter
_RETRY_SECONDS = 0.5  # until a renewal that failed is tried again
_GRACE_SECONDS = 4.5  # for others to renew once they can again: one try that hangs, the pause after it, and a bit
_JUMP_SECONDS = 1.0  # by which the server's clock goes wrong in no time: more is a jump
_PREFETCH_SECONDS = 0.02  # of work that may wait behind each thread: hides the next fetch, starves no other worker
_QUICK_SECONDS = 0.001
_STUCK_SECONDS = 1.0  # for which what was fetched ahead waits, until others may have it
_PREFETCH_MOST = 256  # messages; bounds what waits to be written during an outage, too
_RUNS = 50  # scripts that the average goes over: it must tell quick ones from those of which one in twenty takes long


class TaskMessage(MessageProxy):
    """A message with the task that it is for, as the actor gets it from `CurrentMessage`.

    It has the message's fields itself: dramatiq reads them a dozen times, and hardly ever wants the message.

    Args:
        fields: Of dramatiq's `Message`.
        held: The task.
    """

    def __init__(self, fields: dict[str, Any], held: Held) -> None:
        vars(self).update(fields)
        self.failed = False
        self.held = held
        self._fields = fields
        self._exception = None

    @cached_property
    def _message(self) -> Message[Any]:  # type: ignore[override]  # an attribute of dramatiq's
        return Message(**self._fields)

    def __str__(self) -> str:  # in dramatiq's lines; its own shows arguments, among them scripts and outputs
        return f"{self.actor_name}({self.held.task_id!r})"


class TaskBroker(RedisBroker):
    """A dramatiq broker whose messages are native tasks.

    Args:
        settings: Where the server is and how tasks are run.
        broker_id: Name under which messages are held. A process that takes the place of one that died
            takes its name too, and gets what that one held at once.
    """

    def __init__(self, settings: Settings, *, broker_id: str | None = None) -> None:
        self.outage = Outage(settings.redis_url)
        client = connect(settings.redis_url, outage=self.outage)
        self._hooks = _Hooks(self)
        super().__init__(  # type: ignore[no-untyped-call]  # dramatiq's is not annotated
            client=client, namespace=settings.namespace, middleware=[CurrentMessage()]
        )
        self.add_middleware(_WorkerLife())
        self.broker_id = broker_id or str(uuid4())
        self.settings = settings
        self.readiness = Readiness()
        self.draining = threading.Event()  # nothing more is fetched
        self.stopping = threading.Event()
        self.arrivals = Arrivals(settings, self.outage, self.stopping)
        self.turns = threading.BoundedSemaphore(_FETCHES)
        self.tracer = _tracer() if settings.traces else None
        self.fields = (*DETAIL_FIELDS, TRACEPARENT) if settings.traces else DETAIL_FIELDS
        self.counts = Counts() if settings.metrics_address else None
        self.store = TaskStore(settings, self.outage, self.counts)
        self.held: dict[str, dict[str, Held]] = {}  # by queue, by message id
        self.surplus: set[str] = set()  # queues of which the server says that we hold more than we know of
        self.cancelled: dict[str, float] = {}  # task ids heard of lately: time.monotonic()
        self.lease_ends: dict[str, float] = {}  # by queue, as far as we know: time.monotonic()
        self._renewed: dict[str, float] = {}  # by queue, the last time
        self._sweeps: dict[str, float] = {}  # by queue, from when on others' leases may be judged
        self._server_ahead = float("inf")  # seconds by which its clock is ahead of time.monotonic(), at most
        self.run_seconds = 1.0  # moving average of what a script takes; slow until proven quick
        self._runs: deque[float] = deque(maxlen=_RUNS)
        self.work_queue: WorkQueue[Any] = WorkQueue(self.runs_quickly)
        self.task_scripts = {
            name: load_script(client, "rhai_tasks", name) for name in ("enqueue", "renew", "requeue", "leave")
        }
        self.task_scripts["fetch"] = load_script(client, "rhai_tasks", "number", "fetch", "hold")
        # Of its own, and impatient: a connection that hangs must be noticed while there is time to renew by another.
        self._lease_client = connect(settings.redis_url, outage=self.outage, timeout=RENEW_SECONDS)
        self._timer = vital_thread("leases", self._keep_leases)
        self._hearing = vital_thread("cancels", lambda: hear_cancels(settings, self.cancel, self.stopping))

    @property
    def consumer_class(self) -> type["TaskConsumer"]:
        """The consumer that dramatiq's worker makes for each queue."""
        return TaskConsumer if len(self.held) < ALONE else SharingConsumer

    def keys(self, queue: str) -> QueueKeys:
        """Name the keys of a queue."""
        return QueueKeys(self.namespace, queue)

    def emit_before(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Call the middleware that has a hook for this; dramatiq would call many empty ones for each message."""
        for hook in self._hooks["before_" + signal]:
            try:
                hook(self, *args, **kwargs)
            except MiddlewareError:
                raise
            except Exception:
                logger.critical("Unexpected failure in %r", hook, exc_info=True)

    def emit_after(self, signal: str, *args: Any, **kwargs: Any) -> None:
        """Likewise, the last one first."""
        for hook in reversed(self._hooks["after_" + signal]):
            try:
                hook(self, *args, **kwargs)
            except Exception:
                logger.critical("Unexpected failure in %r", hook, exc_info=True)

    def add_middleware(self, middleware: Middleware, **place: Any) -> None:
        """Add a middleware, in front of or behind another one as dramatiq's brokers can."""
        super().add_middleware(middleware, **place)
        self._hooks.clear()

    def declare_actor(self, actor: Any) -> None:
        """Declare an actor without a queue of its own: queues are declared circle by circle."""
        self.emit_before("declare_actor", actor)
        self.actors[actor.actor_name] = actor
        self.emit_after("declare_actor", actor)

    def declare_circle(self, circle: str) -> None:
        """Consume this circle's tasks, in a worker that runs or in one that will."""
        self.declare_queue(queue_name(circle))

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue, without dramatiq's delay queue: it would keep delayed tasks in one worker's memory."""
        if queue_name not in self.queues:
            self.emit_before("declare_queue", queue_name)
            self.queues.add(queue_name)
            self.emit_after("declare_queue", queue_name)

    def enqueue(self, message: Message[Any], *, delay: int | None = None) -> Message[Any]:
        """Write a message, its id and its task's details in one step.

        Args:
            message: A `ScriptActor`'s, or another actor's.
            delay: Milliseconds; a bridge hands the message over when it is due, and no restart loses it.
        """
        # The broker's own name for it: a message that is enqueued again is another one.
        message = message.copy(options={"redis_message_id": str(uuid4())})
        self.emit_before("enqueue", message, delay)
        keys = self.keys(message.queue_name)
        details: dict[str, str] = message.kwargs.get("details", {})
        self.task_scripts["enqueue"](
            keys=[
                keys.messages,
                keys.bodies,
                keys.registry(self.namespace),
                keys.delayed_messages,
                keys.wake,
                to_bytes(self.settings.prefixes.details + _task_id(message)),
            ],
            args=[
                message.options["redis_message_id"],
                message.encode(),
                message.queue_name,
                delay or 0,
                int(message.options.get("urgent", False)),
                *chain.from_iterable(details.items()),
            ],
        )
        self.emit_after("enqueue", message, delay)
        return message

    def waiting(self) -> int:
        """Count fetched messages that no thread has begun with."""
        return self.work_queue.qsize()

    def gauges(self) -> dict[str, float]:
        """Tell values of the moment, by name of the metric."""
        in_flight = sum(len(by_id) for by_id in list(self.held.values()))
        return {IN_FLIGHT.name: in_flight, RUNNING.name: self.store.running()}

    def ran(self, seconds: float) -> None:
        """Note how long a script took."""
        self._runs.append(seconds)
        self.run_seconds = sum(self._runs) / len(self._runs)

    def turned_slow(self, seconds: float) -> None:
        """Forget how long scripts took before those that have been running for so long now."""
        self._runs.clear()
        self.ran(seconds)

    def runs_quickly(self) -> bool:
        """Say whether scripts have been so short of late that it is not worth looking for the next one meanwhile."""
        return self.run_seconds < _QUICK_SECONDS

    def lease_lapsed(self, queue: str) -> bool:
        """Say whether what we hold of this queue may be another's by now: we were frozen, or cut off."""
        return time.monotonic() > self.lease_ends.get(queue, 0.0)

    def all_held(self) -> list[Held]:
        """Return the messages of all queues that are held now."""
        return [held for by_id in list(self.held.values()) for held in list(by_id.values())]

    def interrupt(self) -> None:
        """Stop running scripts: what has not finished goes back."""
        for held in self.all_held():
            held.interrupted = True
            held.cancel.cancel()

    def cancel(self, task_id: str) -> None:
        """Stop a task's script if it is held here, running or not; `finish.lua` knows how the task has ended."""
        now = time.monotonic()
        self.cancelled = {known: at for known, at in self.cancelled.items() if now < at + LEASE_SECONDS}
        self.cancelled[task_id] = now  # first: a fetch may be on its way that has not seen it
        for queue in {held.keys.queue for held in self.all_held() if held.task_id == task_id}:
            with suppress(redis.RedisError):  # then the next renewal sees it
                self.renew(queue)  # it sees whether the task is cancelled still: it may have been submitted again since

    def drop_lost(self, queue: str) -> None:
        """Stop scripts whose messages went to another broker while our lease did not stand."""
        held = list(self.held.get(queue, {}).values())
        ours = cast("set[bytes]", self.client.smembers(self.keys(queue).acks(self.broker_id)))
        _drop_lost(held, {to_text(message_id) for message_id in ours})

    def recover_own(self, queue: str) -> None:
        """Put back what a process of this name held when it died."""
        self._requeue(self.keys(queue), self.broker_id, "dead")

    def _requeue(self, keys: QueueKeys, broker_id: str, mode: str) -> None:
        count = self.task_scripts["requeue"](
            keys=[keys.messages, keys.acks(broker_id), keys.deliveries, keys.leases, keys.released(broker_id)],
            args=[broker_id, mode, self.store.process_id],
        )
        if count:
            logger.warning("Put %d task(s) of a worker that died back into queue %s", count, keys.queue)
            if self.counts:
                self.counts.add(RECOVERED, count=count)

    def _keep_leases(self) -> None:
        """Renew on a clock of our own: a heartbeat that rides on commands stops while long scripts run."""
        pause = 0.0
        while not self.stopping.wait(pause):
            pause = RENEW_SECONDS
            try:
                self.renew(*self.queues, heartbeat=self.store.heartbeat(self.queues))
                self.outage.end()
            except redis.RedisError as error:
                self.outage.begin(error)
                pause = _RETRY_SECONDS

    def renew(self, *queues: str, heartbeat: str = "") -> None:
        """Renew our leases on queues, stop what we lost, and take back what dead workers held.

        Args:
            queues: Whose messages we hold: one round trip for all of them.
            heartbeat: Of this process, to be told with the first of them, or nothing.

        Raises:
            redis.RedisError: The server does not answer, or refuses a queue; the others are renewed.
        """
        began = time.monotonic()
        # Before: what is fetched meanwhile is ours.
        held = [list(self.held.get(queue, {}).values()) for queue in queues]
        lapsed = {queue for queue, messages in zip(queues, held, strict=True) if messages and self.lease_lapsed(queue)}
        calls = list(map(self._renewal, queues, held, chain([heartbeat], repeat(""))))
        replies = run_each(self._lease_client, self.task_scripts["renew"], calls)
        renewed = [one for one in zip(queues, held, replies, strict=True) if not isinstance(one[2], redis.RedisError)]
        for queue, messages, (stood, _, cancelled, ours, count, clock) in renewed:
            self._note_clock(clock / 1000, began)
            if count > len(messages):
                self.surplus.add(queue)
            for position in cancelled:  # we should have heard of it
                messages[position].cancel.cancel()
            if not stood:
                _drop_lost(messages, {to_text(message_id) for message_id in ours})
            if not (stood and queue in lapsed):
                self._note_renewal(queue, began)
        for queue, _, (stood, expired, *_) in renewed:  # last: it asks the server again, which may fail
            if stood and queue in lapsed:  # it stands again by a renewal whose reply got lost
                self.drop_lost(queue)
                self._note_renewal(queue, began)
            if began >= self._sweeps.get(queue, 0.0):
                self._sweep(queue, [broker_id.decode() for broker_id in expired])
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply

    def _renewal(self, queue: str, held: list[Held], heartbeat: str) -> dict[str, Any]:
        """Write keys and arguments of `renew.lua`."""
        keys, prefix = self.keys(queue), self.settings.prefixes.details
        return {
            "keys": [keys.leases, keys.acks(self.broker_id), workers_key(self.namespace)],
            "args": [
                self.broker_id,
                int(LEASE_SECONDS * 1000),
                heartbeat,
                *(to_bytes(prefix + one.task_id) for one in held),
            ],
        }

    def _note_clock(self, server: float, began: float) -> None:
        """Judge nobody for a while after the server's clock has jumped ahead: to it, all leases may have run out.

        Args:
            server: Its clock, in seconds since the epoch.
            began: time.monotonic() before it was asked; it has answered by now.
        """
        now = time.monotonic()
        if server - now > self._server_ahead + _JUMP_SECONDS:
            self._sweeps.update(dict.fromkeys(self.queues, now + _GRACE_SECONDS))
        self._server_ahead = server - began

    def _note_renewal(self, queue: str, began: float) -> None:
        if began - self._renewed.get(queue, float("-inf")) > LEASE_SECONDS - RENEW_SECONDS:
            # Either we were away or the server was. Then the others' leases ran out as ours did: they get the
            # time to renew them, else their tasks would run twice though nobody died.
            self._sweeps[queue] = began + _GRACE_SECONDS
        self._renewed[queue] = began
        self.lease_ends[queue] = began + LEASE_SECONDS
        self.readiness.note(f"lease of {queue}")

    def _sweep(self, queue: str, expired: list[str]) -> None:
        for broker_id in expired:
            if broker_id != self.broker_id:
                self._requeue(self.keys(queue), broker_id, "expired")


class TaskConsumer(dramatiq.Consumer):
    """Brings messages with their tasks; takes acknowledgements, and writes results with them."""

    def __init__(self, broker: TaskBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        self._broker = broker
        self._queue_name = queue_name
        self._threads = max(prefetch // 2, 1)  # dramatiq asks for two messages a thread
        self._timeout = timeout / 1000
        self._keys = broker.keys(queue_name)
        self._fetched: deque[TaskMessage] = deque()
        self._enough = self._threads  # messages to hold; below that, more are fetched
        self._room = threading.Event()
        self._more = False  # the last fetch brought all it asked for
        restarted = queue_name in broker.held  # by dramatiq, after an error: what the last consumer brought runs on
        self._recovered = restarted
        self._unsure = restarted  # a fetch may have been done whose reply got lost
        self._held = broker.held.setdefault(queue_name, {})
        self._read = f"read of {queue_name}"
        broker.readiness.expect(self._read)
        broker.readiness.expect(f"lease of {queue_name}")

    @cached_property
    def _blocking(self) -> redis.Redis:
        return connect_blocking(self._broker.settings.redis_url, self._broker.outage)

    def __next__(self) -> TaskMessage | None:
        """Return the next message, or `None` every few seconds: dramatiq looks then whether to stop."""
        if self._broker.draining.is_set():
            self._pause(0.05, self._broker.stopping)
            return None
        if self._fetched:
            return self._fetched.popleft()
        self._give_back()
        try:
            self._bring()
        except redis.RedisError as error:
            self._unsure = True
            if not self._broker.draining.is_set():  # then it was us who disconnected
                self._broker.outage.begin(error)
                self._pause(0.5, self._broker.draining)
            return None
        return self._fetched.popleft() if self._fetched else None

    def _pause(self, seconds: float, end: threading.Event) -> None:
        end.wait(seconds)

    def _bring(self) -> None:
        """Fetch what there is room for, after a while of waiting; a `RedisError` leaves open whether it was done."""
        ahead = self._ahead()
        self._enough = self._threads + ahead // 2
        if not self._has_room():
            self._wait(self._timeout, unless=self._has_room)
        self._catch_up()
        if not self._has_room():  # also after the wait: who ended it may have found room before the last fetch took it
            self._look_alive()
            return
        if self._held and not self._more and self._broker.runs_quickly():
            # Leave the interpreter to whoever runs a quick script: it will have ended before the next one comes.
            self._wait(_QUICK_SECONDS, unless=lambda: not self._held)
        self._fetch(self._threads + ahead - len(self._held))
        self._broker.outage.end()

    def _catch_up(self) -> None:
        """See to what is ours, or was, before there is more of it."""
        if not self._recovered:
            self._broker.recover_own(self._queue_name)
            self._recovered = True
        if self._unsure or self._queue_name in self._broker.surplus:
            self._broker.surplus.discard(self._queue_name)
            self._release_unknown()
            self._unsure = False
        if self._held and self._broker.lease_lapsed(self._queue_name):
            self._broker.renew(self._queue_name)  # before a fetch renews it, and hides what was lost

    def _give_back(self) -> None:
        """Give back what waits behind scripts that turned out to be long: others may have a thread for it."""
        stuck = self._broker.work_queue.take_back(
            _STUCK_SECONDS, lambda item: bool(item.message.queue_name == self._queue_name)
        )
        if stuck:
            self._broker.turned_slow(_STUCK_SECONDS)
            self.requeue([item.message for item in stuck])

    def _has_room(self) -> bool:
        return len(self._held) < self._enough

    def _wait(self, seconds: float, *, unless: Callable[[], bool]) -> None:
        """Wait until a task has ended and there is room."""
        self._room.clear()
        if not unless():
            self._room.wait(seconds)

    def _ahead(self) -> int:
        """How many messages may wait for a thread: those of some milliseconds, none while scripts take longer."""
        seconds = max(self._broker.run_seconds, 1e-5)
        return min(int(self._threads * _PREFETCH_SECONDS / seconds), _PREFETCH_MOST)

    def _look_alive(self) -> None:
        """Use the blocking connection now and then though we need not wait for messages: it may hang unnoticed."""
        if self._broker.readiness.age(self._read) > RENEW_SECONDS:
            self._blocking.ping()
            self._broker.readiness.note(self._read)

    def _fetch(self, count: int) -> None:
        """Fetch messages; wait for them, up to `BLOCK_SECONDS`, if the last fetch brought all there were."""
        broker, messages = self._broker, self._keys.messages
        idle, began = self._idle(), time.monotonic()
        call = self._call(str(count), idle, self._keys.sequence)
        fetch = broker.task_scripts["fetch"]
        if self._more:
            self._look_alive()
            reply = fetch(**call)
        else:
            # A list moved onto its own head stays as it is: this waits for a message without taking it.
            reply = wait_and_run(self._blocking, messages, messages, "LEFT", fetch, **call)
            broker.readiness.note(self._read)
        self._more = len(self._hold(reply, idle, began, {})) >= count

    def _idle(self) -> int:
        """Count the threads that have nothing to do; other queues may keep them busy."""
        return max(self._threads - self._broker.work_queue.unfinished(), 0)

    def _call(self, which: str, idle: int, key: str) -> dict[str, Any]:
        """Write keys and arguments of `fetch.lua` or `claim.lua`.

        Args:
            which: The first argument: what to take.
            idle: How many threads have nothing to do.
            key: The last key.
        """
        broker, keys, settings = self._broker, self._keys, self._broker.settings
        return {
            "keys": [
                keys.messages,
                keys.bodies,
                keys.acks(broker.broker_id),
                keys.deliveries,
                keys.leases,
                keys.full,
                keys.room,
                key,
            ],
            "args": [
                to_bytes(which),
                broker.broker_id,
                int(LEASE_SECONDS * 1000),
                (settings.buffer + 1) // 2,
                settings.prefixes.details,
                idle,
                state_channel(keys.namespace),
                message_head(keys.queue, time.time()),
                *broker.fields,
            ],
        }

    def _hold(
        self, reply: Any, idle: int, began: float, acknowledgements: Mapping[str, Callable[[], object]]
    ) -> set[str]:
        """Hold what the server has given us, and return the ids of these messages.

        Args:
            reply: Of `hold.lua`.
            idle: How many threads had nothing to do.
            began: time.monotonic() before the server was asked.
            acknowledgements: By message id, what is to be called once a message's end is written.
        """
        broker = self._broker
        lapsed, rows = reply
        if not self._held:
            broker.lease_ends[self._queue_name] = began + LEASE_SECONDS
        elif lapsed:
            broker.drop_lost(self._queue_name)
        fetched = time.time() if broker.tracer else 0.0
        for place, (name, task_id, body, deaths, details, cancelled) in enumerate(rows):
            message_id = name.decode()
            held = Held(
                keys=self._keys,
                message_id=message_id,
                task_id=to_text(task_id or b""),
                details=details.decode(errors="replace") if isinstance(details, bytes) else details,
                deaths=deaths,
                marked=place < idle and deaths == 0,
                fetched=fetched,
            )
            held.acknowledge = acknowledgements.get(message_id, held.acknowledge)
            if body is None:
                fields = self._fields(message_id, held.task_id)
            else:
                try:
                    message = self._decode(body)
                    held.task_id, fields = _task_id(message), vars(message)
                except (ValueError, TypeError, RecursionError) as error:
                    held.details = f"its message cannot be read: {error}"
                    self._broker.store.dead_letter(held)
                    continue
            if cancelled:
                held.cancel.cancel()
            self._broker.store.keep(held.message_id)
            self._held[held.message_id] = held
            self._fetched.append(TaskMessage(fields, held))
        if broker.cancelled and any(message.held.task_id in broker.cancelled for message in self._fetched):
            broker.renew(self._queue_name)  # it sees whether they are, or have been submitted again since
        return {to_text(row[0]) for row in rows}

    def _fields(self, message_id: str, task_id: str) -> dict[str, Any]:
        """Make the fields of the message that `fetch.lua` has made."""
        return {
            "queue_name": self._queue_name,
            "actor_name": ACTOR,
            "args": (task_id,),
            "kwargs": {},
            "options": {"redis_message_id": message_id},
            "message_id": message_id,
            "message_timestamp": int(time.time() * 1000),
        }

    def _decode(self, body: bytes) -> Message[Any]:
        """Read a message; not with dramatiq's decoder, because a task's id may be no UTF-8.

        Raises:
            ValueError, TypeError, RecursionError: It is none.
        """
        fields = json.loads(to_text(body))
        message: Message[Any] = Message(**fields)
        for name, kind in (("actor_name", str), ("args", list), ("kwargs", dict), ("options", dict)):
            if not isinstance(fields[name], kind):
                raise TypeError(f"{name} is no {kind.__name__}")  # and dramatiq relies on it
        fields["options"].pop("eta", None)  # what lies in the queue is due; dramatiq would enqueue a copy of it later
        return message.copy(queue_name=self._queue_name)  # whatever it says: dramatiq acknowledges it there

    def _release_unknown(self) -> None:
        """Put back what a fetch took whose reply never came: held by this broker, and known to nobody here.

        Such a fetch may be done at any time after we gave it up, when a network lets go of it: renewals count.
        """
        known = set(self._held)  # first: what ends in the meantime goes from here to there, and out of the members
        known |= self._broker.store.ending()
        members = cast("set[bytes]", self._broker.client.smembers(self._keys.acks(self._broker.broker_id)))
        unknown = {to_text(member) for member in members} - known
        for message_id in unknown:
            body = cast("bytes | None", self._broker.client.hget(self._keys.bodies, message_id))
            task_id = ""
            with suppress(ValueError, TypeError, RecursionError):  # the next fetch will say what is wrong with it
                task_id = _task_id(self._decode(body or b""))
            self._broker.store.release(Held(self._keys, message_id, task_id, details=None, deaths=0))
        if unknown:
            logger.warning("Put %d task(s) back whose fetch was cut off", len(unknown))

    def ack(self, message: MessageProxy) -> None:
        """Record the outcome with the acknowledgement; called by the thread that ran the task."""
        held = cast("TaskMessage", message).held
        store = self._broker.store
        if held.lost:  # also if this very process has fetched it anew: that run counts
            logger.warning("Result dropped: the task was taken over by another worker", extra=held.about())
            held.acknowledge()
        elif (held.interrupted or held.postponed) and held.outcome is None:
            store.release(held)
        else:
            if held.outcome is None:  # a failure of ours, which dramatiq has logged with its traceback
                error = message._exception  # noqa: SLF001  (its only access)
                logger.error("The worker failed to run the task", extra=held.about())
                held.outcome = failed(f"The worker failed to run the task: {error!r}", "Worker")
            store.finish(held, held.outcome, at_once=self._broker.waiting() == 0)
        self._let_go(held)  # last: until it is in the store, it must be known here

    def nack(self, message: MessageProxy) -> None:
        """Move the message to the dead letters."""
        held = cast("TaskMessage", message).held
        self._broker.store.dead_letter(held)
        self._let_go(held)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Give messages back that no thread has begun with."""
        for message in [*messages, *self._fetched]:
            held = cast("TaskMessage", message).held
            if held.lost:
                held.acknowledge()
            else:
                self._broker.store.release(held)
            self._let_go(held)
        self._fetched.clear()

    def unblock(self) -> None:
        """End a blocking command from another thread."""
        break_off(self._blocking)

    def close(self) -> None:
        """Give back what is left and disconnect."""
        self.requeue([])
        if self._unsure:  # we disconnected while a fetch was waiting
            with suppress(redis.RedisError):
                self._release_unknown()
        self._blocking.close()

    def _let_go(self, held: Held) -> None:
        if self._held.get(held.message_id) is held:  # else it was lost, and fetched anew by this very broker
            del self._held[held.message_id]
        if self._has_room():
            self._room.set()


class SharingConsumer(TaskConsumer):
    """Waits for messages on one connection with all others of its kind, and shares those that fetch."""

    def __init__(self, broker: TaskBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        self._arrived = threading.Event()

    def _catch_up(self) -> None:
        with self._broker.turns:
            super()._catch_up()

    def _fetch(self, count: int) -> None:
        if not self._more:
            self._arrived.clear()
            self._broker.arrivals.expect(to_bytes(self._keys.messages), self._arrived.set)
            self._more = self._arrived.wait(BLOCK_SECONDS) and not self._broker.draining.is_set()
        self._look_alive()
        if self._more:
            with self._broker.turns:
                super()._fetch(count)

    def _look_alive(self) -> None:
        if self._broker.arrivals.heard() > time.monotonic() - BLOCK_SECONDS:
            self._broker.readiness.note(self._read)

    def unblock(self) -> None:
        """End a wait from another thread."""
        self._arrived.set()


class _Hooks(dict[str, list[Callable[..., object]]]):
    """By name, the hooks of a broker's middleware that do something."""

    def __init__(self, broker: dramatiq.Broker) -> None:
        super().__init__()
        self._broker = broker

    def __missing__(self, name: str) -> list[Callable[..., object]]:
        empty = getattr(Middleware, name)
        self[name] = [
            getattr(middleware, name)
            for middleware in self._broker.middleware
            if getattr(type(middleware), name) is not empty
        ]
        return self[name]


def _drop_lost(held: list[Held], ours: set[str]) -> None:
    """Stop scripts whose messages went to another broker while we could not renew: their results count no more."""
    for lost in held:
        if lost.message_id not in ours:
            logger.warning("Lost the lease on the task: another worker runs it", extra=lost.about())
            lost.lost = True
            lost.cancel.cancel()


def _tracer() -> "Tracer":
    from .tracing import Tracer  # noqa: PLC0415  (an extra, and only for who asks)

    return Tracer()


def _task_id(message: Message[Any]) -> str:
    """Read the id of a message's task.

    Raises:
        ValueError: JSON can spell what no key can hold: half of a pair of surrogates.
    """
    task_id = str(next(iter(message.args), ""))
    to_bytes(task_id)
    return task_id


class _WorkerLife(Middleware):
    """Ties leases and status writer to the life of a dramatiq worker, whoever started it."""

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        assert isinstance(broker, TaskBroker)  # noqa: S101  (nobody else adds this middleware)
        worker.work_queue = broker.work_queue  # type: ignore[assignment]  # it has all that dramatiq calls
        broker.store.open(broker.broker_id)
        broker._timer.start()  # noqa: SLF001  (one class in two parts)
        broker._hearing.start()  # noqa: SLF001

    def after_consumer_thread_boot(self, broker: dramatiq.Broker, thread: Any) -> None:  # noqa: ARG002
        thread.delay_queue = SimpleQueue()  # dramatiq looks into it after each message, and this one is empty sooner

    def before_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        assert isinstance(broker, TaskBroker)  # noqa: S101
        broker.readiness.stopping = True
        broker.draining.set()
        for thread in worker.consumers.values():
            if isinstance(thread.consumer, TaskConsumer):
                thread.consumer.unblock()
        patience = threading.Timer(broker.settings.shutdown_timeout, broker.interrupt)
        patience.daemon = True
        patience.start()
        # dramatiq's own wait for all its threads subtracts the time that has passed once for each of them.
        end = time.monotonic() + broker.settings.shutdown_timeout + INTERRUPT_SECONDS
        for running in worker.workers:
            running.stop()
        for running in worker.workers:
            running.join(max(end - time.monotonic(), 0))

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        assert isinstance(broker, TaskBroker)  # noqa: S101
        broker.stopping.set()
        broker.arrivals.stop()
        broker.store.close()
        with suppress(redis.RedisError):
            broker.client.hdel(workers_key(broker.namespace), broker.broker_id)
            for queue in broker.queues:
                keys = broker.keys(queue)
                broker.task_scripts["leave"](keys=[keys.leases, keys.acks(broker.broker_id)], args=[broker.broker_id])
        if broker.tracer:
            broker.tracer.flush()
        broker._timer.join()  # noqa: SLF001
        broker.client.close()
        broker._lease_client.close()  # noqa: SLF001
