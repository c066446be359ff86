"""Runs scripts over one connection of redis-py, without its pool and pipelines.

For a request, those call 115 functions of Python, and this calls 8: a lone task takes two requests.
"""

import select
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from redis.commands.core import Script

from .outage import Outage

Argument = str | bytes | int | float


def pack(*command: Argument) -> bytes:
    """Write a command as the server reads it."""
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type]  # it takes all of these
    return packed


def pack_call(script: Script, keys: Sequence[Argument], args: Sequence[Argument]) -> bytes:
    """Write a call of a script as the server reads it."""
    return pack("EVALSHA", script.sha, len(keys), *keys, *args)


class DirectConnection:
    """One connection of a client, held from its first use on. Threads: one at a time.

    Args:
        client: Has the address, and connects. `break_off(client)` ends a request from another thread.
        outage: Once it has noted that a connection failed, this one is made again: it may hang, too.
    """

    def __init__(self, client: redis.Redis, outage: Outage | None = None) -> None:
        self._client, self._outage = client, outage
        self._connection: Any = None
        self._socket: Any = None
        self._failures = 0
        self._poll = select.poll()

    def run(self, script: Script, call: bytes, before: bytes = b"") -> Any:
        """Run a script, in one round trip with a command before it.

        Args:
            script: The script.
            call: Made by `pack_call`.
            before: Made by `pack`; empty: there is none. If the command fails, the script may have run.

        Returns:
            The script's reply.

        Raises:
            redis.RedisError: The command or the script failed. The other may have been done.
        """
        replies = self._exchange(before + call, 2 if before else 1)
        if isinstance(replies[-1], redis.exceptions.NoScriptError):
            self._client.script_load(script.script)
            replies[-1] = self._exchange(call, 1)[0]
        for reply in replies:
            if isinstance(reply, redis.exceptions.ReadOnlyError):  # the address may belong to another server by now
                self._client.connection_pool.disconnect()
            if isinstance(reply, redis.RedisError):
                raise reply
        return replies[-1]

    def ping(self) -> None:
        """Ask the server whether it is there.

        Raises:
            redis.RedisError: It does not answer.
        """
        (reply,) = self._exchange(pack("PING"), 1)
        if isinstance(reply, redis.RedisError):
            raise reply

    def _exchange(self, commands: bytes, count: int) -> list[Any]:
        """Send commands and return their replies, also errors."""
        connection = self._ready()
        read = connection._parser.read_response  # noqa: SLF001  (its own `read_response` calls four functions more)
        try:
            self._socket.sendall(commands)
            return [read() for _ in range(count)]
        except BaseException as error:
            connection.disconnect()  # else the next call would get the replies that are left
            if isinstance(error, TimeoutError):
                raise redis.TimeoutError("timed out while sending a request") from error
            if isinstance(error, OSError):
                raise redis.ConnectionError(f"the connection failed: {error}") from error
            raise

    def _ready(self) -> Any:
        """Return the connection. It is made again if it was closed, or has more to read than replies."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._client.connection_pool.get_connection()
        failures = self._outage.failures if self._outage else 0
        if connection._sock is not self._socket or failures != self._failures or self._poll.poll(0):  # noqa: SLF001  (else each request would ask redis-py by ten calls)
            if connection._sock is self._socket:  # noqa: SLF001
                connection.disconnect()
            connection.connect()
            self._socket, self._failures, self._poll = connection._sock, failures, select.poll()  # noqa: SLF001
            self._poll.register(self._socket, select.POLLIN)
        return connection
