"""The bridge: native list -> dramatiq messages, and back again when nobody is left to run them.

Every move of a task id between lists happens here.
"""

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import redis

from rhai_tasks.connection import BLOCK_SECONDS, Outage, break_off, connect, connect_blocking, persist, wait_and_run
from rhai_tasks.protocol import (
    ACTOR,
    QueueKeys,
    circle_of,
    key_pattern,
    queue_name,
    timestamp,
    to_bytes,
    to_text,
)
from rhai_tasks.readiness import Readiness
from rhai_tasks.settings import Settings
from rhai_tasks.store import load_script
from rhai_tasks.threads import vital_thread

if TYPE_CHECKING:
    from .relay import Relays

logger = logging.getLogger(__name__)

_DISCOVER_SECONDS = 2.0  # between two looks for new circles
_DUE_AT_ONCE = 500  # delayed tasks of a circle
_DUE_SECONDS = 10.0  # between two looks at them without being told: whoever was told may have died


class CircleBridge:
    """Moves one circle's tasks. Loss-free at every step: a crash leaves a task where the next bridge finds it."""

    def __init__(self, settings: Settings, circle: str, outage: Outage) -> None:
        self.circle = circle
        self._native = to_bytes(settings.prefixes.queue + circle)
        self._queue = queue_name(circle)
        self._keys = QueueKeys(settings.namespace, self._queue)
        self._buffer = settings.buffer
        self._through_rabbitmq = settings.broker_url is not None
        self._details_prefix = settings.prefixes.details
        self._outage = outage
        self._client = connect(settings.redis_url)
        self._blocking = connect_blocking(settings.redis_url)
        self._take = load_script(self._client, "bridge", "take")
        self._give_back = load_script(self._client, "bridge", "give_back")

    def run(self, stop: threading.Event, readiness: Readiness) -> None:
        """Take tasks until `stop`; outages are waited out."""
        room, read = 0, f"read of the native list of {self.circle}"
        readiness.expect(read)
        while not stop.is_set():
            try:
                room = persist(lambda: self.forward(room), self._outage, stop)  # noqa: B023  (called in this turn)
            except redis.RedisError:
                return  # told to stop while the server was away
            readiness.note(read)

    def forward(self, room: int) -> int:
        """Move what waits in the native list to dramatiq's queue; wait up to `BLOCK_SECONDS` if there is nothing to do.

        Args:
            room: How many messages dramatiq's queue can still take, as the last call returned it; 0 asks.

        Returns:
            The same, for the next call.
        """
        keys = self._keys
        call: dict[str, Any] = {
            "keys": [
                self._native,
                keys.messages,
                keys.full,
                keys.registry(keys.namespace),
                *([keys.published] if self._through_rabbitmq else []),
            ],
            "args": [self._buffer, self._queue],
        }
        if room > 0:
            # The loss-free BLPOP: the same end of the list, and the id is never outside Redis. A worker that waits for
            # it has it before we hear of it; what else has come goes the same way.
            _, room = wait_and_run(self._blocking, self._native, keys.messages, "RIGHT", self._take, **call)
            return max(room, 0)
        taken, room = self._take(**call)
        if room <= 0 and not taken:
            self._blocking.blpop([self._keys.room], BLOCK_SECONDS / 2)
        return max(room, 0)

    def give_back(self, *, held_by: Iterable[str] = ()) -> int:
        """Return what no worker holds to the head of the native list, in order; say how many tasks that were.

        Args:
            held_by: Brokers that are gone: what they held comes first.
        """
        keys = self._keys
        count = int(
            self._give_back(
                keys=[
                    self._native,
                    keys.messages,
                    keys.bodies,
                    keys.deliveries,
                    keys.full,
                    keys.published,
                    *(keys.acks(broker_id) for broker_id in held_by),
                ],
                args=[ACTOR, self._details_prefix, timestamp(time.time())],
            )
        )
        if count:
            logger.info("Gave %d task(s) of circle %s back to the native list", count, self.circle)
        return count

    @property
    def delayed_keys(self) -> list[str | bytes]:
        """Keys of what is delayed, and of where it goes, as `due.lua` wants them."""
        return [self._keys.delayed, self._native, self._keys.delayed_messages, self._keys.messages]

    @property
    def wake_key(self) -> str:
        """List on which is told that something new is delayed."""
        return self._keys.wake

    def unblock(self) -> None:
        """End a blocking command from another thread; what it moved meanwhile waits in dramatiq's queue."""
        break_off(self._blocking)

    def close(self) -> None:
        """Disconnect."""
        self._client.close()
        self._blocking.close()


class _Delays:
    """Hands over what was delayed, for all circles of a bridge, in one thread that sleeps until something is due."""

    def __init__(self, settings: Settings, outage: Outage, stop: threading.Event) -> None:
        self._outage, self._stop = outage, stop
        self._client = connect(settings.redis_url)
        self._blocking = connect_blocking(settings.redis_url)
        self._due = load_script(self._client, "bridge", "due")
        self._bridges: list[CircleBridge] = []
        self._thread = vital_thread("delays", self._run)

    def serve(self, bridge: CircleBridge) -> None:
        self._bridges.append(bridge)
        if len(self._bridges) == 1:
            self._thread.start()

    def stop(self) -> None:
        if self._bridges:
            break_off(self._blocking)
            self._thread.join()
        self._client.close()
        self._blocking.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                wait = persist(self._move, self._outage, self._stop)
                end = time.monotonic() + wait
                while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
                    if self._blocking.blpop([bridge.wake_key for bridge in self._bridges], min(left, BLOCK_SECONDS)):
                        break
            except redis.RedisError as error:
                if not self._stop.is_set():
                    self._outage.begin(error)
                    self._stop.wait(0.5)

    def _move(self) -> float:
        """Hand over what is due; return how many seconds there is nothing to do."""
        keys = [key for bridge in self._bridges for key in bridge.delayed_keys]
        moved, wait = self._due(keys=keys, args=[_DUE_AT_ONCE])
        if moved:
            logger.debug("Handed over %d delayed task(s)", moved)
        return _DUE_SECONDS if wait < 0 else min(wait / 1000, _DUE_SECONDS)


class Bridge:
    """Serves circles, a thread each."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outage = Outage(settings.redis_url)
        self.readiness = Readiness()
        self._stop = threading.Event()
        self._circles: dict[str, tuple[CircleBridge, threading.Thread]] = {}
        self._finder: threading.Thread | None = None
        self._delays = _Delays(settings, self._outage, self._stop)
        self._relays: Relays | None = None
        if settings.broker_url is not None:
            from . import relay  # noqa: PLC0415  (needs pika)

            self._relays = relay.Relays(settings, settings.broker_url, self._outage)

    def serve(self, circle: str) -> None:
        """Bridge a circle from now on."""
        bridge = CircleBridge(self._settings, circle, self._outage)
        thread = vital_thread(f"bridge-{circle}", lambda: self._serve(bridge))
        self._circles[circle] = (bridge, thread)
        thread.start()
        self._delays.serve(bridge)
        if self._relays:
            self._relays.serve(circle, self._stop, self.readiness)

    def circles(self) -> list[str]:
        """List the circles that are served now."""
        return list(self._circles)

    def serve_all(self) -> None:
        """Bridge every circle, as its native list appears."""
        self._finder = vital_thread("circles", self._find)
        self._finder.start()

    def stop(self) -> None:
        """Take no more, and give back what no worker has begun with."""
        self.readiness.stopping = True
        self._stop.set()
        if self._finder:
            self._finder.join()
        self._delays.stop()
        if self._relays:
            self._relays.stop()
        for bridge, _ in self._circles.values():
            bridge.unblock()
        for _, thread in self._circles.values():
            thread.join()

    def _serve(self, bridge: CircleBridge) -> None:
        logger.info("Bridging circle %s to dramatiq queue %s", bridge.circle, queue_name(bridge.circle))
        try:
            bridge.run(self._stop, self.readiness)
            bridge.give_back()
        except redis.RedisError as error:
            logger.warning("Circle %s: tasks stay where the next bridge finds them: %s", bridge.circle, error)
        finally:
            bridge.close()

    def _find(self) -> None:
        client, read = connect(self._settings.redis_url), "read of the circles"
        self.readiness.expect(read)
        with suppress(redis.RedisError):  # told to stop while the server was away
            while not self._stop.is_set():
                started = time.monotonic()
                for circle in persist(lambda: waiting_circles(client, self._settings), self._outage, self._stop):
                    if circle not in self._circles:
                        self.serve(circle)
                self.readiness.note(read)
                # Among millions of keys a look takes long: it is to cost the server no more than a tenth of its time.
                end = time.monotonic() + 10 * (time.monotonic() - started)
                while not self._stop.wait(_DISCOVER_SECONDS) and time.monotonic() < end:
                    persist(client.ping, self._outage, self._stop)
                    self.readiness.note(read)
        client.close()


def waiting_circles(client: redis.Redis, settings: Settings) -> list[str]:
    """List the circles whose native list exists now, that is: holds a task; and those with something delayed."""
    prefix = to_bytes(settings.prefixes.queue)
    keys = client.scan_iter(match=key_pattern(settings.prefixes.queue), count=1000, _type="LIST")
    circles = [to_text(key.removeprefix(prefix)) for key in keys]
    for name in cast("set[bytes]", client.smembers(QueueKeys.registry(settings.namespace))):
        queue = QueueKeys(settings.namespace, name.decode())
        if client.exists(queue.delayed, queue.delayed_messages):
            circles.append(circle_of(queue.queue))
    return circles
