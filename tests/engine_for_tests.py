"""An engine with host functions that tests need, for `--engine tests.engine_for_tests:make_engine`."""

import asyncio
import ctypes
import logging
import os
import sys
import time
from pathlib import Path

from rhai_tasks import Engine, Limits, TaskRequest, current_task


class OutOfStock(Exception):
    """An exception of the application's own."""


class Shelf:
    """A type whose every use raises."""

    @property
    def stock(self) -> int:
        """Raise."""
        return dict[str, int]()["none"]

    def take(self, name: str) -> str:
        """Raise."""
        raise OutOfStock(name)

    def __getitem__(self, name: str) -> int:
        return dict[str, int]()[name]

    def __add__(self, name: str) -> str:
        raise OutOfStock(name)


def make_engine(timeout: float = 60.0) -> Engine:
    """Make an engine whose scripts can wait, count their runs, fill the memory, and crash."""
    engine = Engine(limits=Limits(timeout=timeout))
    engine.register("nap", time.sleep)
    engine.register("crash", lambda: ctypes.string_at(0))
    engine.register("pid", os.getpid)
    engine.register("to_stderr", lambda text: print(text, file=sys.stderr))
    hoard: list[bytes] = []
    engine.register("hoard", lambda mebibytes: hoard.append(b"x" * (int(mebibytes) * 2**20)))

    @engine.function
    def log(text: str) -> None:
        logging.getLogger(__name__).warning(text)

    @engine.function
    def note(path: str, line: str) -> None:
        """Append a line to a file."""
        with Path(path).open("a") as file:
            file.write(line + "\n")

    @engine.function
    async def ask(seconds: float) -> str:
        """Wait as for a server, and say which task asked."""
        await asyncio.sleep(seconds)
        return current_task().id

    @engine.function
    def fail(message: str) -> None:
        """Raise."""
        raise ValueError(message)

    @engine.function
    async def fail_later(message: str) -> None:
        """Raise after a while, from an exception that led to it."""
        await asyncio.sleep(0)
        try:
            int(message)
        except ValueError as error:
            raise OutOfStock(message) from error

    engine.register_type(Shelf)

    @engine.function
    def who() -> str:
        """Say which task calls."""
        task = current_task()
        return f"{task.id} {task.circle} {task.caller_id} {task.context_id} {task.delivery}"

    return engine


def make_engine_with_rights() -> Engine:
    """Make an engine that decides by the caller."""
    engine = Engine()

    @engine.authorize
    def decide(task: TaskRequest) -> bool | str:
        match task.caller_id:
            case "alice":
                return True
            case "broken":
                raise KeyError("s3cret")
            case "crash":
                ctypes.string_at(0)
            case "eve":
                return f"eve, in {task.circle}, {'verified' if task.verified else 'unverified'}, {task.args}"
        return False

    return engine


def make_hasty_engine() -> Engine:
    """Make the same, with a short time limit."""
    return make_engine(timeout=2.0)


def make_traced_engine() -> Engine:
    """Make an engine in a process that writes its spans to the file that SPANS names, a line each, after a while."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter

    file = Path(os.environ["SPANS"]).open("a")  # noqa: SIM115  (it is open as long as the process lives)
    exporter = ConsoleSpanExporter(out=file, formatter=lambda span: span.to_json(indent=None) + "\n")
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)
    return Engine()


def not_an_engine() -> int:
    """Return something else."""
    return 42
