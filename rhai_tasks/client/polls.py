"""When each awaited task is polled."""

import asyncio
import heapq
from collections.abc import Callable
from contextlib import suppress

_FIRST_INTERVAL, _LONGEST_INTERVAL = 0.05, 1.0  # seconds between two polls of a task; they double in between
_GRACE = 0.005  # seconds for the end of a task to be published before it is polled: most polls are saved
_POLLS_A_SECOND = 10_000  # tasks: about a hundredth of a server's time


class PollSchedule:
    """The times at which tasks are polled. A task's intervals double up to a second.

    With more than 10,000 tasks they double further: the server gets about 10,000 polls a second. Times are the event
    loop's, in seconds.
    """

    def __init__(self) -> None:
        self._next: dict[str, float] = {}  # by task id; another time of a task in `_heap` is out of date
        self._heap: list[tuple[float, float, str]] = []  # time, interval after it (0: a single poll), task id
        self._changed = asyncio.Event()

    def add(self, task_id: str, now: float) -> None:
        """Poll a task at growing intervals from now on."""
        self._plan(task_id, now + _FIRST_INTERVAL, _FIRST_INTERVAL)

    def poll_soon(self, task_id: str, now: float) -> None:
        """Poll a task once, after a moment in which its end may be published."""
        self._plan(task_id, now + _GRACE, 0)

    def poll_now(self, task_id: str, now: float) -> None:
        """Poll a task once, at once."""
        self._plan(task_id, now, 0)

    def discard(self, task_id: str) -> None:
        """Poll a task no longer."""
        self._next.pop(task_id, None)

    async def wait(self) -> None:
        """Wait until the next poll is due. May return early."""
        self._changed.clear()
        with suppress(TimeoutError):
            # Not `wait_for`: it can lose a cancellation.
            async with asyncio.timeout_at(self._heap[0][0] if self._heap else None):
                await self._changed.wait()

    def pop_due(self, clock: Callable[[], float]) -> set[str]:
        """Return the tasks that are due, and plan the next poll of each."""
        longest = max(_LONGEST_INTERVAL, len(self._next) / _POLLS_A_SECOND)
        due: set[str] = set()
        while self._heap and self._heap[0][0] <= clock():
            when, interval, task_id = heapq.heappop(self._heap)
            if task_id not in self._next or (interval and self._next[task_id] != when):
                continue
            due.add(task_id)
            if interval:
                interval = min(interval * 2, longest)
                self._plan(task_id, clock() + interval, interval)
        return due

    def _plan(self, task_id: str, when: float, interval: float) -> None:
        if interval:
            self._next[task_id] = when
        heapq.heappush(self._heap, (when, interval, task_id))
        if self._heap[0][0] == when:
            self._changed.set()
