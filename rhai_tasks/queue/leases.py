"""Leases: while a broker's lease lasts, the messages that it holds are its own."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain, repeat
from typing import Any, NamedTuple, cast

import redis

from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.scripts import load_script, run_each
from rhai_tasks.observe.history import HistoryWriter
from rhai_tasks.observe.metrics import RECOVERED
from rhai_tasks.protocol import quiet_field, to_bytes, to_text, workers_key
from rhai_tasks.threads import vital_thread

from .context import QueueContext
from .grace import Grace
from .hold_again import HoldAgain
from .run import Run

logger = logging.getLogger(__name__)

LEASE_SECONDS = 9.0
"""How long a lease lasts without a renewal. A renewal also recovers the messages of brokers whose leases have expired,
so a killed worker's tasks run again within 13 s."""
RENEW_SECONDS = 3.0
"""Between two renewals of a lease."""

_RETRY_SECONDS = 0.5  # until a renewal that failed is tried again
_AWAY_SECONDS = LEASE_SECONDS - RENEW_SECONDS  # without a renewal: we or the server were away


class Renewed(NamedTuple):
    """What `renew.lua` returns."""

    stood: int
    expired: list[bytes]
    cancelled: list[int]
    ours: list[bytes]
    held: int
    clock: int
    ahead: int
    missing: list[int]
    refused: bytes
    quiet: int


class Leases:
    """Renews this broker's leases, drops messages that it has lost, and recovers the messages of dead brokers.

    Threads: one of its own renews; any calls the rest.
    """

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self.grace = Grace(_AWAY_SECONDS)
        self.queues_with_strays: set[str] = set()
        """Queues of which the server says that this broker holds more messages than it knows of."""
        self._ends: dict[str, float] = {}  # by queue, as far as we know: time.monotonic()
        self._ahead_since: dict[str, float] = {}  # by queue, since when a lease ends too far ahead: time.monotonic()
        # Its own, with short timeouts: a connection that hangs must be noticed while there is time to renew by another.
        self._client = connect(context.settings.redis_url, outage=context.outage, timeout=RENEW_SECONDS)
        self._renew_script = load_script(context.client, __package__, "renew", context.settings.table)
        self.hold_again = HoldAgain(context, self.lapsed)
        self._recover_script = load_script(context.client, __package__, "recover")
        self._leave_script = load_script(context.client, __package__, "leave")
        self._history = HistoryWriter(context.recorder.counts, context.settings.namespace, self._client)
        self._thread = vital_thread("leases", self._keep)

    def start(self) -> None:
        """Renew from now on, and publish this process's report with each renewal, as its heartbeat."""
        self._thread.start()

    def stop(self) -> None:
        """Give the leases up, except those with messages under them; `stopping` has been set."""
        context = self._context
        with suppress(redis.RedisError):
            fields = context.broker_id, quiet_field(context.broker_id)
            context.client.hdel(workers_key(context.settings.namespace), *fields)
        for queue in context.held.queues():
            keys = context.keys(queue)
            with suppress(redis.RedisError):
                self._leave_script(keys=[keys.leases, keys.acks(context.broker_id)], args=[context.broker_id])

    def close(self) -> None:
        """Wait for the thread, and disconnect."""
        if self._thread.ident:
            self._thread.join()
        self._client.close()

    def _keep(self) -> None:
        """Renew on a clock of our own: a heartbeat that rides on commands stops while long scripts run."""
        context, pause = self._context, 0.0
        while not context.stopping.wait(pause):
            pause = RENEW_SECONDS
            try:
                self.renew(*context.held.queues(), heartbeat=context.recorder.report())
                self._history.write_if_due()
                context.outage.succeeded()
            except redis.RedisError as error:
                context.outage.failed(error)
                pause = _RETRY_SECONDS
        with suppress(redis.RedisError):
            self._history.write()

    def lapsed(self, queue: str) -> bool:
        """Whether our lease has expired, so that another worker may hold our messages: we were frozen, or cut off."""
        return time.monotonic() > self._ends.get(queue, 0.0)

    def note_fetch(self, queue: str, began: float) -> None:
        """Note that a fetch has renewed the lease; it began at this time.monotonic()."""
        self._ends[queue] = began + LEASE_SECONDS
        self._context.readiness.note(f"lease of {queue}")

    def drop_lost(self, queue: str) -> None:
        """Stop scripts whose messages another broker has got while our lease was not valid."""
        held = self._context.held.of(queue)
        acks = self._context.keys(queue).acks(self._context.broker_id)
        ours = cast("set[bytes]", self._context.client.smembers(acks))
        _drop_lost(held, {to_text(message_id) for message_id in ours})

    def recover_own(self, queue: str) -> None:
        """Recover the messages that a process of this broker id held when it died."""
        self._recover(queue, self._context.broker_id, "dead")

    def _recover(self, queue: str, broker_id: str, mode: str) -> None:
        context, keys = self._context, self._context.keys(queue)
        acks, released = to_bytes(keys.acks(broker_id)), to_bytes(keys.released(broker_id))
        count = self._recover_script(
            keys=[keys.messages, acks, keys.deliveries, keys.leases, released],
            args=[to_bytes(broker_id), mode, context.process_id],
        )
        if count:
            logger.warning("Put %d task(s) of a worker that died back into queue %s", count, queue)
            context.recorder.counts.add(RECOVERED, count=count)

    def renew(self, *queues: str, heartbeat: str = "") -> None:
        """Renew our leases on queues, stop the runs that we have lost, and recover the messages of dead brokers.

        Args:
            queues: Whose messages we hold: one round trip for all of them.
            heartbeat: Heartbeat of this process, published with the first of them; empty: none.

        Raises:
            redis.RedisError: The server does not answer, or refuses a queue; the others are renewed.
        """
        began = time.monotonic()
        # Before the call: messages that are fetched meanwhile are this broker's.
        held = [self._context.held.of(queue) for queue in queues]
        lapsed = {queue for queue, messages in zip(queues, held, strict=True) if messages and self.lapsed(queue)}
        calls = list(map(self._renewal, queues, held, chain([heartbeat], repeat("")), repeat(began)))
        replies = run_each(self._client, self._renew_script, calls)
        renewed = [
            (queue, messages, Renewed(*reply))
            for queue, messages, reply in zip(queues, held, replies, strict=True)
            if not isinstance(reply, redis.RedisError)
        ]
        for queue, messages, reply in renewed:
            self._note_reply(queue, messages, reply, began, lapsed=queue in lapsed)
        for queue, messages, reply in renewed:  # last: it asks the server again, which may fail
            if reply.stood and queue in lapsed:  # it stands again by a renewal whose reply got lost
                self.drop_lost(queue)
                self._note_renewal(queue, began)
            elif missing := [run.delivery for run in map(messages.__getitem__, reply.missing) if not run.is_lost()]:
                with self._refusal_told():
                    self.hold_again(missing)
            if self.grace.is_over(queue, began):
                self._recover_expired(queue, [to_text(broker_id) for broker_id in reply.expired])
        for reply in replies:
            if isinstance(reply, redis.RedisError):
                raise reply

    def _renewal(self, queue: str, held: list[Run], heartbeat: str, began: float) -> dict[str, Any]:
        """Write keys and arguments of `renew.lua`."""
        context, keys, prefix = self._context, self._context.keys(queue), self._context.settings.prefixes.details
        # A lease from before the server's clock went back ends `LEASE_SECONDS` after we saw it. It is shortened at the
        # second sight only: by then all have seen that the clock is back, should it jump ahead again.
        since = began - self._ahead_since.get(queue, began)
        shorten = int((LEASE_SECONDS - since) * 1000) if RENEW_SECONDS <= since <= _AWAY_SECONDS else ""
        messages: list[str | bytes] = []
        for run in held:
            delivery = run.delivery
            messages += (delivery.message_id, delivery.details_key(prefix), delivery.submission)
        return {
            "keys": [keys.leases, keys.acks(context.broker_id), workers_key(keys.namespace), keys.bodies],
            "args": [context.broker_id, int(LEASE_SECONDS * 1000), heartbeat, shorten, *messages],
        }

    def _note_reply(self, queue: str, messages: list[Run], reply: Renewed, began: float, *, lapsed: bool) -> None:
        self.grace.note_clock(reply.clock / 1000, began, self._context.held.queues())
        if not reply.ahead or began - self._ahead_since.get(queue, began) > _AWAY_SECONDS:
            self._ahead_since.pop(queue, None)
        if reply.ahead:
            self._ahead_since.setdefault(queue, began)
        if reply.quiet == 1:
            self._context.quiet.set()
        elif reply.quiet == 0:
            self._context.quiet.clear()
        if reply.refused:
            self._context.outage.failed(redis.ResponseError(to_text(reply.refused)))
        if reply.held > len(messages):
            self.queues_with_strays.add(queue)
        for position in reply.cancelled:  # the notice of it did not reach us
            messages[position].cancel.cancel()
        if not reply.stood and reply.held >= 0:
            _drop_lost(messages, {to_text(message_id) for message_id in reply.ours})
        if not lapsed if reply.stood else reply.held >= 0:
            self._note_renewal(queue, began)

    def _note_renewal(self, queue: str, began: float) -> None:
        self.grace.note_renewal(queue, began)
        self._ends[queue] = began + LEASE_SECONDS
        self._context.readiness.note(f"lease of {queue}")

    def _recover_expired(self, queue: str, expired: list[str]) -> None:
        for broker_id in expired:
            if broker_id != self._context.broker_id:
                with self._refusal_told():
                    self._recover(queue, broker_id, "expired")

    @contextmanager
    def _refusal_told(self) -> Iterator[None]:
        """Log a refusal of the server, and go on: one key of a wrong type must not hold other queues up."""
        try:
            yield
        except redis.ResponseError as error:
            self._context.outage.failed(error)


def _drop_lost(held: list[Run], ours: set[str]) -> None:
    """Stop scripts whose messages another broker has got while we could not renew: their results are not written."""
    for run in held:
        if run.delivery.message_id not in ours:
            logger.warning(
                "Lost the lease on the task: another worker holds it, or its keys are gone",
                extra=run.delivery.about(),
            )
            run.lose()
