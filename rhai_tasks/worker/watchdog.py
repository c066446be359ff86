"""Ends the process of a script that nothing else stops, in a host function or in one operation of the engine."""

import logging
import os
import time

import dramatiq
from dramatiq import Middleware

from .broker import INTERRUPT_SECONDS, TaskBroker
from .protocol import failed
from .store import Held
from .threads import vital_thread

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""For a script to stop after its time limit, or after it was cancelled."""

_ENDED = f"it did not stop within {GRACE_SECONDS:g} s, and its process was ended"

_LOOK_SECONDS = 0.5


class Watchdog(Middleware):
    """Records the end of a script that does not stop, and ends the process, because nothing less ends the script.

    The process's other scripts have as long to finish as when a worker stops. What has not finished goes back, and is
    not suspected of a death.

    Args:
        timeout: Seconds that a script has; `None`: only cancelled ones must stop.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._late: dict[Held, float] = {}  # that should have stopped, and since when we know: time.monotonic()

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        """Start watching; dramatiq calls this."""
        assert isinstance(broker, TaskBroker)  # noqa: S101  (only to such is it added)
        vital_thread("watchdog", lambda: self._watch(broker)).start()

    def _watch(self, broker: TaskBroker) -> None:
        end = float("inf")  # time.monotonic() by which the process ends, once a script has not stopped
        while not broker.stopping.wait(_LOOK_SECONDS):
            now = time.monotonic()
            for held, why in self._overdue(_running(broker), now):
                end = min(end, now + broker.settings.shutdown_timeout)
                _record(broker, held, why)
            if broker.store.ending() or end == float("inf"):
                continue  # first of all, what has ended must not run again
            if now >= end or not _running(broker):
                _end_process(broker)

    def _overdue(self, running: list[Held], now: float) -> list[tuple[Held, str]]:
        """Return the scripts that should have stopped long ago, and why.

        It counts from when that was seen: a process that was frozen must not judge at once.
        """
        why = {held: reason for held in running if (reason := self._why_to_stop(held, now))}
        self._late = {held: self._late.get(held, now) for held in why}
        return [(held, why[held]) for held, since in self._late.items() if now > since + GRACE_SECONDS]

    def _why_to_stop(self, held: Held, now: float) -> str:
        if self._timeout and now > (held.started or now) + self._timeout:
            return f"time limit of {self._timeout:.15g} s exceeded"
        return "cancelled" if held.cancel.cancelled and not held.interrupted else ""


def _running(broker: TaskBroker) -> list[Held]:
    return [held for held in broker.all_held() if held.started is not None and held.outcome is None]


def _record(broker: TaskBroker, held: Held, why: str) -> None:
    logger.error("The script does not stop (%s): this process fetches no more, and ends", why, extra=held.about())
    broker.draining.set()
    broker.store.finish(
        held,
        failed(f"Script terminated: {why}; {_ENDED}", kind="Timeout"),
        at_once=False,
    )


def _end_process(broker: TaskBroker) -> None:
    """Give back what has not finished, and end."""
    broker.interrupt()
    end = time.monotonic() + INTERRUPT_SECONDS
    while _running(broker) and time.monotonic() < end:
        time.sleep(0.02)
    for held in broker.all_held():
        if held.outcome is None:
            broker.store.release(held)
    broker.store.close()
    logging.shutdown()
    os._exit(1)
