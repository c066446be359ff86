"""Logging to stderr as text or JSON, filtered by `RUST_LOG` as in the original worker.

A thread that logs never waits for the reader of stderr: see streams.py. The grammar of the filter and the format of
the text are those of Rust's env_logger.
"""

import io
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal

from .current import running
from .protocol import timestamp
from .streams import Descriptor, LineWriter

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
_STDERR = 2  # whatever `sys.stderr` is meanwhile
_DEFAULT = "info,dramatiq=warn,pika=off"
_ALIASES = {"rhai_worker": ("rhai_tasks", "bridge"), "worker": ("rhai_tasks", "bridge")}
"""Targets of the original, as existing launchers name them, and the loggers that replace them."""


def about(task_id: str, circle: str, caller_id: str) -> dict[str, str]:
    """Return the `extra` of a line about a task; lines of a thread that runs its script need none."""
    return {"task_id": task_id, "circle": circle, "caller_id": caller_id}


def configure_logging(rust_log: str | None, log_format: LogFormat = "text") -> None:
    """Send log lines to stderr, filtered by the text of `RUST_LOG`; `None` or an empty text is `info`."""
    logging.addLevelName(TRACE, "TRACE")
    handler = _LinesHandler(Descriptor(_STDERR))
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    logging.basicConfig(handlers=[handler], force=True)
    ignored: list[str] = []
    for target, level in parse_filter(rust_log or _DEFAULT, ignored).items():
        logging.getLogger(target or None).setLevel(level)
    for part in ignored:
        logging.getLogger(__name__).warning("RUST_LOG: %r is neither a level nor target=level; left out", part)


def parse_filter(text: str, ignored: list[str] | None = None) -> Mapping[str, int]:
    """Read directives `level`, `target` and `target=level`, separated by commas.

    Returns:
        Logger name to level; the empty name is for every other logger: off unless a bare level says more.
        `a::b` is the logger `a.b`. A text filter of env_logger, behind a `/`, is left out.
        Unreadable directives are appended to `ignored`.
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
    """Make the root logger's handlers name tasks too, in their own text format or as JSON.

    A handler that writes to a stream, such as dramatiq's, is replaced by one that does not wait for the reader.
    """
    root = logging.getLogger()
    for handler in root.handlers[:]:
        own = handler.formatter._fmt if handler.formatter else None  # noqa: SLF001  (its only access)
        handler.setFormatter(_Json() if log_format == "json" else _TaskText(own))
        if type(handler) is logging.StreamHandler:  # its subclasses write to files
            root.removeHandler(handler)
            root.addHandler(_LinesHandler(_to_stream(handler.stream), like=handler))


def _to_stream(stream: io.TextIOBase) -> Callable[[bytes], None]:
    def write(lines: bytes) -> None:
        stream.write(lines.decode())
        stream.flush()

    return write


def capture_stderr() -> None:
    """Log all other text that this process writes to `sys.stderr`: tracebacks of threads, errors of a command.

    `RUST_LOG` does not filter it. If stdout is the same stream, as under dramatiq's command, it is captured too.
    Without a log to stderr, nothing changes.
    """
    handler = next((handler for handler in logging.getLogger().handlers if isinstance(handler, _LinesHandler)), None)
    if handler is None:
        return
    captured = _Captured(handler)
    if sys.stdout is sys.stderr:
        sys.stdout = captured
    sys.stderr = captured
    logging.captureWarnings(capture=True)
    sys.excepthook = captured.tell_exception
    threading.excepthook = captured.tell_thread_exception
    sys.unraisablehook = captured.tell_unraisable


class _LinesHandler(logging.Handler):
    """Hands lines to a writer; only `flush` waits."""

    def __init__(self, write: Callable[[bytes], object], *, like: logging.Handler | None = None) -> None:
        """Make a handler; it copies level, filters and formatter of the handler `like`."""
        super().__init__(like.level if like else logging.NOTSET)
        if like:
            self.filters = like.filters
            self.setFormatter(like.formatter)
        self._writer = LineWriter(write, self._tell_dropped)

    def emit(self, record: logging.LogRecord) -> None:
        """Hand the record's line to the writer."""
        try:
            self._writer.write(self._line(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until the lines are written, if possible."""
        self._writer.flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name for it)
        """Log the error of a record; the default would write to stderr past the log."""
        error = sys.exc_info()[1]
        with suppress(Exception):
            self._writer.write(self._line(_record(record.name, "No line can be made of %r: %r", record.msg, error)))

    def _line(self, record: logging.LogRecord) -> bytes:
        return f"{self.format(record)}\n".encode(errors="backslashreplace")

    def _tell_dropped(self, count: int) -> bytes:
        message = "%d log line(s) were dropped: they could not be written, or were not read in time"
        return self._line(_record(__name__, message, count, level=logging.WARNING))


class _Captured(io.TextIOBase):
    """A stream whose lines go straight to the log's handler, so that no level of a logger drops them."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, handler: _LinesHandler) -> None:
        self._handler = handler
        self._begun = threading.local()  # `text`: an incomplete line

    def write(self, text: str) -> int:
        """Log the lines that this completes, each as an error."""
        *lines, self._begun.text = (getattr(self._begun, "text", "") + text).split("\n")
        for line in lines:
            if line.strip():
                self._handler.handle(_record("stderr", "%s", line))
        return len(text)

    def flush(self) -> None:
        """Log an incomplete line, and wait until all lines are written, if possible."""
        if getattr(self._begun, "text", ""):
            self.write("\n")
        self._handler.flush()

    def writable(self) -> bool:
        """Whether this takes text: yes."""
        return True

    def fileno(self) -> int:
        """Return the descriptor, for child processes."""
        return _STDERR

    def tell_exception(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        """Log the exception that ends the process."""
        self._tell((kind, error, traceback), "The process fails")

    def tell_thread_exception(self, failure: threading.ExceptHookArgs) -> None:
        """Log the exception that ends a thread."""
        if failure.exc_type is SystemExit or failure.exc_value is None:
            return
        name = failure.thread.name if failure.thread else "?"
        self._tell((failure.exc_type, failure.exc_value, failure.exc_traceback), "The thread %s failed", name)

    def tell_unraisable(self, failure: "sys.UnraisableHookArgs") -> None:
        """Log an exception that cannot be raised, such as in a destructor."""
        if failure.exc_value is not None:
            said = failure.err_msg or "Exception ignored in"
            self._tell((failure.exc_type, failure.exc_value, failure.exc_traceback), "%s: %r", said, failure.object)

    def _tell(
        self,
        exception: tuple[type[BaseException], BaseException, TracebackType | None],
        message: str,
        *arguments: object,
    ) -> None:
        record = _record("stderr", message, *arguments)
        record.exc_info = exception
        self._handler.handle(record)


def _record(name: str, message: str, *arguments: object, level: int = logging.ERROR) -> logging.LogRecord:
    return logging.LogRecord(name, level, "", 0, message, arguments, None)


def _task_of(record: logging.LogRecord) -> Mapping[str, str]:
    """Return the task of a record: its own, or the task whose script runs in this thread."""
    if hasattr(record, "task_id"):
        return about(record.task_id, vars(record)["circle"], vars(record)["caller_id"])
    task = running.get(None)
    return about(task.id, task.circle, task.caller_id) if task else {}


def _on_one_line(text: str) -> str:
    """Escape unprintable characters as `repr` does, so that none begins a line or controls a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _indented(text: str) -> str:
    """Indent the lines of a traceback, whose messages are untrusted, so that none looks like a log line."""
    return "\n".join(f"  {_on_one_line(line)}" for line in text.split("\n"))


class _TaskText(logging.Formatter):
    """A format that names the task at the end of the line, and escapes text that would begin one."""

    def formatException(self, ei: Any) -> str:  # noqa: N802  (logging's name for it)
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802  (logging's name for it)
        return _indented(super().formatStack(stack_info))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name for it)
        record.message = _on_one_line(record.message.rstrip("\n"))
        parts = [super().formatMessage(record), *(f"{name}={value!r}" for name, value in _task_of(record).items())]
        return " ".join(parts)


class _Text(_TaskText):
    """`[2026-01-31T12:00:00Z INFO  bridge.bridge] message`."""

    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__("[%(asctime)s %(levelname)-5s %(name)s] %(message)s", "%Y-%m-%dT%H:%M:%SZ")

    def format(self, record: logging.LogRecord) -> str:
        record.levelname = _NAMES.get(record.levelname, record.levelname)
        return super().format(record)


class _Json(logging.Formatter):
    """A JSON object a line: time, level, logger, message, and the task and the traceback if there are any."""

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
        elif record.stack_info:
            line["exception"] = record.stack_info
        return json.dumps(line).replace("\x7f", "\\u007f")  # the only control character that json.dumps keeps
