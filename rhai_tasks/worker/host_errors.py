"""Logs where a host function failed: the task's error has only the text of the exception."""

import logging
import traceback
from collections.abc import Mapping

from rhai_tasks.errors import RhaiError, RhaiHostError

logger = logging.getLogger("rhai_tasks.host")


def log_host_error(error: RhaiError, about: Mapping[str, str]) -> None:
    """Log class and traceback of the exception that ended a script, if a host function raised it.

    The log gets no text of the exception, which may quote a caller's data as the task's error does.
    """
    cause = error.__cause__
    if not isinstance(error, RhaiHostError) or cause is None or not logger.isEnabledFor(logging.WARNING):
        return
    message = "A host function raised %s"
    record = logger.makeRecord(logger.name, logging.WARNING, "", 0, message, (_name(cause),), None, extra=about)
    record.stack_info = "\n".join(reversed(_tracebacks(cause)))
    logger.handle(record)


def _tracebacks(error: BaseException) -> list[str]:
    """Format the traceback of an exception, and of those that led to it."""
    found: list[str] = []
    chain: BaseException | None = error
    while chain is not None:
        frames = "".join(traceback.format_tb(chain.__traceback__))
        found.append(f"Traceback (most recent call last):\n{frames}{_name(chain)}")
        chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
    return found


def _name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
