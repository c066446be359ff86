"""dramatiq's consumer: fetches messages with their tasks, and takes acknowledgements."""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import cast

import dramatiq
import redis
from dramatiq import MessageProxy

from rhai_tasks.protocol import QueueKeys, failed, to_text

from .batch import RunBatch
from .cancels import Cancels
from .context import QueueContext
from .delivery import Delivery
from .endings import Dead, Finished, Released
from .leases import Leases
from .message import TaskMessage, decode, message_of, read_task_id
from .reader import DeliveryReader
from .run import Run
from .sources import Source, Taken
from .writer import StatusWriter

logger = logging.getLogger(__name__)

_STUCK_SECONDS = 1.0  # after which prefetched messages that no thread takes are released: others may have a thread
_QUIET_PAUSE_SECONDS = 1.0
_ERROR_PAUSE_SECONDS = 0.5
_DRAINED_PAUSE_SECONDS = 0.05


class TaskConsumer(dramatiq.Consumer):
    """Fetches messages with their tasks; takes acknowledgements, and hands the endings to the status writer.

    Args:
        context: The broker's.
        keys: Of the queue.
        source: Where messages come from.
        leases: Of the broker.
        cancels: Of the broker.
        writer: Writes the endings.
        batch_size: Returns how many messages a thread gets at once.
        restarted: An earlier consumer of the queue failed; its messages still run.
    """

    def __init__(
        self,
        context: QueueContext,
        keys: QueueKeys,
        source: Source,
        leases: Leases,
        cancels: Cancels,
        writer: StatusWriter,
        batch_size: Callable[[], int],
        *,
        restarted: bool,
    ) -> None:
        self._context, self._leases, self._cancels, self._writer = context, leases, cancels, writer
        self._keys, self._queue, self._batch_size = keys, keys.queue, batch_size
        self.source, self._room = source, source.room
        self._reader = DeliveryReader(context, keys)
        self._fetched: deque[TaskMessage] = deque()
        self._reading = threading.Lock()  # another thread reads while the consumer's own runs a slow script
        self._recovered = restarted
        self._unsure = restarted  # a fetch may have been done whose reply got lost
        self.drained = False
        """It fetches no more, and holds no message that no thread has got."""
        context.readiness.expect(f"read of {self._queue}")
        context.readiness.expect(f"lease of {self._queue}")

    def __next__(self) -> TaskMessage | None:
        """Return the next message, or `None` every few seconds: dramatiq then checks whether to stop."""
        with self._reading:
            return self._next()

    def _next(self) -> TaskMessage | None:
        draining = self._context.draining
        if draining.is_set():
            self._drain()
            self.source.pause(_DRAINED_PAUSE_SECONDS, self._context.stopping)
            return None
        if self._room.recalled or self._context.quiet.is_set():
            self._release_recalled()
        if self._fetched:
            return self._fetched.popleft()
        self.source.give_way()
        self._release_stuck()
        try:
            self._fetch_next()
        except redis.RedisError as error:
            self._unsure = True
            if not draining.is_set():  # else we have disconnected ourselves
                self._context.outage.failed(error)
                self.source.pause(_ERROR_PAUSE_SECONDS, draining)
            return None
        return self._fetched.popleft() if self._fetched and not draining.is_set() else None

    def _drain(self) -> None:
        """Release the messages of a fetch that was waiting when draining began."""
        self.requeue([])
        if self._unsure:
            try:
                self._release_unknown()
            except redis.RedisError:
                return  # once more
            self._unsure = False
        self.drained = True

    def _fetch_next(self) -> None:
        """Fetch messages; after a `RedisError` the fetch may have been done."""
        if not self._context.quiet.is_set():
            self.source.wait()
        with self.source.turn:
            self._recover_leftovers()
        if self._context.quiet.is_set():
            self._context.readiness.note(f"read of {self._queue}")
            self.source.pause(_QUIET_PAUSE_SECONDS, self._context.draining)
            return
        taken = self.source.take()
        if taken:
            self._hold(taken)
            self._context.outage.succeeded()

    def _recover_leftovers(self) -> None:
        """Recover this broker's leftovers before fetching more."""
        if not self._recovered:
            self._leases.recover_own(self._queue)
            self._recovered = True
        if self._unsure or self._queue in self._leases.queues_with_strays:
            self._leases.queues_with_strays.discard(self._queue)
            self._release_unknown()
            self._unsure = False
        if self._room.held and self._leases.lapsed(self._queue):
            self._leases.renew(self._queue)  # before a fetch renews it, and hides losses

    def _release_stuck(self) -> None:
        """Release messages that wait behind scripts that turned out to be long: others may have a thread for them."""
        stuck = self._remove_waiting(_STUCK_SECONDS)
        if stuck:
            self._context.pace.reset_average(_STUCK_SECONDS)
            self.requeue(stuck)

    def _remove_waiting(self, seconds: float) -> list[TaskMessage]:
        """Take messages back that have waited so long for a thread."""
        items = self._context.work_queue.remove_stuck(
            seconds, lambda item: bool(item.message.queue_name == self._queue)
        )
        return [item.message for item in items]

    def recall(self) -> None:
        """Release the messages that no thread has got: the next fetch judges by the circle's new rules.

        Another thread calls this. The consumer's own may be waiting for a message, or bring some that it fetched
        before; these it releases itself.
        """
        self._release(self._remove_waiting(0.0))
        self._room.recall()

    def _release_recalled(self) -> None:
        self._room.recalled = False
        self.requeue(self._remove_waiting(0.0))

    def _hold(self, taken: Taken) -> None:
        """Hold messages that were taken from the source."""
        try:
            if not self._room.held:
                self._leases.note_fetch(self._queue, taken.began)
            elif taken.lapsed:
                self._leases.drop_lost(self._queue)
            read = self._reader.read(taken)
        except redis.RedisError:  # these messages are released, as of a fetch whose reply never came
            for acknowledge in taken.acknowledgements.values():
                acknowledge()
            raise
        held, size, batch = self._room.held, self._batch_size(), list[Run]()
        for one in read:
            if not isinstance(one, Run):
                self._writer.end(one)
                continue
            delivery = one.delivery
            held[delivery.message_id] = one
            if delivery.changes is None:
                self._writer.cancel_release(delivery.message_id)
                self._fetched.append(TaskMessage(one))
                continue
            batch.append(one)
            if len(batch) == size:
                self._fetched.append(message_of(RunBatch(batch, self._write)))
                batch = []
        if batch:
            self._fetched.append(message_of(RunBatch(batch, self._write)))
            self._fetched[-1].lone = size > 1 and self.source.runs_lone and len(read) == len(held) == 1
        if self._cancels.concern(run.delivery.task_id for message in self._fetched for run in message.runs()):
            self._leases.renew(self._queue)  # it reads whether they are cancelled, or submitted again since

    def _release_unknown(self) -> None:
        """Release messages of a fetch whose reply never came: this broker holds them, and no thread knows them.

        Such a fetch may be done at any time after we gave it up, when a network lets go of it: renewals count.
        """
        known = set(self._room.held)  # first: a message that ends meanwhile goes from here to the writer, then away
        known |= self._writer.unwritten()
        members = cast("set[bytes]", self._context.client.smembers(self._keys.acks(self._context.broker_id)))
        unknown = {to_text(member) for member in members} - known
        for message_id in unknown:
            body = cast("bytes | None", self._context.client.hget(self._keys.bodies, message_id))
            task_id = ""
            with suppress(ValueError, TypeError, RecursionError):  # the next fetch makes it a dead letter
                task_id = read_task_id(decode(body or b"", self._queue))
            self._writer.release(Released(Delivery(self._keys, message_id, task_id)))
        if unknown:
            logger.warning("Put %d task(s) back whose fetch was cut off", len(unknown))

    def ack(self, message: MessageProxy) -> None:
        """Write the endings with the acknowledgement; called by the thread that ran the task, or the batch."""
        task_message = cast("TaskMessage", message)
        batch = task_message.batch
        runs = [task_message.run] if batch is None else batch.ended
        error = message._exception  # noqa: SLF001  (dramatiq's, and its only access)
        if error is not None and batch is not None:
            runs = [*runs, *(run for run in batch.begun() if run.ending is None), *batch.split()]
        self._write(runs, error, at_once=self._context.work_queue.qsize() == 0)

    def _write(self, runs: list[Run], error: BaseException | None = None, *, at_once: bool = False) -> None:
        """Write the endings of runs. `error`: of those that have none; `at_once`: in this thread."""
        finished = list[Finished]()
        for run in runs:
            if type(run.ending) is not Finished:  # without a call, as a rule
                self._end(run, error)
            if type(run.ending) is Finished:
                finished.append(run.ending)
        if finished:
            self._writer.finish(*finished, at_once=at_once)
        else:
            self._writer.drop()
        self._room.let_go(*runs)  # last: until the writer has the endings, the runs must be known here

    def _end(self, run: Run, error: BaseException | None) -> None:
        """End a run that has no outcome."""
        if run.ending is None:
            if run.interrupted:
                run.release()
            else:  # the worker's own failure, which dramatiq has logged with its traceback
                logger.error("The worker failed to run the task", extra=run.delivery.about())
                run.finish(failed(f"The worker failed to run the task: {error!r}", "Worker"))
        ending = run.ending
        if isinstance(ending, Released):
            self._writer.release(ending)
        elif not isinstance(ending, Finished):  # lost; also if this process has fetched it again: that run counts
            logger.warning(
                "Result dropped: the task was taken over by another worker, or its keys are gone",
                extra=run.delivery.about(),
            )
            run.delivery.acknowledge()

    def nack(self, message: MessageProxy) -> None:
        """Move the message to the dead letters."""
        for run in cast("TaskMessage", message).runs():
            self._writer.dead_letter(Dead(run.delivery, "its actor is unknown to this worker"))
            self._room.let_go(run)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Release these messages, and those that were fetched last."""
        self._release([*messages, *self._fetched])
        self._fetched.clear()

    def _release(self, messages: Iterable[MessageProxy]) -> None:
        for run in [run for message in messages for run in cast("TaskMessage", message).runs()]:
            if run.is_lost():
                run.delivery.acknowledge()
            else:
                self._writer.release(Released(run.delivery))
            self._room.let_go(run)

    def unblock(self) -> None:
        """End a blocking command from another thread."""
        self.source.unblock()

    def close(self) -> None:
        """Release the messages that are left and disconnect."""
        self.requeue([])
        if self._unsure:  # we disconnected while a fetch was waiting
            with suppress(redis.RedisError):
                self._release_unknown()
        self.source.close()
