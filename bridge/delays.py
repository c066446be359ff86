"""Hands delayed tasks over when they are due."""

import logging
import threading
import time

import redis

from rhai_tasks.connection.connect import BLOCK_SECONDS, break_off, connect, connect_blocking
from rhai_tasks.connection.outage import RETRY_SECONDS, Outage, retry_until_answered
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

from .circle import CircleBridge

logger = logging.getLogger(__name__)

_DUE_AT_ONCE = 500  # delayed tasks of a circle in one call
_POLL_SECONDS = 10.0  # between two polls without a wake-up: another bridge may have taken it, and died


class Delays:
    """Hands over delayed tasks of all circles of a bridge, in one thread that sleeps until the next is due."""

    def __init__(self, settings: Settings, outage: Outage, stop: threading.Event) -> None:
        self._settings, self._outage, self._stop = settings, outage, stop
        self._client = connect(settings.redis_url, outage=outage)
        self._blocking = connect_blocking(settings.redis_url, outage)
        self._due = load_script(self._client, "bridge", "queue/due")
        self._bridges: list[CircleBridge] = []
        self._thread = vital_thread("delays", self._run)

    def serve(self, bridge: CircleBridge) -> None:
        """Hand over a circle's delayed tasks from now on."""
        self._bridges.append(bridge)
        if len(self._bridges) == 1:
            self._thread.start()

    def stop(self) -> None:
        """Stop handing over, and disconnect; the event is set already."""
        if self._bridges:
            break_off(self._blocking)
            self._thread.join()
        self._client.close()
        self._blocking.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._await_wake_up(retry_until_answered(self._move, self._outage, self._stop))
            except redis.RedisError as error:
                # One circle's key of another type fails the wait of all. Their due tasks are handed over all the same.
                if not self._stop.is_set() and not str(error).startswith("WRONGTYPE"):
                    self._outage.failed(error)
                self._stop.wait(RETRY_SECONDS)

    def _await_wake_up(self, seconds: float) -> None:
        """Wait until a task or message is delayed, for at most `seconds`."""
        end = time.monotonic() + seconds
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            keys = [key for bridge in self._bridges for key in bridge.wake_keys]
            woken = self._blocking.blpop(keys, min(left, BLOCK_SECONDS))
            self._outage.succeeded()
            if woken:
                return

    def _move(self) -> float:
        """Hand over the tasks that are due; return in how many seconds to do it again."""
        keys = [key for bridge in self._bridges for key in bridge.delayed_keys]
        moved, wait = self._due(keys=keys, args=[_DUE_AT_ONCE, self._settings.order])
        if moved:
            logger.debug("Handed over %d delayed task(s)", moved)
        return _POLL_SECONDS if wait < 0 else min(wait / 1000, _POLL_SECONDS)
