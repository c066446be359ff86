"""Run Rhai jobs from a Redis queue, in the real Rhai engine."""

from importlib.metadata import version as _version

from .calls import TaskSpec
from .client import AsyncClient, AsyncTask, Client, Task
from .composition import ScriptActor
from .current import CurrentTask, current_task
from .engine import AST, RHAI_VERSION, CancelToken, Engine, FnPtr, Function, Limits, Result, Scope, Timestamp
from .errors import (
    ClientClosed,
    ConfigurationError,
    NoCurrentTask,
    RhaiError,
    RhaiLimitError,
    RhaiRuntimeError,
    RhaiSyntaxError,
    RhaiTasksError,
    RhaiTerminated,
    ScriptError,
    ServerError,
    ServerUnavailable,
    TaskCancelled,
    TaskError,
    TaskExists,
    TaskMalformed,
    TaskNotFound,
    TaskTimeout,
)
from .protocol import Status
from .settings import Settings

__version__ = _version("rhai-tasks")

__all__ = [
    "AST",
    "RHAI_VERSION",
    "AsyncClient",
    "AsyncTask",
    "CancelToken",
    "Client",
    "ClientClosed",
    "ConfigurationError",
    "CurrentTask",
    "Engine",
    "FnPtr",
    "Function",
    "Limits",
    "NoCurrentTask",
    "Result",
    "RhaiError",
    "RhaiLimitError",
    "RhaiRuntimeError",
    "RhaiSyntaxError",
    "RhaiTasksError",
    "RhaiTerminated",
    "Scope",
    "ScriptActor",
    "ScriptError",
    "ServerError",
    "ServerUnavailable",
    "Settings",
    "Status",
    "Task",
    "TaskCancelled",
    "TaskError",
    "TaskExists",
    "TaskMalformed",
    "TaskNotFound",
    "TaskSpec",
    "TaskTimeout",
    "Timestamp",
    "current_task",
]
