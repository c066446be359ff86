"""The process tree of a drop-in worker: a bridge and its dramatiq workers. A process that dies is restarted alone.

dramatiq's own master stops everything when one child crashes. Here scripts are guests: one that takes its process down
must not take the others down.
"""

import logging
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import redis

from bridge.bridge import Bridge
from rhai_tasks.engine import Engine
from rhai_tasks.errors import ServerUnavailable
from rhai_tasks.observe.reports import reports_of_tree
from rhai_tasks.observe.systemd import Notifier
from rhai_tasks.policy import read_policy
from rhai_tasks.settings import Settings
from rhai_tasks.worker.make import await_servers

from .children import Children, Monitoring, run_bridge
from .signals import STOP_SIGNALS, Signals
from .tree import Tree

logger = logging.getLogger(__name__)


def supervise(settings: Settings, circle: str, make_engine: Callable[[], Engine], *, burst: bool = False) -> int:
    """Run one circle's bridge and workers until SIGTERM or SIGINT; return the exit status.

    With `burst`, also until the circle has no task left.

    After a first signal running scripts may finish; a second one interrupts them. Then all tasks that have not finished
    are back in the native list, in their order.

    With a policy, SIGHUP has all workers read its file again, if the file can be used.

    Raises:
        ConfigurationError: The server or the policy cannot be used, or no process can be started with these settings.
    """
    policy = read_policy(settings.policy)
    wanted = [*STOP_SIGNALS, signal.SIGCHLD]
    if policy:
        wanted.append(signal.SIGHUP)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # a child that has just been forked has read the file already
    processes = ["bridge", *(f"worker {number}" for number in range(1, settings.processes + 1))]
    with Signals(*wanted) as signals, _monitored(settings, processes) as monitoring:
        tree = Tree(Children(settings, circle, make_engine, monitoring, policy, burst), processes)
        with tree.monitored():  # before the wait: health checks need an answer while the server is away, too
            if not _server_is_there(settings, signals, monitoring.notifier):
                return 0
            return tree.run(signals)


def bridge_circles(settings: Settings, circles: Iterable[str], *, follow_all: bool) -> int:
    """Run a bridge alone until SIGTERM or SIGINT; return the exit status.

    Raises:
        ConfigurationError: The server cannot be used.
    """
    with Signals(*STOP_SIGNALS) as signals, _monitored(settings, ["bridge"]) as monitoring:
        bridge = Bridge(settings)
        if monitoring.serve:
            monitoring.serve(bridge.circles)
        if _server_is_there(settings, signals, monitoring.notifier):
            run_bridge(bridge, circles, signals, monitoring.reports, monitoring.notifier, follow_all=follow_all)
    return 0


@contextmanager
def _monitored(settings: Settings, processes: list[str]) -> Iterator[Monitoring]:
    """Open what monitors a tree of these processes, if the options or systemd ask for it.

    Raises:
        ConfigurationError: The address of `--metrics-address` is not free, or not of this machine.
    """
    wanted = settings.metrics_address is not None or Notifier.is_wanted()
    with reports_of_tree(processes, wanted=wanted) as reports:
        if reports is None:
            yield Monitoring()
            return
        notifier = Notifier(reports) if Notifier.is_wanted() else None
        if settings.metrics_address is None:
            yield Monitoring(reports, None, notifier)
            return
        # Only if they are asked for: these take a fifth of the time of all imports.
        from rhai_tasks.observe import monitor  # noqa: PLC0415
        from rhai_tasks.operate.queues import queue_samples  # noqa: PLC0415

        with monitor.listen(settings.metrics_address) as listener:
            yield Monitoring(
                reports, lambda circles: monitor.serve(listener, reports, queue_samples(settings, circles)), notifier
            )


def _server_is_there(settings: Settings, signals: Signals, notifier: Notifier | None) -> bool:
    """Wait until the server answers; return False if a signal to stop comes first.

    The thread that asks the server stays, asleep. As a thread ends, after Python regards it as ended, OpenSSL takes a
    lock: a process that is forked at that moment could make no further TLS connection.
    """
    give_up, answered = threading.Event(), threading.Event()
    failures: list[Exception] = []

    def wait() -> None:
        try:
            await_servers(settings, give_up)
        except Exception as error:  # raised below: in this thread it would be lost
            failures.append(error)
        answered.set()
        threading.Event().wait()

    threading.Thread(target=wait, name="server", daemon=True).start()
    while not answered.wait(0.02):  # not in `signals.wait`: the answer is to end the wait at once
        if signals.wait(0).intersection(STOP_SIGNALS):
            give_up.set()
        if notifier:
            notifier.tell()
    for failure in failures:
        if not isinstance(failure, ServerUnavailable | redis.RedisError):
            raise failure
    return not failures and not give_up.is_set()
