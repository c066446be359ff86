"""The subscription to the channels of awaited tasks, on which workers publish what becomes of them."""

import asyncio
import itertools
from collections.abc import Collection
from typing import Any, Protocol

import redis
import redis.asyncio

from rhai_tasks.connection.connect import ANSWER_SECONDS
from rhai_tasks.connection.deadlines import answer_within
from rhai_tasks.protocol import Outcome

from .requests import Ending, Requests, batched

QUIET_SECONDS = 5.0  # after which the subscription is pinged: a connection can be dead without a word
_CHANNELS_AT_ONCE = 500
_MESSAGES_AT_ONCE = 50


class Listener(Protocol):
    """Is called for the tasks of a subscription."""

    def has_subscribed(self, task_id: str) -> None:
        """Note that from here on no end of this task is missed."""

    def has_ended(self, task_id: str, ending: Ending | None) -> None:
        """Note how a task has ended; `None`: it was published without its text."""


class Subscription:
    """Subscribes to the channels of awaited tasks, some hundred at a time. Lives in one event loop.

    Args:
        client: Its connection.
        requests: Names the channels.
        awaited: The ids of the tasks that are awaited now; a view.
        listener: Is called for each task.
    """

    def __init__(
        self, client: redis.asyncio.Redis, requests: Requests, awaited: Collection[str], listener: Listener
    ) -> None:
        self._client, self._requests, self._awaited, self._listener = client, requests, awaited, listener
        self._fresh: dict[str, None] = {}  # to subscribe to, in this order
        self._subscribed: set[str] = set()
        self._stale: set[str] = set()  # of those: to unsubscribe from, many at once
        self._changed = asyncio.Event()

    def add(self, task_id: str) -> None:
        """Subscribe to a task's channel."""
        self._fresh[task_id] = None
        self._stale.discard(task_id)
        self._changed.set()

    def discard(self, task_id: str) -> None:
        """Unsubscribe from a task's channel, sooner or later."""
        self._fresh.pop(task_id, None)
        if task_id in self._subscribed:
            self._stale.add(task_id)
            if len(self._stale) >= _CHANNELS_AT_ONCE:
                self._changed.set()

    async def follow(self) -> None:
        """Subscribe to the channels of all awaited tasks, and read messages, until something fails."""
        async with self._client.pubsub() as channels:
            self._fresh = dict.fromkeys(self._awaited)
            self._subscribed, self._stale = set(), set()
            self._changed.set()
            # A channel of no task: without any it cannot listen.
            await answer_within(ANSWER_SECONDS, channels.subscribe(self._requests.channel("")))
            async with asyncio.TaskGroup() as group:
                group.create_task(self._subscribe(channels))
                group.create_task(self._read(channels))

    async def _subscribe(self, channels: Any) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if len(self._stale) >= _CHANNELS_AT_ONCE:
                stale, self._stale = self._stale, set()
                self._subscribed -= stale
                for some in batched(stale, _CHANNELS_AT_ONCE):
                    await answer_within(ANSWER_SECONDS, channels.unsubscribe(*map(self._requests.channel, some)))
            fresh, self._fresh = self._fresh, {}
            self._subscribed.update(fresh)
            for some in batched(fresh, _CHANNELS_AT_ONCE):
                await answer_within(ANSWER_SECONDS, channels.subscribe(*map(self._requests.channel, some)))

    async def _read(self, channels: Any) -> None:
        pinged = False
        for number in itertools.count():
            if number % _MESSAGES_AT_ONCE == 0:
                await asyncio.sleep(0)  # messages that are here already are read without giving way
            message = await answer_within(QUIET_SECONDS + ANSWER_SECONDS, channels.get_message(timeout=QUIET_SECONDS))
            if message is None:
                if pinged:
                    raise redis.TimeoutError("the subscription does not answer")
                await answer_within(ANSWER_SECONDS, channels.ping())
            pinged = message is None
            if message is not None:
                self._take(message)

    def _take(self, message: Any) -> None:
        if message["type"] == "subscribe":
            self._listener.has_subscribed(self._requests.task_of(message["channel"]))
        elif message["type"] == "message" and (
            parsed := self._requests.parse_state(message["channel"], message["data"])
        ):
            task_id, state = parsed
            if isinstance(state, Outcome):
                self._listener.has_ended(task_id, state)
            elif state.is_final:
                self._listener.has_ended(task_id, None)
