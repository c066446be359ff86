"""The threads that `eval_async` runs scripts on."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any

_DEEPEST = 64

_depth: ContextVar[int] = ContextVar("rhai_tasks.depth", default=0)
"""How many scripts of `eval_async` wait for this code, each for the next."""


class Pool:
    """As many threads as CPUs and four more, and as many again for scripts that such scripts wait for, and so on.

    A script occupies a thread while it waits for a coroutine. If that evaluated another script on the same threads, all
    of them could wait for one that is free.
    """

    def __init__(self) -> None:
        self._executors: dict[tuple[int, int], ThreadPoolExecutor] = {}

    def submit(self, evaluate: Callable[[], Any], run_in_context: Callable[..., Any]) -> Future[Any]:
        """Evaluate on a free thread.

        Args:
            evaluate: The evaluation.
            run_in_context: `Context.run` of the context that it runs in.

        Raises:
            RecursionError: Scripts wait for each other 64 deep.
        """
        depth = _depth.get()
        if depth >= _DEEPEST:
            raise RecursionError(f"{depth} scripts wait for this one, each for the next: no more nest with eval_async")
        run_in_context(_depth.set, depth + 1)
        key = (os.getpid(), depth)  # a fork has none of the threads
        executor = self._executors.get(key)
        if executor is None:
            threads = (os.cpu_count() or 1) + 4
            made = ThreadPoolExecutor(threads, thread_name_prefix=f"rhai-{depth}" if depth else "rhai")
            executor = self._executors.setdefault(key, made)
        return executor.submit(run_in_context, evaluate)
