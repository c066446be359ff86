"""The client for asyncio."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

from rhai_tasks.errors import ClientClosed, ScriptError, TaskCancelled
from rhai_tasks.protocol import ScriptRef, Status
from rhai_tasks.settings import Settings

from .answers import Stats
from .base import ClientOptions, Handle, ResultTimeout, batch_for_poll, check_scripts, group_by_id, make_requests
from .prints import PrintsReader
from .progress import Progress
from .requests import Ending, unwrap
from .results import ResultListener
from .scripts import AsyncScripts
from .sender import END_OF_TIME, AsyncSender
from .spec import Submitted, TaskOptions, TaskSpec

_DEFAULT = Settings()


class AsyncTask(Handle["AsyncClient", AsyncSender]):
    """A handle for a task, as `Task`, for asyncio."""

    async def status(self) -> Status:
        """Return the task's status; see `Task.status`."""
        return await self._sender.send(self._sender.requests.status(self.id))

    async def details(self, *names: str) -> dict[str, str]:
        """Return the fields of the task's details; see `Task.details`."""
        return await self._sender.send(self._sender.requests.details(self.id, names))

    async def result(self, timeout: float | None = None) -> str:
        """Wait until the task has ended, and return its output; see `Task.result`."""
        if self.ending is None:
            async for _ in self._client.as_completed([self], timeout=timeout):
                pass
        assert self.ending is not None  # noqa: S101  (as_completed has set it, or raised)
        return unwrap(self.id, self.ending)

    async def value(self, timeout: float | None = None) -> Any:
        """Wait until the task has ended, and return its value; see `Task.value`."""
        await self.result(timeout)
        return await self._sender.send(self._sender.requests.value(self.id))

    async def stats(self, timeout: float | None = None) -> Stats:
        """Wait until the task has ended, and return what its run took; see `Task.stats`."""
        with suppress(ScriptError, TaskCancelled):
            await self.result(timeout)
        return await self._sender.send(self._sender.requests.stats(self.id))

    async def prints(self, timeout: float | None = None) -> AsyncIterator[str]:
        """Yield the lines that the script prints, until the task has ended; see `Task.prints`."""
        reader, end = PrintsReader(self.id, self._sender.requests.key(self.id)), ResultTimeout(timeout, 0.0)
        while True:
            for line in await self._sender.send(reader.poll(), end.seconds_left()):
                yield line
            if reader.has_ended:
                return
            if end.is_over():
                raise end.make_error([self.id])
            await asyncio.sleep(min(reader.pause, end.seconds_left()))

    async def cancel(self) -> bool:
        """Cancel the task; see `Client.cancel`."""
        return await self._client.cancel(self.id)


class AsyncClient:
    """A `Client` for asyncio, with the same arguments and errors. One event loop uses it."""

    def __init__(
        self, url: str = _DEFAULT.redis_url, *, retry_timeout: float = 30.0, **options: Unpack[ClientOptions]
    ) -> None:
        self._requests = make_requests(**options)
        self._sender = AsyncSender(url, self._requests, retry_timeout)
        self.scripts = AsyncScripts(self._sender, self._requests.namespace)
        """The stored scripts of the server."""
        self._results = ResultListener(url, self._requests, self._sender.send_once, self._sender.retry_timeout)
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Disconnect. Coroutines that wait for results get `ClientClosed`."""
        self._closed = True
        self._sender.close()
        await self._results.aclose()
        await self._sender.aclose()

    async def submit(self, script: str | ScriptRef, **options: Unpack[TaskOptions]) -> AsyncTask:
        """Submit a script, with the options of `Client.submit`."""
        (batch,) = self._requests.submit([TaskSpec(script, **options)])
        await self._sender.submit(batch)
        return AsyncTask(self, self._sender, batch.task_ids[0], time.monotonic())

    async def submit_many(self, scripts: Iterable[Submitted], *, progress: bool = False) -> list[AsyncTask]:
        """Submit scripts in few round trips; see `Client.submit_many`."""
        tasks: list[AsyncTask] = []
        with Progress("submitted", scripts, shown=progress) as bar:
            for batch in self._requests.submit(check_scripts(scripts)):
                await self._sender.submit(batch)
                now = time.monotonic()
                tasks += [AsyncTask(self, self._sender, task_id, now) for task_id in batch.task_ids]
                bar.advance(len(batch.task_ids))
        return tasks

    async def as_completed(
        self, tasks: Iterable[AsyncTask], *, timeout: float | None = None, progress: bool = False
    ) -> AsyncIterator[AsyncTask]:
        """Yield tasks as they end; see `Client.as_completed`."""
        handles = group_by_id(tasks)
        with Progress("ended", handles, shown=progress) as bar:
            async for task_id, ending in self._endings(handles, ResultTimeout(timeout, self._sender.retry_timeout)):
                for task in handles[task_id]:
                    task.ending = ending
                    yield task
                bar.advance(1)

    async def cancel(self, task_id: str) -> bool:
        """Cancel a task; see `Client.cancel`."""
        return await self._sender.send(self._requests.cancel(task_id))

    def task(self, task_id: str) -> AsyncTask:
        """Return a handle for any task, also for one that another client submitted."""
        return AsyncTask(self, self._sender, task_id)

    async def _endings(
        self, handles: dict[str, list[AsyncTask]], timeout: ResultTimeout
    ) -> AsyncIterator[tuple[str, Ending]]:
        left = set(handles)
        for some in batch_for_poll(handles, every=timeout.is_over()):
            with timeout.limit_outage(left):
                endings = await self._sender.send(self._requests.outcomes(some), timeout.seconds_left())
            left -= endings.keys()
            for task_id, ending in endings.items():
                yield task_id, ending
        if not left:
            return
        if timeout.is_over():
            raise timeout.make_error(left)
        if self._closed:
            raise ClientClosed("this client is closed")
        arrived: asyncio.Queue[tuple[str, Ending]] = asyncio.Queue()
        self._results.add(left.copy(), arrived.put_nowait)
        try:
            while left:
                try:
                    async with asyncio.timeout(min(timeout.seconds_left(), END_OF_TIME)):
                        task_id, ending = await arrived.get()
                except TimeoutError:
                    raise timeout.make_error(left) from self._results.last_error()
                left.discard(task_id)
                yield task_id, ending
        finally:
            self._results.discard(left, arrived.put_nowait)
