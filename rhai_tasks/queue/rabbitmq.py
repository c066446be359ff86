"""RabbitMQ transport: it carries message ids; messages and leases stay in Redis.

So an id may come twice, late, or over a connection that broke: `claim.lua` gives the message to one worker, once.
"""

import logging
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from typing import Any

import dramatiq
import pika
import redis
from dramatiq import Message, MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed
from pika.exceptions import AMQPError, AuthenticationError, ProbableAccessDeniedError, ProbableAuthenticationError

from rhai_tasks.connection.outage import RETRY_SECONDS, Outage, retry_until_answered
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.connection.tls import tls_failure
from rhai_tasks.connection.urls import check_broker_url, redact
from rhai_tasks.errors import ConfigurationError, ServerUnavailable
from rhai_tasks.protocol import circle_of, to_text
from rhai_tasks.settings import Settings

from .broker import TaskBroker
from .context import QueueContext
from .room import Room
from .sources import Source, Taken, fetch_call

logger = logging.getLogger(__name__)

_FULL_SECONDS = 0.05  # between two checks whether there is room again
_HEARTBEAT_SECONDS = 10  # unless the URL says otherwise: a connection that hangs is noticed within 15 s


def connect_rabbitmq(url: str) -> RabbitmqBroker:
    """Make dramatiq's broker for RabbitMQ, with publisher confirms; each thread connects on its first use.

    Raises:
        ConfigurationError: pika cannot read the URL.
    """
    check_broker_url(url)
    try:
        broker = RabbitmqBroker(url=url, confirm_delivery=True, middleware=[])
    except Exception as error:  # pika evaluates `ssl_options`, which may raise anything
        why = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        wrong = f"{why}. Expected a dict such as {{'ca_certs': '/path/ca.pem'}}, %-encoded, of files that can be read"
    else:
        wrong = ""
    if wrong:  # outside of `except`: the error's text may hold a part of a password
        raise ConfigurationError(f"--broker-url {redact(url)!r}: the parameter ssl_options cannot be used: {wrong}")
    for parameters in connection_parameters(broker):
        if parameters.heartbeat is None:
            parameters.heartbeat = _HEARTBEAT_SECONDS
    return broker


def connection_parameters(broker: RabbitmqBroker) -> list[pika.ConnectionParameters]:
    """List the servers that this broker may connect to; several are nodes of a cluster."""
    return broker.parameters if isinstance(broker.parameters, list) else [broker.parameters]


def await_rabbitmq(url: str, give_up: threading.Event) -> None:
    """Wait until the server accepts connections, however long it takes to come up.

    Raises:
        ConfigurationError: Waiting will not help: wrong URL, user, password or virtual host.
        ServerUnavailable: `give_up` was set meanwhile.
    """
    parameters = connection_parameters(connect_rabbitmq(url))

    def connect() -> None:
        try:
            pika.BlockingConnection(parameters).close()
        except (AuthenticationError, ProbableAuthenticationError, ProbableAccessDeniedError) as error:
            raise ConfigurationError(
                f"RabbitMQ at {redact(url)} refuses the login: {error}. "
                "Check user, password and virtual host in --broker-url"
            ) from error
        except ssl.SSLError as error:
            if wrong := tls_failure(error):
                raise ConfigurationError(
                    f"RabbitMQ at {redact(url)}: {wrong}. Check the certificates in --broker-url"
                ) from error
            raise

    try:
        retry_until_answered(connect, Outage(url, server="RabbitMQ"), give_up, errors=_NO_CONNECTION)
    except _NO_CONNECTION as error:
        raise ServerUnavailable(f"RabbitMQ at {redact(url)} does not answer: {error}") from error


_NO_CONNECTION = (AMQPError, OSError)  # pika raises those of name resolution and of TLS as they are


class RabbitBroker(TaskBroker):
    """A `TaskBroker` whose workers get their messages through RabbitMQ; bridges publish them."""

    def __init__(self, settings: Settings, *, broker_id: str | None = None) -> None:
        assert settings.broker_url is not None  # noqa: S101  (else it is a `TaskBroker`)
        super().__init__(settings, broker_id=broker_id)
        self._rabbitmq = connect_rabbitmq(settings.broker_url)
        self._rabbitmq_outage = Outage(settings.broker_url, server="RabbitMQ")

    def declare_queue(self, queue_name: str) -> None:
        """Declare a queue as a `TaskBroker` does.

        Raises:
            ConfigurationError: Its circle has rules, which do not hold here.
        """
        with suppress(redis.RedisError):  # a server that is away is waited for later
            if self.client.exists(self.keys(queue_name).rules):
                raise ConfigurationError(
                    f"circle {circle_of(queue_name)} has rules, such as a pause, which do not hold through "
                    "RabbitMQ: start without --broker-url, or clear the rules (rhai-tasks rules shows them)"
                )
        super().declare_queue(queue_name)

    def _source(self, queue: str, room: Room, timeout: float) -> Source:
        return RabbitSource(
            self.context, queue, room, timeout, self._rabbitmq, self._rabbitmq_outage, adopt=self.enqueue
        )


class RabbitSource:
    """Claims in Redis the messages whose ids RabbitMQ delivers; acknowledges them once their endings are written.

    RabbitMQ delivers one message for each thread until one of them is acknowledged, and a prefetch beyond that while
    scripts are fast. RabbitMQ no longer counts messages of a connection that broke, but those that still
    run take room here all the same.

    Args:
        context: The broker's.
        queue: Name of the queue.
        room: The consumer's.
        timeout: Seconds to wait for a message.
        rabbitmq: dramatiq's broker, which connects.
        outage: RabbitMQ's.
        adopt: Enqueues a message that a foreign broker has published.
    """

    turn: AbstractContextManager[object] = nullcontext()
    runs_lone = False

    def __init__(
        self,
        context: QueueContext,
        queue: str,
        room: Room,
        timeout: float,
        rabbitmq: RabbitmqBroker,
        outage: Outage,
        *,
        adopt: Callable[[Message[Any]], object],
    ) -> None:
        self.room = room
        self._context, self._queue, self._timeout = context, queue, timeout
        self._keys = context.keys(queue)
        self._script = load_script(context.client, __package__, "claim", context.settings.table)
        self._rabbitmq, self._outage, self._adopt_message = rabbitmq, outage, adopt
        self._consumer: Any = None  # dramatiq's, while there is a connection
        self._prefetch = 0  # messages that RabbitMQ delivers before one is acknowledged
        self._old = set(room.held)  # ids of messages of a connection that broke, which have not ended
        self._received: list[MessageProxy] = []  # messages that are not claimed yet

    def give_way(self) -> None:
        """Return at once: to wait for messages leaves the interpreter to the threads, too."""

    def wait(self) -> None:
        """Wait for messages, and serve the connection."""
        try:
            if self._consumer is None:
                self._prefetch = 0
                self._consumer = self._rabbitmq.consume(self._queue)  # it consumes from the first message on
                del self._rabbitmq.connection  # this one has declared the queue
            self._adapt()
            if self._prefetch:
                message = next(self._consumer)
                while message is not None:
                    self._received.append(message)
                    message = next(self._consumer) if self._consumer.channel.get_waiting_message_count() else None
            else:
                self._consumer.connection.sleep(_FULL_SECONDS)
        except (ConnectionClosed, AMQPError, StopIteration) as error:  # the last: the queue is gone
            self._disconnect()
            self._outage.failed(error)
            self._context.draining.wait(RETRY_SECONDS)
        else:
            self._context.readiness.note(f"read of {self._queue}")
            self._outage.succeeded()

    def _adapt(self) -> None:
        """Adapt RabbitMQ's prefetch to the pace of scripts; unread messages go back to RabbitMQ."""
        ended = self._old - self.room.held.keys()
        self._old -= ended
        self.room.adapt()
        wanted = max(self.room.size() - len(self._old), 0)
        if not ended and self._prefetch <= 2 * wanted and wanted <= 2 * self._prefetch:
            return
        channel = self._consumer.channel
        if self._prefetch:
            channel.cancel()
        if wanted:
            channel.basic_qos(prefetch_count=wanted)  # of consumers from now on
            self._consumer.iterator = channel.consume(self._queue, inactivity_timeout=self._timeout)
        self._prefetch = wanted

    def take(self) -> Taken | None:
        """Claim the messages that RabbitMQ has delivered."""
        if not self._received:
            return None
        acknowledgements: dict[str, list[Callable[[], object]]] = defaultdict(list)
        for message in list(self._received):
            name = _name_on_redis(message)
            if name:
                acknowledgements[name].append(partial(_acknowledge, self._consumer, message))
            else:
                self._adopt(message)
                self._received.remove(message)
        idle, began = self.room.idle_threads(), time.monotonic()
        lapsed, rows, now = self.claim(list(acknowledgements), idle)
        claimed = {to_text(row[0]) for row in rows}
        self._received.clear()
        for name, copies in acknowledgements.items():
            for copy in copies[name in claimed :]:
                copy()
        firsts = {name: acknowledgements[name][0] for name in claimed}
        return Taken(lapsed, rows, now, idle, began, acknowledgements=firsts)

    def claim(self, message_ids: list[str], idle: int) -> Any:
        """Take messages with these ids, those that no worker has."""
        return self._script(**fetch_call(self._context, self._keys, "\n".join(message_ids), idle))

    def _adopt(self, message: MessageProxy) -> None:
        """Re-enqueue a message published by a foreign dramatiq broker."""
        try:
            self._adopt_message(message.copy(queue_name=self._queue))
        except (AttributeError, TypeError, ValueError, redis.DataError):  # RabbitMQ would deliver it again and again
            logger.exception("Message %s goes to RabbitMQ's dead letters", message.message_id)
            self._consumer.nack(message)
        else:
            _acknowledge(self._consumer, message)

    def pause(self, seconds: float, end: threading.Event) -> None:
        """Wait `seconds`, or until the event, and serve the connection: acknowledgements and heartbeats go over it."""
        if self._consumer is None:
            end.wait(seconds)
            return
        try:
            self._consumer.connection.sleep(seconds)
        except AMQPError:
            self._disconnect()

    def _disconnect(self) -> None:
        """Forget a connection that broke; RabbitMQ delivers its messages again."""
        consumer, self._consumer = self._consumer, None
        self._old = set(self.room.held)
        self._received.clear()
        if consumer is not None and consumer.connection.is_open:  # only the channel broke
            with suppress(AMQPError):
                consumer.connection.close()

    def unblock(self) -> None:
        """Do nothing: each wait ends soon by itself."""

    def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            with suppress(ConnectionClosed):
                self._consumer.close()


def _name_on_redis(message: MessageProxy) -> str:
    """Read the id under which one of our bridges published this; empty: another program did."""
    name = message.options.get("redis_message_id") if isinstance(message.options, dict) else None
    return name if isinstance(name, str) and name.isascii() else ""


def _acknowledge(consumer: dramatiq.Consumer, message: MessageProxy) -> None:
    with suppress(ConnectionClosed):  # then it is delivered again, and cannot be claimed
        consumer.ack(message)
