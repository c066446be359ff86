"""The queue between dramatiq's consumer and worker threads; replaces `Worker.work_queue`."""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty
from typing import Generic, Protocol, TypeVar

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

_PATIENCE_SECONDS = 0.001


class Lone(Protocol[T_contra]):
    """Runs items on the thread that puts them."""

    def takes(self, item: T_contra) -> bool:
        """Whether an item is to be run so."""

    def run(self, item: T_contra) -> None:
        """Run the item, and call `task_done`."""


class WorkQueue(Generic[T]):
    """Hands out items in their order, and wakes as few threads as possible.

    While items are fast, the thread that has one takes the next one sooner than another thread could wake up, and both
    would then compete for the interpreter. So the next item is left to the running thread, and a second thread only
    guards it: the guard takes an item as soon as no thread has taken one for a moment, and another thread guards then.
    If none waits, the guard takes the rest of a batch that a thread works on.

    The thread that fell asleep last is woken first: the scripts that it has compiled are the most recent ones.

    Args:
        is_fast: Returns whether items take no longer than it is worth waiting for.
        is_batch: Returns whether an item has parts that another thread can take.
        split: Takes the parts that have not begun out of a batch, and returns them as an item; `None`: there are none.
    """

    def __init__(
        self,
        is_fast: Callable[[], bool],
        is_batch: Callable[[T], bool] = lambda _: False,
        split: Callable[[T], T | None] = lambda _: None,
    ) -> None:
        self._is_fast, self._is_batch, self._split = is_fast, is_batch, split
        self.lone: Lone[T] | None = None
        """Runs an item that comes while no other waits and no thread has one; `None`: nothing does."""
        self.most = sys.maxsize
        """Items that threads have at the same time, also one that the thread has that put it."""
        self._batches: dict[int, T] = {}  # that threads work on, by thread
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
        """Add an item; if it is a lone one, run it in this thread."""
        lone = self.lone
        with self._lock:
            if lone is not None and not self._busy and not self._items and lone.takes(item):
                self._note_taken()
            else:
                lone = None
                self._items.append((time.monotonic(), item))
                self._wake()
        if lone is not None:
            lone.run(item)

    def get(self, timeout: float) -> T:
        """Take the first item; wait up to `timeout` seconds to be woken for one.

        Raises:
            Empty: There was none.
        """
        while True:
            with self._lock:
                if self._items and self._busy < self.most:
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
        """Remove and return, in order, matching items that have waited `seconds` while no thread took any item.

        The rests of batches that threads work on are among them.
        """
        before = time.monotonic() - seconds
        taken, left = deque[tuple[float, T]](), deque[tuple[float, T]]()
        with self._lock:
            if self._last_taken > before:
                return []
            for rest in self._rests():
                (taken if which(rest) else left).append((before, rest))
            for since, item in self._items:
                (taken if since < before and which(item) else left).append((since, item))
            self._items = left
        return [item for _, item in taken]

    def task_done(self) -> None:
        """Note that a thread has finished its item."""
        with self._lock:
            self._busy -= 1
            if self._batches:
                self._batches.pop(threading.get_ident(), None)
            if self._busy == self.most - 1 and self._items:
                self._wake()

    def _note_taken(self) -> None:
        self._busy += 1
        self._taken += 1
        self._last_taken = time.monotonic()

    def _take(self) -> T:
        self._note_taken()
        _, item = self._items.popleft()
        if self._is_batch(item):
            self._batches[threading.get_ident()] = item
            self._wake()
        elif self._items:
            self._wake()
        return item

    def _wake(self) -> None:
        """Wake a thread for the next item, or to guard a batch; with none asleep, the next idle one takes the item."""
        if not self._asleep:
            return
        guards = self._busy > 0 and (self._is_fast() or not self._items)
        if not (guards and self._guarded):
            sleeper = self._asleep.pop()
            sleeper.guards = guards
            self._guarded = self._guarded or guards
            sleeper.woken.release()

    def _guard(self) -> None:
        """Return once the next item, or the rest of a batch, has waited for a moment, or when there is none."""
        taken = -1
        while True:
            with self._lock:
                if taken == self._taken and not self._items:
                    self._items.extend((time.monotonic(), rest) for rest in self._rests())
                if (taken == self._taken and self._items) or not (self._items or self._batches):
                    self._guarded = False
                    return
                taken = self._taken
            time.sleep(_PATIENCE_SECONDS)

    def _rests(self) -> list[T]:
        """Take those parts that have not begun out of the batches that threads work on."""
        rests = [self._split(batch) for batch in self._batches.values()]
        self._batches = {thread: batch for thread, batch in self._batches.items() if self._is_batch(batch)}
        return [rest for rest in rests if rest is not None]


class _Sleeper:
    """A thread that waits to be woken."""

    def __init__(self) -> None:
        self.woken = threading.Lock()
        self.woken.acquire()
        self.guards = False
