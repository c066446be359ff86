"""Whether a process can do its work now: what a health check asks."""

import time
from collections.abc import Mapping

READY_SECONDS = 8.0
"""An idle process hears from the server every three seconds; one that has not for so long is not ready."""


def overdue(succeeded: Mapping[str, float], now: float) -> dict[str, float]:
    """Return what has not succeeded within `READY_SECONDS`, and for how many seconds not; infinite: never.

    Args:
        succeeded: When each thing last did: time.monotonic().
        now: Likewise.
    """
    return {what: now - then for what, then in succeeded.items() if now - then > READY_SECONDS}


class Readiness:
    """When each thing that a process cannot do without last succeeded: a `read of` or `lease of` something.

    A connection that hangs says nothing, and others of the same process may still answer: so each blocking read
    and each lease counts for itself. Threads: any.
    """

    def __init__(self) -> None:
        self._succeeded: dict[str, float] = {}  # time.monotonic()
        self.stopping = False

    def expect(self, what: str) -> None:
        """Name something that has to succeed from now on, again and again."""
        self._succeeded.setdefault(what, float("-inf"))

    def note(self, what: str) -> None:
        """Note that it has just succeeded."""
        self._succeeded[what] = time.monotonic()

    def age(self, what: str) -> float:
        """Say how many seconds ago it succeeded; infinite: never."""
        return time.monotonic() - self._succeeded.get(what, float("-inf"))

    def times(self) -> dict[str, float]:
        """Return when each last did: time.monotonic()."""
        return dict(self._succeeded)

    def missing(self) -> list[str]:
        """Name what has not succeeded within `READY_SECONDS`."""
        return list(overdue(self.times(), time.monotonic()))

    def is_ready(self) -> bool:
        """Say whether all of it has, and there is something at all."""
        return bool(self._succeeded) and not self.stopping and not self.missing()
