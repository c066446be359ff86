"""Logging to stderr, steered by `RUST_LOG` as the original worker's is.

The source of the filter's grammar and of the line format is Rust's env_logger.
"""

import logging
import sys
import time
from collections.abc import Mapping

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


def configure_logging(rust_log: str | None) -> None:
    """Send log lines to stderr, filtered by the text of `RUST_LOG`; `None` or an empty text is `info`."""
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Format())
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


class _Format(logging.Formatter):
    """`[2026-01-31T12:00:00Z INFO  bridge.loop] message`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("[%(asctime)s %(levelname)-5s %(name)s] %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = _NAMES.get(record.levelname, record.levelname)
        return super().format(record)
