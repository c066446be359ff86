"""Finds the circles: from the registry of bridges, and from the keys of native lists."""

import time
from typing import Any, cast

from rhai_tasks.protocol import QueueKeys, circle_of, key_pattern, to_bytes, to_text
from rhai_tasks.settings import Settings

_SCANS = 10  # commands of one update that search for circles that no bridge ever served
_SCANNED = 1000  # keys that each of them reads


class Circles:
    """The circles that are known: those of the registry, and those that a slow scan of all keys has found.

    Args:
        settings: The names of keys.
        client: A connection.
    """

    def __init__(self, settings: Settings, client: Any) -> None:
        self.known: set[str] = set()
        self._client = client
        self._registry = QueueKeys.registry(settings.namespace)
        self._prefix = to_bytes(settings.prefixes.queue)
        self._pattern = key_pattern(settings.prefixes.queue)
        self._registered = 0
        self._cursor = 0
        self._began = 0.0  # time.monotonic() at which the scan of all keys began
        self._pause_ends = 0.0

    def update(self, registered: int) -> None:
        """Find new circles; `registered`: how many the registry has now."""
        if registered and registered != self._registered:
            names = cast("set[bytes]", self._client.smembers(self._registry))
            self.known |= {circle_of(to_text(name)) for name in names}
            self._registered = registered
        now = time.monotonic()
        if now < self._pause_ends:
            return
        if self._cursor == 0:
            self._began = now
        for _ in range(_SCANS):
            self._cursor, keys = self._client.scan(self._cursor, match=self._pattern, count=_SCANNED, _type="LIST")
            self.known |= {to_text(key.removeprefix(self._prefix)) for key in keys}
            if self._cursor == 0:
                self._pause_ends = now + (now - self._began)  # as long as the scan took
                return
