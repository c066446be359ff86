"""Publishes messages to RabbitMQ with confirms, over one connection for all circles of a bridge."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from itertools import takewhile
from typing import Any

import pika
from pika.adapters.select_connection import IOLoop
from pika.exceptions import AMQPChannelError, AMQPConnectionError, AMQPError

from rhai_tasks.connection.outage import Outage
from rhai_tasks.queue.rabbitmq import connect_rabbitmq, connection_parameters
from rhai_tasks.threads import vital_thread

_CLOSE_SECONDS = 5.0  # for the server to confirm the close
_PERSISTENT = pika.BasicProperties(delivery_mode=2)


class Publisher:
    """Publishes for all circles of a bridge over one connection, and waits once for the confirms of many messages.

    dramatiq's broker for RabbitMQ declares the queues. It does not publish: it would wait for each single confirm.
    """

    def __init__(self, url: str) -> None:
        self.outage = Outage(url, server="RabbitMQ")
        self._broker = connect_rabbitmq(url)
        self._opening = threading.Lock()
        self._session: _Session | None = None

    def open(self, queue: str) -> None:
        """Connect, and declare the queue as dramatiq does.

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
        """Whether there is a connection."""
        return self._session is not None and self._session.ended is None

    def publish(self, queue: str, bodies: Iterable[bytes]) -> None:
        """Publish messages; return once the server has confirmed all of them.

        Raises:
            AMQPError: The server may have any of them, or none.
        """
        assert self._session is not None  # noqa: S101  (`open` comes before)
        self._session.publish(queue, list(bodies))

    def count(self, queue: str) -> int:
        """Count the messages that were not sent to a worker yet.

        Raises:
            AMQPError: The server does not answer, or has no such queue.
        """
        assert self._session is not None  # noqa: S101
        return self._session.count(queue)

    def close(self) -> None:
        """Disconnect; a thread that waits for confirms gets an error."""
        if self._session is not None:
            self._session.close()


class _Session:
    """One connection with one channel, served by a thread of its own, until either fails."""

    def __init__(self, parameters: list[pika.ConnectionParameters]) -> None:
        self.ended: Exception | None = None
        self._parameters = parameters
        self._lock = threading.Lock()
        self._loop = IOLoop()
        self._connection: Any = None
        self._channel: Any = None
        self._published = 0  # messages on this channel, which is the delivery tag of the last one
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
        """Call `act` in the session's thread, and wait for the answer."""
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
            return  # `_end` has failed this answer, or will
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
    """The answer to a request; a publish is answered when all `left` messages are confirmed."""

    left = 0

    def give(self, value: int = 0) -> None:
        """Set the answer, unless the connection broke before."""
        if not self.done():
            self.set_result(value)
