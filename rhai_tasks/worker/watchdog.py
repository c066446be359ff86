"""Ends the process of a script that nothing else stops, in a host function or in one operation of the engine."""

import logging
import os
import time

import dramatiq
from dramatiq import Middleware

from rhai_tasks.protocol import failed
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.consumer import TaskConsumer
from rhai_tasks.queue.endings import Finished, Released
from rhai_tasks.queue.life import INTERRUPT_SECONDS
from rhai_tasks.queue.run import Run
from rhai_tasks.threads import vital_thread

logger = logging.getLogger(__name__)

GRACE_SECONDS = 5.0
"""How long a script may take to stop after its time limit, or after it was cancelled."""

_ENDED = f"it did not stop within {GRACE_SECONDS:g} s, and its process was ended"

_CHECK_SECONDS = 0.5


class Watchdog(Middleware):
    """Records an outcome for a script that does not stop, and ends the process: nothing less ends the script.

    The other scripts of the process have as long to finish as when a worker stops. Messages of those that have not
    finished are released, and not suspected of a crash.

    Args:
        timeout: Seconds that a script has; `None`: only cancelled scripts must stop.
    """

    def __init__(self, timeout: float | None) -> None:
        self._timeout = timeout
        self._late: dict[Run, float] = {}  # overdue runs, and since when that is known: time.monotonic()
        self._stuck: set[Run] = set()  # runs that only the end of the process ends

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Start the thread; dramatiq calls this."""
        assert isinstance(broker, TaskBroker)  # noqa: S101  (only to such is it added)
        vital_thread("watchdog", lambda: self._watch(broker, worker)).start()

    def _watch(self, broker: TaskBroker, worker: dramatiq.Worker) -> None:
        end = float("inf")  # time.monotonic() by which the process ends, once a script has not stopped
        while not broker.context.stopping.wait(_CHECK_SECONDS):
            now = time.monotonic()
            for run, why in self._overdue(self._unfinished(broker), now):
                end = min(end, now + broker.settings.shutdown_timeout)
                self._stuck.add(run)
                _record(broker, run, why)
            if broker.writer.unwritten() or end == float("inf"):
                continue  # tasks that have ended must not run again
            if now >= end or not self._unfinished(broker):
                self._end_process(broker, worker)

    def _unfinished(self, broker: TaskBroker) -> list[Run]:
        """Return the runs whose threads have not handed their ending over yet, also of lost messages."""
        broker.writer.running.runs()  # notes when runs of batches began; the writer may be waiting for the server
        return [run for run in broker.context.held.all() if run.started is not None and run not in self._stuck]

    def _overdue(self, running: list[Run], now: float) -> list[tuple[Run, str]]:
        """Return the runs that should have stopped long ago, and why.

        The time counts from when that was seen: a process that was frozen must not judge at once.
        """
        scripts = [run for run in running if run.ending is None or run.is_lost()]
        why = {run: reason for run in scripts if (reason := self._why_to_stop(run, now))}
        self._late = {run: self._late.get(run, now) for run in why}
        return [(run, why[run]) for run, since in self._late.items() if now > since + GRACE_SECONDS]

    def _why_to_stop(self, run: Run, now: float) -> str:
        timeout = run.own_timeout or self._timeout
        if timeout and now > (run.started or now) + timeout:
            whose = "the task's " if run.own_timeout else ""
            return f"{whose}time limit of {timeout:.15g} s exceeded"
        return "cancelled" if run.cancel.cancelled and not run.interrupted else ""

    def _end_process(self, broker: TaskBroker, worker: dramatiq.Worker) -> None:
        """Release messages of runs that have not ended, and end the process."""
        broker.interrupt()
        end = time.monotonic() + INTERRUPT_SECONDS
        while (self._unfinished(broker) or not _drained(worker)) and time.monotonic() < end:
            time.sleep(0.02)
        for run in broker.context.held.all():
            if run.ending is None:
                broker.writer.release(Released(run.delivery, crash_counted=run.crash_counted))
        broker.writer.stop()
        logging.shutdown()
        os._exit(1)


def _drained(worker: dramatiq.Worker) -> bool:
    """Return whether no fetch waits any more, and unblock those that do: their messages would count as fetched."""
    consumers = [thread.consumer for thread in worker.consumers.values() if isinstance(thread.consumer, TaskConsumer)]
    fetching = [consumer for consumer in consumers if not consumer.drained]
    for consumer in fetching:
        consumer.unblock()
    return not fetching


def _record(broker: TaskBroker, run: Run, why: str) -> None:
    logger.error(
        "The script does not stop (%s): this process fetches no more, and ends", why, extra=run.delivery.about()
    )
    broker.context.draining.set()
    run.finish(failed(f"Script terminated: {why}; {_ENDED}", kind="Timeout"))
    if isinstance(run.ending, Finished):  # else it was lost a moment ago
        broker.writer.finish(run.ending, at_once=False)
