"""The bridge: native list -> dramatiq messages, and back again when nobody is left to run them.

Every move of a task id between lists happens here.
"""

import logging
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property, partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, cast

import redis

from rhai_tasks.arrivals import ALONE, Arrivals
from rhai_tasks.connection import (
    BLOCK_SECONDS,
    Outage,
    break_off,
    connect,
    connect_blocking,
    persist,
    run_each,
    wait_and_run,
)
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

_LOOK_SECONDS = 1.0  # between two looks at circles that have no room, or whose last look failed
_DISCOVER_SECONDS = 2.0  # between two looks for new circles
_DUE_AT_ONCE = 500  # delayed tasks of a circle
_DUE_SECONDS = 10.0  # between two looks at them without being told: whoever was told may have died


class CircleBridge:
    """Moves one circle's tasks. Loss-free at every step: a crash leaves a task where the next bridge finds it.

    Args:
        settings: The server and its names.
        circle: Whose tasks.
        client: Circles may share one.
    """

    def __init__(self, settings: Settings, circle: str, client: redis.Redis) -> None:
        self.circle = circle
        self.native_key = to_bytes(settings.prefixes.queue + circle)
        self.read = f"read of the native list of {circle}"
        self._settings = settings
        self._keys = keys = QueueKeys(settings.namespace, queue_name(circle))
        self._client = client
        self.take = load_script(client, "bridge", "take")
        self._give_back = load_script(client, "bridge", "give_back")
        published = [] if settings.broker_url is None else [keys.published]
        self.call: dict[str, Any] = {  # keys and arguments of `take.lua`
            "keys": [self.native_key, keys.messages, keys.full, keys.registry(keys.namespace), *published],
            "args": [settings.buffer, keys.queue],
        }

    @cached_property
    def _blocking(self) -> redis.Redis:
        return connect_blocking(self._settings.redis_url)

    def run(self, stop: threading.Event, readiness: Readiness, outage: Outage) -> None:
        """Take tasks until `stop`; outages are waited out."""
        room = 0
        readiness.expect(self.read)
        while not stop.is_set():
            try:
                room = persist(lambda: self.forward(room), outage, stop)  # noqa: B023  (called in this turn)
            except redis.RedisError:
                return  # told to stop while the server was away
            readiness.note(self.read)

    def forward(self, room: int) -> int:
        """Move what waits in the native list to dramatiq's queue; wait up to `BLOCK_SECONDS` if there is nothing to do.

        Args:
            room: How many messages dramatiq's queue can still take, as the last call returned it; 0 asks.

        Returns:
            The same, for the next call.
        """
        if room > 0:
            # The loss-free BLPOP: the same end of the list, and the id is never outside Redis. A worker that waits for
            # it has it before we hear of it; what else has come goes the same way.
            messages = self._keys.messages
            _, room = wait_and_run(self._blocking, self.native_key, messages, "RIGHT", self.take, **self.call)
            return max(room, 0)
        taken, room = self.take(**self.call)
        if room <= 0 and not taken:
            self._blocking.blpop([self._keys.room], BLOCK_SECONDS / 2)
        return max(room, 0)

    def give_back(self, *, held_by: Iterable[str] = ()) -> int:
        """Return what no worker holds to the head of the native list, in order; say how many tasks that were.

        Args:
            held_by: Brokers that are gone: what they held comes first.
        """
        keys, settings = self._keys, self._settings
        count = int(
            self._give_back(
                keys=[
                    self.native_key,
                    keys.messages,
                    keys.bodies,
                    keys.deliveries,
                    keys.full,
                    keys.published,
                    *(keys.acks(broker_id) for broker_id in held_by),
                ],
                args=[ACTOR, settings.prefixes.details, timestamp(time.time())],
            )
        )
        if count:
            logger.info("Gave %d task(s) of circle %s back to the native list", count, self.circle)
        return count

    @property
    def delayed_keys(self) -> list[str | bytes]:
        """Keys of what is delayed, and of where it goes, as `due.lua` wants them."""
        return [self._keys.delayed, self.native_key, self._keys.delayed_messages, self._keys.messages]

    @property
    def wake_key(self) -> str:
        """List on which is told that something new is delayed."""
        return self._keys.wake

    @property
    def room_key(self) -> bytes:
        """List on which a worker tells that there is room again."""
        return to_bytes(self._keys.room)

    def unblock(self) -> None:
        """End a blocking command from another thread; what it moved meanwhile waits in dramatiq's queue."""
        break_off(self._blocking)

    def close(self) -> None:
        """Disconnect what this circle does not share."""
        self._blocking.close()


class _Delays:
    """Hands over what was delayed, for all circles of a bridge, in one thread that sleeps until something is due."""

    def __init__(self, settings: Settings, outage: Outage, stop: threading.Event) -> None:
        self._outage, self._stop = outage, stop
        self._client = connect(settings.redis_url, outage=outage)
        self._blocking = connect_blocking(settings.redis_url, outage)
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


class _Crowd:
    """Serves many circles in one thread: it looks where the server says that something has come."""

    def __init__(
        self, settings: Settings, client: redis.Redis, outage: Outage, stop: threading.Event, readiness: Readiness
    ) -> None:
        self._client, self._outage, self._stop, self._readiness = client, outage, stop, readiness
        self._arrivals = Arrivals(settings, outage, stop)
        self._bridges: list[CircleBridge] = []
        self._due: SimpleQueue[CircleBridge | None] = SimpleQueue()  # to be looked at; none: only to wake us
        self._full: set[CircleBridge] = set()
        self._failed: set[CircleBridge] = set()
        self._looked = 0.0  # time.monotonic() of the last look at those
        self._thread = vital_thread("bridges", self._run)
        self._thread.start()

    def serve(self, bridge: CircleBridge) -> None:
        self._readiness.expect(bridge.read)
        self._bridges.append(bridge)
        self._due.put(bridge)

    def stop(self) -> None:
        self._due.put(None)
        self._thread.join()
        self._arrivals.stop()
        for bridge in self._bridges:
            _end(bridge)

    def _run(self) -> None:
        noted = 0.0
        while not self._stop.is_set():
            if due := self._await_due():
                self._look(due)
            if noted < self._arrivals.heard():
                noted = self._arrivals.heard()
                for bridge in self._bridges:
                    if bridge not in self._failed:
                        self._readiness.note(bridge.read)

    def _await_due(self) -> list[CircleBridge]:
        due: set[CircleBridge | None] = set()
        with suppress(Empty):
            due.add(self._due.get(timeout=_LOOK_SECONDS))
            while True:
                due.add(self._due.get_nowait())
        if time.monotonic() > self._looked + _LOOK_SECONDS:
            self._looked = time.monotonic()
            due |= self._full | self._failed  # who tells of room may have died, and `full` has to stand
        return [bridge for bridge in due if bridge]

    def _look(self, bridges: list[CircleBridge]) -> None:
        """Take what there is of these circles, in one round trip, and expect more."""
        try:
            if told := [bridge.room_key for bridge in bridges if bridge in self._full]:
                self._client.delete(*told)
            replies = run_each(self._client, bridges[0].take, [bridge.call for bridge in bridges])
        except redis.RedisError as error:
            replies = [error] * len(bridges)
        had_failed = bool(self._failed)
        self._full.difference_update(bridges)
        self._failed.difference_update(bridges)
        for bridge, reply in zip(bridges, replies, strict=True):
            if isinstance(reply, redis.RedisError):
                self._outage.begin(reply)
                self._failed.add(bridge)
                continue
            _, room = reply
            if room <= 0:
                self._full.add(bridge)
            key = bridge.room_key if room <= 0 else bridge.native_key
            self._arrivals.expect(key, partial(self._due.put, bridge))
        if had_failed and not self._failed:
            self._outage.end()


class Bridge:
    """Serves circles: the first of them with a thread and a connection each, all others together."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outage = Outage(settings.redis_url)
        self.readiness = Readiness()
        self._stop = threading.Event()
        self._client = connect(settings.redis_url, outage=self._outage)
        self._circles: dict[str, CircleBridge] = {}
        self._alone: list[tuple[CircleBridge, threading.Thread]] = []
        self._crowd: _Crowd | None = None
        self._finder: threading.Thread | None = None
        self._delays = _Delays(settings, self._outage, self._stop)
        self._relays: Relays | None = None
        if settings.broker_url is not None:
            from . import relay  # noqa: PLC0415  (needs pika)

            self._relays = relay.Relays(settings, settings.broker_url, self._outage)

    def serve(self, circle: str) -> None:
        """Bridge a circle from now on."""
        logger.info("Bridging circle %s to dramatiq queue %s", circle, queue_name(circle))
        bridge = self._circles[circle] = CircleBridge(self._settings, circle, self._client)
        if len(self._alone) < ALONE:
            thread = vital_thread(f"bridge-{circle}", lambda: self._serve(bridge))
            self._alone.append((bridge, thread))
            thread.start()
        else:
            if not self._crowd:
                self._crowd = _Crowd(self._settings, self._client, self._outage, self._stop, self.readiness)
            self._crowd.serve(bridge)
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
        for bridge, _ in self._alone:
            bridge.unblock()
        for _, thread in self._alone:
            thread.join()
        if self._crowd:
            self._crowd.stop()
        self._client.close()

    def _serve(self, bridge: CircleBridge) -> None:
        bridge.run(self._stop, self.readiness, self._outage)
        _end(bridge)
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


def _end(bridge: CircleBridge) -> None:
    try:
        bridge.give_back()
    except redis.RedisError as error:
        logger.warning("Circle %s: tasks stay where the next bridge finds them: %s", bridge.circle, error)


def waiting_circles(client: redis.Redis, settings: Settings) -> list[str]:
    """List the circles whose native list exists now, that is: holds a task; and those with something delayed."""
    prefix = to_bytes(settings.prefixes.queue)
    keys = client.scan_iter(match=key_pattern(settings.prefixes.queue), count=1000, _type="LIST")
    circles = [to_text(key.removeprefix(prefix)) for key in keys]
    names = cast("set[bytes]", client.smembers(QueueKeys.registry(settings.namespace)))
    queues = [QueueKeys(settings.namespace, name.decode()) for name in names]
    with client.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.exists(queue.delayed, queue.delayed_messages)
        delayed = zip(queues, pipeline.execute(), strict=True)
    return circles + [circle_of(queue.queue) for queue, is_there in delayed if is_there]
