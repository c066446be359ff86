"""dramatiq's Redis broker for native tasks: it holds messages under leases.

Key layout and hook points are dramatiq's, so its own tools see the queues; the Lua is this project's.
"""

import threading
from itertools import chain
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis
from dramatiq import Message, Middleware
from dramatiq.middleware import CurrentMessage

from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.outage import Outage
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.observe.metrics import IN_FLIGHT, RUNNING
from rhai_tasks.observe.recorder import Recorder, State
from rhai_tasks.protocol import ACTOR, QueueKeys, circle_of, is_circle_queue, queue_full, queue_name, to_bytes, to_text
from rhai_tasks.settings import Settings

from .cancels import Cancels
from .consumer import TaskConsumer
from .context import QueueContext
from .follow_ups import check_steps, for_delay_queue, milliseconds, refuse_elsewhere
from .hooks import HookedBroker
from .leases import LEASE_SECONDS, Leases
from .life import WorkerLife
from .list_watcher import DEDICATED_LIMIT, ListWatcher
from .message import is_batch, part, read_task_id
from .pace import Pace
from .print_writer import PrintWriter
from .room import Room
from .sources import ListSource, SharedSource, Source
from .strays import Strays
from .work_queue import WorkQueue
from .writer import StatusWriter

if TYPE_CHECKING:  # an extra
    from rhai_tasks.observe.tracing import Tracer

_FETCHES = 8  # at a time by consumers that share connections: more would only wait for the interpreter


class TaskBroker(HookedBroker):
    """A dramatiq broker whose messages are native tasks.

    Args:
        settings: Where the server is and how tasks are run.
        broker_id: Name under which messages are held. A process that takes the place of one that died takes its name
            too, and recovers the dead one's messages at once.
    """

    def __init__(self, settings: Settings, *, broker_id: str | None = None) -> None:
        outage = Outage(settings.redis_url)
        client = connect(settings.redis_url, outage=outage)
        super().__init__(client=client, namespace=settings.namespace, middleware=[CurrentMessage()])
        pace = Pace()
        self.context = context = QueueContext(
            settings=settings,
            broker_id=broker_id or str(uuid4()),
            client=client,
            outage=outage,
            recorder=Recorder(state=self._state),
            tracer=_tracer() if settings.traces else None,
            pace=pace,
            work_queue=WorkQueue(pace.is_fast, is_batch, part),
        )
        self.broker_id = context.broker_id
        self.settings, self.recorder, self.readiness = settings, context.recorder, context.readiness
        self.leases = Leases(context)
        self.writer = StatusWriter(context, self.leases.hold_again)
        self.prints = PrintWriter(context)
        self.cancels = Cancels(context, self.leases)
        self.lists = ListWatcher(settings, outage, context.stopping)
        self.runs_batches = False
        """Whether the actor runs the batches that a message brings."""
        self._fetch_slots = threading.BoundedSemaphore(_FETCHES)
        self._enqueue = load_script(client, __package__, "enqueue", settings.table)
        strays = Strays(client, settings.namespace, context.held.queues, LEASE_SECONDS)
        self.add_middleware(WorkerLife(context, self.writer, self.leases, self.cancels, strays, self.lists))

    def consume(self, queue_name: str, prefetch: int = 1, timeout: int = 5000) -> TaskConsumer:
        """Make the consumer of a queue; dramatiq's worker calls this.

        Args:
            queue_name: The queue's name.
            prefetch: Twice the number of threads.
            timeout: Milliseconds that a consumer waits for room.
        """
        context = self.context
        restarted = queue_name in context.held
        room = Room(context, queue_name, max(prefetch // 2, 1))
        source = self._source(queue_name, room, timeout / 1000)
        consumer = TaskConsumer(
            context,
            self.keys(queue_name),
            source,
            self.leases,
            self.cancels,
            self.writer,
            self._batch_size,
            restarted=restarted,
        )
        context.recalls[queue_name] = consumer.recall
        return consumer

    def _batch_size(self) -> int:
        """How many messages a thread gets at once."""
        return self.context.pace.batch_size() if self.runs_batches and not self.has_message_hooks() else 1

    def _source(self, queue: str, room: Room, timeout: float) -> Source:
        if len(self.context.held) <= DEDICATED_LIMIT:
            return ListSource(self.context, queue, room, timeout)
        return SharedSource(self.context, queue, room, timeout, self.lists, self._fetch_slots)

    def keys(self, queue: str) -> QueueKeys:
        """Return the keys of a queue."""
        return QueueKeys(self.namespace, queue)

    def add_middleware(self, middleware: Middleware, **place: Any) -> None:
        """Add a middleware, in front of or behind another one as dramatiq's brokers can.

        Raises:
            ConfigurationError: It keeps its keys where workers cannot write them in one step with a script's end.
        """
        refuse_elsewhere(middleware, vars(self).get("client"))  # dramatiq's constructor adds some before there is one
        super().add_middleware(middleware, **place)

    def declare_actor(self, actor: Any) -> None:
        """Declare the actor that runs scripts, without a queue of its own: queues are declared circle by circle.

        Raises:
            ConfigurationError: It is another actor, whose messages no worker of this project could run.
        """
        if actor.actor_name != ACTOR:
            raise ConfigurationError(
                f"actor {actor.actor_name!r} cannot be declared on a {type(self).__name__}, which is for scripts "
                f"only: declare it on dramatiq's RedisBroker with the same URL and namespace={self.namespace!r}, and "
                "run that in a dramatiq.Worker of its own; one program can have both (docs/delay.md)"
            )
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
            delay: Milliseconds; a bridge hands the message over when it is due, and no restart loses it. For another
                actor it goes to dramatiq's own delay queue.

        Raises:
            QueueFull: As many tasks wait as an operator's limit allows. Nothing was enqueued.
            TypeError, ValueError: The delay is invalid, or a worker could not do the follow-ups of the message.
        """
        check_steps(message)
        delay = milliseconds(delay)
        if delay and not is_circle_queue(message.queue_name):
            message, delay = for_delay_queue(message, delay), 0
        # The broker's own name for it: a message that is enqueued again is another one.
        message_id = str(uuid4())
        message = message.copy(options={"redis_message_id": message_id})
        details: dict[str, str] = {}
        task_id = ""
        if message.actor_name == ACTOR:  # another actor's arguments are its own, whatever their names
            details = message.kwargs.get("details", {})
            task_id = read_task_id(message)
            message = message.copy(options={"submission": message_id})
        self.emit_before("enqueue", message, delay or None)
        keys, prefixes = self.keys(message.queue_name), self.settings.prefixes
        refusal = self._enqueue(
            keys=[
                keys.messages,
                keys.bodies,
                keys.registry(self.namespace),
                keys.delayed_messages,
                keys.wake,
                to_bytes(prefixes.details + task_id),
            ],
            args=[
                message_id,
                message.encode(),
                message.queue_name,
                delay,
                int(message.options.get("urgent", False)),
                to_bytes(task_id),
                to_bytes(circle_of(message.queue_name)),
                prefixes.queue,
                self.namespace,
                *chain.from_iterable(details.items()),
            ],
        )
        if refusal:
            raise queue_full(refusal)
        self.emit_after("enqueue", message, delay or None)
        return message

    def do_qsize(self, queue_name: str) -> int:
        """Count the messages of a queue, waiting, held or delayed; dramatiq's `join` waits until there are none.

        dramatiq counts bodies. A task has none until a worker fetches it, and no message counts twice.
        """
        return _count(self.client, self.keys(queue_name))

    def _state(self) -> State:
        """Return what this process serves, holds and runs now."""
        running = self.writer.running.tasks()
        gauges = {IN_FLIGHT.name: len(self.context.held.all()), RUNNING.name: len(running)}
        return State(
            self.context.held.queues(),
            running,
            gauges,
            self.settings.broker_url is not None,
            self.context.quiet.is_set(),
        )

    def interrupt(self) -> None:
        """Stop running scripts; tasks that have not ended are released."""
        self.context.held.interrupt()


def _count(client: redis.Redis, keys: QueueKeys) -> int:
    holders, callers = set[bytes](), set[bytes]()
    while True:
        with client.pipeline() as pipeline:
            pipeline.zrange(keys.leases, 0, -1)
            pipeline.zrange(keys.lines, 0, -1)
            pipeline.llen(keys.messages)
            pipeline.zcard(keys.published)
            pipeline.zcard(keys.delayed_messages)
            pipeline.hlen(keys.delay_bodies)
            for caller in callers:
                pipeline.llen(keys.line(to_text(caller)))
            for broker_id in holders:
                pipeline.scard(keys.acks(broker_id.decode()))
            leases, lines, *counts = pipeline.execute()
        if holders.issuperset(leases) and callers.issuperset(lines):
            return sum(counts)
        # A broker with a new lease, or a new line, may have messages that were counted nowhere.
        holders.update(leases)
        callers.update(lines)


def _tracer() -> "Tracer":
    from rhai_tasks.observe.tracing import Tracer  # noqa: PLC0415  (an extra)

    return Tracer()
