"""Keeps the processes of a tree running, and stops them."""

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from uuid import uuid4

import redis

from rhai_tasks.connection.connect import connect
from rhai_tasks.engine.limits import MIB
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.queue.life import INTERRUPT_SECONDS
from rhai_tasks.queue.native import give_back

from .children import Children
from .process import EXIT_CONFIGURATION, ChildProcess, Pipes
from .signals import STOP_SIGNALS, Signals

logger = logging.getLogger(__name__)

_MEMORY_SECONDS = 0.1  # between two checks of the children's memory, if it is limited
_STOP_CHECK_SECONDS = 0.5  # between two checks whether children have ended, though no signal says so


class Tree:
    """The supervisor's children: a bridge, workers, and a monitor if there is a port to serve.

    The supervisor can fork at any time: it keeps no connection, and no thread but the log's writer, of which a fork
    uses nothing.

    Args:
        work: What the children do.
        processes: Names of the bridge and of each worker.
    """

    def __init__(self, work: Children, processes: list[str]) -> None:
        self._settings, self._circle, self._monitoring = work.settings, work.circle, work.monitoring
        bridge, *workers = processes
        # A child that takes a dead one's place takes its broker id too, and with it the messages of the dead one.
        self._broker_ids = [f"{uuid4()}.{number}" for number in range(len(workers))]
        self._children = [ChildProcess(bridge, work.bridge)]
        for name, broker_id in zip(workers, self._broker_ids, strict=True):
            self._children.append(ChildProcess(name, partial(work.worker, name, broker_id)))
        self._workers = self._children[1:]
        self._policy = work.policy
        self._monitor = ChildProcess("monitor", work.monitor)
        self._pipes = Pipes()

    @contextmanager
    def monitored(self) -> Iterator[None]:
        """Have a child serve the port, if there is one: from before all others start until after they have ended."""
        if not self._monitoring.serve:
            yield
            return
        self._monitor.start(self._pipes)
        self._children.append(self._monitor)
        try:
            yield
        finally:
            self._children.remove(self._monitor)
            self._monitor.kill()

    def run(self, signals: Signals) -> int:
        """Start children, and those that died again, until a signal to stop; return the exit status.

        Raises:
            ConfigurationError: No child can be started with these settings.
        """
        try:
            while not (came := signals.wait(self._tend())).intersection(STOP_SIGNALS):
                if signal.SIGHUP in came and self._policy and self._policy.reload():
                    for worker in self._workers:
                        worker.send(signal.SIGUSR1)
        except ConfigurationError:
            self._stop(signals)
            raise
        logger.info("Stopping: running scripts have %g s to finish", self._settings.shutdown_timeout)
        self._stop(signals)
        return 0

    def _tend(self) -> float | None:
        """Start the children that are due, and check the others.

        Returns:
            In how many seconds to do that again; `None`: when a signal comes.
        """
        self._collect()
        for child in self._children:
            if not child.is_running and child.seconds_to_start() <= 0:
                child.start(self._pipes)
        pauses = [max(child.seconds_to_start(), 0) for child in self._children if not child.is_running]
        if self._settings.memory_limit:
            self._limit_memory()
            pauses.append(_MEMORY_SECONDS)
        if self._monitoring.notifier:
            self._monitoring.notifier.tell()
            pauses.append(self._monitoring.notifier.pause)
        return min(pauses, default=None)

    def _collect(self) -> None:
        """Collect children that have ended, to start them again."""
        for child in self._children:
            code = child.collect()
            if code == EXIT_CONFIGURATION:
                raise ConfigurationError(self._pipes.read_reason())
            if code is not None:
                child.restart(code)

    def _limit_memory(self) -> None:
        """Kill a child with too much memory. A limit inside it would fail any next allocation, guilty or not."""
        for child in self._children:
            if (held := child.private_bytes()) > self._settings.memory_limit:
                logger.error(
                    "The %s process holds %d MiB, more than --memory-limit %d: killing it, its tasks run again",
                    child.name,
                    held // MIB,
                    self._settings.memory_limit // MIB,
                )
                child.send(signal.SIGKILL)

    def _stop(self, signals: Signals) -> None:
        """Stop all children; kill those that take too long, such as one that is stuck in a host function."""
        if self._monitoring.notifier:
            self._monitoring.notifier.stopping()
        self._send(signal.SIGTERM)
        end = time.monotonic() + self._settings.shutdown_timeout + 2 * INTERRUPT_SECONDS
        while self._any_runs() and (left := end - time.monotonic()) > 0:
            if signals.wait(min(_STOP_CHECK_SECONDS, left)).intersection(STOP_SIGNALS):
                logger.warning("Stopping at once")
                self._send(signal.SIGTERM)
                end = time.monotonic() + INTERRUPT_SECONDS
        self._send(signal.SIGKILL)  # all of them before the wait for each
        for child in self._children:
            child.kill()
        self._give_back()

    def _any_runs(self) -> bool:
        """Collect children that have ended; say whether any is left, other than the monitor."""
        for child in self._children:
            child.collect()
        return any(child.is_running for child in self._children if child is not self._monitor)

    def _send(self, number: signal.Signals) -> None:
        for child in self._children:
            child.send(number)

    def _give_back(self) -> None:
        """Move all tasks that the children left to the native list, in order: nobody of this tree runs them now."""
        with connect(self._settings.redis_url) as client:
            try:
                give_back(client, self._settings, self._circle, held_by=self._broker_ids)
            except redis.RedisError as error:
                logger.warning("Redis does not answer; unfinished tasks run again when their leases end: %s", error)
