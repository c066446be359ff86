"""When lists come to hold something: for any number of them one connection, and no request while nothing comes.

The server tells by what Redis calls client tracking: the next change of a key that was read on such a connection.
"""

import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import redis

from .connection import Outage, connect
from .protocol import to_bytes
from .settings import Settings
from .threads import vital_thread

ALONE = 16
"""Lists that a process waits for with a thread and a connection each: that is quickest, as long as they are few."""

_PING_SECONDS = 2.0  # without a word from the server, after which it is asked for one
_ANSWER_SECONDS = 3.0
_RETRY_SECONDS = 0.5


class Arrivals:
    """Calls back when a list comes to hold something.

    That is a hint, and whoever is called looks for himself: others may have taken it. Threads: any calls `expect`; one
    of our own calls back, and uses the connection alone.
    """

    def __init__(self, settings: Settings, outage: Outage, stop: threading.Event) -> None:
        self._outage, self._stop = outage, stop
        self._client = connect(settings.redis_url, timeout=_ANSWER_SECONDS, protocol=3)
        # It is not there, but this is a write: a primary that has become a replica refuses it, and hears of nothing.
        self._ping = ("DEL", to_bytes(f"{settings.namespace}:__nothing__"))
        self._expected: dict[bytes, Callable[[], object]] = {}
        self._new: deque[bytes] = deque()  # lists of these that the server was not asked for on this connection
        self._asked: deque[bytes] = deque()  # that it has not answered yet; empty: a ping
        self._heard = float("-inf")
        self._thread = vital_thread("arrivals", self._run)
        self._starting = threading.Lock()

    def expect(self, key: bytes, arrived: Callable[[], object]) -> None:
        """Call `arrived` once, as soon as this list holds something; nothing new if it is expected already."""
        self._start()
        if key not in self._expected:
            self._expected[key] = arrived
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

    def heard(self) -> float:
        """Say when the server has answered last: time.monotonic()."""
        return self._heard

    def _rouse(self) -> None:
        with suppress(BlockingIOError):  # it has not even read what was written before
            self._wake.send(b"!")

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._listen()
            except redis.RedisError as error:
                if not self._stop.is_set():
                    self._outage.begin(error)
                    self._stop.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        connection: Any = self._client.connection_pool.get_connection()
        try:
            connection._parser.set_invalidation_push_handler(self._hear_changes)  # noqa: SLF001  (there is no other way)
            connection.send_command("CLIENT", "TRACKING", "ON")
            connection.read_response()
            self._outage.end()
            self._asked.clear()
            self._new.clear()
            self._new.extend(list(self._expected))
            with selectors.DefaultSelector() as selector:
                selector.register(connection._sock, selectors.EVENT_READ)  # noqa: SLF001
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
            answer = 0  # no list; we hear of it when it is one
        self._heard = time.monotonic()
        if isinstance(answer, int):  # else it was no answer
            key = self._asked.popleft()
            if answer:
                self._arrive(key)

    def _hear_changes(self, message: tuple[bytes, list[bytes] | None]) -> None:
        for key in message[1] or list(self._expected):  # none is named when the whole database was emptied
            self._arrive(key)

    def _arrive(self, key: bytes) -> None:
        if arrived := self._expected.pop(key, None):
            arrived()
