"""The process tree of a drop-in worker: a bridge and its dramatiq workers, each restarted alone when it dies.

Unlike dramatiq's master, which stops everything when one child crashes: scripts are guests, and a guest
that takes its process down must not take the others'.
"""

import gc
import logging
import os
import resource
import selectors
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self
from uuid import uuid4

import redis
from setproctitle import getproctitle, setproctitle

from rhai_tasks.broker import INTERRUPT_SECONDS
from rhai_tasks.connection import connect
from rhai_tasks.engine import MIB, Engine
from rhai_tasks.errors import ConfigurationError, ServerUnavailable
from rhai_tasks.metrics import Samples
from rhai_tasks.notify import Notifier
from rhai_tasks.reports import Reporter, Reports, reports_of_tree
from rhai_tasks.settings import Settings
from rhai_tasks.worker import await_servers, make_worker

from .loop import Bridge, CircleBridge
from .queues import Queues

logger = logging.getLogger(__name__)

_EXIT_CONFIGURATION = 2  # of a child: starting it again would not help
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.1, 10.0  # seconds before a child that died, or could not be started, is started
_STEADY_SECONDS = 30.0  # a child that lived so long starts again without backoff
_WATCH_SECONDS = 0.1  # between two looks at the children's memory, if it is limited
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Signals as events to wait for: no code of ours runs in the middle of other code."""

    def __init__(self, *wanted: signal.Signals, ends: int | None = None) -> None:
        """`ends`: a file descriptor whose end counts as SIGHUP: the parent is gone."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._read, selectors.EVENT_READ)
        self._ends = ends
        if ends is not None:
            self._selector.register(ends, selectors.EVENT_READ)
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
        """Return the signals that came, none if `timeout` seconds passed without any."""
        came: set[int] = set()
        for key, _ in self._selector.select(timeout):
            if key.fd == self._ends:
                self._selector.unregister(key.fd)
                came.add(signal.SIGHUP)
            else:
                came.update(os.read(self._read, 4096))
        return came


@dataclass
class _Child:
    name: str
    run: Callable[[Signals], None]
    pid: int = 0  # 0: not running
    started: float = 0.0
    backoff: float = 0.0
    start_at: float = 0.0


def supervise(settings: Settings, circle: str, make_engine: Callable[[], Engine]) -> int:
    """Run one circle's bridge and workers until SIGTERM or SIGINT; return the exit status.

    A first signal lets running scripts finish, a second one does not wait. Afterwards whatever has not
    finished is back in the native list, in its order.

    Raises:
        ConfigurationError: The server cannot be worked with.
    """
    processes = ["bridge", *(f"worker {number}" for number in range(1, settings.processes + 1))]
    with Signals(*_STOP_SIGNALS, signal.SIGCHLD) as signals, _watched(settings, processes) as watch:
        tree = _Tree(settings, circle, make_engine, processes, watch)
        with tree.monitored():  # first of all: whether we live is asked for while the server is away, too
            if not _server_is_there(settings, signals, watch.notifier):
                return 0
            return tree.run(signals)


def bridge_circles(settings: Settings, circles: Iterable[str], *, follow_all: bool) -> int:
    """Run a bridge alone until SIGTERM or SIGINT; return the exit status.

    Raises:
        ConfigurationError: The server cannot be worked with.
    """
    with Signals(*_STOP_SIGNALS) as signals, _watched(settings, ["bridge"]) as watch:
        bridge = Bridge(settings)
        if watch.serve:
            watch.serve(Queues.sampling(settings, bridge.circles))
        if _server_is_there(settings, signals, watch.notifier):
            _bridge(bridge, circles, signals, watch.reports, watch.notifier, follow_all=follow_all)
    return 0


@dataclass(frozen=True)
class _Watch:
    """How a tree is watched from outside; nothing, if nobody wants to."""

    reports: Reports | None = None
    serve: Callable[[Samples], None] | None = None  # answers at the port, from this process or a fork of it
    notifier: Notifier | None = None


@contextmanager
def _watched(settings: Settings, processes: list[str]) -> Iterator[_Watch]:
    """Make ready what the options, and systemd, want of a tree of these processes.

    Raises:
        ConfigurationError: `--metrics-address` cannot be had.
    """
    wanted = settings.metrics_address is not None or Notifier.is_wanted()
    with reports_of_tree(processes, wanted=wanted) as reports:
        if reports is None:
            yield _Watch()
            return
        notifier = Notifier(reports) if Notifier.is_wanted() else None
        if settings.metrics_address is None:
            yield _Watch(reports, None, notifier)
            return
        from rhai_tasks import monitor  # noqa: PLC0415  (takes as long to import as a tenth of all else)

        with monitor.listen(settings.metrics_address) as listener:
            yield _Watch(reports, partial(monitor.serve, listener, reports), notifier)


def _server_is_there(settings: Settings, signals: Signals, notifier: Notifier | None) -> bool:
    """Wait for the server; say whether it came before a signal to stop."""
    give_up = threading.Event()
    failures: list[Exception] = []

    def wait() -> None:
        try:
            await_servers(settings, give_up)
        except (ConfigurationError, ServerUnavailable, redis.RedisError) as error:
            failures.append(error)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    while waiting.is_alive():
        waiting.join(0.002)
        if waiting.is_alive() and signals.wait(0.02).intersection(_STOP_SIGNALS):
            give_up.set()
        if notifier:
            notifier.tell()
    for failure in failures:
        if isinstance(failure, ConfigurationError):
            raise failure
    return not failures


def _bridge(
    bridge: Bridge,
    circles: Iterable[str],
    signals: Signals,
    reports: Reports | None,
    notifier: Notifier | None = None,
    *,
    follow_all: bool = False,
) -> None:
    with Reporter(reports, "bridge", bridge.readiness) if reports else nullcontext():
        for circle in circles:
            bridge.serve(circle)
        if follow_all:
            bridge.serve_all()
        while not signals.wait(notifier.pause if notifier else None):
            if notifier:
                notifier.tell()
        if notifier:
            notifier.stopping()
        bridge.stop()


class _Tree:
    """The supervisor's view of its children. It keeps no connection and no thread, so that it can fork at any time."""

    def __init__(
        self, settings: Settings, circle: str, make_engine: Callable[[], Engine], processes: list[str], watch: _Watch
    ) -> None:
        self._settings, self._circle, self._make_engine = settings, circle, make_engine
        self._watch = watch
        bridge, *workers = processes
        # A child that takes a dead one's place takes its name too, and with it what that one held.
        self._broker_ids = [f"{uuid4()}.{number}" for number in range(settings.processes)]
        self._monitor = _Child("monitor", self._run_monitor)
        self._children = [_Child(bridge, self._run_bridge)]
        for name, broker_id in zip(workers, self._broker_ids, strict=True):
            self._children.append(_Child(name, partial(self._run_worker, name, broker_id)))
        # The read end is at its end for children once the supervisor, which alone writes, is gone.
        self._alive_read, self._alive_write = os.pipe()

    @contextmanager
    def monitored(self) -> Iterator[None]:
        """Have a child serve the port, if there is one: from before all others start until after they have ended."""
        if not self._watch.serve:
            yield
            return
        self._start(self._monitor)
        self._children.append(self._monitor)
        try:
            yield
        finally:
            self._children.remove(self._monitor)
            if self._monitor.pid:
                os.kill(self._monitor.pid, signal.SIGKILL)
                os.waitpid(self._monitor.pid, 0)

    def run(self, signals: Signals) -> int:
        while True:
            if self._reap(stopping=False) == _EXIT_CONFIGURATION:
                self._stop(signals)
                return _EXIT_CONFIGURATION
            now = time.monotonic()
            for child in self._children:
                if not child.pid and child.start_at <= now:
                    self._start(child)
            due = [child.start_at - time.monotonic() for child in self._children if not child.pid]
            if self._settings.memory_limit:
                self._limit_memory()
                due.append(_WATCH_SECONDS)
            if self._watch.notifier:
                self._watch.notifier.tell()
                due.append(self._watch.notifier.pause)
            if signals.wait(max(min(due), 0) if due else None).intersection(_STOP_SIGNALS):
                self._stop(signals)
                return 0

    # --- what children do

    def _run_monitor(self, signals: Signals) -> None:
        assert self._watch.serve  # noqa: S101  (else there is no monitor)
        self._watch.serve(Queues.sampling(self._settings, lambda: [self._circle]))
        while signal.SIGHUP not in signals.wait():
            pass  # a terminal's Ctrl-C is for all; how the others end is to be seen

    def _run_bridge(self, signals: Signals) -> None:
        _bridge(Bridge(self._settings), [self._circle], signals, self._watch.reports)

    def _run_worker(self, name: str, broker_id: str, signals: Signals) -> None:
        broker, worker = make_worker(self._settings, self._make_engine(), broker_id=broker_id)
        broker.declare_circle(self._circle)
        reports = self._watch.reports
        with Reporter(reports, name, broker.readiness, broker.counts, broker.gauges) if reports else nullcontext():
            worker.start()
            hurry = signal.SIGHUP in signals.wait()
            patience = int((self._settings.shutdown_timeout + INTERRUPT_SECONDS) * 1000)
            stopping = threading.Thread(target=worker.stop, args=(patience,), daemon=True)
            stopping.start()
            while stopping.is_alive():
                if hurry:
                    broker.interrupt()
                stopping.join(0.02)
                hurry = bool(signals.wait(0)) or hurry

    # --- how they are looked after

    def _start(self, child: _Child) -> None:
        child.started = time.monotonic()
        try:
            child.pid = os.fork()
        except OSError as error:  # no memory, or too many processes: the others go on, and it may pass
            self._start_later(child, f"could not be started ({error}); trying again")
            return
        if not child.pid:
            os.close(self._alive_write)
            _run_child(child, self._alive_read)
        logger.debug("Started %s as process %d", child.name, child.pid)

    def _reap(self, *, stopping: bool) -> int:
        """Collect children that ended; return the exit status of one that must not be started again, else 0."""
        for child in self._children:
            if not child.pid:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            child.pid = 0
            code = os.waitstatus_to_exitcode(status)
            if stopping:
                continue
            if code == _EXIT_CONFIGURATION:
                return code
            lived = time.monotonic() - child.started
            child.backoff = 0.0 if lived > _STEADY_SECONDS else child.backoff
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
            self._start_later(child, f"died ({how}); starting it again")
        return 0

    def _start_later(self, child: _Child, why: str) -> None:
        child.start_at = time.monotonic() + child.backoff
        logger.error("The %s process %s in %.1f s", child.name, why, child.backoff)
        child.backoff = min(max(child.backoff * 2, _FIRST_BACKOFF), _LONGEST_BACKOFF)

    def _limit_memory(self) -> None:
        """Kill a child that holds too much; a limit from inside would fail whoever asks next, guilty or not."""
        for child in self._children:
            if child.pid and (held := _private_bytes(child.pid)) > self._settings.memory_limit:
                logger.error(
                    "The %s process holds %d MiB, more than --memory-limit %d: killing it, its tasks run again",
                    child.name,
                    held // MIB,
                    self._settings.memory_limit // MIB,
                )
                os.kill(child.pid, signal.SIGKILL)

    def _stop(self, signals: Signals) -> None:
        logger.info("Stopping: running scripts have %g s to finish", self._settings.shutdown_timeout)
        if self._watch.notifier:
            self._watch.notifier.stopping()
        self._signal_children(signal.SIGTERM)
        end = time.monotonic() + self._settings.shutdown_timeout + 2 * INTERRUPT_SECONDS
        self._reap(stopping=True)
        while any(child.pid for child in self._children if child is not self._monitor) and time.monotonic() < end:
            if signals.wait(min(0.5, max(end - time.monotonic(), 0))).intersection(_STOP_SIGNALS):
                logger.warning("Stopping at once")
                self._signal_children(signal.SIGTERM)
                end = time.monotonic() + INTERRUPT_SECONDS
            self._reap(stopping=True)
        self._signal_children(signal.SIGKILL)  # whoever is stuck in a host function
        for child in self._children:
            if child.pid:
                os.waitpid(child.pid, 0)
                child.pid = 0
        self._give_back()

    def _signal_children(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid:
                with suppress(ProcessLookupError):
                    os.kill(child.pid, number)

    def _give_back(self) -> None:
        """Everything that the children left, in order: nobody of this tree runs it any more."""
        with connect(self._settings.redis_url) as client:
            try:
                CircleBridge(self._settings, self._circle, client).give_back(held_by=self._broker_ids)
            except redis.RedisError as error:
                logger.warning("Redis does not answer; what was not finished comes back by its lease: %s", error)


def _private_bytes(pid: int) -> int:
    """Measure the resident memory of a child that it shares with nobody's files; 0 if it has ended."""
    try:
        _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return (int(resident) - int(shared)) * resource.getpagesize()


def _run_child(child: _Child, alive: int) -> NoReturn:
    """Run in a fork, and leave without the parent's exit handlers."""
    code = 1
    gc.freeze()  # what there was before the fork stays, and need not be looked through again and again
    setproctitle(f"{getproctitle()} [{child.name}]")
    try:
        with Signals(signal.SIGTERM, ends=alive) as signals:
            # Ctrl-C reaches the whole group. The supervisor passes it on; heard twice, it would mean "at once".
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            child.run(signals)
        code = 0
    except ConfigurationError as error:
        logger.error("%s", error)  # noqa: TRY400  (one line is enough: it says what to do)
        code = _EXIT_CONFIGURATION
    except BaseException:
        logger.exception("The %s process failed", child.name)
    finally:
        logging.shutdown()
        os._exit(code)
