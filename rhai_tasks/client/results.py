"""How results are awaited: one subscription for all awaited tasks of a client, and looks as a safety net.

Our workers tell each task's end on a channel of its own. The original worker tells nobody, so what has not
been heard of is looked at too, at growing distances.
"""

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any

import redis
import redis.asyncio

from .calls import LOOK_AT, Call, Calls, Found, batched
from .connection import Outage, close_async, connect_async, explain, may_pass
from .errors import ClientClosed, RhaiTasksError
from .protocol import Outcome, Status

logger = logging.getLogger(__name__)

Sink = Callable[[tuple[str, Found]], object]
"""Takes a task's id and how it ended; called in the listener's event loop."""

_FIRST_LOOK, _LONGEST_LOOK = 0.05, 1.0  # seconds between two looks at tasks that were not heard of
_GRACE = 0.005  # seconds for a task to be heard of before it is looked at: most looks are saved
_LOOKS_A_SECOND = 10_000  # tasks: about a hundredth of a server
_QUIET_SECONDS = 5.0  # after which the subscription is tried: a connection can be dead without a word
_SUBSCRIBE_AT_ONCE = 500  # channels
_MESSAGES_AT_ONCE = 50
_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0


class ResultListener:
    """Waits for any number of tasks over two connections. Lives in one event loop, which alone calls it.

    Args:
        url: The server.
        calls: Names keys and channels.
        execute: Carries a call out.
        patience: Seconds without the server after which those who wait are told so.
    """

    def __init__(self, url: str, calls: Calls, execute: Callable[[Call[Any]], Awaitable[Any]], patience: float) -> None:
        self._url, self._calls, self._execute, self._patience = url, calls, execute, patience
        self._client = connect_async(url, socket_timeout=None)  # a subscription is quiet for long
        self._outage = Outage(url)
        self._away_since: float | None = None
        self._sinks: dict[str, list[Sink]] = {}  # by task id
        self._fresh: list[str] = []  # to subscribe to
        self._stale: set[str] = set()  # to unsubscribe from, some day
        self._next_look: dict[str, float] = {}  # by task id; what else stands in `_looks` is out of date
        self._looks: list[tuple[float, float, str]] = []  # heap of loop's time, pause after it (0: none), task id
        self._changed, self._look = asyncio.Event(), asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._closing = False

    def add(self, task_ids: Iterable[str], sink: Sink) -> None:
        """Call the sink once for each task, as soon as it has ended or is known to be gone."""
        loop = asyncio.get_running_loop()
        for task_id in task_ids:
            if task_id not in self._sinks:
                self._fresh.append(task_id)
                self._stale.discard(task_id)
                self._look_at(task_id, loop.time() + _FIRST_LOOK, _FIRST_LOOK)
            self._sinks.setdefault(task_id, []).append(sink)
        self._changed.set()
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

    async def aclose(self) -> None:
        """Stop, and tell those who wait."""
        self._closing = True
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
        self._fail(ClientClosed("the client was closed while results were awaited"))
        await close_async(self._client)

    def _deliver(self, task_id: str, found: Found) -> None:
        sinks = self._sinks.get(task_id, [])
        self._forget(task_id)
        for sink in sinks:
            sink((task_id, found))

    def _forget(self, task_id: str) -> None:
        if self._sinks.pop(task_id, None) is not None:
            self._stale.add(task_id)
            self._next_look.pop(task_id, None)

    def _look_at(self, task_id: str, when: float, pause: float) -> None:
        """Have the task looked at, and then at doubling distances that begin with `pause`, unless that is 0."""
        if pause:
            self._next_look[task_id] = when
        heapq.heappush(self._looks, (when, pause, task_id))
        if self._looks[0][0] == when:
            self._look.set()

    def _fail(self, error: RhaiTasksError) -> None:
        for task_id in list(self._sinks):
            self._deliver(task_id, error)

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        backoff = _FIRST_BACKOFF
        while True:
            try:
                async with self._client.pubsub() as channel:
                    await self._listen(channel)
            except* redis.RedisError as errors:
                error = errors.exceptions[0]
                assert isinstance(error, redis.RedisError)  # noqa: S101  (so says the line above)
                backoff = min(backoff * 2, _LONGEST_BACKOFF) if self._away_since else _FIRST_BACKOFF
                self._away_since = self._away_since or clock()
                self._outage.begin(error)
                if not may_pass(error) or clock() - self._away_since > self._patience:
                    self._fail(explain(error, self._url))
            await asyncio.sleep(backoff * random.uniform(0.5, 1.5))  # noqa: S311

    async def _listen(self, channel: Any) -> None:
        self._fresh, self._stale = list(self._sinks), set()
        self._changed.set()
        await channel.subscribe(self._calls.channel(""))  # of no task; without any channel it cannot listen
        async with asyncio.TaskGroup() as group:
            group.create_task(self._subscribe(channel))
            group.create_task(self._hear(channel))
            group.create_task(self._look_around())

    async def _subscribe(self, channel: Any) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if len(self._stale) >= _SUBSCRIBE_AT_ONCE:
                stale = [self._calls.channel(task_id) for task_id in self._stale]
                self._stale.clear()
                await channel.unsubscribe(*stale)
            fresh, self._fresh = self._fresh, []
            for start in range(0, len(fresh), _SUBSCRIBE_AT_ONCE):
                await channel.subscribe(*map(self._calls.channel, fresh[start : start + _SUBSCRIBE_AT_ONCE]))

    async def _hear(self, channel: Any) -> None:
        clock = asyncio.get_running_loop().time
        asked = False
        for number in itertools.count():
            if number % _MESSAGES_AT_ONCE == 0:
                await asyncio.sleep(0)  # what is already here is read without giving way
            message = await channel.get_message(timeout=_QUIET_SECONDS)
            if message is None:
                if asked:
                    raise redis.TimeoutError("the subscription does not answer")
                await channel.ping()
            asked = message is None
            if message is None or message["type"] not in {"subscribe", "message"}:
                continue
            self._outage.end()
            self._away_since = None
            if message["type"] == "message":
                task_id, state = self._calls.heard(message["channel"], message["data"])
                if isinstance(state, Outcome):
                    self._deliver(task_id, state)
                elif state.is_final:
                    self._look_at(task_id, clock(), 0)
            else:  # from here on nothing is missed; before, the task may have ended
                task_id, _ = self._calls.heard(message["channel"], Status.PENDING.encode())
                self._look_at(task_id, clock() + _GRACE, 0)

    async def _look_around(self) -> None:
        clock = asyncio.get_running_loop().time
        while not self._closing:  # in Python 3.11 a cancellation can get lost while redis-py sends
            self._look.clear()
            with suppress(TimeoutError):
                # Not `wait_for`: it can lose a cancellation.
                async with asyncio.timeout_at(self._looks[0][0] if self._looks else None):
                    await self._look.wait()
            longest = max(_LONGEST_LOOK, len(self._sinks) / _LOOKS_A_SECOND)
            due: set[str] = set()
            while self._looks and self._looks[0][0] <= clock():
                when, pause, task_id = heapq.heappop(self._looks)
                if task_id not in self._sinks or (pause and self._next_look[task_id] != when):
                    continue
                due.add(task_id)
                if pause:
                    pause = min(pause * 2, longest)
                    self._look_at(task_id, clock() + pause, pause)
            for some in batched(due, LOOK_AT):
                for task_id, ended in (await self._execute(self._calls.look(some))).items():
                    self._deliver(task_id, ended)
