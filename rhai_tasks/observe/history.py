"""Adds this process's counters to the history, once a minute."""

import logging
import time

import redis

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import Status, queue_name
from rhai_tasks.protocol.history import EXPIRY_SECONDS, NUMBER_BYTES, all_numbers, history_prefix

from .metrics import FINISHED, RUN, WAIT, Counts

logger = logging.getLogger(__name__)

BUCKETS = len(RUN.bounds) + 1
_SECONDS = 60.0
_CIRCLES = 200  # in one call


class HistoryWriter:
    """Writes the history of this process. One thread calls it.

    Args:
        counts: Counts of this process.
        namespace: Prefix of this project's keys.
        client: A connection of that thread's.
    """

    def __init__(self, counts: Counts, namespace: str, client: redis.Redis) -> None:
        self._counts = counts
        self._script = load_script(client, __package__, "history")
        self._prefix = history_prefix(namespace, BUCKETS)
        self._written = Counts()
        self._written.merge(self._counts)
        self._next = time.monotonic() + _SECONDS
        self._is_refused = False

    def write_if_due(self) -> None:
        """Write what has been counted since the last time, if a minute has passed.

        Raises:
            redis.RedisError: The server does not answer; the next call writes all of it.
        """
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write what has been counted since the last time.

        Raises:
            redis.RedisError: The server does not answer; the next call writes all of it.
        """
        if self._is_refused:
            return
        now = Counts()
        now.merge(self._counts)
        new = now.since(self._written)
        finished = new.counters[FINISHED.name]
        circles = sorted({circle for circle, _ in finished if any(finished[circle, status] for status in _ENDS)})
        totals = [sum(finished[circle, status] for circle in circles) for status in _ENDS]
        numbers = [*totals, *new.histograms[RUN.name][:-1], *new.histograms[WAIT.name][:-1]]
        try:
            for start in range(0, len(circles), _CIRCLES):
                self._send(numbers if start == 0 else [], finished, circles[start : start + _CIRCLES])
        except redis.ResponseError as error:
            # A courtesy: without it, tasks run as well.
            logger.warning("No history is written from now on: %s", error)
            self._is_refused = True
        self._written, self._next = now, time.monotonic() + _SECONDS

    def _send(self, numbers: list[float], finished: dict[tuple[str, ...], int], circles: list[str]) -> None:
        arguments: list[str | int] = [self._prefix, all_numbers(BUCKETS) * NUMBER_BYTES, EXPIRY_SECONDS, len(numbers)]
        arguments += [int(number) for number in numbers]
        for circle in circles:
            arguments += [queue_name(circle), *(finished.get((circle, status), 0) for status in _ENDS)]
        self._script(keys=[], args=arguments)


_ENDS = (Status.COMPLETED.value, Status.ERROR.value)
