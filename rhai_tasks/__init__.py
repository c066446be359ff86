"""Run Rhai scripts from a Redis queue, in the real Rhai engine.

Here are the names that most applications need. Errors are in `rhai_tasks.errors`, the rest of the engine in
`rhai_tasks.engine`, fixtures for tests in `rhai_tasks.testing`.
"""

import importlib
import warnings
from importlib.metadata import version as _version
from typing import Any as _Any

from .client import AsyncClient, AsyncTask, Client, ScriptActor, Stats, Task, TaskSpec
from .current import CurrentTask, TaskRequest, current_task
from .engine import AST, CancelToken, Engine, FnPtr, Limits, Result, Scope
from .protocol import ScriptRef, Status
from .settings import Settings

__version__ = _version("rhai-tasks")

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


def __getattr__(name: str) -> _Any:
    if name not in _MOVED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    place = _MOVED[name]
    warnings.warn(f"import {name} from {place}, not from rhai_tasks", DeprecationWarning, stacklevel=2)
    return getattr(importlib.import_module(place), name)
