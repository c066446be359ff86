"""Tells when lists become non-empty, for any number of lists over one connection.

Idle lists cost no request: the server announces, by client tracking, the next change of a key that this connection has
read.
"""

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis

from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.outage import RETRY_SECONDS, Outage
from rhai_tasks.protocol import to_bytes
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

logger = logging.getLogger(__name__)

DEDICATED_LIMIT = 16
"""Lists that a process waits for with a thread and a connection each: the fastest way, as long as they are few."""

_PING_SECONDS = 2.0  # without an answer from the server, after which it is pinged
_ANSWER_SECONDS = 3.0


class ListWatcher:
    """Calls back when a list becomes non-empty.

    A callback is only a hint: another process may have taken the item already. Threads: any calls `watch`; one of its
    own calls back, and is the only one to use the connection.
    """

    def __init__(self, settings: Settings, outage: Outage, stop: threading.Event) -> None:
        self._outage, self._stop = outage, stop
        self._client = connect(settings.redis_url, timeout=_ANSWER_SECONDS, protocol=3)
        # Deletes a key that never exists. As a write it fails on a demoted primary, which would send no invalidations.
        self._ping = ("DEL", to_bytes(f"{settings.namespace}:__nothing__"))
        self._callbacks: dict[bytes, Callable[[], object]] = {}  # by list
        self._new: deque[bytes] = deque()  # lists that this connection has not asked for
        self._asked: deque[bytes] = deque()  # lists that the server has not answered for yet; empty: a ping
        self._changed: deque[bytes] = deque()  # lists whose change the server has announced
        self._answered_at = float("-inf")
        self._thread = vital_thread("list-watcher", self._run)
        self._starting = threading.Lock()

    def watch(self, key: bytes, callback: Callable[[], object]) -> None:
        """Call `callback` once, as soon as this list is non-empty; do nothing if the list is watched already."""
        self._start()
        if key not in self._callbacks:
            self._callbacks[key] = callback
            self._new.append(key)
            self._rouse()

    def _start(self) -> None:
        with self._starting:
            if not self._thread.ident:
                self._wake, self._woken = socket.socketpair()
                self._wake.setblocking(False)
                self._thread.start()

    def stop(self) -> None:
        """Disconnect; the event has been set."""
        if self._thread.ident:
            self._rouse()
            self._thread.join()
            self._wake.close()
            self._woken.close()
        self._client.close()

    def answered_at(self) -> float:
        """Return when the server last answered: time.monotonic()."""
        return self._answered_at

    def _rouse(self) -> None:
        with suppress(BlockingIOError):  # the thread has not read the bytes before this one yet
            self._wake.send(b"!")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                if not self._stop.is_set():
                    self._outage.failed(error)
                    self._stop.wait(RETRY_SECONDS)
            except Exception as error:  # one odd push must not leave all lists unwatched
                logger.warning("Waiting for lists failed, and starts again: %.500r", error)
                self._stop.wait(RETRY_SECONDS)

    def _listen(self) -> None:
        connection: Any = self._client.connection_pool.get_connection()
        try:
            connection._parser.set_invalidation_push_handler(self._note_changes)  # noqa: SLF001  (there is no other way)
            connection.send_command("CLIENT", "TRACKING", "ON")
            connection.read_response()
            self._outage.succeeded()
            self._asked.clear()
            self._changed.clear()
            self._new.clear()
            self._new.extend(list(self._callbacks))
            with selectors.DefaultSelector() as selector:
                selector.register(connection._sock, selectors.EVENT_READ)  # noqa: SLF001  (redis-py has no other name)
                selector.register(self._woken, selectors.EVENT_READ)
                while not self._stop.is_set():
                    self._turn(connection, selector)
        finally:
            connection.disconnect()
            self._client.connection_pool.release(connection)

    def _turn(self, connection: Any, selector: selectors.BaseSelector) -> None:
        keys = [self._new.popleft() for _ in range(len(self._new))]
        if keys:
            self._ask(connection, keys, [("LLEN", key) for key in keys])
        if self._asked or connection.can_read():
            self._read(connection)
            return
        ready = selector.select(_PING_SECONDS)
        if not ready:
            self._ask(connection, [b""], [self._ping])
        elif any(key.fileobj is self._woken for key, _ in ready):
            self._woken.recv(4096)

    def _ask(self, connection: Any, keys: list[bytes], commands: list[tuple[str, bytes]]) -> None:
        self._asked.extend(keys)
        connection.send_packed_command(connection.pack_commands(commands))

    def _read(self, connection: Any) -> None:
        try:
            answer = connection.read_response(push_request=True)
        except redis.ResponseError as error:
            if not str(error).startswith("WRONGTYPE"):
                raise
            answer = 0  # the key holds no list; the server announces its next change
        self._answered_at = time.monotonic()
        if isinstance(answer, int):  # else it was a push
            key = self._asked.popleft()
            if answer:
                self._fire(key)
        while self._changed:
            self._fire(self._changed.popleft())

    def _note_changes(self, message: tuple[bytes, list[bytes] | None]) -> None:
        """Note lists that have changed; redis-py logs what its caller raises, and goes on."""
        # The server names no key when the whole database was emptied.
        self._changed.extend(message[1] or list(self._callbacks))

    def _fire(self, key: bytes) -> None:
        if callback := self._callbacks.pop(key, None):
            try:
                callback()
            except Exception:
                self._callbacks.setdefault(key, callback)  # it is called again after the restart
                raise
