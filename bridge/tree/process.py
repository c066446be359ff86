"""A process that the supervisor forks, and forks again after it died."""

import gc
import logging
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from setproctitle import getproctitle, setproctitle

from rhai_tasks.errors import ConfigurationError

from .signals import STOP_SIGNALS, Signals

logger = logging.getLogger(__name__)

EXIT_CONFIGURATION = 2
"""Exit status of a child that would fail the same way if it were started again."""

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 10.0  # seconds; the first restart of a child does not wait
_STEADY_SECONDS = 30.0  # a child that lived longer restarts without backoff
_REASON_BYTES = 4096  # which a pipe takes whole


class Pipes:
    """The pipes that connect the supervisor with its children."""

    def __init__(self) -> None:
        # Only the supervisor has the write end, and nothing is written: end-of-file tells children that it is gone.
        self.alive, self._alive_write = os.pipe()
        # Children that cannot work with their settings all give the same reason. It is shown once.
        self._reasons, self._reasons_write = os.pipe()
        os.set_blocking(self._reasons, False)
        os.set_blocking(self._reasons_write, False)

    def enter_child(self) -> None:
        """Close what only the supervisor may hold."""
        os.close(self._alive_write)

    def write_reason(self, reason: str) -> None:
        """Tell the supervisor why this child cannot be started at all."""
        with suppress(BlockingIOError):  # full of the others' reasons
            os.write(self._reasons_write, reason.encode(errors="replace")[: _REASON_BYTES - 1] + b"\0")

    def read_reason(self) -> str:
        """Return the reason that a child gave first."""
        with suppress(BlockingIOError):
            if reasons := os.read(self._reasons, _REASON_BYTES):
                return reasons.partition(b"\0")[0].decode(errors="replace")
        return "a process cannot be started"


class ChildProcess:
    """A child of the supervisor, in all its lives.

    Args:
        name: In logs, reports and the process's title.
        run: What the process does; it returns to end it.
    """

    def __init__(self, name: str, run: Callable[[Signals], None]) -> None:
        self.name = name
        self._run = run
        self._pid: int | None = None  # `None`: it does not run
        self._started = 0.0  # time.monotonic(), as the next
        self._start_at = 0.0
        self._backoff = 0.0

    @property
    def is_running(self) -> bool:
        """Whether there is a process that has not been collected."""
        return self._pid is not None

    def seconds_to_start(self) -> float:
        """Return in how many seconds the child is to be started; zero or less: now."""
        return self._start_at - time.monotonic()

    def start(self, pipes: Pipes) -> None:
        """Fork the child. If the system refuses, the child is to be started later."""
        self._started = time.monotonic()
        with _stop_signals_blocked():
            try:
                pid = _fork()
            except OSError as error:  # no memory, or too many processes: that may pass, and other children go on
                self._start_later(f"could not be started ({error}); trying again")
                return
            if not pid:
                self._run_forked(pipes)
        self._pid = pid
        logger.debug("Started %s as process %d", self.name, pid)

    def collect(self) -> int | None:
        """Collect the process if it has ended; return its exit code, -N for signal N, or `None` if there is none."""
        if self._pid is None:
            return None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._pid = None
        return os.waitstatus_to_exitcode(status)

    def restart(self, code: int) -> None:
        """Have the child started again after it ended with this exit code: at once, or after a backoff."""
        if time.monotonic() - self._started > _STEADY_SECONDS:
            self._backoff = 0.0
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        self._start_later(f"died ({how}); starting it again")

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process, if it runs."""
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def kill(self) -> None:
        """Kill the process, if it runs, and collect it."""
        self.send(signal.SIGKILL)
        if self._pid is not None:
            os.waitpid(self._pid, 0)
            self._pid = None

    def private_bytes(self) -> int:
        """Measure the resident memory that the process shares with no file; 0 if it does not run.

        This reads one short file of /proc. psutil's USS walks all mappings, which is too slow for ten times a second.
        """
        if self._pid is None:
            return 0
        try:
            _, resident, shared, *_ = Path(f"/proc/{self._pid}/statm").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return (int(resident) - int(shared)) * resource.getpagesize()

    def _start_later(self, why: str) -> None:
        self._start_at = time.monotonic() + self._backoff
        logger.error("The %s process %s in %.1f s", self.name, why, self._backoff)
        self._backoff = min(max(self._backoff * 2, _FIRST_BACKOFF), _LONGEST_BACKOFF)

    def _run_forked(self, pipes: Pipes) -> NoReturn:
        """Do the child's work, and end it without the exit handlers of the parent."""
        pipes.enter_child()
        code = 1
        gc.freeze()  # the collector need not read again and again what the parent had before the fork
        setproctitle(f"{getproctitle()} [{self.name}]")
        try:
            with Signals(signal.SIGTERM, signal.SIGUSR1, parent=pipes.alive) as signals:
                # Ctrl-C reaches the whole group. The supervisor passes it on; a second one would mean "at once".
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)  # so does a terminal's end
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
                self._run(signals)
            code = 0
        except ConfigurationError as error:
            pipes.write_reason(str(error))
            code = EXIT_CONFIGURATION
        except BaseException:
            logger.exception("The %s process failed", self.name)
        finally:
            logging.shutdown()
            os._exit(code)


@contextmanager
def _stop_signals_blocked() -> Iterator[None]:
    """Hold back signals: a fork without handlers of its own would write them to its parent's pipe."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _fork() -> int:
    with warnings.catch_warnings():
        # Python 3.12 warns of each thread. The only one is the log's writer, of which the child uses nothing.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()
