"""Clients whose calls end by a deadline, connecting included."""

import asyncio
import socket
import time
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

import redis
import redis.asyncio

from .connect import ANSWER_SECONDS, connect

T = TypeVar("T")

_CLOSE_SECONDS = 1.0  # for a connection to close in good order


class _Bounded:
    """A mixin for redis-py's connections: every wait of a call ends by the deadline of `answer_by`.

    redis-py bounds each read and write separately, and a call that connects first makes several of them.
    """

    _sock: socket.socket | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._longest: float = self.socket_timeout or ANSWER_SECONDS

    def connect(self) -> Any:
        if self._sock is None:
            self.socket_timeout = self.socket_connect_timeout = self._seconds()
        return super().connect()  # type: ignore[misc]  # of redis-py's class, like the next two

    def send_packed_command(self, *args: Any, **options: Any) -> Any:
        if self._sock is not None:
            self._sock.settimeout(self._seconds())
        return super().send_packed_command(*args, **options)  # type: ignore[misc]

    def read_response(self, *args: Any, **options: Any) -> Any:
        if self._sock is not None:
            self._sock.settimeout(self._seconds())
        return super().read_response(*args, **options)  # type: ignore[misc]

    def _seconds(self) -> float:
        return min(self._longest, max(_deadline.get() - time.monotonic(), 0.001))


_deadline: ContextVar[float] = ContextVar("deadline", default=float("inf"))


def connect_bounded(url: str) -> redis.Redis:
    """Make a client as `connect` does, whose calls end by the deadline of `answer_by`.

    Raises:
        ConfigurationError: As `connect`.
    """
    client = connect(url, timeout=ANSWER_SECONDS)
    sentinels = getattr(client.connection_pool, "sentinel_manager", None)
    for each in (client, *(sentinels.sentinels if sentinels else ())):
        pool = each.connection_pool
        pool.connection_class = type("BoundedConnection", (_Bounded, pool.connection_class), {})
    return client


def answer_by(moment: float) -> None:
    """Set the deadline (time.monotonic()) of this thread's next call with a client of `connect_bounded`."""
    _deadline.set(moment)


async def answer_within(seconds: float, ask: Awaitable[T]) -> T:
    """Await a call of a client of `connect_async`, connecting included.

    redis-py bounds a write by `asyncio.wait_for`, which in Python 3.11 loses a cancellation if the write ends in the
    same turn of the event loop. So these clients have no timeout of redis-py's. Sentinels and URLs may still have one:
    there, a lost cancellation is raised here.

    Raises:
        redis.TimeoutError: The server has not answered in time.
    """
    task = asyncio.current_task()
    assert task is not None  # noqa: S101  (a coroutine that awaits redis-py runs in a task)
    cancels = task.cancelling()  # not 0 if the caller cleans up after a cancel
    forgotten = True
    try:
        async with asyncio.timeout(seconds):
            return await ask
    except TimeoutError as error:
        raise redis.TimeoutError(f"no answer within {seconds:.3g} s") from error
    except asyncio.CancelledError:
        forgotten = False
        raise
    finally:
        if forgotten and task.cancelling() > cancels:
            raise asyncio.CancelledError


async def close_async(client: redis.asyncio.Redis) -> None:
    """Disconnect a client of `connect_async`, and those of its Sentinels."""
    sentinels = getattr(client.connection_pool, "sentinel_manager", None)
    for each in (client, *(sentinels.sentinels if sentinels else ())):
        with suppress(redis.RedisError):  # a hanging server does not answer this either
            await answer_within(_CLOSE_SECONDS, each.aclose())
