"""How many messages a consumer may hold."""

import threading
from collections.abc import Callable

from .context import QueueContext
from .run import Run


class Room:
    """The messages that a consumer holds, and its room for more: one for each thread, and the prefetch.

    Threads: the consumer's own waits, worker threads call `let_go`.
    """

    def __init__(self, context: QueueContext, queue: str, threads: int) -> None:
        self._context, self._threads = context, threads
        self.held = context.held.by_id(queue)
        self._prefetch = 0
        self._enough = threads  # messages to hold; below that, more are fetched
        self._freed = threading.Event()
        self.recalled = False
        """The circle's rules have changed: messages that no thread has got are to be released."""

    def adapt(self) -> None:
        """Adapt the room to how long scripts take now."""
        self._prefetch = self._context.pace.prefetch_count(self._threads)
        self._enough = self._threads + self._prefetch // 2

    def size(self) -> int:
        """How many messages may be held at most."""
        return self._threads + self._prefetch

    def is_free(self) -> bool:
        """Whether it is worth fetching messages."""
        return len(self.held) < self._enough

    def idle_threads(self) -> int:
        """Count the threads that have nothing to do; other queues may keep them busy."""
        return max(self._threads - self._context.work_queue.unfinished(), 0)

    def wait(self, seconds: float, *, unless: Callable[[], bool]) -> None:
        """Wait until a task has ended and there is room, unless this holds already."""
        self._freed.clear()
        if not unless():
            self._freed.wait(seconds)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until a task has ended since the last such wait: also one that ended while the server was asked."""
        self._freed.wait(seconds)
        self._freed.clear()

    def note_end(self) -> None:
        """Note that the end of a task has been written: its caller may have reached a limit."""
        self._freed.set()

    def recall(self) -> None:
        """Have the messages released that no thread has got; end a wait for room."""
        self.recalled = True
        self._freed.set()

    def let_go(self, *runs: Run) -> None:
        """Hold messages no longer."""
        for run in runs:
            message_id = run.delivery.message_id
            if self.held.get(message_id) is run:  # else it was lost, and fetched again by this broker
                del self.held[message_id]
        if len(self.held) < self._enough and not self._freed.is_set():  # to set it again takes six calls
            self._freed.set()
