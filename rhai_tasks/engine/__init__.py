"""How does a script run within limits?

The classes here bind the Rust crate `rhai`; the binding is in engine/src.
"""

from ._engine import RHAI_VERSION, ArgsError, Batch, CancelToken, FnPtr, Timestamp, last_use, stopped
from .check import Finding
from .engine import Engine
from .evaluation import AST, Result
from .functions import Function
from .limits import Limits
from .live import LiveList, LiveMap
from .scope import Scope

__all__ = [
    "AST",
    "RHAI_VERSION",
    "ArgsError",
    "Batch",
    "CancelToken",
    "Engine",
    "Finding",
    "FnPtr",
    "Function",
    "Limits",
    "LiveList",
    "LiveMap",
    "Result",
    "Scope",
    "Timestamp",
    "last_use",
    "stopped",
]
