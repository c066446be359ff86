"""The task that runs in this thread, for host functions, and one that is about to run."""

import hashlib
from contextvars import ContextVar
from typing import NamedTuple

from .errors import NoCurrentTask

running: ContextVar["CurrentTask"] = ContextVar("rhai_task")


class CurrentTask(NamedTuple):
    """The task whose script called a host function.

    Attributes:
        id: The task's id.
        circle: Public key of the worker's circle: `CONTEXT_ID` in scripts.
        caller_id: Public key of the caller: `CALLER_ID` in scripts; empty if the task names no caller.
        context_id: The field `contextId`, as the dispatcher wrote it.
        delivery: 1 for the first run, and 1 more for each worker process that died with the task.
    """

    id: str
    circle: str
    caller_id: str
    context_id: str | None
    delivery: int


class TaskRequest(NamedTuple):
    """A task that is about to run, for a function that `Engine.authorize` has.

    Attributes:
        id: The task's id.
        circle: Public key of the worker's circle.
        caller_id: Public key of the caller; empty if the task names no caller.
        verified: Whether the task is signed by this caller; `False` if the worker does not check signatures.
        context_id: The field `contextId`, as the dispatcher wrote it.
        script: The script's text.
        args: Its arguments, JSON as the task has them; `None` if it has none.
    """

    id: str
    circle: str
    caller_id: str
    verified: bool
    context_id: str | None
    script: str
    args: str | None = None

    @property
    def script_hash(self) -> str:
        """SHA-256 of the script's text, in hex."""
        return hashlib.sha256(self.script.encode()).hexdigest()


def current_task() -> CurrentTask:
    """Return the task that runs in this thread.

    Raises:
        NoCurrentTask: No task runs in this thread: a worker did not call the engine.
    """
    try:
        return running.get()
    except LookupError:
        raise NoCurrentTask from None
