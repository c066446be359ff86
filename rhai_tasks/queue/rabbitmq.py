"""RabbitMQ as the way of messages: it brings their ids to workers. What they hold, and whose they are, stands in Redis.

So a message may come twice, late, or from a connection that broke: `claim.lua` gives it to one worker, once.
"""

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import dramatiq
import pika
import redis
from dramatiq import MessageProxy
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.errors import ConnectionClosed
from pika.exceptions import AMQPError, AuthenticationError, ProbableAccessDeniedError, ProbableAuthenticationError

from .broker import TaskBroker, TaskConsumer
from .connection import Outage, persist, redact
from .errors import ConfigurationError, ServerUnavailable
from .settings import Settings
from .store import load_script

logger = logging.getLogger(__name__)

_FULL_SECONDS = 0.05  # between two looks whether there is room again
_HEARTBEAT_SECONDS = 10  # unless the URL says otherwise: a connection that hangs is noticed within 15 s


def connect_rabbitmq(url: str) -> RabbitmqBroker:
    """Make dramatiq's broker for RabbitMQ, with publisher confirms; each thread connects on its first use.

    Raises:
        ConfigurationError: The URL is none that pika reads.
    """
    try:
        for one in url.split(";"):
            parts = urlsplit(one)
            if parts.scheme not in {"amqp", "amqps"} or parts.port == 0:
                raise ValueError  # noqa: TRY301
    except ValueError:
        raise ConfigurationError(
            f"--broker-url {redact(url)!r}: wanted amqp://user:password@host:port/vhost, or amqps://, "
            "with special characters as %xx"
        ) from None  # its text may hold a part of the password
    try:
        broker = RabbitmqBroker(url=url, confirm_delivery=True, middleware=[])
    except Exception as error:  # pika evaluates options in the URL, which may raise anything
        raise ConfigurationError(f"--broker-url {redact(url)!r}: {error}") from error
    for parameters in connection_parameters(broker):
        if parameters.heartbeat is None:
            parameters.heartbeat = _HEARTBEAT_SECONDS
    return broker


def connection_parameters(broker: RabbitmqBroker) -> list[pika.ConnectionParameters]:
    """List where this broker may connect; several are nodes of a cluster."""
    return broker.parameters if isinstance(broker.parameters, list) else [broker.parameters]


def await_rabbitmq(url: str, give_up: threading.Event) -> None:
    """Wait until the server can be worked with, however long it takes to come up.

    Raises:
        ConfigurationError: Waiting will not help: wrong URL, user, password or virtual host.
        ServerUnavailable: `give_up` was set meanwhile.
    """
    parameters = connection_parameters(connect_rabbitmq(url))

    def look() -> None:
        try:
            pika.BlockingConnection(parameters).close()
        except (AuthenticationError, ProbableAuthenticationError, ProbableAccessDeniedError) as error:
            raise ConfigurationError(
                f"RabbitMQ at {redact(url)} refuses us: {error}. Check user, password and virtual host in --broker-url"
            ) from error

    try:
        persist(look, Outage(url, server="RabbitMQ"), give_up, errors=AMQPError)
    except AMQPError as error:
        raise ServerUnavailable(f"RabbitMQ at {redact(url)} does not answer: {error}") from error


class RabbitBroker(TaskBroker):
    """A `TaskBroker` whose workers get their messages through RabbitMQ; bridges hand those over."""

    def __init__(self, settings: Settings, *, broker_id: str | None = None) -> None:
        assert settings.broker_url is not None  # noqa: S101  (else it is a `TaskBroker`)
        super().__init__(settings, broker_id=broker_id)
        self.task_scripts["claim"] = load_script(self.client, "rhai_tasks", "claim", "hold")
        self.rabbitmq = connect_rabbitmq(settings.broker_url)
        self.rabbitmq_outage = Outage(settings.broker_url, server="RabbitMQ")

    @property
    def consumer_class(self) -> type[TaskConsumer]:
        """The consumer that dramatiq's worker makes for each queue."""
        return RabbitConsumer


class RabbitConsumer(TaskConsumer):
    """Claims in Redis what RabbitMQ brings, and acknowledges it there once its end is written here.

    RabbitMQ brings no more than a worker has threads until one of them has been acknowledged; more while scripts are
    quick, as `TaskConsumer` fetches ahead. What it brought over a connection that broke it knows nothing of any more:
    what of that still runs takes room all the same.
    """

    def __init__(self, broker: RabbitBroker, queue_name: str, prefetch: int, timeout: int) -> None:
        super().__init__(broker, queue_name, prefetch, timeout)
        self._rabbitmq, self._rabbitmq_outage = broker.rabbitmq, broker.rabbitmq_outage
        self._source: Any = None  # dramatiq's consumer, while there is a connection
        self._prefetch = 0  # messages that RabbitMQ brings before one is acknowledged
        self._strays = set(self._held)  # ids of those that came over a connection that broke, and have not ended
        self._received: list[MessageProxy] = []  # and not claimed yet

    def _bring(self) -> None:
        self._receive()
        self._catch_up()
        if self._received:
            self._claim_received()
            self._broker.outage.end()

    def _receive(self) -> None:
        """Wait for messages, and for what else comes over the connection."""
        try:
            if self._source is None:
                self._prefetch = 0
                self._source = self._rabbitmq.consume(self._queue_name)  # not yet: it begins with the first message
                del self._rabbitmq.connection  # it was for declaring the queue
            self._adapt()
            if self._prefetch:
                message = next(self._source)
                while message is not None:
                    self._received.append(message)
                    message = next(self._source) if self._source.channel.get_waiting_message_count() else None
            else:
                self._source.connection.sleep(_FULL_SECONDS)
        except (ConnectionClosed, AMQPError, StopIteration) as error:  # the last: the queue is gone
            self._disconnect()
            self._rabbitmq_outage.begin(error)
            self._broker.draining.wait(0.5)
        else:
            self._broker.readiness.note(self._read)
            self._rabbitmq_outage.end()

    def _adapt(self) -> None:
        """Let RabbitMQ bring as much as is worth it now; what it has brought and nobody has read goes back."""
        ended = self._strays - self._held.keys()
        self._strays -= ended
        wanted = max(self._threads + self._ahead() - len(self._strays), 0)
        if not ended and self._prefetch <= 2 * wanted and wanted <= 2 * self._prefetch:
            return
        channel = self._source.channel
        if self._prefetch:
            channel.cancel()
        if wanted:
            channel.basic_qos(prefetch_count=wanted)  # of consumers from now on
            self._source.iterator = channel.consume(self._queue_name, inactivity_timeout=self._timeout)
        self._prefetch = wanted

    def _claim_received(self) -> None:
        acknowledgements: dict[str, list[Callable[[], object]]] = defaultdict(list)
        for message in list(self._received):
            name = _name_on_redis(message)
            if name:
                acknowledgements[name].append(partial(_acknowledge, self._source, message))
            else:
                self._adopt(message)
                self._received.remove(message)
        idle, began = self._idle(), time.monotonic()
        reply = self._broker.task_scripts["claim"](
            **self._call("\n".join(acknowledgements), idle, self._keys.published)
        )
        firsts = {name: first for name, (first, *_) in acknowledgements.items()}
        claimed = self._hold(reply, idle, began, firsts)
        self._received.clear()
        for name, copies in acknowledgements.items():
            for copy in copies[name in claimed :]:
                copy()

    def _adopt(self, message: MessageProxy) -> None:
        """Make a message like all others of one from a broker that is not ours."""
        try:
            self._broker.enqueue(message.copy(queue_name=self._queue_name))
        except (AttributeError, TypeError, ValueError, redis.DataError):  # it would come again and again
            logger.exception("Message %s goes to RabbitMQ's dead letters", message.message_id)
            self._source.nack(message)
        else:
            _acknowledge(self._source, message)

    def _pause(self, seconds: float, end: threading.Event) -> None:
        """Serve the connection meanwhile: acknowledgements and heartbeats go over it."""
        if self._source is None:
            end.wait(seconds)
            return
        try:
            self._source.connection.sleep(seconds)
        except AMQPError:
            self._disconnect()

    def _disconnect(self) -> None:
        """Forget a connection that broke; RabbitMQ brings again what it has brought over it."""
        source, self._source = self._source, None
        self._strays = set(self._held)
        self._received.clear()
        if source is not None and source.connection.is_open:  # it was the channel
            with suppress(AMQPError):
                source.connection.close()

    def close(self) -> None:
        """Give back what is left and disconnect."""
        super().close()
        if self._source is not None:
            with suppress(ConnectionClosed):
                self._source.close()


def _name_on_redis(message: MessageProxy) -> str:
    """Read under which id a bridge of ours published this; empty: somebody else did."""
    name = message.options.get("redis_message_id") if isinstance(message.options, dict) else None
    return name if isinstance(name, str) and name.isascii() else ""


def _acknowledge(source: dramatiq.Consumer, message: MessageProxy) -> None:
    with suppress(ConnectionClosed):  # then it comes again, and is nobody's
        source.ack(message)
