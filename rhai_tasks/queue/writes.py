"""The writes of endings: one Lua script for each type, called for a batch of one queue."""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from itertools import groupby
from typing import Any

import redis

from rhai_tasks.connection.direct import DirectConnection, pack_call
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import QueueKeys, changes_key, circle_of, state_channel, timestamp, to_bytes
from rhai_tasks.settings import Settings

from .context import QueueContext
from .delivery import Delivery
from .endings import LARGE_BYTES, Dead, Finished, Released, Trace
from .run import Run

logger = logging.getLogger(__name__)

_REFUSALS = 5  # of one outcome by a server that takes all else, until its task ends as an error

_RECORDED = b"recorded"

Refusals = dict[int, redis.RedisError]
"""By position in a batch, the server's error for an ending that it refuses; it has written the others."""

HoldAgain = Callable[[list[Delivery]], set[str]]
"""Holds deliveries again whose place on the server somebody has deleted; returns the ids of the messages held now."""


class FinishedWrite:
    """Writes outcomes, replies and follow-ups, and acknowledges the messages.

    Args:
        context: The broker's.
        client: The writer's.
        hold_again: Holds deliveries again that the server calls lost.
    """

    def __init__(self, context: QueueContext, client: redis.Redis, hold_again: HoldAgain) -> None:
        self._context, self._settings, self._client = context, context.settings, client
        self._hold_again = hold_again
        self.script = load_script(client, __package__, "finish", context.settings.table)
        self._connection = DirectConnection(client, context.outage)
        self._head = _head_of_end(context.settings)
        self._names = lru_cache(maxsize=64)(self._name_keys)
        self._refused: tuple[Finished, int] | None = None  # one that was refused as a whole, and how often

    def __call__(self, batch: list[Finished]) -> Refusals:
        """Write outcomes of one queue.

        Raises:
            redis.RedisError: The server does not answer, or takes none of them.
        """
        results = self._finish(batch)
        if b"lost" in results:
            again = self._held_again([one for one, result in zip(batch, results, strict=True) if result == b"lost"])
            if again:
                second = iter(self._finish(again))
                ids = {one.delivery.message_id for one in again}
                results = [
                    next(second) if result == b"lost" and one.delivery.message_id in ids else result
                    for one, result in zip(batch, results, strict=True)
                ]
        refusals: Refusals = {}
        recorded: list[Finished] = []
        if results.count(_RECORDED) == len(results):
            recorded, results = batch, []
        for position, (one, result) in enumerate(zip(batch, results, strict=False)):
            if result == _RECORDED:
                recorded.append(one)
            elif isinstance(result, redis.RedisError):
                refusals[position] = result
            else:
                _log_unrecorded(one.delivery, result)
        if recorded:
            self._context.recorder.record(circle_of(recorded[0].delivery.keys.queue), recorded)
            ask_again = self._context.held_up.get(recorded[0].delivery.keys.queue)
            if ask_again:
                ask_again()
        if self._context.tracer:
            _end_traces((one.trace, one.outcome) for position, one in enumerate(batch) if position not in refusals)
        return refusals

    def _name_keys(self, queue: str) -> list[str]:
        return [*_keys_of_end(self._context, self._context.keys(queue)), changes_key(self._settings.namespace)]

    def _finish(self, batch: list[Finished]) -> list[Any]:
        """Write outcomes, and return for each what `finish.lua` says of it."""
        settings, keys = self._settings, batch[0].delivery.keys
        reads_all = settings.delete_finished or settings.reply_lists
        changes = batch[-1].delivery.changes
        simple, others = list[int](), list[int]()
        for position, one in enumerate(batch):
            is_simple = one.is_simple and not reads_all and one.delivery.changes == changes
            (simple if is_simple else others).append(position)
        uses = ""
        if keys.queue in self._context.queues_with_turns:
            taken = [batch[position].use for position in (*simple, *others)]
            uses = " ".join(f"{use[1] if use else 0.0:.6f}" for use in taken)
        arguments: list[Any] = [*self._head, changes or b"", uses]
        arguments += _groups([batch[position] for position in simple])
        for position in others:
            arguments += batch[position].arguments(settings, self._context.broker_id)
        names = self._names(keys.queue)
        if settings.signatures != "off":
            names = [*names, *(one.acceptance for one in batch if one.acceptance)]
        deviations, replies = self._connection.run(self.script, pack_call(self.script, names, arguments))
        results: list[Any] = [_RECORDED] * len(batch)
        for place, result in zip(deviations[::2], deviations[1::2], strict=True):
            results[simple[place]] = result
        for position, result in zip(others, replies, strict=True):
            results[position] = result if result == _RECORDED else _as_recorded(batch[position], result)
        return results

    def _held_again(self, lost: list[Finished]) -> list[Finished]:
        try:
            again = self._hold_again([one.delivery for one in lost])
        except redis.ResponseError:  # refused: a user without the rights for it must finish all else
            return []
        return [one for one in lost if one.delivery.message_id in again]

    def after_refusal(self, one: Finished, error: redis.RedisError) -> Finished:
        """Return the ending to write next for a task whose outcome the server does not take.

        A server closes a connection that sends more than its `proto-max-bulk-len` or `client-query-buffer-limit`. So a
        large outcome that is refused again and again, while the server answers a ping, is replaced by an error.

        Raises:
            redis.RedisError: The server does not answer.
        """
        is_large = one.size() + len(one.delivery.details.script or b"") > LARGE_BYTES
        if not is_large or (isinstance(error, redis.ResponseError) and "Protocol error" not in str(error)):
            return one
        self._client.ping()
        count = self._refused[1] + 1 if self._refused and self._refused[0] is one else 1
        if count < _REFUSALS:
            self._refused = (one, count)
            return one
        self._refused = None
        return one.without_output(error)


class PendingReleases:
    """The releases that are not written yet, by message id, in the order of their numbers. Threads: any."""

    def __init__(self) -> None:
        self._by_id: dict[str, Released] = {}
        self._numbers = 0
        self._numbering = threading.Lock()

    def add(self, released: Released, hand_over: Callable[[Released], object]) -> None:
        """Number a release, and hand it over to be written: in the same order, as the server expects it."""
        with self._numbering:
            self._numbers += 1
            released = released._replace(number=self._numbers)
            self._by_id[released.delivery.message_id] = released
            hand_over(released)

    def cancel(self, message_id: str) -> None:
        """Drop the release of a message, if one is pending."""
        if self._by_id:
            self._by_id.pop(message_id, None)

    def stands(self, released: Released) -> bool:
        """Whether a release was not cancelled."""
        return self._by_id.get(released.delivery.message_id) is released

    def done(self, released: Released) -> None:
        """Forget a release that was written; it may have been cancelled since."""
        if self.stands(released):
            self._by_id.pop(released.delivery.message_id, None)


class ReleasedWrite:
    """Puts messages back into their queue, and their tasks to `pending`."""

    def __init__(self, context: QueueContext, client: redis.Redis, pending: PendingReleases) -> None:
        self._context, self._pending = context, pending
        self.script = load_script(client, __package__, "release", context.settings.table)

    def __call__(self, batch: list[Released]) -> Refusals:
        """Write releases of one queue, except those that are cancelled."""
        context, settings, keys = self._context, self._context.settings, batch[0].delivery.keys
        going = [one for one in batch if self._pending.stands(one)]
        arguments: list[Any] = [timestamp(time.time()), state_channel(settings.namespace), context.process_id]
        for one in sorted(going, key=lambda one: (len(one.delivery.message_id), one.delivery.message_id)):
            arguments += one.arguments(settings)
        if going:
            acks, released = keys.acks(context.broker_id), keys.released(context.broker_id)
            self.script(keys=[keys.messages, acks, keys.deliveries, released], args=arguments)
        for one in going:
            self._pending.done(one)
        _end_traces((one.trace, None) for one in batch)
        return {}


class DeadWrite:
    """Moves messages to the dead letters."""

    def __init__(self, context: QueueContext, client: redis.Redis) -> None:
        self._context = context
        self.script = load_script(client, __package__, "dead_letter")

    def __call__(self, batch: list[Dead]) -> Refusals:
        """Write dead letters of one queue."""
        for one in batch:
            self.script(keys=_keys_of_end(self._context, one.delivery.keys), args=one.arguments())
        return {}


class ProcessingMark:
    """Marks the tasks of running scripts as `processing`."""

    def __init__(self, context: QueueContext, client: redis.Redis) -> None:
        self._context = context
        self.script = load_script(client, __package__, "mark", context.settings.table)

    def __call__(self, slow: list[Run]) -> None:
        """Mark the tasks of these runs."""
        settings = self._context.settings
        head: list[str | bytes] = [timestamp(time.time()), state_channel(settings.namespace)]
        for keys, group in groupby(sorted(slow, key=_queue_of), key=lambda run: run.delivery.keys):
            runs, arguments = list(group), head.copy()
            for run in runs:
                delivery = run.delivery
                key = delivery.details_key(settings.prefixes.details)
                arguments += [delivery.message_id, key, delivery.submission]
            self.script(keys=[keys.acks(self._context.broker_id)], args=arguments)
            for run in runs:
                run.marked = True


def _queue_of(run: Run) -> str:
    return run.delivery.keys.queue


def _keys_of_end(context: QueueContext, keys: QueueKeys) -> list[str]:
    acks = keys.acks(context.broker_id)
    return [acks, keys.bodies, keys.deliveries, keys.dead, keys.dead_bodies, keys.dead_reasons]


def _head_of_end(settings: Settings) -> list[str]:
    """Write the arguments of `finish.lua` that are the same for all tasks; as text, which is packed soonest."""
    return [
        str(int(settings.delete_finished)),
        str(int(settings.reply_expiry * 1000) if settings.reply_lists else 0),
        str(settings.expire_finished),
        state_channel(settings.namespace),
        settings.namespace,
        settings.prefixes.details,
    ]


def _groups(simple: list[Finished]) -> list[Any]:
    """Write the outcomes of simple tasks as `finish.lua` takes them: in groups of the same time."""
    arguments: list[Any] = [0]
    ended, count = -1.0, 0
    for one in simple:
        if one.ended != ended:
            ended = one.ended
            arguments[0] += 1
            arguments += (timestamp(ended), 0)
            count = len(arguments) - 1
        arguments[count] += 1
        delivery = one.delivery
        task_id, text = delivery.task_id, one.outcome.text
        arguments += (
            delivery.message_id,
            task_id if task_id.isascii() else to_bytes(task_id),
            delivery.submission,
            text if text.isascii() else to_bytes(text),
        )
    return arguments


def _as_recorded(one: Finished, reply: Any) -> Any:
    """Log follow-ups that could not be done, and return the rest of the reply of `finish.lua`."""
    if not isinstance(reply, bytes) or not reply.startswith(b"recorded: "):
        return reply
    result, _, why = reply.partition(b": ")
    logger.error("A follow-up of the task failed: %s", why.decode(errors="replace"), extra=one.delivery.about())
    return result


def _log_unrecorded(delivery: Delivery, result: Any) -> None:
    if result == b"lost":
        logger.warning(
            "Result dropped: taken over by another worker, written before, or the task's keys are gone",
            extra=delivery.about(),
        )
    elif result == b"superseded":
        logger.info("Result dropped: the task was submitted again", extra=delivery.about())
    else:
        reason = result[0].decode(errors="replace")
        logger.error("Task goes to the dead letters: %s", reason, extra=delivery.about())


def _end_traces(ended: Iterable[tuple[Trace | None, Any]]) -> None:
    for trace, outcome in ended:
        if trace:
            trace.finish(outcome, time.time())
