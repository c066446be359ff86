"""Waits for results in threads: a `ResultListener` in an event loop of its own, which any number of threads use."""

import asyncio
import os
import queue
import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress

from rhai_tasks.errors import ClientClosed, RhaiTasksError

from .base import ResultTimeout
from .requests import Ending, Requests
from .results import ResultListener, Sink
from .sender import END_OF_TIME, AsyncSender


class ListenerThread:
    """A `ResultListener` in a thread with an event loop. A fork has no such thread; `runs_here` is false there."""

    def __init__(self, url: str, requests: Requests, retry_timeout: float) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._sender = AsyncSender(url, requests, retry_timeout)
        self._results = ResultListener(url, requests, self._sender.send_once, retry_timeout)
        self._thread = threading.Thread(target=self._serve, name="rhai-results", daemon=True)
        self._thread.start()

    def runs_here(self) -> bool:
        """Whether the thread is one of this process."""
        return self._process == os.getpid()

    def add(self, task_ids: Iterable[str], sink: Sink) -> None:
        """Add tasks as `ResultListener.add` does, from another thread."""
        self._loop.call_soon_threadsafe(self._results.add, task_ids, sink)

    def discard(self, task_ids: Iterable[str], sink: Sink) -> None:
        """Discard tasks as `ResultListener.discard` does, from another thread."""
        with suppress(RuntimeError):  # the loop is closed, and nobody listens
            self._loop.call_soon_threadsafe(self._results.discard, task_ids, sink)

    def last_error(self) -> RhaiTasksError | None:
        """Return what `ResultListener.last_error` does."""
        return self._results.last_error()

    def stop(self) -> None:
        """Disconnect and end the thread, if it is one of this process."""
        if not self.runs_here():
            return
        with suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._stop()))
        if threading.current_thread() is not self._thread:  # a finalizer may run anywhere
            self._thread.join()

    async def _stop(self) -> None:
        await self._results.aclose()
        await self._sender.aclose()
        self._loop.stop()

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()


class Waiter:
    """Waits in the threads of a client for tasks to end. Its `ListenerThread` starts with the first wait."""

    def __init__(self, url: str, requests: Requests, retry_timeout: float) -> None:
        self._url, self._requests, self._retry_timeout = url, requests, retry_timeout
        self._process, self._lock = os.getpid(), threading.Lock()
        self._listener: ListenerThread | None = None
        self._closed = False

    def close(self) -> None:
        """Stop; threads that wait get `ClientClosed`."""
        with self._guard():
            self._closed = True
            listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    def wait_for(self, task_ids: set[str], timeout: ResultTimeout) -> Iterator[tuple[str, Ending]]:
        """Yield the ids of tasks with their endings, as they end.

        Raises:
            ClientClosed: `close` was called before.
            TaskTimeout: Some tasks have not ended in time.
        """
        arrived: queue.SimpleQueue[tuple[str, Ending]] = queue.SimpleQueue()
        left = task_ids.copy()
        with self._guard():  # once it is closed, nothing is added
            if self._closed:
                raise ClientClosed("this client is closed")
            if self._listener is None or not self._listener.runs_here():
                self._listener = ListenerThread(self._url, self._requests, self._retry_timeout)
                weakref.finalize(self, self._listener.stop)  # for a client that is never closed
            listener = self._listener
            listener.add(task_ids, arrived.put)
        try:
            while left:
                try:
                    task_id, ending = arrived.get(timeout=min(timeout.seconds_left(), END_OF_TIME))
                except queue.Empty:
                    raise timeout.make_error(left) from listener.last_error()
                left.discard(task_id)
                yield task_id, ending
        finally:
            if left:
                listener.discard(left, arrived.put)

    def _guard(self) -> threading.Lock:
        if self._process != os.getpid():  # in a fork the threads that may have held the lock do not exist
            self._process, self._lock = os.getpid(), threading.Lock()
        return self._lock
