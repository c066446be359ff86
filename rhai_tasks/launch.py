"""Starts the commands of the package `bridge`, also where an application has a module of the same name.

The package is the one that was installed with this one: a `bridge.py` that is earlier on the path is not imported.
"""

import gc
import importlib
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from typing import Any

_NAME = "bridge"
_HOME = Path(__file__).parents[1]


def worker() -> None:
    """Run the command `rhai-worker`."""
    _load("bridge.cli").worker()


def bridge() -> None:
    """Run the command `rhai-bridge`."""
    _load("bridge.cli").bridge()


def find_hidden_bridge() -> str | None:
    """Return the file of an application's own module `bridge`, which this process cannot import; `None`: there is none.

    Only the path is searched: nothing is imported.
    """
    ours = sys.modules.get(_NAME)
    other = PathFinder.find_spec(_NAME)
    if ours is None or ours.__spec__ is None or other is None or other.origin in {None, ours.__spec__.origin}:
        return None
    return other.origin


def _load(name: str) -> Any:
    if _NAME not in sys.modules:
        spec = PathFinder.find_spec(_NAME, [str(_HOME)])
        if spec is None or spec.loader is None:
            raise ModuleNotFoundError(f"{_HOME} has no package {_NAME!r}: install rhai-tasks again", name=_NAME)
        sys.modules[_NAME] = package = module_from_spec(spec)
        spec.loader.exec_module(package)
    # Imports make hardly any garbage, and each search for it takes longer than the one before.
    gc.disable()
    try:
        return importlib.import_module(name)
    finally:
        gc.enable()
