"""Host functions that are coroutine functions: they run in the loop of `eval_async`, or else in one of our own."""

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from ._engine import stopped
from .functions import is_coroutine_function

_POLL_SECONDS = 0.005  # between two checks whether the script was stopped, while it waits

awaiting_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("rhai_tasks.loop", default=None)
"""The event loop that awaits the script; coroutines of host functions run in it."""

_starting = threading.Lock()


def make_blocking(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a coroutine function so that scripts can call it; return other functions unchanged."""
    if not is_coroutine_function(function):
        return function

    @functools.wraps(function)
    def wait(*arguments: Any, **named: Any) -> Any:
        if _a_loop_runs_here():  # waiting would block it
            name = getattr(function, "__name__", type(function).__name__)
            raise RuntimeError(
                f"{name} is a coroutine, and this thread's event loop waits for the script: use eval_async"
            )
        coroutine: Coroutine[Any, Any, Any] = function(*arguments, **named)
        running = asyncio.run_coroutine_threadsafe(coroutine, awaiting_loop.get() or _own_loop())
        try:
            while True:
                try:
                    return running.result(timeout=_POLL_SECONDS)
                except TimeoutError:
                    if running.done() or stopped():
                        raise
        finally:
            running.cancel()

    return wait


def _a_loop_runs_here() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _own_loop() -> asyncio.AbstractEventLoop:
    """Return the event loop for scripts that no event loop awaits; it runs in a thread of its own."""
    with _starting:
        return _loop_of_process(os.getpid())


@functools.cache
def _loop_of_process(_pid: int) -> asyncio.AbstractEventLoop:
    """Start the event loop of a process; a fork needs one of its own, since it has no other threads."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="coroutines", daemon=True).start()
    return loop
