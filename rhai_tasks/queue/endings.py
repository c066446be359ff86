"""How a delivery ends: with an outcome, released, as a dead letter, or lost.

An ending does not change. Those that are written know the arguments that their Lua script takes for them.
"""

import logging
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

from rhai_tasks.observe.recorder import Use
from rhai_tasks.protocol import NO_TERMS, Outcome, Terms, failed, reply_json, timestamp, to_bytes
from rhai_tasks.settings import Settings

from .answers import answers
from .delivery import Delivery
from .follow_ups import FollowUp, follow_ups
from .prints import Prints

if TYPE_CHECKING:  # an extra
    from rhai_tasks.observe.tracing import TaskTrace

logger = logging.getLogger(__name__)

LARGE_BYTES = 128 * 1024
"""Of output, follow-ups and script: a server's own limits are 1 MiB or more, and JSON may be six times its text."""
_TOO_LARGE = "TooLarge"


class Trace(NamedTuple):
    """The trace of a run that has ended."""

    spans: "TaskTrace"
    script_ended: float  # seconds since the epoch

    def finish(self, outcome: Outcome | None, now: float) -> None:
        """End the trace: the outcome is recorded, or, without one, the message is released."""
        self.spans.finish(outcome, self.script_ended, now)


class Finished(NamedTuple):
    """The task has an outcome."""

    delivery: Delivery
    outcome: Outcome
    following: list[FollowUp]
    """Of the task's composition, and of this outcome."""
    ended: float
    """Seconds since the epoch."""
    use: Use | None = None
    """What the script used; `None`: no script ran."""
    trace: Trace | None = None
    replies: bool = True
    """Its reply may be pushed."""
    terms: Terms = NO_TERMS
    """Of the task."""
    prints: Prints | None = None
    """What the script printed, if the task asks to keep it."""
    acceptance: str = ""
    """Key of the acceptance of the task's signature, if it was checked."""
    is_simple: bool = False
    """It is the output of a simple task, see `Delivery.changes`, whose script was quick."""

    def arguments(self, settings: Settings, worker_id: str) -> list[Any]:
        """Write the arguments of `finish.lua` for this task; `worker_id` names this process."""
        delivery, outcome = self.delivery, self.outcome
        ended_at = timestamp(self.ended)
        more: list[Any] = []
        reply_lists = self._reply_lists(settings)
        if self.following or reply_lists or delivery.terms:
            table = settings.table
            given = answers(self.terms, outcome, self.use, self.prints, delivery.crashes + 1, worker_id)
            more += (len(self.following), *chain.from_iterable(self.following))
            more.append(2 * len(given) if delivery.terms else -1)
            more += map(to_bytes, table.write([*chain.from_iterable(given.items())]))
            task = delivery.readable_task() if reply_lists else None
            more.append(reply_json(task, outcome, ended_at, given, table.reply) if task else b"")
            more += reply_lists
        return [
            delivery.message_id,
            to_bytes(settings.prefixes.details + delivery.task_id),
            delivery.submission,
            outcome.status,
            to_bytes(outcome.text),
            ended_at,
            outcome.kind,
            len(more),
            *more,
        ]

    def _reply_lists(self, settings: Settings) -> list[bytes]:
        if not self.replies:
            return []
        named = self.delivery.details.reply_to
        lists = [named] if named else []
        if settings.reply_lists:
            lists.append(to_bytes(settings.prefixes.reply + self.delivery.task_id))
        return lists

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.delivery.task_id

    @property
    def crashes(self) -> int:
        """How many processes have died with the message."""
        return self.delivery.crashes

    @property
    def created_at(self) -> bytes | None:
        """The task's `createdAt`."""
        return self.delivery.details.created_at

    def size(self) -> int:
        """How many bytes of output and follow-ups are written to the server, about; a reply holds the script, too."""
        size = len(self.outcome.text) + len(self.outcome.result or "") + (self.prints.size() if self.prints else 0)
        if self.following:
            size += sum(len(follow_up.body) for follow_up in self.following)
        return size

    def without_output(self, why: Exception) -> "Finished":
        """Return an ending that tells that the server does not take this one's output.

        Args:
            why: The server's error.
        """
        size = len(to_bytes(self.outcome.text))
        logger.error("The server does not take the outcome of %d bytes: %s", size, why, extra=self.delivery.about())
        outcome = failed(
            f"The output of {size} bytes is larger than the server takes (proto-max-bulk-len, "
            f"client-query-buffer-limit): {why}",
            _TOO_LARGE,
        )
        if self.outcome.kind == _TOO_LARGE:  # then it is the reply, which holds the script, or what follows the task
            return self._replace(outcome=outcome, following=[], replies=False, prints=None, is_simple=False)
        return self._replace(outcome=outcome, following=following(self.delivery, outcome), prints=None, is_simple=False)


class Released(NamedTuple):
    """The task has not ended, and the message goes back to its queue."""

    delivery: Delivery
    postponed: bool = False
    """It could not begin, and goes behind all others, not before them."""
    crash_counted: bool = False
    """The delivery was counted as a crash, though its process has not died."""
    trace: Trace | None = None
    number: int = 0
    """Given by the writer: the server remembers the last one of a process, and does none twice."""
    delay: float = 0.0
    """Seconds after which it goes back, behind all others."""

    def arguments(self, settings: Settings) -> list[Any]:
        """Write the arguments of `release.lua` for this message."""
        delivery = self.delivery
        key = delivery.details_key(settings.prefixes.details)
        place = round(self.delay * 1000) or ("tail" if self.postponed else "head")
        return [delivery.message_id, key, int(self.crash_counted), place, self.number]


class Dead(NamedTuple):
    """The message is a dead letter: there is no task whose details could take an outcome."""

    delivery: Delivery
    error: str
    what: str = ""
    """What the error is about, if the error does not say so."""

    def arguments(self) -> list[Any]:
        """Write the arguments of `dead_letter.lua`."""
        return [self.delivery.message_id, f"{self.what}{self.error}"]


class Lost(NamedTuple):
    """Another broker got the message after this one's lease had expired, or its keys are gone: nothing is written."""

    delivery: Delivery


Written = Finished | Released | Dead
Ending = Written | Lost


def following(delivery: Delivery, outcome: Outcome) -> list[FollowUp]:
    """List the follow-ups of an outcome, if the task is part of a composition."""
    return follow_ups(delivery.composed, outcome, partial(_complain, delivery)) if delivery.composed else []


def _complain(delivery: Delivery, what: str, error: Exception) -> None:
    logger.error("%s: %s", what, error, extra=delivery.about())
