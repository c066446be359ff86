"""dramatiq's messages, with the run of their task."""

import json
from dataclasses import replace
from functools import cached_property
from typing import Any

from dramatiq import Message, MessageProxy

from rhai_tasks.protocol import ACTOR, to_bytes, to_text

from .batch import RunBatch
from .follow_ups import without_follow_ups
from .run import Run


class TaskMessage(MessageProxy):
    """A message with the run of its task, as the actor gets it from `CurrentMessage`.

    It has the message's fields itself: dramatiq reads them a dozen times, and hardly ever uses the message.
    """

    batch: RunBatch | None = None
    """Of a `BatchMessage`."""
    lone = False
    """It is the only one that its consumer holds, and its task is simple."""

    def __init__(self, run: Run) -> None:
        delivery = run.delivery
        fields = delivery.message_fields()
        if delivery.composed:
            fields = {**fields, "options": without_follow_ups(fields["options"])}
        vars(self).update(fields)
        self.failed = False
        self.run = run
        self._fields = fields
        self._exception = None

    @cached_property
    def _message(self) -> Message[Any]:  # type: ignore[override]  # an attribute of dramatiq's
        return Message(**self._fields)

    def __str__(self) -> str:  # in dramatiq's lines; its own shows arguments, among them scripts and outputs
        return f"{self.actor_name}({self.run.delivery.task_id!r})"

    def runs(self) -> list[Run]:
        """Return the runs that this message brings and that have not begun."""
        return [self.run]


class BatchMessage(TaskMessage):
    """The first message of a batch, for dramatiq. The others travel with it."""

    batch: RunBatch

    def __init__(self, batch: RunBatch) -> None:
        super().__init__(batch.runs[0])
        self.batch = batch

    def runs(self) -> list[Run]:
        """Return the runs of the batch: no thread has begun with it."""
        return self.batch.begun()


def is_batch(item: Any) -> bool:
    """Whether an item of dramatiq's queue has runs that its thread has not begun."""
    batch: RunBatch | None = item.message.batch
    return batch is not None and batch.left > 0


def part(item: Any) -> Any:
    """Take those runs of an item of dramatiq's queue that its thread has not begun; `None`: there are none."""
    batch: RunBatch | None = item.message.batch
    rest = None if batch is None else batch.part()
    if rest is None:
        return None
    return replace(item, message=BatchMessage(rest) if len(rest.runs) > 1 else TaskMessage(rest.runs[0]))


def read_task_id(message: Message[Any]) -> str:
    """Read the id of a message's task; empty if it is for another actor.

    Raises:
        ValueError: JSON can spell what no key can hold: half of a pair of surrogates.
    """
    task_id = str(next(iter(message.args), "")) if message.actor_name == ACTOR else ""
    to_bytes(task_id)
    return task_id


def decode(body: bytes, queue: str) -> Message[Any]:
    """Read a message; not with dramatiq's decoder, because a task's id may be no UTF-8.

    Args:
        body: The JSON.
        queue: Where it was found; the message then names it, whatever the JSON says: dramatiq acknowledges it there.

    Raises:
        ValueError, TypeError, RecursionError: It is not a message.
    """
    fields = json.loads(to_text(body))
    message: Message[Any] = Message(**fields)
    for name, kind in (("actor_name", str), ("args", list), ("kwargs", dict), ("options", dict)):
        if not isinstance(fields[name], kind):
            raise TypeError(f"{name} is not a {kind.__name__}")  # and dramatiq relies on it
    fields["options"].pop("eta", None)  # a message in the queue is due; dramatiq would enqueue a copy of it later
    return message.copy(queue_name=queue)
