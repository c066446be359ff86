"""Standard streams that are open from the start, and writes to them that never block the caller."""

import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_MOST_WAITING = 1 << 20  # bytes of lines that wait for the reader; further lines are dropped
_STUCK_SECONDS, _FLUSH_SECONDS = 1.0, 3.0  # longest wait at the end of a process: for one write, for all


def open_standard_streams() -> None:
    """Open /dev/null as each of the descriptors 0 to 2 that is closed.

    Otherwise, the next pipe or connection would get its number, and be written to as if it were stderr.
    """
    for descriptor, (name, mode) in enumerate({"stdin": "r", "stdout": "w", "stderr": "w"}.items()):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free number: all below are open
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115  (stays open)


class Descriptor:
    """Writes to a file descriptor, and blocks until all bytes are written."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._torn = False  # a disk became full in the middle of a line

    def __call__(self, lines: bytes) -> None:
        """Write whole lines.

        Raises:
            OSError: The disk is full, the pipe has no reader, or another error of the system.
        """
        rest = memoryview(b"\n" + lines if self._torn else lines)
        while rest:
            try:
                written = os.write(self._number, rest)
            except BlockingIOError:  # another process that shares the open file has made it non-blocking
                select.select([], [self._number], [])
                continue
            self._torn = rest[written - 1] != ord("\n")
            rest = rest[written:]


class LineWriter:
    """Writes lines on its own thread, so that the caller never waits for the reader.

    Lines wait in memory, up to a bound. Further lines are dropped and counted, as are lines that cannot be written.
    Once there is room again, one line reports the count.

    A fork gets its own writer, without lines, without a thread and with a new lock, whatever the state of its parent.
    """

    def __init__(self, write: Callable[[bytes], object], tell: Callable[[int], bytes]) -> None:
        """Start the thread.

        Args:
            write: Writes whole lines; may block, and raise any exception.
            tell: Makes the line that reports dropped lines; called on the writer's thread.
        """
        self._write, self._tell = write, tell
        self._begin()
        self._start()
        os.register_at_fork(after_in_child=self._begin)

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._waiting: deque[bytes | int] = deque()  # lines, or the number of lines dropped at that place
        self._size = 0  # bytes of the waiting lines
        self._dropped = 0  # lines since the last waiting one; 0 if none waits
        self._unwritten = 0  # lines that could not be written, before the first waiting one
        self._since: float | None = None  # when the present write began: time.monotonic()

    def _start(self) -> None:
        if self._thread is None:
            with suppress(RuntimeError, MemoryError):  # too many threads: the next line tries again
                thread = threading.Thread(target=self._run, name="log", daemon=True)
                thread.start()
                self._thread = thread

    def write(self, line: bytes) -> None:
        """Queue a line, with its newline; returns at once."""
        with self._changed:
            if self._waiting and self._size + len(line) > _MOST_WAITING:
                self._dropped += 1
                return
            if self._dropped:
                self._waiting.append(self._dropped)
                self._dropped = 0
            self._waiting.append(line)
            self._size += len(line)
            self._start()
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all lines are written, unless the reader has stopped reading."""
        end = time.monotonic() + _FLUSH_SECONDS
        with self._changed:
            self._start()
            while self._thread and (self._waiting or self._since is not None):
                now = time.monotonic()
                until = min(end, (now if self._since is None else self._since) + _STUCK_SECONDS)
                if now >= until:
                    return
                self._changed.wait(until - now)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                batch = self._take()
                self._since = time.monotonic()
            try:
                self._write(b"".join(self._tell(item) if isinstance(item, int) else item for item in batch))
            except Exception:
                # Reported with the next line: on its own, the report would be retried for ever.
                self._unwritten = sum(item if isinstance(item, int) else 1 for item in batch)
            else:
                self._unwritten = 0
            with self._changed:
                self._since = None
                self._changed.notify_all()

    def _take(self) -> list[bytes | int]:
        """Take a line, and further ones that a pipe writes atomically with it."""
        batch: list[bytes | int] = [self._unwritten] if self._unwritten else []
        size = 0
        while self._waiting:
            following = self._waiting[0]
            if isinstance(following, bytes):
                if size and size + len(following) > select.PIPE_BUF:
                    return batch
                size += len(following)
                self._size -= len(following)
            batch.append(self._waiting.popleft())
        self._size = 0
        if self._dropped:
            batch.append(self._dropped)
            self._dropped = 0
        return batch
