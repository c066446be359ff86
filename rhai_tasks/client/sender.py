"""Sends requests over a bounded number of connections, each by a deadline, and again while the server is away."""

import asyncio
import math
import os
import queue
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import redis
import tenacity

from rhai_tasks.connection.connect import ANSWER_SECONDS, connect_async
from rhai_tasks.connection.deadlines import answer_by, answer_within, close_async, connect_bounded
from rhai_tasks.connection.outage import is_transient, to_our_error
from rhai_tasks.connection.scripts import script_source
from rhai_tasks.connection.tls import check_files
from rhai_tasks.errors import ClientClosed

from .numbers import RequestNumbers
from .requests import Batch, Request, Requests
from .spec import check_seconds

T = TypeVar("T")

END_OF_TIME = 1e9  # seconds; no lock waits for longer
_CONNECTIONS = 50  # of a client, for requests; redis-py's pools refuse more than 100
_SHORTEST_SECONDS = 1.0  # in which the server may answer a request, however short the caller's timeout


class _Sender:
    """What the senders for threads and for asyncio share.

    Args:
        url: The server.
        requests: Builds the requests of this client.
        retry_timeout: Seconds for which a request is repeated while the server is away.

    Raises:
        ConfigurationError: The URL cannot be read.
        ValueError: `retry_timeout` is not a number of seconds.
    """

    def __init__(self, url: str, requests: Requests, retry_timeout: float) -> None:
        check_files(url)
        self.url, self.requests = url, requests
        self.retry_timeout = check_seconds("retry_timeout", retry_timeout, most=math.inf)
        self._answered = -math.inf  # when the server last answered: time.monotonic()
        self._numbers = RequestNumbers(requests.namespace)
        self._scripts: dict[str, Any] = {}
        self._closed = False

    def _policy(self, error: redis.RedisError, end: float) -> dict[str, Any]:
        """Return tenacity's arguments to repeat a request that failed.

        Args:
            error: The error of the first try.
            end: time.monotonic() at which the last try begins at the latest.

        Raises:
            redis.RedisError: `error`, if a repetition would fail alike, or would be too late.
        """
        left = end - time.monotonic()
        if left <= 0 or not is_transient(error):
            raise error
        return {
            "retry": tenacity.retry_if_exception(is_transient),
            "wait": tenacity.wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
            "stop": tenacity.stop_before_delay(left),
            "reraise": True,
        }

    def _seconds_for_slot(self, began: float, within: float) -> float:
        """Return how long a request may still wait for a slot: a server that answers other requests is not away.

        Raises:
            redis.TimeoutError: No longer.
        """
        now = time.monotonic()
        retry_timeout = max(self.retry_timeout, _SHORTEST_SECONDS)
        left = min(max(began, self._answered) + retry_timeout, began + within) - now
        if left <= 0:
            raise redis.TimeoutError(f"no connection became free within {now - began:.3g} s")
        return min(left, END_OF_TIME)

    def _run(self, redis_client: Any, request: Request[Any]) -> Any:
        """Send a request once; return its reply, or an awaitable of it."""
        if request.script is None:
            return redis_client.execute_command(*request.args)
        script = self._scripts.get(request.script)
        if script is None:
            source = script_source(__package__, request.script, self.requests.table)
            script = self._scripts[request.script] = redis_client.register_script(source)
        return script(keys=request.keys, args=request.args)


class Sender(_Sender):
    """Sends requests for any number of threads, and for forks of the process too."""

    def __init__(self, url: str, requests: Requests, retry_timeout: float) -> None:
        super().__init__(url, requests, retry_timeout)
        self._redis = connect_bounded(url)
        self._make_slots()

    def close(self) -> None:
        """Disconnect; requests that are sent from here on raise `ClientClosed`."""
        self._closed = True
        self._redis.close()

    def submit(self, batch: Batch) -> None:
        """Submit a batch of tasks, once, although the request may be repeated; raises as `send`."""
        with self._numbers.numbered(batch.request) as request:
            self.send(request)

    def send(self, request: Request[T], within: float = math.inf) -> T:
        """Send a request, and again while the server is away, so its effect must bear a repetition.

        Args:
            request: The request.
            within: Seconds for all of it, where the caller has fewer than `retry_timeout`; the server gets a second
                to answer in any case.

        Raises:
            ClientClosed: `close` was called.
            ServerUnavailable: The server has not answered in time.
            ServerError: The server refuses the request.
        """
        if self._closed:
            raise ClientClosed("this client is closed")
        asked = time.monotonic()
        tried = asked
        try:
            slots = self._take_slot(asked, within)
            try:
                tried = time.monotonic()
                answer_by(
                    min(tried + max(self.retry_timeout, _SHORTEST_SECONDS), asked + max(within, _SHORTEST_SECONDS))
                )
                reply = self._run(self._redis, request)  # most requests need no more
                self._answered = time.monotonic()
            finally:
                slots.put(None)
        except redis.RedisError as error:
            reply = self._repeat(request, error, min(tried + self.retry_timeout, asked + within))
        return request.read(reply)

    def _repeat(self, request: Request[Any], error: redis.RedisError, end: float) -> Any:
        def repeat() -> Any:
            now = time.monotonic()
            slots = self._take_slot(now, end - now)
            try:
                answer_by(end)
                reply = self._run(self._redis, request)
                self._answered = time.monotonic()
                return reply
            finally:
                slots.put(None)

        try:
            return tenacity.Retrying(**self._policy(error, end))(repeat)
        except redis.RedisError as last:
            raise to_our_error(last, self.url) from last

    def _take_slot(self, began: float, within: float) -> "queue.SimpleQueue[None]":
        """Wait until fewer than `_CONNECTIONS` other requests are under way; return the queue that takes the slot back.

        In a fork the threads that held slots do not exist, so the fork makes slots of its own.
        """
        if self._process != os.getpid():
            self._make_slots()
        slots = self._slots
        while True:
            try:
                if slots.empty():
                    slots.get(timeout=self._seconds_for_slot(began, within))
                else:
                    slots.get_nowait()
            except queue.Empty:  # the server may have answered others meanwhile
                continue
            return slots

    def _make_slots(self) -> None:
        self._process = os.getpid()
        self._slots: queue.SimpleQueue[None] = queue.SimpleQueue()  # written in C: it takes no time to speak of
        for _ in range(_CONNECTIONS):
            self._slots.put(None)


class AsyncSender(_Sender):
    """Sends requests in one event loop; methods and errors are those of `Sender`."""

    def __init__(self, url: str, requests: Requests, retry_timeout: float) -> None:
        super().__init__(url, requests, retry_timeout)
        self._redis = connect_async(url)
        self._slots = asyncio.Semaphore(_CONNECTIONS)

    def close(self) -> None:
        """Let requests that are sent from here on raise `ClientClosed`."""
        self._closed = True

    async def aclose(self) -> None:
        """Close, and disconnect."""
        self.close()
        await close_async(self._redis)

    async def submit(self, batch: Batch) -> None:
        """Submit a batch of tasks; as `Sender.submit`."""
        with self._numbers.numbered(batch.request) as request:
            await self.send(request)

    async def send(self, request: Request[T], within: float = math.inf) -> T:
        """Send a request, and again while the server is away; as `Sender.send`."""
        if self._closed:
            raise ClientClosed("this client is closed")
        asked = time.monotonic()
        tried = asked
        try:
            async with self._slot(asked, within):
                tried = time.monotonic()
                end = min(tried + max(self.retry_timeout, _SHORTEST_SECONDS), asked + max(within, _SHORTEST_SECONDS))
                return await self.send_once(request, end - tried)  # most requests need no more
        except redis.RedisError as error:
            return await self._repeat(request, error, min(tried + self.retry_timeout, asked + within))

    async def send_once(self, request: Request[T], seconds: float) -> T:
        """Send a request once, waiting for no slot.

        Raises:
            redis.RedisError: The server has not answered within `seconds`, or refuses.
        """
        reply = await answer_within(min(seconds, ANSWER_SECONDS), self._run(self._redis, request))
        self._answered = time.monotonic()
        return request.read(reply)

    async def _repeat(self, request: Request[T], error: redis.RedisError, end: float) -> T:
        async def repeat() -> T:
            async with self._slot(time.monotonic(), end - time.monotonic()):
                return await self.send_once(request, end - time.monotonic())

        try:
            return await tenacity.AsyncRetrying(**self._policy(error, end))(repeat)
        except redis.RedisError as last:
            raise to_our_error(last, self.url) from last

    @asynccontextmanager
    async def _slot(self, began: float, within: float) -> AsyncIterator[None]:
        """Wait until fewer than `_CONNECTIONS` other requests are under way."""
        while True:
            try:
                async with asyncio.timeout(self._seconds_for_slot(began, within)):
                    await self._slots.acquire()
                break
            except TimeoutError:
                pass  # the server may have answered others meanwhile
        try:
            yield
        finally:
            self._slots.release()
