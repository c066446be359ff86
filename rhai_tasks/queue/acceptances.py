"""Accepts each signature for one message, so that nobody can have a signed task run a second time."""

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, cast

from rhai_tasks.connection.outage import retry_until_answered
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import QueueKeys, to_text

from .context import QueueContext
from .delivery import Delivery

AHEAD_SECONDS = 60.0
"""By which the clock of a signer may be ahead of the server's."""

_DAY = 86_400.0  # for which an unbounded script is expected to run at most
_RETURN_SECONDS = 60.0  # within which a task comes back after the death of its worker


class Acceptance(NamedTuple):
    """The server's answer about a signature."""

    word: str
    """`accepted`, `replayed`, `old` or `early`."""
    key: str
    age: float = 0.0
    """Seconds since the task was signed, of the last two."""


class Acceptances:
    """Asks the server whether a task with a valid signature may begin. Threads: any.

    Args:
        context: The broker's.
    """

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._script = load_script(context.client, __package__, "accept")

    def accept(self, delivery: Delivery, form: bytes, signed_at: float, timeout: float | None) -> Acceptance:
        """Accept a signature for this delivery's message; wait until the server answers.

        A message that comes back is accepted again, and so is a task that was given back to the native list before it
        had ended. The record lasts until the signature is too old, and while the script may run.

        Args:
            delivery: The task's.
            form: The signed form.
            signed_at: Seconds since the epoch.
            timeout: Seconds for which the script may run.

        Raises:
            redis.RedisError: The server does not answer, and this worker stops.
        """
        context, keys = self._context, delivery.keys
        namespace = context.settings.namespace
        # The form and not the signature: one form can have several signatures.
        key = QueueKeys.acceptance(namespace, hashlib.sha256(form).hexdigest())
        call = partial(
            self._script,
            keys=[key, keys.messages, keys.bodies, keys.published, keys.leases],
            args=[
                delivery.message_id,
                round(signed_at * 1000),
                round(context.settings.signature_age * 1000),
                round(AHEAD_SECONDS * 1000),
                round(((timeout or _DAY) + _RETURN_SECONDS) * 1000),
                keys.acks_start(namespace),
                keys.queue,
            ],
        )
        word, *age = cast("Sequence[bytes | int]", retry_until_answered(call, context.outage, context.draining))
        return Acceptance(to_text(cast("bytes", word)), key, *(int(value) / 1000 for value in age))
