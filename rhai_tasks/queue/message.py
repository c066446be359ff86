"""dramatiq's messages, with the run of their task."""

import json
import time
from functools import cached_property
from typing import Any

from dramatiq import Message, MessageProxy

from rhai_tasks.protocol import ACTOR, to_bytes, to_text

from .follow_ups import without_follow_ups
from .run import Run


class TaskMessage(MessageProxy):
    """A message with the run of its task, as the actor gets it from `CurrentMessage`.

    It has the message's fields itself: dramatiq reads them a dozen times, and hardly ever wants the message.
    """

    def __init__(self, run: Run) -> None:
        delivery = run.delivery
        fields = delivery.fields
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
        ValueError, TypeError, RecursionError: It is no message.
    """
    fields = json.loads(to_text(body))
    message: Message[Any] = Message(**fields)
    for name, kind in (("actor_name", str), ("args", list), ("kwargs", dict), ("options", dict)):
        if not isinstance(fields[name], kind):
            raise TypeError(f"{name} is no {kind.__name__}")  # and dramatiq relies on it
    fields["options"].pop("eta", None)  # a message in the queue is due; dramatiq would enqueue a copy of it later
    return message.copy(queue_name=queue)


def message_fields(queue: str, message_id: str, task_id: str) -> dict[str, Any]:
    """Make the fields of a message that `fetch.lua` has made of a task's id."""
    return {
        "queue_name": queue,
        "actor_name": ACTOR,
        "args": (task_id,),
        "kwargs": {},
        "options": {"redis_message_id": message_id},
        "message_id": message_id,
        "message_timestamp": int(time.time() * 1000),
    }
