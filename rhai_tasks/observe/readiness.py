"""Readiness: whether a process can do its work now, for health checks."""

import time
from collections.abc import Mapping

READY_SECONDS = 8.0
"""The server answers an idle process every three seconds; after this time without an answer it is not ready."""


def overdue(succeeded: Mapping[str, float], now: float) -> dict[str, float]:
    """Return the operations without a success within `READY_SECONDS`, with the seconds since their last success.

    Args:
        succeeded: The time of each operation's last success: time.monotonic(); negative infinity: none yet.
        now: The present: time.monotonic().
    """
    return {what: now - then for what, then in succeeded.items() if now - then > READY_SECONDS}


class Readiness:
    """The time of the last success of each operation that a process depends on.

    A connection that hangs raises no error while others of the same process still answer. So each blocking read, each
    lease and each publishing of a queue is an operation of its own: `read of`, `lease of` and `publishing for` it.
    Threads: any.
    """

    def __init__(self) -> None:
        self._succeeded: dict[str, float] = {}  # time.monotonic()
        self.stopping = False

    def expect(self, what: str) -> None:
        """Register a recurring operation that readiness depends on from now on."""
        self._succeeded.setdefault(what, float("-inf"))

    def note(self, what: str) -> None:
        """Note that an operation has just succeeded."""
        self._succeeded[what] = time.monotonic()

    def age(self, what: str) -> float:
        """Return how many seconds ago an operation succeeded; infinite: never."""
        return time.monotonic() - self._succeeded.get(what, float("-inf"))

    def times(self) -> dict[str, float]:
        """Return the time of each operation's last success: time.monotonic()."""
        return dict(self._succeeded)

    def list_missing(self) -> list[str]:
        """List the operations without a success within `READY_SECONDS`."""
        return list(overdue(self.times(), time.monotonic()))

    def is_ready(self) -> bool:
        """Return whether there are operations, and all have succeeded within `READY_SECONDS`."""
        return bool(self._succeeded) and not self.stopping and not self.list_missing()
