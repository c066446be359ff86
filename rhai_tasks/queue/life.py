"""Starts and stops a broker's threads with its dramatiq worker."""

import threading
import time
from queue import SimpleQueue
from typing import Any

import dramatiq
from dramatiq import Middleware

from .cancels import Cancels
from .consumer import TaskConsumer
from .context import QueueContext
from .leases import Leases
from .list_watcher import ListWatcher
from .lone import LoneRuns
from .strays import Strays
from .writer import StatusWriter

INTERRUPT_SECONDS = 5.0
"""How long a stopping worker waits for interrupted scripts to end and be released."""


class WorkerLife(Middleware):
    """Starts and stops leases, status writer and the rest with a dramatiq worker, however that was started."""

    def __init__(
        self,
        context: QueueContext,
        writer: StatusWriter,
        leases: Leases,
        cancels: Cancels,
        strays: Strays,
        lists: ListWatcher,
    ) -> None:
        self._context, self._writer, self._leases = context, writer, leases
        self._cancels, self._strays, self._lists = cancels, strays, lists
        self._lone: LoneRuns | None = None

    def before_worker_boot(self, broker: Any, worker: dramatiq.Worker) -> None:
        """Start the threads beside those of the consumers."""
        context = self._context
        worker.work_queue = context.work_queue  # type: ignore[assignment]  # it has all that dramatiq calls
        context.recorder.threads = worker.worker_threads  # dramatiq's command has an option of its own
        context.work_queue.most = worker.worker_threads
        if not broker.has_thread_hooks():  # else an application's functions may run only on its worker threads
            self._lone = context.work_queue.lone = LoneRuns(context, worker)
            self._lone.start()
        self._writer.start()
        self._leases.start()
        self._strays.start(context.outage, context.stopping)
        self._cancels.start()

    def after_consumer_thread_boot(self, _: dramatiq.Broker, thread: Any) -> None:
        """Give dramatiq a delay queue that costs less."""
        thread.delay_queue = (
            SimpleQueue()
        )  # dramatiq checks it after each message, and this one says sooner that it is empty

    def before_worker_shutdown(self, _: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        """Fetch nothing more, and let running scripts end."""
        context = self._context
        context.readiness.stopping = True
        context.draining.set()
        for thread in worker.consumers.values():
            if isinstance(thread.consumer, TaskConsumer):
                thread.consumer.unblock()
        patience = threading.Timer(context.settings.shutdown_timeout, context.held.interrupt)
        patience.daemon = True
        patience.start()
        # dramatiq's own wait for all its threads subtracts the time that has passed once for each of them.
        end = time.monotonic() + context.settings.shutdown_timeout + INTERRUPT_SECONDS
        for running in worker.workers:
            running.stop()
        for running in worker.workers:
            running.join(max(end - time.monotonic(), 0))

    def after_worker_shutdown(self, _: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        """Write the ends that are left, give up the leases, and disconnect."""
        context = self._context
        context.stopping.set()
        if self._lone:
            self._lone.stop()
        self._lists.stop()
        self._writer.stop()
        self._leases.stop()
        if context.tracer:
            context.tracer.flush()
        self._leases.close()
        self._strays.stop()
        context.client.close()
