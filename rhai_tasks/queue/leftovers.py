"""Finds the messages of a queue that this broker holds and no thread of it knows."""

import logging
from contextlib import suppress
from typing import cast

from rhai_tasks.protocol import QueueKeys, to_text

from .context import QueueContext
from .delivery import Delivery
from .endings import Released
from .leases import Leases
from .message import decode, read_task_id
from .room import Room
from .writer import StatusWriter

logger = logging.getLogger(__name__)


class Leftovers:
    """The messages of a process that died under the broker's name, or of a fetch whose reply never came.

    Args:
        context: The broker's.
        keys: Keys of the queue.
        room: The messages that the consumer holds.
        leases: Leases of the broker.
        writer: Releases messages.
        restarted: An earlier consumer of the queue failed; its messages still run.
    """

    def __init__(
        self,
        context: QueueContext,
        keys: QueueKeys,
        room: Room,
        leases: Leases,
        writer: StatusWriter,
        *,
        restarted: bool,
    ) -> None:
        self._context, self._keys, self._room, self._leases, self._writer = context, keys, room, leases, writer
        self._recovered = restarted
        self._unsure = restarted

    def note_failure(self) -> None:
        """Note that a fetch has failed: the server may have done it."""
        self._unsure = True

    def recover(self) -> None:
        """Recover what is left before more is fetched."""
        queue = self._keys.queue
        if not self._recovered:
            self._leases.recover_own(queue)
            self._recovered = True
        if queue in self._leases.queues_with_strays:
            self._leases.queues_with_strays.discard(queue)
            self._unsure = True
        if self._unsure:  # seldom: without a call, as a rule
            self.release()
        if self._room.held and self._leases.lapsed(queue):
            self._leases.renew(queue)  # before a fetch renews it, and hides losses

    def release(self) -> None:
        """Release the messages of a fetch whose reply never came, if there may be one.

        Such a fetch may be done at any time after we gave it up, when a network lets go of it: renewals count.

        Raises:
            redis.RedisError: The server does not answer; the next call tries again.
        """
        if not self._unsure:
            return
        known = set(self._room.held)  # first: a message that ends meanwhile goes from here to the writer, then away
        known |= self._writer.unwritten()
        members = cast("set[bytes]", self._context.client.smembers(self._keys.acks(self._context.broker_id)))
        unknown = {to_text(member) for member in members} - known
        for message_id in unknown:
            body = cast("bytes | None", self._context.client.hget(self._keys.bodies, message_id))
            task_id = ""
            with suppress(ValueError, TypeError, RecursionError):  # the next fetch makes it a dead letter
                task_id = read_task_id(decode(body or b"", self._keys.queue))
            self._writer.release(Released(Delivery(self._keys, message_id, task_id)))
        if unknown:
            logger.warning("Put %d task(s) back whose fetch was cut off", len(unknown))
        self._unsure = False
