"""Turns signals into events that a loop can wait for."""

import os
import selectors
import signal
from types import TracebackType
from typing import Self

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Signals as events to wait for: no handler runs in the middle of other code. A context manager.

    Args:
        wanted: The signals.
        parent: A pipe from the parent. Its end-of-file counts as SIGHUP: the parent is gone.
    """

    def __init__(self, *wanted: signal.Signals, parent: int | None = None) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._read, selectors.EVENT_READ)
        self._parent = parent
        if parent is not None:
            self._selector.register(parent, selectors.EVENT_READ)
        self._wanted = wanted

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for wanted in self._wanted:
            signal.signal(wanted, lambda *_: None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(-1)
        for wanted in self._wanted:
            signal.signal(wanted, signal.SIG_DFL)
        self._selector.close()
        os.close(self._read)
        os.close(self._write)

    def wait(self, timeout: float | None = None) -> set[int]:
        """Return the signals that came; none if `timeout` seconds passed without one."""
        came: set[int] = set()
        for key, _ in self._selector.select(timeout):
            if key.fd == self._parent:
                self._selector.unregister(key.fd)
                came.add(signal.SIGHUP)
            else:
                came.update(os.read(self._read, 4096))
        return came
