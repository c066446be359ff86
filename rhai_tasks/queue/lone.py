"""Runs lone tasks on the thread that has fetched them: waking another thread takes longer than a trivial script."""

import logging
import threading
import time
from typing import Any, cast

import dramatiq

from rhai_tasks.threads import vital_thread

from .consumer import TaskConsumer
from .context import QueueContext

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.005
_PATIENCE_SECONDS = 0.002  # after which a script is slow
_TICKS = 10  # without a lone task, until the watch sleeps


class LoneRuns:
    """Runs lone tasks on their consumer's thread, as long as scripts are quick.

    One thread, the watch, polls every 5 ms for a script that turns out to be slow, and then consumes in place of the
    consumer's thread. It sleeps once no lone task has come for 50 ms: until then, no task has to wake it.

    Args:
        context: The broker's.
        worker: dramatiq's, whose consumers these are.
    """

    def __init__(self, context: QueueContext, worker: dramatiq.Worker) -> None:
        self._context, self._worker = context, worker
        self._running: tuple[float, Any] | None = None  # time.monotonic() at which it began, and the message
        self._begun = 0  # ever
        self._wake, self._asleep = threading.Event(), True
        self._thread = vital_thread("lone-tasks", self._watch)

    def start(self) -> None:
        """Start the watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the watch; `stopping` has been set."""
        self._wake.set()
        self._thread.join()

    def takes(self, item: Any) -> bool:
        """Whether an item of dramatiq's queue is to be run on the thread that has fetched it."""
        return bool(item.message.lone and self._worker.workers)  # consumers start before the others

    def run(self, item: Any) -> None:
        """Run an item; its consumer's thread calls this."""
        message = item.message
        self._running = (time.monotonic(), message)
        self._begun += 1
        if self._asleep:
            self._wake.set()
        try:
            self._worker.workers[0].process_message(message)  # of its thread it uses nothing
        finally:
            self._running = None

    def _watch(self) -> None:
        stopping = self._context.stopping
        while not stopping.is_set():
            self._asleep = True  # before the check, so that no run that begins later takes us for awake
            if self._running is None:
                self._wake.wait()
            self._wake.clear()
            self._asleep = False
            begun, left = self._begun, _TICKS
            while left and not stopping.is_set():
                time.sleep(_TICK_SECONDS)
                running = self._running
                if running is not None and time.monotonic() - running[0] > _PATIENCE_SECONDS:
                    self._consume_beside(running)
                left = left - 1 if begun == self._begun else _TICKS
                begun = self._begun

    def _consume_beside(self, running: tuple[float, Any]) -> None:
        """Consume a queue while its own thread runs a script."""
        thread = self._worker.consumers[running[1].queue_name]
        try:
            while self._running is running and not self._context.stopping.is_set():
                message = next(cast("TaskConsumer", thread.consumer))
                if message is not None:
                    message.lone = False
                    thread.handle_message(message)
        except Exception:  # the consumer's own thread raises it too, after the script, and restarts the consumer
            logger.exception("Consuming beside a slow script failed")
            while self._running is running and not self._context.stopping.is_set():
                time.sleep(_TICK_SECONDS)
