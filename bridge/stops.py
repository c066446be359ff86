"""Carries out the requests to stop tasks that other programs push to lists."""

import logging
import threading
import time
from typing import Any

import redis

from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.outage import Outage, retry_until_answered
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import cancel_channel, state_channel, timestamp, to_bytes
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.2  # between two reads of the lists: a request has no rank among the tasks, so none may block for it
_AT_ONCE = 500  # requests of a list in one call


class Stops:
    """Reads the lists of all circles of a bridge, in one thread."""

    def __init__(self, settings: Settings, outage: Outage, stop: threading.Event) -> None:
        self._settings, self._outage, self._stop = settings, outage, stop
        self._client = connect(settings.redis_url, outage=outage)
        self._script = load_script(self._client, "bridge", "stop", settings.table)
        self._lists: list[bytes] = []
        self._thread = vital_thread("stops", self._run)

    def serve(self, circle: str) -> None:
        """Carry out the requests of a circle from now on."""
        self._lists.append(to_bytes(self._settings.prefixes.stop + circle))
        if len(self._lists) == 1:
            self._thread.start()

    def stop(self) -> None:
        """Disconnect; the event is set already."""
        if self._lists:
            self._thread.join()
        self._client.close()

    def _run(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                retry_until_answered(self._cancel, self._outage, self._stop)
            except redis.RedisError:
                return  # told to stop while the server was away

    def _cancel(self) -> None:
        settings = self._settings
        channels = cancel_channel(settings.namespace), state_channel(settings.namespace)
        args: list[Any] = [settings.prefixes.details, timestamp(time.time()), *channels, _AT_ONCE]
        if cancelled := self._script(keys=self._lists.copy(), args=args):
            logger.info("Stopped %d task(s) of stop lists", cancelled)
