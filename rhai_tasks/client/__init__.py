"""How does an application submit scripts and wait for them?"""

from .aio import AsyncClient, AsyncTask
from .answers import Stats
from .client import Client, Task
from .composition import ScriptActor
from .scripts import AsyncScripts, Scripts, Version
from .spec import TaskSpec

__all__ = [
    "AsyncClient",
    "AsyncScripts",
    "AsyncTask",
    "Client",
    "ScriptActor",
    "Scripts",
    "Stats",
    "Task",
    "TaskSpec",
    "Version",
]
