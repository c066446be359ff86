"""Holds messages again whose place on the server somebody has deleted, while this process runs their tasks."""

import json
import logging
from collections.abc import Callable

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import to_bytes

from .context import QueueContext
from .delivery import Delivery

logger = logging.getLogger(__name__)


class HoldAgain:
    """Holds messages that the server says this broker does not hold, if somebody has deleted a key that knew them.

    Args:
        context: The broker's.
        lapsed: Says whether the lease of a queue has expired.
    """

    def __init__(self, context: QueueContext, lapsed: Callable[[str], bool]) -> None:
        self._context, self._lapsed = context, lapsed
        self._script = load_script(context.client, __package__, "hold_again")

    def __call__(self, deliveries: list[Delivery]) -> set[str]:
        """Hold messages again, unless another broker holds them.

        Args:
            deliveries: Deliveries of one queue.

        Returns:
            Ids of the messages that we hold now. All others have ended, or are another broker's.
        """
        context, keys = self._context, deliveries[0].keys
        if self._lapsed(keys.queue):  # then another broker may have ended them
            return set()
        bodies: list[str | bytes] = []
        for delivery in deliveries:
            bodies += (delivery.message_id, to_bytes(json.dumps(delivery.message_fields(), ensure_ascii=False)))
        reply = self._script(
            keys=[
                keys.leases,
                keys.acks(context.broker_id),
                keys.bodies,
                keys.messages,
                keys.published,
                keys.delayed_messages,
            ],
            args=[context.broker_id, keys.acks_start(keys.namespace), keys.queue, *bodies],
        )
        again = {delivery.message_id for delivery, is_held in zip(deliveries, reply, strict=True) if is_held}
        if again:
            logger.warning("Keys of queue %s were deleted: %d running task(s) are held again", keys.queue, len(again))
        return again
