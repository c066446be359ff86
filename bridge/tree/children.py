"""What each process of a tree does: the bridge, a worker, the monitor."""

import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from bridge.bridge import Bridge
from rhai_tasks.engine import Engine
from rhai_tasks.observe.recorder import Recorder
from rhai_tasks.observe.reports import Reporter, Reports
from rhai_tasks.observe.systemd import Notifier
from rhai_tasks.policy import PolicyFile
from rhai_tasks.queue.life import INTERRUPT_SECONDS
from rhai_tasks.settings import Settings
from rhai_tasks.worker.make import make_worker

from .signals import Signals

_HURRY_SECONDS = 0.02  # between two checks of a stopping worker for a signal that says not to wait


@dataclass(frozen=True)
class Monitoring:
    """How a tree is watched from outside. A part that nobody asked for is `None`."""

    reports: Reports | None = None
    serve: Callable[[Callable[[], Sequence[str]]], None] | None = None
    """Answers at the port, from this process or a fork of it; takes the function that lists the circles."""
    notifier: Notifier | None = None


@dataclass(frozen=True)
class Children:
    """The work of one circle's tree. Each method is one process's, and runs until a signal ends it."""

    settings: Settings
    circle: str
    make_engine: Callable[[], Engine]
    monitoring: Monitoring
    policy: PolicyFile | None = None
    burst: bool = False

    def monitor(self, signals: Signals) -> None:
        """Answer at the port. Only the end of the supervisor ends this: the end of the others is to be seen."""
        assert self.monitoring.serve  # noqa: S101  (without a port there is no monitor)
        self.monitoring.serve(lambda: [self.circle])
        while signal.SIGHUP not in signals.wait():
            pass  # a terminal's Ctrl-C reaches all processes

    def bridge(self, signals: Signals) -> None:
        """Bridge the circle; in a burst, end the tree once no task is left."""
        if self.burst:
            from .burst import stop_when_done  # noqa: PLC0415  (needs much that no other worker does)

            stop_when_done(self.settings, self.circle)
        run_bridge(Bridge(self.settings), [self.circle], signals, self.monitoring.reports)

    def worker(self, name: str, broker_id: str, signals: Signals) -> None:
        """Run the circle's tasks. After a signal running scripts may finish; a second signal interrupts them.

        Args:
            name: Name of the process in reports.
            broker_id: Under which the process holds messages.
            signals: End it; SIGHUP does not wait for scripts. SIGUSR1 makes it read the policy again.
        """
        broker, worker = make_worker(self.settings, self.make_engine(), broker_id=broker_id, policy=self.policy)
        broker.declare_circle(self.circle)
        reports = self.monitoring.reports
        with Reporter(reports, name, broker.recorder) if reports else nullcontext():
            worker.start()
            while (came := signals.wait()) == {signal.SIGUSR1} and self.policy:
                self.policy.reload()
            hurry = signal.SIGHUP in came
            patience = int((self.settings.shutdown_timeout + INTERRUPT_SECONDS) * 1000)  # dramatiq's milliseconds
            stopping = threading.Thread(target=worker.stop, args=(patience,), daemon=True)
            stopping.start()
            while stopping.is_alive():
                if hurry:
                    broker.interrupt()
                stopping.join(_HURRY_SECONDS)
                hurry = bool(signals.wait(0) - {signal.SIGUSR1}) or hurry


def run_bridge(
    bridge: Bridge,
    circles: Iterable[str],
    signals: Signals,
    reports: Reports | None,
    notifier: Notifier | None = None,
    *,
    follow_all: bool = False,
) -> None:
    """Serve circles until a signal comes, and report how that goes.

    Args:
        bridge: Serves no circle yet.
        circles: The ones to serve from the start.
        signals: End it.
        reports: Where to report; `None` if nothing monitors the tree.
        notifier: Tells systemd; `None` if another process does, or none.
        follow_all: Serve every circle, once its native list exists.
    """
    with Reporter(reports, "bridge", Recorder(bridge.readiness)) if reports else nullcontext():
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
