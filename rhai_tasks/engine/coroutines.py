"""How a script waits for a host function that is a coroutine: on the loop of `eval_async`, else on one of our own."""

import asyncio
import functools
import os
import threading
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

from ._engine import stopped
from .host import is_coroutine_function

_LOOK_SECONDS = 0.005  # between two looks whether the script was stopped, while it waits

awaiting_loop: ContextVar[asyncio.AbstractEventLoop | None] = ContextVar("rhai_tasks.loop", default=None)
"""The loop that awaits the script; its coroutines run there."""

_starting = threading.Lock()


def awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let the script wait for a function that is a coroutine's; return others as they are."""
    if not is_coroutine_function(function):
        return function

    @functools.wraps(function)
    def wait(*arguments: Any) -> Any:
        if _a_loop_runs_here():  # waiting would block it
            name = getattr(function, "__name__", type(function).__name__)
            raise RuntimeError(
                f"{name} is a coroutine, and this thread's event loop waits for the script: use eval_async"
            )
        coroutine: Coroutine[Any, Any, Any] = function(*arguments)
        running = asyncio.run_coroutine_threadsafe(coroutine, awaiting_loop.get() or _own_loop())
        try:
            while True:
                try:
                    return running.result(timeout=_LOOK_SECONDS)
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
    """Return the process's loop for scripts that no loop awaits; it runs in a thread of its own."""
    with _starting:
        return _loop_of_process(os.getpid())


@functools.cache
def _loop_of_process(_pid: int) -> asyncio.AbstractEventLoop:
    """Start it; a fork needs one of its own, since threads stay behind."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="coroutines", daemon=True).start()
    return loop
