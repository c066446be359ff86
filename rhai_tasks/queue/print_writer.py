"""Writes what scripts print into the details of their tasks, while they run."""

import threading
from typing import Any

import redis

from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.threads import vital_thread

from .context import QueueContext
from .prints import Prints
from .run import Run

_WRITE_SECONDS = 0.1
"""Between two writes of what is new. If the process is killed, what was printed since the last write is lost."""
_WRITE_BYTES = 1024 * 1024  # of one task in one write: the server does nothing else meanwhile


class PrintWriter:
    """Writes what running scripts print.

    A write that fails is tried again; the outcome of a task brings all that is kept in any case. Threads: one of its
    own writes, which starts with the first script whose prints are kept; any calls `follow`.
    """

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._written: dict[Run, int] = {}  # bytes of each run that the server has
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def follow(self, run: Run, most: int) -> Prints:
        """Keep up to `most` bytes of what this run's script prints, until the run ends."""
        run.prints = Prints(most)
        self._written[run] = 0
        with self._starting:
            if self._thread is None:
                self._thread = vital_thread("prints", self._keep_writing)
                self._thread.start()
        return run.prints

    def _keep_writing(self) -> None:
        context = self._context
        with connect(context.settings.redis_url, outage=context.outage) as client:
            script = load_script(client, __package__, "prints", context.settings.table)
            while not context.stopping.wait(_WRITE_SECONDS):
                for run, written in list(self._written.items()):
                    if run.ending is not None:
                        del self._written[run]
                        continue
                    try:
                        self._write(script, run, written)
                    except redis.RedisError as error:
                        context.outage.failed(error)

    def _write(self, script: Any, run: Run, written: int) -> None:
        delivery, new = run.delivery, run.prints.after(written, _WRITE_BYTES) if run.prints else b""
        if not new:
            return
        context = self._context
        script(
            keys=[delivery.keys.acks(context.broker_id), delivery.details_key(context.settings.prefixes.details)],
            args=[delivery.message_id, delivery.submission, delivery.crashes + 1, written, new],
        )
        self._written[run] = written + len(new)
