"""The bridge process: serves circles until it stops, then gives back the tasks that no worker holds."""

import logging
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import redis

from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.outage import Outage, retry_until_answered
from rhai_tasks.observe.readiness import Readiness
from rhai_tasks.protocol import queue_name
from rhai_tasks.queue.list_watcher import DEDICATED_LIMIT
from rhai_tasks.queue.native import circles_with_tasks
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

from .circle import CircleBridge
from .delays import Delays
from .shared import SharedBridge
from .stops import Stops

if TYPE_CHECKING:
    from .relay.relay import Relays

logger = logging.getLogger(__name__)

_DISCOVER_SECONDS = 2.0  # between two scans for new circles
_SCAN_PAUSES = 10  # pauses as long as the scan before: scans of millions of keys cost the server a tenth of its time


class Bridge:
    """Serves circles: the first ones with a thread and a connection each, all others in one thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._outage = Outage(settings.redis_url)
        self.readiness = Readiness()
        self._stop = threading.Event()
        self._client = connect(settings.redis_url, outage=self._outage)
        self._circles: dict[str, CircleBridge] = {}
        self._dedicated: list[tuple[CircleBridge, threading.Thread]] = []
        self._shared: SharedBridge | None = None
        self._finder: threading.Thread | None = None
        self._delays = Delays(settings, self._outage, self._stop)
        self._stops = Stops(settings, self._outage, self._stop) if settings.prefixes.stop else None
        self._relays: Relays | None = None
        if settings.broker_url is not None:
            from .relay import relay  # noqa: PLC0415  (needs pika)

            self._relays = relay.Relays(settings, settings.broker_url, self._outage)

    def serve(self, circle: str) -> None:
        """Bridge a circle from now on."""
        logger.info("Bridging circle %s to dramatiq queue %s", circle, queue_name(circle))
        bridge = self._circles[circle] = CircleBridge(self._settings, circle, self._client)
        if len(self._dedicated) < DEDICATED_LIMIT:
            thread = vital_thread(f"bridge-{circle}", lambda: self._serve(bridge))
            self._dedicated.append((bridge, thread))
            thread.start()
        else:
            if not self._shared:
                self._shared = SharedBridge(self._settings, self._client, self._outage, self._stop, self.readiness)
            self._shared.serve(bridge)
        self._delays.serve(bridge)
        if self._stops:
            self._stops.serve(circle)
        if self._relays:
            self._relays.serve(circle, self._stop, self.readiness)

    def circles(self) -> list[str]:
        """List the circles that are served."""
        return list(self._circles)

    def serve_all(self) -> None:
        """Serve every circle, once its native list exists."""
        self._finder = vital_thread("circles", self._discover)
        self._finder.start()

    def stop(self) -> None:
        """Stop taking tasks, and give back those that no worker has begun with."""
        self.readiness.stopping = True
        self._stop.set()
        if self._finder:
            self._finder.join()
        self._delays.stop()
        if self._stops:
            self._stops.stop()
        if self._relays:
            self._relays.stop()
        for bridge, _ in self._dedicated:
            bridge.unblock()
        for _, thread in self._dedicated:
            thread.join()
        if self._shared:
            self._shared.stop()
        self._client.close()

    def _serve(self, bridge: CircleBridge) -> None:
        bridge.run(self._stop, self.readiness, self._outage)
        bridge.give_back()
        bridge.close()

    def _discover(self) -> None:
        """Serve circles as their native lists appear, until the bridge stops."""
        client, read = connect(self._settings.redis_url), "read of the circles"
        self.readiness.expect(read)
        scan = partial(circles_with_tasks, client, self._settings, self._circles)
        with suppress(redis.RedisError):  # told to stop while the server was away
            while not self._stop.is_set():
                started = time.monotonic()
                for circle in retry_until_answered(scan, self._outage, self._stop):
                    if circle not in self._circles:
                        self.serve(circle)
                self.readiness.note(read)
                next_scan = time.monotonic() + _SCAN_PAUSES * (time.monotonic() - started)
                while not self._stop.wait(_DISCOVER_SECONDS) and time.monotonic() < next_scan:
                    retry_until_answered(client.ping, self._outage, self._stop)
                    self.readiness.note(read)
        client.close()
