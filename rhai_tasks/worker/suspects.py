"""Starts tasks suspected of crashing a process one at a time."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SUSPECT_SECONDS = 0.25  # for which a suspect runs before the next one may start
_PATIENCE_SECONDS = 1.0  # for which a suspect that may not start holds a thread


class Suspects:
    """Starts tasks suspected of crashing a process one at a time, so that the next crash has one suspect.

    Most crashes happen at the start of a script. So a suspect that has run for a moment lets the next one start, and a
    killed worker's long scripts all run again soon. Before its last delivery, a suspect runs alone: it starts when no
    other suspect runs, and lets none start until it has ended, because this count decides. A suspect that may not
    start does not block its thread: its message is released, for another process or for later.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False
        self._begun = 0.0  # time.monotonic()

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[bool]:
        """Wait a moment for a turn, and hold it; yield whether it came."""
        with self._changed:
            end = time.monotonic() + _PATIENCE_SECONDS
            while not (came := self._may_begin(alone=alone)) and time.monotonic() < end:
                self._changed.wait(_SUSPECT_SECONDS)
            if came:
                self._running += 1
                self._alone, self._begun = alone, time.monotonic()
        try:
            yield came
        finally:
            if came:
                with self._changed:
                    self._running -= 1
                    self._alone = False
                    self._changed.notify_all()

    def _may_begin(self, *, alone: bool) -> bool:
        shared = not self._alone and not alone and time.monotonic() >= self._begun + _SUSPECT_SECONDS
        return self._running == 0 or shared
