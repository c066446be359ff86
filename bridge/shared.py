"""Serves many circles in one thread, over one connection."""

import threading
import time
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue

import redis

from rhai_tasks.connection.outage import Outage
from rhai_tasks.connection.scripts import run_each
from rhai_tasks.observe.readiness import Readiness
from rhai_tasks.queue.list_watcher import ListWatcher
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

from .circle import CircleBridge

_POLL_SECONDS = 1.0  # between two polls of circles whose queue is full, or whose last poll failed


class SharedBridge:
    """Serves many circles in one thread, polling those whose lists have changed."""

    def __init__(
        self, settings: Settings, client: redis.Redis, outage: Outage, stop: threading.Event, readiness: Readiness
    ) -> None:
        self._client, self._outage, self._stop, self._readiness = client, outage, stop, readiness
        self._lists = ListWatcher(settings, outage, stop)
        self._bridges: list[CircleBridge] = []
        self._due: SimpleQueue[CircleBridge | None] = SimpleQueue()  # to poll; `None` only wakes the thread
        self._full: set[CircleBridge] = set()
        self._failed: set[CircleBridge] = set()
        self._polled = 0.0  # time.monotonic() of the last poll of those two sets
        self._thread = vital_thread("bridges", self._run)
        self._thread.start()

    def serve(self, bridge: CircleBridge) -> None:
        """Serve a circle from now on."""
        self._readiness.expect(bridge.read_name)
        self._bridges.append(bridge)
        self._due.put(bridge)

    def stop(self) -> None:
        """Stop taking tasks, and give back; the event is set already."""
        self._due.put(None)
        self._thread.join()
        self._lists.stop()
        for bridge in self._bridges:
            bridge.give_back()

    def _run(self) -> None:
        noted = 0.0
        while not self._stop.is_set():
            if due := self._await_due():
                self._poll(due)
            if noted < self._lists.answered_at():
                noted = self._lists.answered_at()
                for bridge in self._bridges:
                    if bridge not in self._failed:
                        self._readiness.note(bridge.read_name)

    def _await_due(self) -> list[CircleBridge]:
        due: set[CircleBridge | None] = set()
        with suppress(Empty):
            due.add(self._due.get(timeout=_POLL_SECONDS))
            while True:
                due.add(self._due.get_nowait())
        if time.monotonic() > self._polled + _POLL_SECONDS:
            self._polled = time.monotonic()
            due |= self._full | self._failed  # a worker that made room may have died before it said so; `full` expires
        return [bridge for bridge in due if bridge]

    def _poll(self, bridges: list[CircleBridge]) -> None:
        """Take the tasks of these circles in one round trip, and wait for the next ones."""
        try:
            if room_keys := [bridge.room_key for bridge in bridges if bridge in self._full]:
                self._client.delete(*room_keys)
            replies = run_each(self._client, bridges[0].take, [bridge.call for bridge in bridges])
        except redis.RedisError as error:
            replies = [error] * len(bridges)
        had_failed = bool(self._failed)
        self._full.difference_update(bridges)
        self._failed.difference_update(bridges)
        for bridge, reply in zip(bridges, replies, strict=True):
            if isinstance(reply, redis.RedisError):
                self._outage.failed(reply)
                self._failed.add(bridge)
                continue
            _, room = reply
            if room <= 0:
                self._full.add(bridge)
            key = bridge.room_key if room <= 0 else bridge.native_key
            self._lists.watch(key, partial(self._due.put, bridge))
        if had_failed and not self._failed:
            self._outage.succeeded()
