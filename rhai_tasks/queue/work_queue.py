"""What lies between dramatiq's consumers and its worker threads; stands in for the priority queue of its `Worker`."""

import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Generic, TypeVar

T = TypeVar("T")

_PATIENCE_SECONDS = 0.001


class WorkQueue(Generic[T]):
    """Hands out items in their order, and wakes no more threads than it takes.

    While items are quick, the thread that has one comes for the next one sooner than another could wake up; and both
    would then fight for the interpreter. So the next one is left to it, and a second thread is only asked to watch:
    it takes over as soon as nothing has been taken for a moment, and another one watches then.

    The thread that fell asleep last is woken first: what it has compiled is most likely to be of use.

    Args:
        quick: Says whether items take no longer than it is worth waiting for.
    """

    def __init__(self, quick: Callable[[], bool]) -> None:
        self._quick = quick
        self._lock = threading.Lock()
        self._items: deque[tuple[float, T]] = deque()  # time.monotonic() since when each waits
        self._asleep: list[_Sleeper] = []
        self._watched = False
        self._taken = 0  # items, ever
        self._last_taken = 0.0  # time.monotonic()
        self._busy = 0  # threads that have one

    def qsize(self) -> int:
        """Count what waits."""
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item."""
        with self._lock:
            self._items.append((time.monotonic(), item))
            self._call()

    def get(self, timeout: float) -> T:
        """Take the first item; wait up to `timeout` seconds to be called for one.

        Raises:
            Empty: There was none.
        """
        while True:
            with self._lock:
                if self._items:
                    return self._take()
                sleeper = _Sleeper()
                self._asleep.append(sleeper)
            if not sleeper.called.acquire(timeout=timeout):
                with self._lock:
                    if sleeper in self._asleep:
                        self._asleep.remove(sleeper)
                        raise Empty
            if sleeper.watches:
                self._watch()

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
        """Count what waits, and what threads have not done with."""
        return len(self._items) + self._busy

    def take_back(self, seconds: float, which: Callable[[T], bool]) -> list[T]:
        """Take all items like this that have waited for so long while no thread came for any; in their order."""
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
        """Say that a thread has done with its item."""
        with self._lock:
            self._busy -= 1

    def _take(self) -> T:
        self._busy += 1
        self._taken += 1
        self._last_taken, (_, item) = time.monotonic(), self._items.popleft()
        if self._items:
            self._call()
        return item

    def _call(self) -> None:
        """Have a thread that is asleep see to the next item; if none is, the first that has nothing to do will."""
        if not self._asleep:
            return
        watch = self._busy > 0 and self._quick()
        if not (watch and self._watched):
            sleeper = self._asleep.pop()
            sleeper.watches = watch
            self._watched = self._watched or watch
            sleeper.called.release()

    def _watch(self) -> None:
        """Return once the next item has waited for a moment, or when none waits."""
        taken = -1
        while True:
            with self._lock:
                if not self._items or taken == self._taken:
                    self._watched = False
                    return
                taken = self._taken
            time.sleep(_PATIENCE_SECONDS)


class _Sleeper:
    """A thread that waits to be called."""

    def __init__(self) -> None:
        self.called = threading.Lock()
        self.called.acquire()
        self.watches = False
