"""Logging to stderr, steered by `RUST_LOG` as the original worker's is, as text or as JSON.

The source of the filter's grammar and of the text's format is Rust's env_logger.
"""

import json
import logging
import sys
import time
from collections.abc import Mapping
from typing import Literal

from .current import running
from .protocol import timestamp

LogFormat = Literal["text", "json"]

TRACE = 5
_LEVELS = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
    "trace": TRACE,
    "off": logging.CRITICAL + 10,
}
_NAMES = {"WARNING": "WARN", "CRITICAL": "ERROR"}
_DEFAULT = "info,dramatiq=warn,pika=off"
_ALIASES = {"rhai_worker": ("rhai_tasks", "bridge"), "worker": ("rhai_tasks", "bridge")}
"""Targets of the original, as existing launchers name them, and our loggers that say the same."""


def about(task_id: str, circle: str, caller_id: str) -> dict[str, str]:
    """Name the task that a line is about, for `extra`; lines written while its script runs need nothing."""
    return {"task_id": task_id, "circle": circle, "caller_id": caller_id}


def configure_logging(rust_log: str | None, log_format: LogFormat = "text") -> None:
    """Send log lines to stderr, filtered by the text of `RUST_LOG`; `None` or an empty text is `info`."""
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logging.basicConfig(handlers=[handler], force=True)
    ignored: list[str] = []
    for target, level in parse_filter(rust_log or _DEFAULT, ignored).items():
        logging.getLogger(target or None).setLevel(level)
    for part in ignored:
        logging.getLogger(__name__).warning("RUST_LOG: %r is no level and no target=level; left out", part)


def parse_filter(text: str, ignored: list[str] | None = None) -> Mapping[str, int]:
    """Read directives `level`, `target` and `target=level`, separated by commas.

    Returns:
        Logger name to level; the empty name is for every other logger: off unless a bare level says more.
        `a::b` stands for the logger `a.b`. What follows a `/` (env_logger's text filter) is left out.
        Directives that cannot be read are appended to `ignored`.
    """
    levels = {"": _LEVELS["off"]}
    for part in filter(None, (part.strip() for part in text.partition("/")[0].split(","))):
        target, separator, name = part.partition("=")
        if not separator and part.lower() in _LEVELS:
            levels[""] = _LEVELS[part.lower()]
        elif separator and name.strip().lower() not in _LEVELS:
            if ignored is not None:
                ignored.append(part)
        else:
            level = _LEVELS[name.strip().lower()] if separator else TRACE
            logger = target.strip().replace("::", ".")
            levels.update(dict.fromkeys(_ALIASES.get(logger, (logger,)), level))
    return levels


def format_present_handlers(log_format: LogFormat) -> None:
    """Make handlers that others have set up name tasks too, in their own text format or as JSON."""
    for handler in logging.getLogger().handlers:
        own = handler.formatter._fmt if handler.formatter else None  # noqa: SLF001  (its only access)
        handler.setFormatter(_Json() if log_format == "json" else _TaskText(own))


def _task_of(record: logging.LogRecord) -> Mapping[str, str]:
    """Name the task that a line is about: as it says, or the one whose script runs in this thread."""
    if hasattr(record, "task_id"):
        return about(record.task_id, vars(record)["circle"], vars(record)["caller_id"])
    task = running.get(None)
    return about(task.id, task.circle, task.caller_id) if task else {}


class _TaskText(logging.Formatter):
    """A format that names the task at the end of the line."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name for it)
        parts = [super().formatMessage(record), *(f"{name}={value!r}" for name, value in _task_of(record).items())]
        return " ".join(parts)


class _Text(_TaskText):
    """`[2026-01-31T12:00:00Z INFO  bridge.loop] message`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("[%(asctime)s %(levelname)-5s %(name)s] %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = _NAMES.get(record.levelname, record.levelname)
        return super().format(record)


class _Json(logging.Formatter):
    """An object a line: time, level, logger, message, the task if it is about one, and a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": timestamp(record.created),
            "level": _NAMES.get(record.levelname, record.levelname).lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_task_of(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)
