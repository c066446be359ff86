"""From dramatiq's queue on Redis to RabbitMQ, confirmed: a relay of each circle, and one connection for all of them."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Any

import pika
import redis
from dramatiq.errors import ConnectionClosed
from pika.adapters.select_connection import IOLoop
from pika.exceptions import AMQPChannelError, AMQPConnectionError, AMQPError

from rhai_tasks.connection import BLOCK_SECONDS, Outage, break_off, connect, connect_blocking
from rhai_tasks.protocol import ACTOR, QueueKeys, message_head, queue_name, to_text
from rhai_tasks.rabbitmq import connect_rabbitmq, connection_parameters
from rhai_tasks.readiness import Readiness
from rhai_tasks.settings import Settings
from rhai_tasks.store import load_script
from rhai_tasks.threads import vital_thread

logger = logging.getLogger(__name__)

_AT_ONCE = 128  # messages that are published before their confirms are waited for
_LOST_SECONDS = 10.0  # after which a published message that is not in RabbitMQ any more is published again
_RETRY_SECONDS = 0.5
_CLOSE_SECONDS = 5.0  # for a server to say good-bye
_PERSISTENT = pika.BasicProperties(delivery_mode=2)


class Relay:
    """Publishes one circle's messages.

    What is published counts as such in Redis from before that until a worker has claimed it. Whenever it is not
    certain that RabbitMQ has all of it, because a connection broke or a bridge starts, all of it is published again:
    of two copies a worker gets one.
    """

    def __init__(self, settings: Settings, circle: str, publisher: "Publisher", outage: Outage) -> None:
        self._queue = queue_name(circle)
        self._keys = QueueKeys(settings.namespace, self._queue)
        self._publisher = publisher
        self._outage = outage
        self._client = connect(settings.redis_url, outage=outage)
        self._blocking = connect_blocking(settings.redis_url, outage)
        self._publish = load_script(self._client, "rhai_tasks", "number", "publish")
        self._withdraw = load_script(self._client, "bridge", "withdraw")
        self._certain = False  # that RabbitMQ has what is published

    def run(self, stop: threading.Event, readiness: Readiness) -> None:
        """Publish until `stop`; outages are waited out."""
        what = f"publishing for {self._queue}"
        readiness.expect(what)
        while not stop.is_set():
            try:
                self._forward()
                self._outage.end()
                self._publisher.outage.end()
                readiness.note(what)
            except redis.RedisError as error:
                self._certain = False
                if not stop.is_set():  # then it was us who disconnected
                    self._outage.begin(error)
            except (AMQPError, ConnectionClosed) as error:
                self._certain = False
                if not stop.is_set():
                    self._publisher.outage.begin(error)
            if not self._certain:
                stop.wait(_RETRY_SECONDS)

    def _forward(self) -> None:
        """Publish what waits; wait up to `BLOCK_SECONDS` if there is nothing to do."""
        if not self._certain:
            self._publisher.open(self._queue)
            again = self._withdraw(keys=[self._keys.messages, self._keys.published, self._keys.bodies])
            if again:
                logger.info("Publishing %d message(s) of queue %s once more", again, self._queue)
            self._certain = True
        name = self._keys.messages
        if self._blocking.blmove(name, name, BLOCK_SECONDS, "LEFT", "LEFT") is None:  # a look, as workers have it
            self._certain = self._publisher.is_open() and not self._lost_any()
            return
        ids = self._publish(
            keys=[name, self._keys.bodies, self._keys.sequence, self._keys.published, self._keys.deliveries],
            args=[_AT_ONCE, message_head(self._queue, time.time())],
        )
        if ids:  # else another bridge's relay, or a worker, was quicker
            self._publisher.publish(self._queue, [_body(self._queue, to_text(message_id)) for message_id in ids])

    def _lost_any(self) -> bool:
        """Say whether something was published that neither RabbitMQ nor a worker has: somebody purged the queue."""
        seconds, microseconds = self._client.time()
        until = seconds * 1000 + microseconds // 1000 - int(_LOST_SECONDS * 1000)
        old = self._client.zcount(self._keys.published, "-inf", until)
        return old > 0 and self._publisher.count(self._queue) == 0

    def unblock(self) -> None:
        """End a blocking command from another thread."""
        break_off(self._blocking)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()
        self._blocking.close()


class Relays:
    """The relays of a bridge's circles, a thread each."""

    def __init__(self, settings: Settings, broker_url: str, outage: Outage) -> None:
        self._settings = settings
        self._outage = outage
        self._publisher = Publisher(broker_url)
        self._relays: list[tuple[Relay, threading.Thread]] = []

    def serve(self, circle: str, stop: threading.Event, readiness: Readiness) -> None:
        """Publish a circle's messages until `stop`."""
        relay = Relay(self._settings, circle, self._publisher, self._outage)
        thread = vital_thread(f"relay-{circle}", lambda: relay.run(stop, readiness))
        self._relays.append((relay, thread))
        thread.start()

    def stop(self) -> None:
        """Disconnect all; the event has been set."""
        for relay, _ in self._relays:
            relay.unblock()
        self._publisher.close()
        for relay, thread in self._relays:
            thread.join()
            relay.close()


def _body(queue: str, message_id: str) -> bytes:
    """Write a message of dramatiq's that names the one on Redis: scripts and arguments may be large, and stay there."""
    return json.dumps(
        {
            "queue_name": queue,
            "actor_name": ACTOR,
            "args": [],
            "kwargs": {},
            "options": {"redis_message_id": message_id},
            "message_id": message_id,
            "message_timestamp": 0,
        }
    ).encode()


class Publisher:
    """Publishes for all circles of a bridge over one connection, and waits for the confirms of many messages at a time.

    dramatiq's broker for RabbitMQ declares the queues; to publish, it would wait for each confirm by itself.
    """

    def __init__(self, url: str) -> None:
        self.outage = Outage(url, server="RabbitMQ")
        self._broker = connect_rabbitmq(url)
        self._opening = threading.Lock()
        self._session: _Session | None = None

    def open(self, queue: str) -> None:
        """Connect, and make sure that the queue is there, as dramatiq wants it.

        Raises:
            AMQPError, ConnectionClosed: The server does not answer, or refuses.
        """
        self._broker.queues_pending.add(queue)
        self._broker.declare_queue(queue, ensure=True)
        del self._broker.connection
        with self._opening:
            if not self.is_open():
                self._session = _Session(connection_parameters(self._broker))

    def is_open(self) -> bool:
        """Say whether there is a connection."""
        return self._session is not None and self._session.ended is None

    def publish(self, queue: str, bodies: Iterable[bytes]) -> None:
        """Return once the server has confirmed all of these.

        Raises:
            AMQPError: It may have none of them.
        """
        assert self._session is not None  # noqa: S101  (who publishes has opened)
        self._session.publish(queue, list(bodies))

    def count(self, queue: str) -> int:
        """Count the messages that no worker has been sent yet.

        Raises:
            AMQPError: The server does not answer, or has no such queue.
        """
        assert self._session is not None  # noqa: S101
        return self._session.count(queue)

    def close(self) -> None:
        """Disconnect; who waits for confirms gets an error."""
        if self._session is not None:
            self._session.close()


class _Session:
    """One connection and one channel, served by a thread, until anything goes wrong with them."""

    def __init__(self, parameters: list[pika.ConnectionParameters]) -> None:
        self.ended: Exception | None = None
        self._parameters = parameters
        self._lock = threading.Lock()
        self._loop = IOLoop()
        self._connection: Any = None
        self._channel: Any = None
        self._published = 0  # on this channel: the last one's delivery tag
        self._unconfirmed: dict[int, _Answer] = {}  # by delivery tag, in order
        self._awaited: set[_Answer] = set()
        self._thread = vital_thread("publisher", self._run)
        self._thread.start()
        self._ask(self._connect)

    def publish(self, queue: str, bodies: list[bytes]) -> None:
        self._ask(partial(self._send, queue, bodies))

    def count(self, queue: str) -> int:
        return self._ask(partial(self._declare_passively, queue))

    def close(self) -> None:
        with suppress(AMQPError):
            self._ask(lambda _: self._end(AMQPConnectionError("closed by us")))
        self._thread.join(_CLOSE_SECONDS)

    def _ask(self, act: Callable[["_Answer"], object]) -> int:
        """Do something in the session's thread, and wait for its answer."""
        answer = _Answer()
        with self._lock:
            if self.ended is not None:
                raise self.ended
            self._awaited.add(answer)
            self._loop.add_callback_threadsafe(partial(act, answer))
        try:
            return answer.result()
        finally:
            self._awaited.discard(answer)

    # --- in the session's thread

    def _run(self) -> None:
        self._loop.start()
        self._loop.close()

    def _connect(self, answer: "_Answer") -> None:
        def connected(connection: Any) -> None:
            if isinstance(connection, Exception):
                self._end(AMQPConnectionError(connection))
                return
            self._connection = connection
            connection.add_on_close_callback(lambda _, reason: self._closed(reason))
            connection.channel(on_open_callback=opened)

        def opened(channel: Any) -> None:
            self._channel = channel
            channel.add_on_close_callback(lambda _, reason: self._end(reason))
            channel.add_on_return_callback(lambda *_: self._end(AMQPChannelError("the queue is gone")))
            channel.confirm_delivery(self._confirmed, callback=lambda _: answer.give())

        pika.SelectConnection.create_connection(self._parameters, connected, custom_ioloop=self._loop)

    def _send(self, queue: str, bodies: list[bytes], answer: "_Answer") -> None:
        if not self._channel.is_open:
            return  # it is being closed, and then all that wait are told
        answer.left = len(bodies)
        for body in bodies:
            self._published += 1
            self._unconfirmed[self._published] = answer
            self._channel.basic_publish("", queue, body, _PERSISTENT, mandatory=True)

    def _confirmed(self, frame: Any) -> None:
        last, several = frame.method.delivery_tag, frame.method.multiple
        if isinstance(frame.method, pika.spec.Basic.Nack):
            self._end(AMQPChannelError("RabbitMQ could not keep a message"))
            return
        tags = list(takewhile(lambda tag: tag <= last, self._unconfirmed)) if several else [last]
        for tag in tags:
            answer = self._unconfirmed.pop(tag)
            answer.left -= 1
            if not answer.left:
                answer.give()

    def _declare_passively(self, queue: str, answer: "_Answer") -> None:
        if self._channel.is_open:
            self._channel.queue_declare(
                queue, passive=True, callback=lambda frame: answer.give(frame.method.message_count)
            )

    def _end(self, reason: Exception) -> None:
        with self._lock:
            if self.ended is not None:
                return
            self.ended = reason
        for answer in list(self._awaited):
            if not answer.done():
                answer.set_exception(reason)
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
        else:
            self._loop.stop()

    def _closed(self, reason: Exception) -> None:
        self._end(reason)
        self._loop.stop()


class _Answer(Future[int]):
    """What comes back for something asked; of messages, nothing but that all `left` are confirmed."""

    left = 0

    def give(self, value: int = 0) -> None:
        """Answer, unless the connection broke before."""
        if not self.done():
            self.set_result(value)
