"""Pauses a thread while the system has no memory for scripts."""

import threading
import time

_FIRST_SECONDS, _MOST_SECONDS = 0.25, 8.0


class Shortage(threading.local):
    """Pauses of this thread, each twice as long as the one before until the shortage has been over for a while."""

    _seconds = 0.0
    _ended = float("-inf")  # time.monotonic()

    def pause(self, draining: threading.Event) -> None:
        """Wait, but not longer than until the process ends."""
        lasts = time.monotonic() - self._ended < 2 * _MOST_SECONDS
        self._seconds = min(2 * self._seconds, _MOST_SECONDS) if lasts else _FIRST_SECONDS
        draining.wait(self._seconds)
        self._ended = time.monotonic()


shortage = Shortage()
"""Of this process."""
