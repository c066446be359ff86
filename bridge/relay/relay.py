"""Publishes messages from dramatiq's queues on Redis to RabbitMQ: a relay for each circle, over one connection."""

import json
import logging
import threading

import redis
from dramatiq.errors import ConnectionClosed
from pika.exceptions import AMQPError

from rhai_tasks.connection.connect import BLOCK_SECONDS, break_off, connect, connect_blocking
from rhai_tasks.connection.outage import RETRY_SECONDS, Outage
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.observe.readiness import Readiness
from rhai_tasks.protocol import ACTOR, QueueKeys, message_head, queue_name, to_text
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

from .publisher import Publisher

logger = logging.getLogger(__name__)

_AT_ONCE = 128  # messages published before the wait for their confirms
_LOST_SECONDS = 10.0  # a message published longer ago, and in RabbitMQ no more, is published again


class Relay:
    """Publishes one circle's messages.

    A message counts as published on Redis from just before it is published until a worker claims it. After a broken
    connection, and when a bridge starts, RabbitMQ may lack some of these messages. Then the relay publishes all of them
    again: of two copies, only one can be claimed.
    """

    def __init__(self, settings: Settings, circle: str, publisher: "Publisher", outage: Outage) -> None:
        self._queue = queue_name(circle)
        self._keys = QueueKeys(settings.namespace, self._queue)
        self._details_prefix = settings.prefixes.details
        self._publisher = publisher
        self._outage = outage
        self._client = connect(settings.redis_url, outage=outage)
        self._blocking = connect_blocking(settings.redis_url, outage)
        self._publish = load_script(self._client, "bridge", "publish", settings.table)
        self._release = load_script(self._client, "bridge", "release_published")
        self._certain = False  # whether RabbitMQ has all published messages

    def run(self, stop: threading.Event, readiness: Readiness) -> None:
        """Publish until `stop` is set; wait while a server does not answer."""
        publishing = f"publishing for {self._queue}"
        readiness.expect(publishing)
        while not stop.is_set():
            try:
                self._forward()
                self._outage.succeeded()
                self._publisher.outage.succeeded()
                readiness.note(publishing)
            except redis.RedisError as error:
                self._certain = False
                if not stop.is_set():  # else `unblock` has disconnected
                    self._outage.failed(error)
            except (AMQPError, ConnectionClosed) as error:
                self._certain = False
                if not stop.is_set():
                    self._publisher.outage.failed(error)
            if not self._certain:
                stop.wait(RETRY_SECONDS)

    def _forward(self) -> None:
        """Publish the messages that wait; if there are none, wait up to `BLOCK_SECONDS` for one."""
        if not self._certain:
            self._start_over()
        messages = self._keys.messages
        if self._blocking.blmove(messages, messages, BLOCK_SECONDS, "LEFT", "LEFT") is None:  # waits, and moves nothing
            self._certain = self._publisher.is_open() and not self._lost_any()
            return
        ids = self._publish(
            keys=[
                messages,
                self._keys.bodies,
                self._keys.sequence,
                self._keys.published,
                self._keys.deliveries,
                self._keys.leases,
            ],
            args=[
                _AT_ONCE,
                message_head(self._queue),
                self._keys.acks_start(self._keys.namespace),
                self._queue,
                self._details_prefix,
            ],
        )
        if ids:  # else another bridge's relay, or a worker, was quicker
            self._publisher.publish(self._queue, [_body(self._queue, to_text(message_id)) for message_id in ids])

    def _start_over(self) -> None:
        """Connect to RabbitMQ, and put the published messages back to be published again."""
        self._publisher.open(self._queue)
        again = self._release(keys=[self._keys.messages, self._keys.published, self._keys.bodies])
        if again:
            logger.info("Publishing %d message(s) of queue %s once more", again, self._queue)
        self._certain = True

    def _lost_any(self) -> bool:
        """Whether published messages have vanished from RabbitMQ, as after a purge."""
        seconds, microseconds = self._client.time()
        now = seconds * 1000 + microseconds // 1000
        old = self._client.zcount(self._keys.published, "-inf", now - int(_LOST_SECONDS * 1000))
        old += self._client.zcount(self._keys.published, f"({now}", "+inf")  # the clock went back
        return old > 0 and self._publisher.count(self._queue) == 0

    def unblock(self) -> None:
        """End a blocking command from another thread."""
        break_off(self._blocking)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()
        self._blocking.close()


class Relays:
    """The relays of a bridge's circles, each on a thread of its own."""

    def __init__(self, settings: Settings, broker_url: str, outage: Outage) -> None:
        self._settings = settings
        self._outage = outage
        self._publisher = Publisher(broker_url)
        self._relays: list[tuple[Relay, threading.Thread]] = []

    def serve(self, circle: str, stop: threading.Event, readiness: Readiness) -> None:
        """Publish a circle's messages until `stop` is set."""
        relay = Relay(self._settings, circle, self._publisher, self._outage)
        thread = vital_thread(f"relay-{circle}", lambda: relay.run(stop, readiness))
        self._relays.append((relay, thread))
        thread.start()

    def stop(self) -> None:
        """Disconnect all; the event is set already."""
        for relay, _ in self._relays:
            relay.unblock()
        self._publisher.close()
        for relay, thread in self._relays:
            thread.join()
            relay.close()


def _body(queue: str, message_id: str) -> bytes:
    """Make a message of dramatiq that only names the one on Redis, where large scripts and arguments stay."""
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
