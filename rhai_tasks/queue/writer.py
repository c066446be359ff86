"""The status writer: every write of a task's state, by one writer for the whole process.

Worker threads hand endings over and go on; all that has gathered is written in one step, at once when the worker is
otherwise idle. Each write is fenced: it is done only while this broker still holds the message, so a worker that was
thought dead cannot overwrite what its successor wrote.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import redis

from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.outage import retry_until_answered
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.observe.metrics import WRITE_RETRIES
from rhai_tasks.threads import vital_thread

from .batch import RunBatch
from .context import QueueContext
from .delivery import Delivery, no_acknowledgement
from .endings import LARGE_BYTES, Dead, Finished, Released, Written
from .run import Run
from .running import Running
from .writes import DeadWrite, FinishedWrite, HoldAgain, PendingReleases, ProcessingMark, Refusals, ReleasedWrite

logger = logging.getLogger(__name__)

MARK_AFTER = 0.005
"""Seconds after which a running script is marked `processing`; one that ends sooner goes straight to its end.

Also the longest that an outcome waits for others to be written with it while the worker is busy.
"""

_FLUSH_BYTES = 4 * 1024 * 1024  # of outputs in one script call: the server does nothing else meanwhile
_CLOSE_SECONDS = 5.0  # of a stopping worker, for a server that is away; then leases bring its tasks back


class StatusWriter:
    """Marks tasks `processing`, and writes their endings.

    Threads: any calls `begin`, `finish`, `release`, `dead_letter`; one of them at a time writes.

    Args:
        context: The broker's.
        hold_again: Holds deliveries again whose place on the server somebody has deleted.
    """

    def __init__(self, context: QueueContext, hold_again: HoldAgain) -> None:
        settings = context.settings
        self._context, self._outage = context, context.outage
        self._details_prefix = settings.prefixes.details
        self._client = connect(settings.redis_url, outage=context.outage)
        self._deliver_script = load_script(self._client, __package__, "deliver", settings.table)
        self._processing = ProcessingMark(context, self._client)
        self._finished = FinishedWrite(context, self._client, hold_again)
        self._releases = PendingReleases()
        self._writes: dict[type[Written], Callable[[Any], Refusals]] = {
            Finished: self._finished,
            Released: ReleasedWrite(context, self._client, self._releases),
            Dead: DeadWrite(context, self._client),
        }
        self.running = Running()
        """The scripts that run now."""
        self._ended: deque[Written] = deque()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._asleep = True
        self._closing = threading.Event()
        self._give_up = threading.Event()
        self._thread = vital_thread("status-writer", self._run)

    def start(self) -> None:
        """Start the writer's thread."""
        self._thread.start()

    def stop(self) -> None:
        """Write the endings that are left and stop; after some seconds without a server, leave them to the lease."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_SECONDS)
        self._give_up.set()
        self._thread.join()
        self._client.close()

    # --- called by worker threads and others

    def begin(self, run: Run) -> None:
        """Note that this thread runs the task's script from now on."""
        run.started = time.monotonic()
        self.running.begin(run)
        if self._asleep and not run.marked:
            self._wake.set()

    def begin_batch(self, batch: RunBatch) -> None:
        """Note that this thread runs the scripts of a batch from now on."""
        self.running.begin(batch)
        if self._asleep:
            self._wake.set()

    def count_crash(self, delivery: Delivery) -> bool:
        """Count a crash of this delivery before the script can end the process; wait until the server has done it.

        Outcomes are written first: a task that has ended must not end with the process, and count a crash.
        `False`: the message is another broker's by now.
        """
        with self._writing:
            self._flush_once()
        keys = delivery.keys
        call = partial(
            self._deliver_script,
            keys=[keys.acks(self._context.broker_id), keys.deliveries, keys.bodies],
            args=[delivery.message_id, delivery.crashes + 1, self._details_prefix],
        )
        return bool(retry_until_answered(call, self._outage, self._give_up))

    def finish(self, *finished: Finished, at_once: bool) -> None:
        """Write outcomes. `at_once`: now, in this thread, unless another one is writing."""
        self.running.end()
        self._ended.extend(finished)
        if at_once and self._writing.acquire(blocking=False):
            try:
                self._flush_once()
            finally:
                self._writing.release()
        if self._ended and self._asleep:
            self._wake.set()

    def release(self, released: Released) -> None:
        """Put the message back: its task is `pending` again, first in its queue, or last if postponed."""
        self._releases.add(released, self._hand_over)

    def cancel_release(self, message_id: str) -> None:
        """Drop the pending release of a message that this process has fetched again: it was back, or never gone."""
        self._releases.cancel(message_id)

    def dead_letter(self, dead: Dead) -> None:
        """Move the message to the dead letters: no hash can take an outcome."""
        logger.error("Task goes to the dead letters: %s", dead.error, extra=dead.delivery.about())
        self._hand_over(dead)

    def end(self, ending: Dead | Finished) -> None:
        """Write the ending of a message that no thread gets."""
        if isinstance(ending, Dead):
            self.dead_letter(ending)
        else:
            self._hand_over(ending)

    def _hand_over(self, ending: Written) -> None:
        self.running.end()
        self._ended.append(ending)
        if self._asleep:
            self._wake.set()

    def unwritten(self) -> set[str]:
        """Return the ids of messages whose endings are not written yet."""
        return {ending.delivery.message_id for ending in list(self._ended)}

    # --- the writer

    def _run(self) -> None:
        while True:
            self._asleep = True  # before the check, so that no thread that comes later takes us for awake
            if not self._ended and self.running.are_marked():
                if self._closing.is_set():
                    return
                self._wake.wait()
            self._wake.clear()
            self._asleep = False
            self._closing.wait(MARK_AFTER)
            try:
                retry_until_answered(self._write, self._outage, self._give_up)
            except redis.RedisError:
                logger.warning(
                    "Stopped without a server: %d results not written, these tasks run again",
                    len(self._ended),
                )
                return

    def _write(self) -> None:
        with self._writing:
            try:
                self._flush()
                self._mark()
            except redis.RedisError:
                self._count_retry()
                raise

    def _flush_once(self) -> None:
        """Write all endings; those that could not be written stay for the writer's thread."""
        try:
            self._flush()
        except redis.RedisError as error:
            self._outage.failed(error)
            self._count_retry()

    def _count_retry(self) -> None:
        self._context.recorder.counts.add(WRITE_RETRIES)

    def _flush(self) -> None:
        """Write all endings, in order; those that could not be written stay for the next try.

        Raises:
            redis.RedisError: The server does not answer, or refuses something; it has done all else if it answers.
        """
        left = len(self._ended)  # refused endings go behind these
        error: redis.RedisError | None = None
        while left:
            groups = [[self._ended[0]]] if left == 1 else _of_one_kind(_first(list(self._ended)[:left], _FLUSH_BYTES))
            for endings in groups:
                left -= len(endings)
                refusals = self._write_group(type(endings[0]), endings)
                for position, ending in enumerate(endings):
                    if position in refusals:
                        error = refusals[position]
                        self._ended.append(ending)  # before it leaves its place: `unwritten` must always name it
                    self._ended.popleft()
                    if ending.delivery.acknowledge is not no_acknowledgement and position not in refusals:
                        ending.delivery.acknowledge()
        if error:
            raise error

    def _write_group(self, kind: type[Written], endings: list[Written]) -> Refusals:
        try:
            return self._writes[kind](endings)
        except redis.RedisError as error:
            if len(endings) == 1 and isinstance(endings[0], Finished):
                self._ended[0] = self._finished.after_refusal(endings[0], error)
            raise

    def _mark(self) -> None:
        self.running.hand_over(MARK_AFTER)
        slow = self.running.unmarked(MARK_AFTER)
        if slow:
            self._processing(slow)


def _first(endings: Sequence[Written], limit: int) -> list[Written]:
    """Return the first endings, up to `limit` bytes of text, at least one.

    A large one is returned alone: a server may refuse it.
    """
    size = 0
    for number, ending in enumerate(endings):
        is_large = False
        if isinstance(ending, Finished):
            more = len(ending.outcome.text) if ending.is_simple else ending.size()
            is_large = more + len(ending.delivery.details.script or b"") > LARGE_BYTES
            if is_large and number:
                return list(endings[:number])
            size += more
        if size > limit or is_large:
            return list(endings[: number + 1])
    return list(endings)


def _of_one_kind(endings: Sequence[Written]) -> list[list[Written]]:
    """Part endings where the kind or the queue changes."""
    parts: list[list[Written]] = []
    last: Written | None = None
    for ending in endings:
        keys = ending.delivery.keys
        # Nearly always it is the same object, which costs no call.
        goes_on = type(ending) is type(last) and (keys is last.delivery.keys or keys == last.delivery.keys)
        if not goes_on:
            parts.append([])
        parts[-1].append(ending)
        last = ending
    return parts
