"""The threads that `eval_async` runs scripts on."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

_DEEPEST = 64
Value = TypeVar("Value")

_depth: ContextVar[int] = ContextVar("rhai_tasks.depth", default=0)
"""How many scripts of `eval_async` wait for this code, each for the next."""


class Pool:
    """Threads for scripts, as many again for scripts that such scripts wait for, and so on.

    A script occupies a thread while it waits for a coroutine. If that evaluated another script on the same threads, all
    of them could wait for one that is free.

    Args:
        threads: How many; by default as many as CPUs and four more.

    Raises:
        TypeError: It is not a whole number.
        ValueError: It is below 1.
    """

    def __init__(self, threads: int | None = None) -> None:
        if threads is not None and (not isinstance(threads, int) or isinstance(threads, bool)):
            raise TypeError(f"threads is {threads!r}: expected a whole number")
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}: expected at least 1")
        self._threads = threads or (os.cpu_count() or 1) + 4
        self._executors: dict[tuple[int, int], ThreadPoolExecutor] = {}
        self._is_closed = False

    def close(self) -> None:
        """Take no more evaluations, drop those that wait for a thread, and wait for the others."""
        self._is_closed = True
        for (pid, _), executor in list(self._executors.items()):
            if pid == os.getpid():
                executor.shutdown(cancel_futures=True)

    def submit(self, evaluate: Callable[[], Value], run_in_context: Callable[..., Any]) -> Future[Value]:
        """Evaluate on a free thread.

        Args:
            evaluate: The evaluation.
            run_in_context: `Context.run` of the context that it runs in.

        Raises:
            RecursionError: Scripts wait for each other 64 deep.
            RuntimeError: The pool is closed.
        """
        if self._is_closed:
            raise RuntimeError("the engine is closed: it runs scripts in the caller's thread only")
        depth = _depth.get()
        if depth >= _DEEPEST:
            raise RecursionError(f"{depth} scripts wait for this one, each for the next: eval_async allows no more")
        run_in_context(_depth.set, depth + 1)
        key = (os.getpid(), depth)  # a fork has none of the threads
        executor = self._executors.get(key)
        if executor is None:
            made = ThreadPoolExecutor(self._threads, thread_name_prefix=f"rhai-{depth}" if depth else "rhai")
            executor = self._executors.setdefault(key, made)
        return executor.submit(run_in_context, evaluate)
