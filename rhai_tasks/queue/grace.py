"""Decides when this broker may recover the messages of others whose leases have expired."""

import time
from collections.abc import Iterable

_GRACE_SECONDS = 4.5  # for others to renew once they can again: one try that hangs, the pause after it, and a bit
_JUMP_SECONDS = 1.0  # by which the server's clock goes wrong in no time: more is a jump


class Grace:
    """The time that other brokers get to renew their leases before this one recovers their messages.

    When the server was away, or its clock jumped ahead, all leases have expired though every broker lives.

    Args:
        away_seconds: Time without a renewal after which this process or the server was away.
    """

    def __init__(self, away_seconds: float) -> None:
        self._away_seconds = away_seconds
        self._renewed: dict[str, float] = {}  # by queue, our last renewal: time.monotonic()
        self._ends: dict[str, float] = {}  # by queue: time.monotonic()
        self._server_ahead = float("inf")  # seconds by which its clock is ahead of time.monotonic(), at most

    def is_over(self, queue: str, now: float) -> bool:
        """Whether brokers of this queue whose leases have expired count as dead."""
        return now >= self._ends.get(queue, 0.0)

    def note_clock(self, server: float, began: float, queues: Iterable[str]) -> None:
        """Begin the grace of all queues if the server's clock has jumped ahead: all leases may have expired by it.

        Args:
            server: Its clock, in seconds since the epoch.
            began: time.monotonic() before it was asked; it has answered by now.
            queues: Those with leases.
        """
        now = time.monotonic()
        if server - now > self._server_ahead + _JUMP_SECONDS:
            self._ends.update(dict.fromkeys(queues, now + _GRACE_SECONDS))
        self._server_ahead = server - began

    def note_renewal(self, queue: str, began: float) -> None:
        """Begin the queue's grace if our own renewal was late.

        Then we were away, or the server was and the others' leases expired as ours did: without a grace their tasks
        would run twice though no process died.
        """
        if began - self._renewed.get(queue, float("-inf")) > self._away_seconds:
            self._ends[queue] = began + _GRACE_SECONDS
        self._renewed[queue] = began
