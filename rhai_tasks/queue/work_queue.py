"""The queue between dramatiq's consumer and worker threads; replaces `Worker.work_queue`."""

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE_SECONDS = 0.001


class WorkQueue(Generic[T]):
    """Hands out items in their order, and wakes as few threads as possible.

    While items are fast, the thread that has one takes the next one sooner than another thread could wake up, and both
    would then compete for the interpreter. So the next item is left to the running thread, and a second thread only
    guards it: the guard takes an item as soon as no thread has taken one for a moment, and another thread guards then.

    The thread that fell asleep last is woken first: the scripts that it has compiled are the most recent ones.

    Args:
        is_fast: Returns whether items take no longer than it is worth waiting for.
    """

    def __init__(self, is_fast: Callable[[], bool]) -> None:
        self._is_fast = is_fast
        self._lock = threading.Lock()
        self._items: deque[tuple[float, T]] = deque()  # time.monotonic() since when each waits
        self._asleep: list[_Sleeper] = []
        self._guarded = False
        self._taken = 0  # items, ever
        self._last_taken = 0.0  # time.monotonic()
        self._busy = 0  # threads that have one

    def qsize(self) -> int:
        """Count the items that wait."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item."""
        with self._lock:
            self._items.append((time.monotonic(), item))
            self._wake()

    def get(self, timeout: float) -> T:
        """Take the first item; wait up to `timeout` seconds to be woken for one.

        Raises:
            Empty: There was none.
        """
        while True:
            with self._lock:
                if self._items:
                    return self._take()
                sleeper = _Sleeper()
                self._asleep.append(sleeper)
            if not sleeper.woken.acquire(timeout=timeout):
                with self._lock:
                    if sleeper in self._asleep:
                        self._asleep.remove(sleeper)
                        raise Empty
            if sleeper.guards:
                self._guard()

    def get_nowait(self) -> T:
        """Take the first item.

        Raises:
            Empty: There is none.
        """
        with self._lock:
            if self._items:
                return self._take()
        raise Empty

    def unfinished(self) -> int:
        """Count the items that wait, and those that threads work on."""
        return len(self._items) + self._busy

    def remove_stuck(self, seconds: float, which: Callable[[T], bool]) -> list[T]:
        """Remove and return, in order, matching items that have waited so long while no thread took any item."""
        before = time.monotonic() - seconds
        taken, left = [], deque[tuple[float, T]]()
        with self._lock:
            if self._last_taken > before:
                return []
            for since, item in self._items:
                if since < before and which(item):
                    taken.append(item)
                else:
                    left.append((since, item))
            self._items = left
        return taken

    def task_done(self) -> None:
        """Note that a thread has finished its item."""
        with self._lock:
            self._busy -= 1

    def _take(self) -> T:
        self._busy += 1
        self._taken += 1
        self._last_taken, (_, item) = time.monotonic(), self._items.popleft()
        if self._items:
            self._wake()
        return item

    def _wake(self) -> None:
        """Wake a thread for the next item; with none asleep, the next idle one takes it."""
        if not self._asleep:
            return
        guards = self._busy > 0 and self._is_fast()
        if not (guards and self._guarded):
            sleeper = self._asleep.pop()
            sleeper.guards = guards
            self._guarded = self._guarded or guards
            sleeper.woken.release()

    def _guard(self) -> None:
        """Return once the next item has waited for a moment, or when none waits."""
        taken = -1
        while True:
            with self._lock:
                if not self._items or taken == self._taken:
                    self._guarded = False
                    return
                taken = self._taken
            time.sleep(_PATIENCE_SECONDS)


class _Sleeper:
    """A thread that waits to be woken."""

    def __init__(self) -> None:
        self.woken = threading.Lock()
        self.woken.acquire()
        self.guards = False
