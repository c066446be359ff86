"""Submit tasks, follow them, get their results: for threads (`Client`) and for asyncio (`AsyncClient`).

Both carry out the calls of `Calls`, and wait through a `ResultListener`: `Client` has one in a thread with an
event loop, started when something is first awaited.
"""

import asyncio
import os
import queue
import threading
import time
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from types import TracebackType
from typing import Any, Self, TypeVar

import redis
import tenacity

from .calls import LOOK_AT, Batch, Call, CallNumbers, Calls, Found, TaskSpec, Via, batched, traceparent_if, unwrap
from .connection import close_async, connect, connect_async, explain, may_pass
from .errors import ClientClosed, TaskTimeout
from .progress import Progress
from .protocol import Prefixes, Status
from .results import ResultListener, Sink
from .settings import Settings

__all__ = ["AsyncClient", "AsyncTask", "Client", "Task"]

T = TypeVar("T")

_DEFAULT = Settings()
_NEW_SECONDS = 0.05  # after its submission a task is unlikely to have ended


class Task:
    """A handle on a task, whoever submitted it."""

    def __init__(self, client: "Client", task_id: str, submitted: float = 0.0) -> None:
        self.id = task_id
        self._submitted = submitted  # time.monotonic(); 0: not through this handle
        self._client = client
        self._found: Found | None = None  # how it ended, once that was awaited

    def __repr__(self) -> str:
        return f"<Task {self.id}>"

    def status(self) -> Status:
        """Ask for the task's status.

        Raises:
            TaskNotFound: It has no details.
            TaskMalformed: Somebody gave it a status that docs/protocol.md does not have.
            ServerUnavailable: The server does not answer.
        """
        return self._client._call(self._client._calls.status(self.id))

    def details(self) -> dict[str, str]:
        """Ask for all fields of the task's details; docs/protocol.md lists them.

        Raises:
            TaskNotFound, ServerUnavailable: As for `status`.
        """
        return self._client._call(self._client._calls.details(self.id))

    def result(self, timeout: float | None = None) -> str:
        """Wait until the task has ended, and return its output.

        Args:
            timeout: Seconds; `None` waits without end.

        Raises:
            ScriptError: The task ended as an error.
            TaskCancelled: It was cancelled.
            TaskTimeout: It has not ended in time; it goes on.
            TaskNotFound: It has no details.
            ServerUnavailable: The server has not answered for the client's `retry_timeout`.
        """
        if self._found is None:
            for _ in self._client.as_completed([self], timeout=timeout):
                pass
        assert self._found is not None  # noqa: S101  (as_completed has set it, or raised)
        return unwrap(self.id, self._found)

    def cancel(self) -> bool:
        """Cancel the task; see `Client.cancel`."""
        return self._client.cancel(self.id)


class AsyncTask:
    """As `Task`, for asyncio."""

    def __init__(self, client: "AsyncClient", task_id: str, submitted: float = 0.0) -> None:
        self.id = task_id
        self._submitted = submitted  # time.monotonic(); 0: not through this handle
        self._client = client
        self._found: Found | None = None  # how it ended, once that was awaited

    def __repr__(self) -> str:
        return f"<AsyncTask {self.id}>"

    async def status(self) -> Status:
        """Ask for the task's status; as `Task.status`."""
        return await self._client._call(self._client._calls.status(self.id))

    async def details(self) -> dict[str, str]:
        """Ask for all fields of the task's details; as `Task.details`."""
        return await self._client._call(self._client._calls.details(self.id))

    async def result(self, timeout: float | None = None) -> str:
        """Wait until the task has ended, and return its output; as `Task.result`."""
        if self._found is None:
            async for _ in self._client.as_completed([self], timeout=timeout):
                pass
        assert self._found is not None  # noqa: S101  (as_completed has set it, or raised)
        return unwrap(self.id, self._found)

    async def cancel(self) -> bool:
        """Cancel the task; see `Client.cancel`."""
        return await self._client.cancel(self.id)


class _Base:
    """What both clients are made of."""

    def __init__(
        self,
        url: str,
        circle: str | None,
        caller_id: str,
        context_id: str | None,
        expire_finished: float | None,
        retry_timeout: float,
        prefixes: Prefixes | None,
        namespace: str,
        *,
        traces: bool,
    ) -> None:
        self._url = url
        self._calls = Calls(
            circle=circle,
            caller_id=caller_id,
            context_id=context_id,
            expire_finished=expire_finished,
            prefixes=prefixes or _DEFAULT.prefixes,
            namespace=namespace,
            traceparent=traceparent_if(traces),
        )
        self._retry_timeout = retry_timeout
        self._numbers = CallNumbers(namespace)
        self._scripts: dict[str, Any] = {}

    def _policy(self, error: redis.RedisError, began: float) -> dict[str, Any]:
        """Say how a call that failed is repeated.

        Args:
            error: Of the first try.
            began: time.monotonic() before it.

        Raises:
            redis.RedisError: Not at all: that error stands.
        """
        left = self._retry_timeout - (time.monotonic() - began)
        if left <= 0 or not may_pass(error):
            raise error
        return {
            "retry": tenacity.retry_if_exception(may_pass),
            "wait": tenacity.wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
            "stop": tenacity.stop_after_delay(left),
            "reraise": True,
        }

    def _run(self, redis_client: Any, call: Call[Any]) -> Any:
        """Send a call; return its reply, or an awaitable of it."""
        if call.script is None:
            return redis_client.execute_command(*call.args)
        script = self._scripts.get(call.script)
        if script is None:
            source = files("rhai_tasks").joinpath(f"{call.script}.lua").read_bytes()
            script = self._scripts[call.script] = redis_client.register_script(source)
        return script(keys=call.keys, args=call.args)


class Client(_Base):
    """Submits tasks and gets their results. Any number of threads may use one, and forks of the process too.

    Args:
        url: `redis://`, `rediss://` (TLS), `unix://`, or `redis+sentinel://host:port,host:port/service/db`.
        circle: Public key of the circle whose workers are to run the tasks, where a task does not say.
        caller_id: Public key of whoever asks: `CALLER_ID` in scripts.
        context_id: Field `contextId` of the details; scripts see the worker's own circle.
        expire_finished: Seconds after its end at which a task's details go; `None` leaves it to the worker,
            which keeps them by default.
        retry_timeout: Seconds for which a call is tried again while the server is away.
        prefixes: Of the native keys; as the worker's.
        namespace: Of the dramatiq keys; as the worker's.
        traces: Let workers that trace join each task to the span that is current when it is submitted.

    Raises:
        ConfigurationError: The URL cannot be read, or there is no OpenTelemetry. Nothing is connected to before
            the first call.
    """

    def __init__(
        self,
        url: str = _DEFAULT.redis_url,
        *,
        circle: str | None = None,
        caller_id: str = "",
        context_id: str | None = None,
        expire_finished: float | None = None,
        retry_timeout: float = 30.0,
        prefixes: Prefixes | None = None,
        namespace: str = _DEFAULT.namespace,
        traces: bool = False,
    ) -> None:
        super().__init__(
            url, circle, caller_id, context_id, expire_finished, retry_timeout, prefixes, namespace, traces=traces
        )
        self._redis = connect(url)
        self._process, self._lock = os.getpid(), threading.Lock()
        self._waiting: _ListenerThread | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. Who waits for a result meanwhile gets `ClientClosed`."""
        with self._guard():
            self._closed = True
            waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.stop()
        self._redis.close()

    def submit(
        self,
        script: str,
        *,
        circle: str | None = None,
        caller_id: str | None = None,
        context_id: str | None = None,
        task_id: str | None = None,
        fields: Mapping[str, str] | None = None,
        unique: bool = False,
        delay: float = 0.0,
        via: Via = "native",
    ) -> Task:
        """Submit a script; a call whose reply got lost is repeated, and done once.

        Args:
            script: Rhai source.
            circle: Whose workers are to run it; the client's by default, like the next two.
            caller_id: Who asks.
            context_id: Field `contextId` of the details.
            task_id: Any text; by default a new UUID. An id that was used before is run anew.
            fields: Further fields of the details, such as `replyToQueue`.
            unique: Refuse an id that was used before.
            delay: Seconds until the task is handed over, by a bridge of ours; it outlives every restart.
            via: `native`: by the circle's list, which any worker may serve. `dramatiq`: as a message for our
                workers, past what waits in the list. `urgent`: likewise, before all other messages.

        Raises:
            TaskExists: `unique`, and the id is taken.
            ValueError: No circle is named, or a field is one that the client writes itself.
            ServerUnavailable: The server has not answered for `retry_timeout`; the task may have been submitted.
        """
        spec = TaskSpec(script, circle, caller_id, context_id, task_id, fields, unique, delay, via)
        (batch,) = self._calls.submit([spec])
        self._submit(batch)
        return Task(self, batch.task_ids[0], time.monotonic())

    def submit_many(self, scripts: Iterable[str | TaskSpec], *, progress: bool = False) -> list[Task]:
        """Submit scripts in few round trips, each of some hundred tasks, which are submitted together or not at all.

        Args:
            scripts: Texts, or `TaskSpec` for those with arguments of their own. Taken as they come.
            progress: Show a live bar on a terminal.

        Raises:
            TaskExists, ValueError, ServerUnavailable: As for `submit`; what came before is submitted.
            TypeError: A script is no text.
        """
        tasks: list[Task] = []
        with Progress("submitted", scripts, shown=progress) as bar:
            for batch in self._calls.submit(_scripts(scripts)):
                self._submit(batch)
                now = time.monotonic()
                tasks += [Task(self, task_id, now) for task_id in batch.task_ids]
                bar.advance(len(batch.task_ids))
        return tasks

    def as_completed(
        self, tasks: Iterable[Task], *, timeout: float | None = None, progress: bool = False
    ) -> Iterator[Task]:
        """Yield tasks as they end; `result` of what is yielded returns or raises at once.

        Args:
            tasks: Handles of this client.
            timeout: Seconds for all; `None` waits without end.
            progress: Show a live bar on a terminal.

        Raises:
            TaskTimeout: Some have not ended in time; they go on.
        """
        by_id: dict[str, list[Task]] = {}
        for task in tasks:
            by_id.setdefault(task.id, []).append(task)
        with Progress("ended", by_id, shown=progress) as bar:
            for task_id, found in self._arrivals(by_id, timeout):
                for task in by_id[task_id]:
                    task._found = found
                    yield task
                bar.advance(1)

    def cancel(self, task_id: str) -> bool:
        """Cancel a task: it ends as an error, `cancelled`, and `result` raises `TaskCancelled`.

        One that waits never runs in a worker of ours; one that runs is stopped inside the engine. An original
        worker knows nothing of this.

        Returns:
            `False` if it had ended already.

        Raises:
            TaskNotFound: It has no details.
            ServerUnavailable: The server has not answered for `retry_timeout`.
        """
        return self._call(self._calls.cancel(task_id))

    def task(self, task_id: str) -> Task:
        """Return a handle for any task, whoever submitted it."""
        return Task(self, task_id)

    def _call(self, call: Call[T]) -> T:
        """Carry a call out; it is repeated while the server is away, so it must bear that."""
        if self._closed:
            raise ClientClosed("this client is closed")
        began = time.monotonic()
        try:
            reply = self._run(self._redis, call)  # most calls need no more
        except redis.RedisError as error:
            reply = self._repeat(call, error, began)
        return call.read(reply)

    def _repeat(self, call: Call[Any], error: redis.RedisError, began: float) -> Any:
        try:
            return tenacity.Retrying(**self._policy(error, began))(self._run, self._redis, call)
        except redis.RedisError as last:
            raise explain(last, self._url) from last

    def _guard(self) -> threading.Lock:
        if self._process != os.getpid():  # a fork: the thread that may have held the lock is not here
            self._process, self._lock = os.getpid(), threading.Lock()
        return self._lock

    def _submit(self, batch: Batch) -> None:
        with self._numbers.numbered(batch.call) as call:
            self._call(call)

    def _arrivals(self, by_id: Mapping[str, list[Task]], timeout: float | None) -> Iterator[tuple[str, Found]]:
        end = None if timeout is None else time.monotonic() + timeout
        left = set(by_id)
        for some in _not_new(by_id):
            for task_id, found in self._call(self._calls.look(some)).items():
                left.discard(task_id)
                yield task_id, found
        if not left:
            return
        arrived: queue.SimpleQueue[tuple[str, Found]] = queue.SimpleQueue()
        with self._guard():  # once it is closed, nothing is added
            if self._closed:
                raise ClientClosed("this client is closed")
            if self._waiting is None or not self._waiting.is_ours():
                self._waiting = _ListenerThread(self._url, self._calls, self._retry_timeout)
                weakref.finalize(self, self._waiting.stop)  # for who never closes it
            waiting = self._waiting
            waiting.add(left.copy(), arrived.put)
        try:
            while left:
                try:
                    task_id, found = arrived.get(timeout=None if end is None else max(end - time.monotonic(), 0))
                except queue.Empty:
                    raise TaskTimeout(next(iter(left)), timeout or 0.0, len(left) - 1) from None
                left.discard(task_id)
                yield task_id, found
        finally:
            if left:
                waiting.discard(left, arrived.put)


class AsyncClient(_Base):
    """As `Client`, for asyncio. One event loop uses it; its arguments and errors are the same."""

    def __init__(
        self,
        url: str = _DEFAULT.redis_url,
        *,
        circle: str | None = None,
        caller_id: str = "",
        context_id: str | None = None,
        expire_finished: float | None = None,
        retry_timeout: float = 30.0,
        prefixes: Prefixes | None = None,
        namespace: str = _DEFAULT.namespace,
        traces: bool = False,
    ) -> None:
        super().__init__(
            url, circle, caller_id, context_id, expire_finished, retry_timeout, prefixes, namespace, traces=traces
        )
        self._redis = connect_async(url)
        self._results = ResultListener(url, self._calls, self._call_once, retry_timeout)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect. Who waits for a result meanwhile gets `ClientClosed`."""
        self._closed = True
        await self._results.aclose()
        await close_async(self._redis)

    async def submit(
        self,
        script: str,
        *,
        circle: str | None = None,
        caller_id: str | None = None,
        context_id: str | None = None,
        task_id: str | None = None,
        fields: Mapping[str, str] | None = None,
        unique: bool = False,
        delay: float = 0.0,
        via: Via = "native",
    ) -> AsyncTask:
        """Submit a script; as `Client.submit`."""
        spec = TaskSpec(script, circle, caller_id, context_id, task_id, fields, unique, delay, via)
        (batch,) = self._calls.submit([spec])
        await self._submit(batch)
        return AsyncTask(self, batch.task_ids[0], time.monotonic())

    async def submit_many(self, scripts: Iterable[str | TaskSpec], *, progress: bool = False) -> list[AsyncTask]:
        """Submit scripts in few round trips; as `Client.submit_many`."""
        tasks: list[AsyncTask] = []
        with Progress("submitted", scripts, shown=progress) as bar:
            for batch in self._calls.submit(_scripts(scripts)):
                await self._submit(batch)
                now = time.monotonic()
                tasks += [AsyncTask(self, task_id, now) for task_id in batch.task_ids]
                bar.advance(len(batch.task_ids))
        return tasks

    async def as_completed(
        self, tasks: Iterable[AsyncTask], *, timeout: float | None = None, progress: bool = False
    ) -> AsyncIterator[AsyncTask]:
        """Yield tasks as they end; as `Client.as_completed`."""
        by_id: dict[str, list[AsyncTask]] = {}
        for task in tasks:
            by_id.setdefault(task.id, []).append(task)
        with Progress("ended", by_id, shown=progress) as bar:
            async for task_id, found in self._arrivals(by_id, timeout):
                for task in by_id[task_id]:
                    task._found = found
                    yield task
                bar.advance(1)

    async def cancel(self, task_id: str) -> bool:
        """Cancel a task; as `Client.cancel`."""
        return await self._call(self._calls.cancel(task_id))

    def task(self, task_id: str) -> AsyncTask:
        """Return a handle for any task, whoever submitted it."""
        return AsyncTask(self, task_id)

    async def _call(self, call: Call[T]) -> T:
        """Carry a call out; it is repeated while the server is away, so it must bear that."""
        if self._closed:
            raise ClientClosed("this client is closed")
        began = time.monotonic()
        try:
            return await self._call_once(call)  # most calls need no more
        except redis.RedisError as error:
            return await self._repeat(call, error, began)

    async def _repeat(self, call: Call[T], error: redis.RedisError, began: float) -> T:
        try:
            return await tenacity.AsyncRetrying(**self._policy(error, began))(self._call_once, call)
        except redis.RedisError as last:
            raise explain(last, self._url) from last

    async def _call_once(self, call: Call[T]) -> T:
        """Carry a call out; the server's errors are redis-py's."""
        return call.read(await self._run(self._redis, call))

    async def _submit(self, batch: Batch) -> None:
        with self._numbers.numbered(batch.call) as call:
            await self._call(call)

    async def _arrivals(
        self, by_id: Mapping[str, list[AsyncTask]], timeout: float | None
    ) -> AsyncIterator[tuple[str, Found]]:
        end = None if timeout is None else time.monotonic() + timeout
        left = set(by_id)
        for some in _not_new(by_id):
            for task_id, found in (await self._call(self._calls.look(some))).items():
                left.discard(task_id)
                yield task_id, found
        if not left:
            return
        if self._closed:
            raise ClientClosed("this client is closed")
        arrived: asyncio.Queue[tuple[str, Found]] = asyncio.Queue()
        self._results.add(left.copy(), arrived.put_nowait)
        try:
            while left:
                try:
                    async with asyncio.timeout(None if end is None else max(end - time.monotonic(), 0)):
                        task_id, found = await arrived.get()
                except TimeoutError:
                    raise TaskTimeout(next(iter(left)), timeout or 0.0, len(left) - 1) from None
                left.discard(task_id)
                yield task_id, found
        finally:
            self._results.discard(left, arrived.put_nowait)


def _not_new(by_id: Mapping[str, list[Any]]) -> Iterator[list[str]]:
    """Yield tasks that may have ended already, some at a time."""
    oldest = time.monotonic() - _NEW_SECONDS
    return batched((task_id for task_id, tasks in by_id.items() if tasks[0]._submitted < oldest), LOOK_AT)


def _scripts(scripts: Iterable[str | TaskSpec]) -> Iterable[str | TaskSpec]:
    if isinstance(scripts, str):
        raise TypeError("an iterable of scripts is wanted, not a single text")
    return scripts


class _ListenerThread:
    """A `ResultListener` in an event loop of its own, for threads. A fork has no such thread: `is_ours` says so."""

    def __init__(self, url: str, calls: Calls, patience: float) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._client = AsyncClient(url, retry_timeout=patience, prefixes=calls.prefixes, namespace=calls.namespace)
        self._thread = threading.Thread(target=self._serve, name="rhai-results", daemon=True)
        self._thread.start()

    def is_ours(self) -> bool:
        return self._process == os.getpid()

    def add(self, task_ids: Iterable[str], sink: Sink) -> None:
        self._loop.call_soon_threadsafe(self._client._results.add, task_ids, sink)

    def discard(self, task_ids: Iterable[str], sink: Sink) -> None:
        with suppress(RuntimeError):  # closed meanwhile: there is nothing left to tell
            self._loop.call_soon_threadsafe(self._client._results.discard, task_ids, sink)

    def stop(self) -> None:
        if not self.is_ours():
            return
        with suppress(RuntimeError):  # stopped before
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._stop()))
        if threading.current_thread() is not self._thread:  # a finalizer may run anywhere
            self._thread.join()

    async def _stop(self) -> None:
        await self._client.aclose()
        self._loop.stop()

    def _serve(self) -> None:
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()
