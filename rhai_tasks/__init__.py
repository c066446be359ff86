"""Run Rhai scripts from a Redis queue, in the real Rhai engine.

Here are the names that most applications need. Errors are in `rhai_tasks.errors`, the rest of the engine in
`rhai_tasks.engine`, fixtures for tests in `rhai_tasks.testing`.
"""

import importlib
import typing
import warnings

from .current import CurrentTask, TaskRequest, current_task
from .engine import AST, CancelToken, Engine, FnPtr, Limits, Result, Scope
from .protocol import ScriptRef, Status
from .settings import Settings

if typing.TYPE_CHECKING:
    from .client import AsyncClient, AsyncTask, Client, ScriptActor, Stats, Task, TaskSpec

__version__: str

__all__ = [
    "AST",
    "AsyncClient",
    "AsyncTask",
    "CancelToken",
    "Client",
    "CurrentTask",
    "Engine",
    "FnPtr",
    "Limits",
    "Result",
    "Scope",
    "ScriptActor",
    "ScriptRef",
    "Settings",
    "Stats",
    "Status",
    "Task",
    "TaskRequest",
    "TaskSpec",
    "current_task",
]

_OF_CLIENT = {"AsyncClient", "AsyncTask", "Client", "ScriptActor", "Stats", "Task", "TaskSpec"}
"""Names that are imported at first use: the client, with redis-py and dramatiq, takes twice as long as the engine."""

_MOVED = dict.fromkeys(("RHAI_VERSION", "Function", "Timestamp"), "rhai_tasks.engine") | dict.fromkeys(
    (
        "ClientClosed",
        "ConfigurationError",
        "NoCurrentTask",
        "RhaiError",
        "RhaiLimitError",
        "RhaiRuntimeError",
        "RhaiSyntaxError",
        "RhaiTasksError",
        "RhaiTerminated",
        "ScriptError",
        "ServerError",
        "ServerUnavailable",
        "TaskCancelled",
        "TaskError",
        "TaskExists",
        "TaskMalformed",
        "TaskNotFound",
        "TaskTimeout",
    ),
    "rhai_tasks.errors",
)
"""Names that used to be in this module, and where they are now. The next version drops them from here."""


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__", "client"})


def __getattr__(name: str) -> typing.Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("rhai-tasks")
    if name == "client" or name in _OF_CLIENT:
        client = importlib.import_module(".client", __name__)
        value = globals()[name] = client if name == "client" else getattr(client, name)
        return value
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _MOVED[name]
    warnings.warn(f"import {name} from {place}, not from rhai_tasks", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(place), name)
