"""Which task runs here: for host functions that want to know for whom they work."""

from contextvars import ContextVar
from typing import NamedTuple

from .errors import NoCurrentTask

running: ContextVar["CurrentTask"] = ContextVar("rhai_task")


class CurrentTask(NamedTuple):
    """The task whose script called this host function."""

    id: str
    circle: str  # `CONTEXT_ID` of the script
    caller_id: str  # `CALLER_ID` of the script; the empty text if the task names nobody
    context_id: str | None  # as the dispatcher wrote it
    delivery: int  # 1 the first time; one more for each process that died while it ran the task


def current_task() -> CurrentTask:
    """Tell the task that runs in this thread.

    Raises:
        NoCurrentTask: None does: the engine was not called by a worker.
    """
    try:
        return running.get()
    except LookupError:
        raise NoCurrentTask from None
