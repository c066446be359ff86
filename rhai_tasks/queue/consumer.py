"""dramatiq's consumer: fetches messages with their tasks."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import dramatiq
import redis
from dramatiq import MessageProxy

from rhai_tasks.protocol import QueueKeys

from .acknowledger import Acknowledger
from .batch import RunBatch
from .cancels import Cancels
from .context import QueueContext
from .leases import Leases
from .leftovers import Leftovers
from .message import BatchMessage, TaskMessage
from .reader import DeliveryReader
from .run import Run
from .sources import Source, Taken
from .writer import StatusWriter

_STUCK_SECONDS = 1.0  # after which prefetched messages that no thread takes are released: others may have a thread
_QUIET_PAUSE_SECONDS = 1.0
_ERROR_PAUSE_SECONDS = 0.5
_DRAINED_PAUSE_SECONDS = 0.05


class TaskConsumer(dramatiq.Consumer):
    """Fetches messages with their tasks.

    Args:
        context: The broker's.
        keys: Keys of the queue.
        source: Where messages come from.
        leases: Leases of the broker.
        cancels: Cancels of the broker.
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
        self._acknowledger = Acknowledger(source.room, writer, context.work_queue)
        self._leftovers = Leftovers(context, keys, source.room, leases, writer, restarted=restarted)
        self._reader = DeliveryReader(context, keys)
        self._fetched: deque[TaskMessage] = deque()
        self._reading = threading.Lock()  # another thread reads while the consumer's own runs a slow script
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
        if self._room.held:
            self._release_stuck()
        try:
            self._fetch_next()
        except redis.RedisError as error:
            self._leftovers.note_failure()
            if not draining.is_set():  # else we have disconnected ourselves
                self._context.outage.failed(error)
                self.source.pause(_ERROR_PAUSE_SECONDS, draining)
            return None
        return self._fetched.popleft() if self._fetched and not draining.is_set() else None

    def _drain(self) -> None:
        """Release the messages of a fetch that was waiting when draining began."""
        self.requeue([])
        try:
            self._leftovers.release()
        except redis.RedisError:
            return  # once more
        self.drained = True

    def _fetch_next(self) -> None:
        """Fetch messages; after a `RedisError` the fetch may have been done."""
        if not self._context.quiet.is_set():
            self.source.wait()
        with self.source.turn:
            self._leftovers.recover()
        if self._context.quiet.is_set():
            self._context.readiness.note(f"read of {self._queue}")
            self.source.pause(_QUIET_PAUSE_SECONDS, self._context.draining)
            return
        size = self._batch_size()  # before the wait: a task that ends it is not kept waiting
        taken = self.source.take()
        if taken:
            self._hold(taken, size)
            self._context.outage.succeeded()

    def _release_stuck(self) -> None:
        """Release messages that wait behind scripts that turned out to be long: others may have a thread for them."""
        stuck = self._remove_waiting(_STUCK_SECONDS)
        if stuck:
            self._context.pace.reset_average(_STUCK_SECONDS)
            self.requeue(stuck)

    def _remove_waiting(self, seconds: float) -> list[TaskMessage]:
        """Take back messages that have waited `seconds` for a thread."""
        items = self._context.work_queue.remove_stuck(
            seconds, lambda item: bool(item.message.queue_name == self._queue)
        )
        return [item.message for item in items]

    def recall(self) -> None:
        """Release the messages that no thread has got: the next fetch judges by the circle's new rules.

        Another thread calls this. The consumer's own may be waiting for a message, or bring some that it fetched
        before; these it releases itself.
        """
        self._acknowledger.release(self._remove_waiting(0.0))
        self._room.recall()

    def _release_recalled(self) -> None:
        self._room.recalled = False
        self.requeue(self._remove_waiting(0.0))

    def _hold(self, taken: Taken, size: int) -> None:
        """Hold messages that were taken from the source, and batch those of simple tasks, up to `size` of them."""
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
        held, batch = self._room.held, list[Run]()
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
                self._fetched.append(self._message_of(batch))
                batch = []
        if batch:
            self._fetched.append(self._message_of(batch))
            self._fetched[-1].lone = size > 1 and self.source.runs_lone and len(read) == len(held) == 1
        if self._cancels.concern(self._fetched):
            self._leases.renew(self._queue)  # it reads whether they are cancelled, or submitted again since

    def _message_of(self, runs: list[Run]) -> TaskMessage:
        """Make the message that brings runs to a thread."""
        return TaskMessage(runs[0]) if len(runs) == 1 else BatchMessage(RunBatch(runs, self._acknowledger.write))

    def ack(self, message: MessageProxy) -> None:
        """Write the endings with the acknowledgement; called by the thread that ran the task, or the batch."""
        self._acknowledger.ack(message)

    def nack(self, message: MessageProxy) -> None:
        """Move the message to the dead letters."""
        self._acknowledger.nack(message)

    def requeue(self, messages: Iterable[MessageProxy]) -> None:
        """Release these messages, and those that were fetched last."""
        self._acknowledger.release([*messages, *self._fetched])
        self._fetched.clear()

    def unblock(self) -> None:
        """End a blocking command from another thread."""
        self.source.unblock()

    def close(self) -> None:
        """Release the messages that are left and disconnect."""
        self.requeue([])
        with suppress(redis.RedisError):  # we may have disconnected while a fetch was waiting
            self._leftovers.release()
        self.source.close()
