"""Run Rhai jobs from a Redis queue, in the real Rhai engine."""

from .engine import CancelToken, Engine, Limits
from .errors import (
    ConfigurationError,
    RhaiError,
    RhaiLimitError,
    RhaiRuntimeError,
    RhaiSyntaxError,
    RhaiTasksError,
    RhaiTerminated,
)
from .settings import Settings

__all__ = [
    "CancelToken",
    "ConfigurationError",
    "Engine",
    "Limits",
    "RhaiError",
    "RhaiLimitError",
    "RhaiRuntimeError",
    "RhaiSyntaxError",
    "RhaiTasksError",
    "RhaiTerminated",
    "Settings",
]
