"""Learns how tasks end: by a subscription for all awaited tasks of a client, and by polls as a safety net.

Our workers publish each task's end on a channel of the task. The original worker publishes nothing, and a subscription
may fail or be refused. So tasks whose end was not published are polled, at growing intervals.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Protocol

import redis
import redis.asyncio

from rhai_tasks.connection.connect import ANSWER_SECONDS, connect_async
from rhai_tasks.connection.deadlines import close_async
from rhai_tasks.connection.outage import Outage, is_transient, to_our_error
from rhai_tasks.errors import ClientClosed, RhaiTasksError

from .polls import PollSchedule
from .requests import POLLED_AT_ONCE, Ending, Request, Requests, batched
from .subscription import QUIET_SECONDS, Subscription

logger = logging.getLogger(__name__)

Sink = Callable[[tuple[str, Ending]], object]
"""Takes a task's id and how it ended; called in the listener's event loop."""

_LONGEST_BACKOFF = 1.0  # seconds between two tries, give or take a half
_DOUBLINGS = 4  # until the backoff is that long
_REFUSED_SECONDS = 30.0  # after which a subscription that was not allowed is tried again
_SHORTEST_ANSWER = 1.0  # seconds that a poll may take, however short `retry_timeout`


class Send(Protocol):
    """Sends a request."""

    def __call__(self, request: Request[Any], seconds: float, /) -> Awaitable[Any]:
        """Return what the request reads, or raise redis-py's error, within `seconds`."""


class ResultListener:
    """Waits for any number of tasks over two connections. Lives in one event loop, which alone calls it.

    Two parts run side by side, the subscription and the polls, and each starts again when it fails. Only the polls
    decide that the server is away; they find what has ended, whatever the subscription does.

    Args:
        url: The server.
        requests: Builds requests, and names channels.
        send: Sends a request once.
        retry_timeout: Seconds without the server after which those who wait get an error.
    """

    def __init__(self, url: str, requests: Requests, send: Send, retry_timeout: float) -> None:
        self._url, self._requests, self._send, self._retry_timeout = url, requests, send, retry_timeout
        self._client = connect_async(url)
        self._outage = Outage(url)
        self._away_since: float | None = None
        self._poll_error: redis.RedisError | None = None  # why the last poll failed
        self._sinks: dict[str, list[Sink]] = {}  # by task id
        self._polls = PollSchedule()
        self._subscription = Subscription(self._client, requests, self._sinks.keys(), self)
        self._running: asyncio.Task[None] | None = None
        self._closing = False

    def add(self, task_ids: Iterable[str], sink: Sink) -> None:
        """Call the sink once for each task, as soon as it has ended or is known to be gone."""
        loop = asyncio.get_running_loop()
        if not self._sinks:
            self._away_since = self._poll_error = None  # nobody has polled since
        for task_id in task_ids:
            if task_id not in self._sinks:
                self._subscription.add(task_id)
                self._polls.add(task_id, loop.time())
            self._sinks.setdefault(task_id, []).append(sink)
        if self._running is None:
            self._running = loop.create_task(self._run())

    def discard(self, task_ids: Iterable[str], sink: Sink) -> None:
        """Wait no longer for these tasks."""
        for task_id in task_ids:
            sinks = self._sinks.get(task_id, [])
            if sink in sinks:
                sinks.remove(sink)
            if not sinks:
                self._forget(task_id)

    def last_error(self) -> RhaiTasksError | None:
        """Return the error of the last poll, if it failed."""
        return to_our_error(self._poll_error, self._url) if self._poll_error else None

    def has_subscribed(self, task_id: str) -> None:
        """Poll a task whose subscription has begun: no message is missed from here on, but it may have ended before."""
        self._outage.succeeded()
        self._polls.poll_soon(task_id, asyncio.get_running_loop().time())

    def has_ended(self, task_id: str, ending: Ending | None) -> None:
        """Deliver an ending that was published; one without its text is polled."""
        self._outage.succeeded()
        if ending is None:
            self._polls.poll_now(task_id, asyncio.get_running_loop().time())
        else:
            self._deliver(task_id, ending)

    async def aclose(self) -> None:
        """Stop; those who wait get `ClientClosed`."""
        self._closing = True
        try:
            if self._running is not None:
                self._running.cancel()
                await asyncio.wait([self._running], timeout=ANSWER_SECONDS)
        finally:
            self._fail(ClientClosed("the client was closed while results were awaited"))
        await close_async(self._client)

    def _deliver(self, task_id: str, ending: Ending) -> None:
        sinks = self._sinks.get(task_id, [])
        self._forget(task_id)
        for sink in sinks:
            sink((task_id, ending))

    def _forget(self, task_id: str) -> None:
        if self._sinks.pop(task_id, None) is not None:
            self._polls.discard(task_id)
            self._subscription.discard(task_id)

    def _fail(self, error: RhaiTasksError) -> None:
        for task_id in list(self._sinks):
            self._deliver(task_id, error)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_up("subscription", self._subscription.follow))
            group.create_task(self._keep_up("polling", self._poll))

    async def _keep_up(self, name: str, part: Callable[[], Awaitable[None]]) -> None:
        """Run a part, and again whenever it fails: others wait for its results, whatever the error."""
        clock = asyncio.get_running_loop().time
        failures = 0
        logged = ""
        while not self._closing:
            began, pause, problem = clock(), 0.0, ""
            try:
                await part()
            except* redis.exceptions.NoPermissionError as errors:
                pause = _REFUSED_SECONDS
                problem = f"is not allowed, so that results come up to a second late: {errors.exceptions[0]}"
            except* Exception as errors:
                if not is_transient(errors.exceptions[0]):  # else the polls report it
                    problem = f"failed, and starts again: {errors.exceptions[0]!r:.500}"
            if problem and problem != logged:
                logged = problem
                logger.warning("The %s of a client %s", name, problem)
            failures = 0 if clock() - began > QUIET_SECONDS else failures + 1
            await asyncio.sleep(pause or _backoff(failures))

    async def _poll(self) -> None:
        clock = asyncio.get_running_loop().time
        failures = 0
        while not self._closing:
            await self._polls.wait()
            for some in batched(self._polls.pop_due(clock), POLLED_AT_ONCE):
                if await self._poll_some(some):
                    failures = 0
                else:
                    await asyncio.sleep(_backoff(failures))
                    failures += 1

    async def _poll_some(self, task_ids: list[str]) -> bool:
        """Deliver the endings of these tasks; return `False` if the server does not answer, or refuses."""
        clock = asyncio.get_running_loop().time
        began = clock()
        since = began if self._away_since is None else self._away_since
        left = max(self._retry_timeout - (began - since), _SHORTEST_ANSWER)
        try:
            endings = await self._send(self._requests.outcomes(task_ids), min(left, ANSWER_SECONDS))
        except redis.RedisError as error:
            self._away_since, self._poll_error = since, error
            self._outage.failed(error)
            if not is_transient(error) or clock() - since >= self._retry_timeout:
                self._away_since = None  # waits that begin from here on have the whole time
                self._fail(to_our_error(error, self._url))
            return False
        self._away_since = self._poll_error = None
        self._outage.succeeded()
        for task_id, ending in endings.items():
            self._deliver(task_id, ending)
        return True


def _backoff(failures: int) -> float:
    seconds = _LONGEST_BACKOFF * 2.0 ** min(failures - _DOUBLINGS, 0)
    return seconds * random.uniform(0.5, 1.5)  # noqa: S311  (no secret)
