"""How fast scripts run here, and so how many messages a consumer prefetches."""

from collections import deque

_PREFETCH_SECONDS = 0.02  # of work that may wait behind each thread: hides the next fetch, starves no other worker
_MOST_PREFETCHED = 256  # messages; bounds the outcomes that wait to be written during an outage, too
_RUNS = 50  # scripts that the average goes over: it must tell fast ones from those of which one in twenty takes long
_BATCH_SECONDS = 0.0005  # of work that one thread takes at once
_MOST_IN_BATCH = 32
_OUTLIERS = 2
FAST_SECONDS = 0.001
"""While scripts take less than this on average, a consumer waits for the running ones before it fetches more."""


class Pace:
    """A moving average of the run times of scripts, for all queues of a worker process. Threads: any."""

    def __init__(self) -> None:
        self._runs: deque[float] = deque(maxlen=_RUNS)
        self._average = 1.0  # seconds; slow until proven fast

    def record_run(self, seconds: float) -> None:
        """Add the run time of a script."""
        self._runs.append(seconds)
        self._average = sum(self._runs) / len(self._runs)

    def record_runs(self, seconds: list[float]) -> None:
        """Add the run times of scripts that ran one after the other."""
        self._runs.extend(seconds)
        self._average = sum(self._runs) / len(self._runs)

    def reset_average(self, seconds: float) -> None:
        """Restart the average at the time that the running scripts have already taken."""
        self._runs.clear()
        self.record_run(seconds)

    def is_fast(self) -> bool:
        """Whether recent scripts took less than `FAST_SECONDS` on average."""
        return self._average < FAST_SECONDS

    def batch_size(self) -> int:
        """How many messages a thread takes at once: about 0.5 ms of work; one while scripts take longer.

        The slowest two scripts do not count: the system may have run something else meanwhile. If others wait behind a
        slow one, another thread takes them.
        """
        quick = sorted(self._runs)[:-_OUTLIERS]
        return max(min(int(_BATCH_SECONDS * len(quick) / max(sum(quick), 1e-6)), _MOST_IN_BATCH), 1)

    def prefetch_count(self, threads: int) -> int:
        """How many messages to prefetch beyond one for each thread: about 20 ms of work; none for slow scripts."""
        return min(int(threads * _PREFETCH_SECONDS / max(self._average, 1e-5)), _MOST_PREFETCHED)
