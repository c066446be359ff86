"""Sources: how a consumer waits for messages and takes them."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, Protocol

import redis
from redis.commands.core import Script

from rhai_tasks.connection.connect import BLOCK_SECONDS, break_off, connect_blocking
from rhai_tasks.connection.direct import DirectConnection, pack, pack_call
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import ACTOR, QueueKeys, changes_key, message_head, state_channel, to_bytes

from .context import QueueContext
from .leases import LEASE_SECONDS, RENEW_SECONDS
from .list_watcher import ListWatcher
from .pace import FAST_SECONDS
from .room import Room

_TURNS_SECONDS = 0.25  # of one wait where callers take turns


class Taken(NamedTuple):
    """Messages that were taken from a source."""

    lapsed: int
    """1: the lease had expired."""
    rows: list[Any]
    """Of `hold.lua`, one for each message."""
    now: int
    """The server's milliseconds since the epoch."""
    idle: int
    """How many threads had nothing to do."""
    began: float
    """time.monotonic() before the server was asked."""
    changes: bytes | None = None
    """The number of changes, see `changes_key`; `None`: not known."""
    acknowledgements: Mapping[str, Callable[[], object]] = {}
    """By message id, what to call once the message's end is written."""
    blocks: Mapping[bytes, bytes] = {}
    """The rules of the circle that block, by field."""


class Source(Protocol):
    """Where a consumer's messages come from. Threads: the consumer's own, except for `unblock`."""

    room: Room
    runs_lone: bool
    """The consumer's thread may run a task itself: it keeps nothing else waiting."""
    turn: AbstractContextManager[object]
    """Is entered around requests that many consumers make over few connections."""

    def give_way(self) -> None:
        """Leave the interpreter to the threads that have just got all messages."""

    def wait(self) -> None:
        """Wait some seconds at most for room, or for messages that can be taken."""

    def take(self) -> Taken | None:
        """Take messages; `None`: the server was not asked.

        Raises:
            redis.RedisError: They may have been taken.
        """

    def pause(self, seconds: float, end: threading.Event) -> None:
        """Wait `seconds`, or until the event; serve the connection meanwhile."""

    def unblock(self) -> None:
        """End a wait from another thread."""

    def close(self) -> None:
        """Disconnect."""


class ListSource:
    """Fetches from the queue's list on Redis, and waits there with a blocking command."""

    turn: AbstractContextManager[object] = nullcontext()
    runs_lone = True

    def __init__(self, context: QueueContext, queue: str, room: Room, timeout: float) -> None:
        self.room = room
        self._context, self._timeout = context, timeout
        self._keys = context.keys(queue)
        self._script = load_fetch(context)
        self._fetch_packed = lru_cache(maxsize=32)(self._pack_fetch)
        self._wait_packed = lru_cache(maxsize=2)(self._pack_wait)
        self._read = f"read of {queue}"
        self.more = False
        """The last fetch brought all that it asked for, so there may be more."""
        self._longest_wait: float = BLOCK_SECONDS
        self._held_up = 0.0  # seconds after which tasks that may not begin are asked for again; 0: none are known

    @cached_property
    def blocking(self) -> redis.Redis:
        """The client for blocking commands."""
        return connect_blocking(self._context.settings.redis_url, self._context.outage)

    @cached_property
    def _connection(self) -> DirectConnection:
        return DirectConnection(self.blocking, self._context.outage)

    def give_way(self) -> None:
        """Wait a moment for the end of a fast script: it will have ended before the next message comes."""
        room = self.room
        if room.held and not self.more and self._context.pace.is_fast():
            room.wait(FAST_SECONDS, unless=lambda: not room.held)

    def wait(self) -> None:
        """Wait for room."""
        self.room.adapt()
        if not self.room.is_free():
            self.room.wait(self._timeout, unless=self.room.is_free)

    def take(self) -> Taken | None:
        """Fetch messages if there is room; wait for them, up to `BLOCK_SECONDS`, if the last fetch took all."""
        room = self.room
        if self._held_up and not room.recalled:
            room.wait_for_end(self._held_up)
        if not room.is_free():  # also after the wait: the room that ended it may be from before the last fetch
            self.ping_if_idle()
            return None
        return self.fetch(room.size() - len(room.held))

    def fetch(self, count: int) -> Taken | None:
        """Fetch up to `count` messages."""
        idle, began = self.room.idle_threads(), time.monotonic()
        lapsed, rows, now, changes, *ruled = self._ask(count, idle)
        self.more = len(rows) >= count
        if not ruled:
            self._held_up = 0.0
            if self._context.queues_with_turns:
                self._longest_wait = BLOCK_SECONDS
                self._context.queues_with_turns.discard(self._keys.queue)
            return Taken(lapsed, rows, now, idle, began, changes)
        ((wait, blocks, turns),) = ruled
        if turns:  # then tasks wait in lines, too, and no blocking command sees that
            self._longest_wait = _TURNS_SECONDS
            self._context.queues_with_turns.add(self._keys.queue)
        self._held_up = wait / 1000
        if wait:
            self._context.held_up[self._keys.queue] = self.room.note_end
        else:
            self._context.held_up.pop(self._keys.queue, None)
        self.more = self.more or wait > 0
        by_field = dict(zip(blocks[::2], blocks[1::2], strict=True))
        return Taken(lapsed, rows, now, idle, began, changes, blocks=by_field)

    def _ask(self, count: int, idle: int) -> list[Any]:
        """Ask the server for messages, and return its reply."""
        if self.more:
            self.ping_if_idle()
            wait = b""
        else:
            wait = self._wait_packed(self._longest_wait)
        reply: list[Any] = self._connection.run(self._script, self._fetch_packed(count, idle), wait)
        if wait:
            self._context.readiness.note(self._read)
        return reply

    def _pack_wait(self, seconds: float) -> bytes:
        # A list moved onto its own head stays as it is: this waits for a message without taking it.
        messages = self._keys.messages
        return pack("BLMOVE", messages, messages, "LEFT", "LEFT", seconds)

    def _pack_fetch(self, count: int, idle: int) -> bytes:
        return pack_call(self._script, **fetch_call(self._context, self._keys, str(count), idle))

    def ping_if_idle(self) -> None:
        """Ping the blocking connection if it is idle, so that a dead one is noticed."""
        if self._context.readiness.age(self._read) > RENEW_SECONDS:
            self._connection.ping()
            self._context.readiness.note(self._read)

    def pause(self, seconds: float, end: threading.Event) -> None:
        """Wait `seconds`, or until the event."""
        end.wait(seconds)

    def unblock(self) -> None:
        """End a blocking command from another thread."""
        break_off(self.blocking)

    def close(self) -> None:
        """Disconnect."""
        self.blocking.close()


class SharedSource(ListSource):
    """Fetches as a `ListSource` does, but waits over one connection with all others of its kind.

    Args:
        context: The broker's.
        queue: Name of the queue.
        room: The consumer's.
        timeout: Seconds to wait for room.
        lists: Tells when the queue has messages.
        turn: Bounds how many of these fetch at the same time.
    """

    runs_lone = False  # each thread that runs scripts has an engine of its own

    def __init__(
        self,
        context: QueueContext,
        queue: str,
        room: Room,
        timeout: float,
        lists: ListWatcher,
        turn: threading.BoundedSemaphore,
    ) -> None:
        super().__init__(context, queue, room, timeout)
        self.turn: AbstractContextManager[object] = turn
        self._lists = lists
        self._arrived = threading.Event()

    def fetch(self, count: int) -> Taken | None:
        """Fetch up to `count` messages, once the queue is known to have some."""
        if not self.more:
            self._arrived.clear()
            self._lists.watch(to_bytes(self._keys.messages), self._arrived.set)
            self.more = self._arrived.wait(BLOCK_SECONDS) and not self._context.draining.is_set()
        self.ping_if_idle()
        if not self.more:
            return None
        with self.turn:
            return super().fetch(count)

    def _ask(self, count: int, idle: int) -> list[Any]:
        reply: list[Any] = self._script(**fetch_call(self._context, self._keys, str(count), idle))
        return reply

    def ping_if_idle(self) -> None:
        """Note that the read works if the shared connection does; it pings by itself."""
        if self._lists.answered_at() > time.monotonic() - BLOCK_SECONDS:
            self._context.readiness.note(self._read)

    def unblock(self) -> None:
        """End a wait from another thread."""
        self._arrived.set()


def load_fetch(context: QueueContext) -> Script:
    """Register the script that fetches from a queue's list."""
    return load_script(context.client, __package__, "fetch", context.settings.table)


def fetch_call(context: QueueContext, keys: QueueKeys, which: str, idle: int) -> dict[str, Any]:
    """Write keys and arguments of `fetch.lua` or `claim.lua`.

    Args:
        context: The broker's.
        keys: Keys of the queue.
        which: The first argument: what to take.
        idle: How many threads have nothing to do.
    """
    settings = context.settings
    return {
        "keys": [
            keys.messages,
            keys.bodies,
            keys.acks(context.broker_id),
            keys.deliveries,
            keys.leases,
            keys.full,
            keys.room,
            keys.published,
            keys.sequence,
            keys.rules,
            keys.callers,
            changes_key(keys.namespace),
        ],
        "args": [
            to_bytes(which),
            context.broker_id,
            int(LEASE_SECONDS * 1000),
            (settings.buffer + 1) // 2,
            settings.prefixes.details,
            idle,
            state_channel(keys.namespace),
            message_head(keys.queue),
            keys.acks_start(keys.namespace),
            keys.queue,
            ACTOR,
            context.plain_fields,
            context.simple_fields,
            len(context.stored_fields),
        ],
    }
