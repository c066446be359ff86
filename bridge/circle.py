"""Moves one circle's tasks from its native list to its dramatiq queue, and back when the bridge stops."""

import logging
import threading
import time
from functools import cached_property
from typing import Any

import redis

from rhai_tasks.connection.connect import BLOCK_SECONDS, break_off, connect_blocking
from rhai_tasks.connection.direct import DirectConnection, pack, pack_call
from rhai_tasks.connection.outage import Outage, retry_until_answered
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.observe.readiness import Readiness
from rhai_tasks.protocol import QueueKeys, queue_name, to_bytes
from rhai_tasks.queue import native
from rhai_tasks.settings import Settings

logger = logging.getLogger(__name__)

_IN_A_ROW = 16  # lone tasks that the server moves until it answers: each answer would keep a core from the worker
_SILENT = pack("CLIENT", "REPLY", "SKIP")  # neither this command nor the next has a reply


class CircleBridge:
    """Moves one circle's tasks. No step can lose a task: after a crash, the next bridge finds it.

    Args:
        settings: The server, and the names of keys there.
        circle: Public key of the circle.
        client: Runs scripts; circles may share it.
    """

    def __init__(self, settings: Settings, circle: str, client: redis.Redis) -> None:
        self.circle = circle
        self.native_key = to_bytes(settings.prefixes.queue + circle)
        self.read_name = f"read of the native list of {circle}"
        self._settings = settings
        self._keys = QueueKeys(settings.namespace, queue_name(circle))
        self._client = client
        self.take = load_script(client, "bridge", "sort" if settings.fair else "take", settings.table)
        self.call = self._sort_call() if settings.fair else self._take_call()
        self._is_idle = True  # the last wait ended without a task

    def _take_call(self) -> dict[str, Any]:
        """Write keys and arguments of `take.lua`."""
        keys, settings = self._keys, self._settings
        published = [] if settings.broker_url is None else [keys.published]
        return {
            "keys": [self.native_key, keys.messages, keys.full, keys.registry(keys.namespace), *published],
            "args": [settings.buffer, keys.queue, settings.order],
        }

    def _sort_call(self) -> dict[str, Any]:
        """Write keys and arguments of `sort.lua`."""
        keys = self._keys
        registry = keys.registry(keys.namespace)
        return {
            "keys": [self.native_key, keys.messages, registry, keys.bodies, keys.published, keys.leases],
            "args": [keys.queue, self._settings.prefixes.details, keys.acks_start(keys.namespace)],
        }

    @cached_property
    def _blocking(self) -> redis.Redis:
        return connect_blocking(self._settings.redis_url)

    @cached_property
    def _connection(self) -> DirectConnection:
        return DirectConnection(self._blocking)

    @cached_property
    def _take_packed(self) -> bytes:
        return pack_call(self.take, **self.call)

    @cached_property
    def _wait_for_one(self) -> bytes:
        return self._wait(BLOCK_SECONDS)

    @cached_property
    def _wait_for_some(self) -> bytes:
        """Wait for some tasks, as long as for one; only the last wait has a reply, so that errors are seen."""
        if self._settings.fair:  # `sort.lua` is to see each
            return self._wait_for_one
        try:
            self._blocking.client_reply("ON")
        except redis.ResponseError:  # the user has no right to this command
            return self._wait_for_one
        wait = self._wait(BLOCK_SECONDS / _IN_A_ROW)
        return (_SILENT + wait) * (_IN_A_ROW - 1) + wait

    def _wait(self, seconds: float) -> bytes:
        """Write a wait for a task, which moves it.

        By default it pops at the same end as the original's BLPOP, but the id never leaves Redis.
        """
        end = "RIGHT" if self._settings.order == "oldest" else "LEFT"
        return pack("BLMOVE", self.native_key, self._keys.messages, end, "RIGHT", seconds)

    def run(self, stop: threading.Event, readiness: Readiness, outage: Outage) -> None:
        """Take tasks until `stop` is set; wait whenever the server does not answer."""
        room = 0
        readiness.expect(self.read_name)
        while not stop.is_set():
            try:
                room = retry_until_answered(lambda: self.forward(room), outage, stop)  # noqa: B023  (called at once)
            except redis.RedisError:
                return  # told to stop while the server was away
            readiness.note(self.read_name)

    def forward(self, room: int) -> int:
        """Move tasks from the native list to dramatiq's queue; if there are none, wait up to `BLOCK_SECONDS` for one.

        Args:
            room: How many messages dramatiq's queue can still take, as the call before returned it; 0: ask first.

        Returns:
            How many messages dramatiq's queue can still take, for the next call.
        """
        if room > 0:
            # A worker that waits for a task has it before this returns. Then `take.lua` moves the list's other ids.
            # Some waits that all end without a task would be as many commands for nothing.
            wait = self._wait_for_one if self._is_idle or room <= _IN_A_ROW else self._wait_for_some
            began = time.monotonic()
            _, room = self._connection.run(self.take, self._take_packed, wait)
            self._is_idle = time.monotonic() - began >= 0.9 * BLOCK_SECONDS  # the server's clock is coarse
            return max(room, 0)
        taken, room = self.take(**self.call)
        if room <= 0 and not taken:
            self._blocking.blpop([self._keys.room], BLOCK_SECONDS / 2)
        return max(room, 0)

    def give_back(self) -> None:
        """Give the tasks that no worker holds back to the native list, if the server answers."""
        try:
            native.give_back(self._client, self._settings, self.circle)
        except redis.RedisError as error:
            logger.warning("Circle %s: tasks stay in the queue for the next bridge: %s", self.circle, error)

    @property
    def delayed_keys(self) -> list[str | bytes]:
        """Keys of the delayed tasks, and of the lists that they go to when due, as `due.lua` takes them."""
        return native.delayed_keys(self._keys, self.native_key)

    @property
    def wake_keys(self) -> list[str]:
        """Lists that get an element when a task or message is delayed; popping it loses nothing.

        The second one is dramatiq's delay queue: which messages are delayed is read from their bodies.
        """
        return [self._keys.wake, self._keys.delay_queue]

    @property
    def room_key(self) -> bytes:
        """List that gets an element when a worker's fetch makes room in dramatiq's queue."""
        return to_bytes(self._keys.room)

    def unblock(self) -> None:
        """End a blocking command from another thread. A task that it has moved already waits in dramatiq's queue."""
        break_off(self._blocking)

    def close(self) -> None:
        """Close the connection that the circle does not share."""
        self._blocking.close()
