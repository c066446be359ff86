"""Imports the function of `--engine`, by which an application makes the engine of its scripts."""

import importlib
import logging
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from .engine import Engine
from .errors import ConfigurationError
from .launch import find_hidden_bridge
from .settings import Settings

logger = logging.getLogger(__name__)


def load_engine(settings: Settings) -> Callable[[], Engine]:
    """Import the engine's factory; only a process that runs scripts calls it.

    Raises:
        ConfigurationError: There is no such module or function.
    """
    if settings.engine is None:
        return lambda: Engine(limits=settings.limits)
    option = f"--engine {settings.engine!r}"
    module_name, _, name = settings.engine.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` and the dramatiq command do
    if hidden := find_hidden_bridge():
        logger.warning(
            "%s cannot be imported here: `bridge` is this project's package. Rename the module if the engine needs it, "
            "or run the engine under `dramatiq rhai_tasks.worker:setup`",
            hidden,
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigurationError(f"{option}: {error}; expected module:function") from error
        raise _failure(f"{option} cannot be imported", error) from error
    except (Exception, SystemExit) as error:  # it is the operator's code, and may raise anything
        raise _failure(f"{option} cannot be imported", error) from error
    factory = getattr(module, name, None)
    if factory is None:
        raise ConfigurationError(f"{option}: {module.__file__} has no {name!r}; expected module:function")

    def make() -> Engine:
        try:
            engine = factory()
        except (Exception, SystemExit) as error:  # it is the operator's code, and may raise anything
            raise _failure(f"{option} failed", error) from error
        if not isinstance(engine, Engine):
            raise ConfigurationError(f"{option} returned {type(engine).__name__}, not an Engine")
        return engine

    return make


def _failure(what: str, error: BaseException) -> ConfigurationError:
    """Make the error for a failure of the operator's code: one line that names the exception and its place."""
    logger.debug("%s", what, exc_info=error)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    own = frames[1:]  # the first is this module's own call
    place = "" if not own else f" ({own[-1].filename}, line {own[-1].lineno})"
    return ConfigurationError(f"{what}: {type(error).__name__}: {error}{place}")
