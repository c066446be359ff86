"""Reads the tasks and due times that messages name."""

import json
from collections.abc import Iterable
from math import isfinite
from typing import Any

from rhai_tasks.protocol import ACTOR, QueueKeys, to_bytes, to_text


def task_id_in(body: bytes) -> str:
    """Read the task's id from a message; empty if the message cannot be read, or is for another actor."""
    try:
        message = json.loads(to_text(body))
        task_id = str(message["args"][0]) if message.get("actor_name", ACTOR) == ACTOR else ""
        to_bytes(task_id)  # JSON can spell what no key can
    except (AttributeError, ValueError, TypeError, LookupError, RecursionError):
        return ""
    return task_id


def due_in(body: bytes) -> float:
    """Read when a delayed message of dramatiq is due, in seconds since the epoch; 0 if the message does not say."""
    try:
        due = float(json.loads(to_text(body))["options"]["eta"]) / 1000
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
        return 0.0
    return due if isfinite(due) else 0.0


def tasks_of(client: Any, keys: QueueKeys, message_ids: Iterable[bytes]) -> list[str]:
    """Return the ids of the tasks that messages are for.

    A message that no worker has fetched yet is in its queue by the id of its task.
    """
    names = list(message_ids)
    bodies = client.hmget(keys.bodies, names) if names else []
    return [task_id_in(body) if body else to_text(name) for name, body in zip(names, bodies, strict=True)]
