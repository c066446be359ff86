"""Whether a process can do its work now: what a health check asks."""

import time

READY_SECONDS = 8.0
"""An idle process hears from the server every two or three seconds; one that has not for so long is not ready."""


class Readiness:
    """When each thing that a process cannot do without last succeeded.

    A connection that hangs says nothing, and others of the same process may still answer: so each blocking read
    and each lease counts for itself. Threads: any.
    """

    def __init__(self) -> None:
        self._succeeded: dict[str, float] = {}  # time.monotonic()

    def expect(self, what: str) -> None:
        """Name something that has to succeed from now on, again and again."""
        self._succeeded.setdefault(what, float("-inf"))

    def note(self, what: str) -> None:
        """Note that it has just succeeded."""
        self._succeeded[what] = time.monotonic()

    def age(self, what: str) -> float:
        """Say how many seconds ago it succeeded; infinite: never."""
        return time.monotonic() - self._succeeded.get(what, float("-inf"))

    def missing(self) -> list[str]:
        """Name what has not succeeded within `READY_SECONDS`."""
        return [what for what in list(self._succeeded) if self.age(what) > READY_SECONDS]

    def is_ready(self) -> bool:
        """Say whether all of it has, and there is something at all."""
        return bool(self._succeeded) and not self.missing()
