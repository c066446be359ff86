"""Clients of redis-py: for commands that answer at once, for commands that block, for asyncio."""

import socket
import ssl
from contextlib import suppress
from functools import cache
from inspect import signature
from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import MasterNotFoundError as AsyncMasterNotFoundError
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError

from rhai_tasks.errors import ConfigurationError

from .outage import Outage
from .sentinel import SentinelUrl
from .urls import check_server_url, connection_options, redact

BLOCK_SECONDS = 3
"""Longest blocking command."""

ANSWER_SECONDS = 5.0
"""Longest wait for the answer to a command that does not block."""


def connect(url: str, *, outage: "Outage | None" = None, timeout: float = 5.0, **options: Any) -> redis.Redis:
    """Make a client for commands that answer at once, within `timeout` seconds; it connects on first use.

    `options` are redis-py's. When a failure is reported to the `outage`, it drops the client's idle connections.

    redis-py retries nothing: a command whose reply got lost may have taken effect, and only the caller knows whether a
    repetition is harmless.

    Raises:
        ConfigurationError: The URL cannot be read.
    """
    client = _client(url, timeout, **options)
    if outage:
        outage.watch_pool(client)
    return client


def connect_blocking(url: str, outage: "Outage | None" = None) -> redis.Redis:
    """Make a client for commands that block up to `BLOCK_SECONDS`.

    Its socket outlives the command: a client that gives up first, as redis-py's defaults do, would leave a
    blocked pop behind that takes a task for nobody.
    """
    return connect(url, outage=outage, timeout=BLOCK_SECONDS + 3.0)


class _Client(redis.Redis):
    """Drops its connections when the server is no longer a primary: the address may belong to another one by now."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's is not
        except redis.exceptions.ReadOnlyError:
            self.connection_pool.disconnect()
            raise


class _Sentinels(redis.Sentinel):
    """Shortens the error for a missing master: redis-py's own quotes the connection, some versions with passwords."""

    def discover_master(self, service_name: str) -> Any:
        try:
            return super().discover_master(service_name)  # type: ignore[no-untyped-call]  # redis-py's is not
        except MasterNotFoundError as error:
            words = str(error)
        raise _no_master(words, service_name)


class _AsyncSentinels(redis.asyncio.Sentinel):
    """The same as `_Sentinels` for asyncio."""

    async def discover_master(self, service_name: str) -> Any:
        try:
            return await super().discover_master(service_name)
        except AsyncMasterNotFoundError as error:
            words = str(error)
        raise _no_master(words, service_name)


def _no_master(words: str, service: str) -> redis.RedisError:
    if "AuthenticationError" in words:
        return redis.AuthenticationError(f"a Sentinel of {service!r} refuses sentinel_username and sentinel_password")
    error = redis.ConnectionError(f"no Sentinel names the master {service!r}")
    if "CERTIFICATE_VERIFY_FAILED" in words:
        error.__cause__ = ssl.SSLCertVerificationError(1, "a Sentinel's certificate does not verify")
    return error


def connect_async(url: str) -> redis.asyncio.Redis:
    """Make an asyncio client, otherwise like `connect`; await its commands through `answer_within`.

    Raises:
        ConfigurationError: As `connect`.
    """
    for name in check_server_url(url).query:
        if name.startswith("ssl_") and name not in _ASYNC_TLS:
            raise ConfigurationError(f"--redis-url {redact(url)!r}: the parameter {name} needs redis-py 7 or newer")
    client: redis.asyncio.Redis = _make(url, redis.asyncio.Redis, _AsyncSentinels, AsyncRetry(NoBackoff(), 0), None)
    return client


_ASYNC_TLS = frozenset(signature(redis.asyncio.SSLConnection.__init__).parameters)


def _client(url: str, socket_timeout: float, **options: Any) -> redis.Redis:
    client: redis.Redis = _make(url, _Client, _Sentinels, Retry(NoBackoff(), 0), socket_timeout, **options)
    return client


def _make(
    url: str, plain: Any, through_sentinels: Any, retry: Any, socket_timeout: float | None, **options: Any
) -> Any:
    common: dict[str, Any] = {"retry": retry}
    if hasattr(redis, "DriverInfo"):  # redis-py 7.2
        common["driver_info"] = _driver_info()
    options |= {
        **common,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": min(socket_timeout or ANSWER_SECONDS, ANSWER_SECONDS),
    }
    read = check_server_url(url)
    if named := SentinelUrl.of(read):
        patience = {**common, "socket_timeout": 2.0, "socket_connect_timeout": 2.0}
        sentinels = through_sentinels(named.addresses, sentinel_kwargs={**patience, **named.sentinel_options})
        return sentinels.master_for(named.service, **{**named.options, **options})
    place: dict[str, Any] = {"path": read.path}
    if read.hosts:
        ((host, port),) = read.hosts
        place = {"host": host, "port": port or 6379}
    # redis-py gets only the scheme of the URL: it would misread a part that it cannot use.
    return plain.from_url(f"{read.scheme}://", **{**place, **connection_options(read), **options})


@cache
def _driver_info() -> Any:
    """Return what a connection tells the server of redis-py, which would read a file for each connection."""
    return redis.DriverInfo()


def break_off(client: redis.Redis) -> None:
    """End another thread's command on this client, as if the server had closed the connection.

    redis-py's `disconnect` would remove the socket during the command, which could then fail in any way.
    """
    for connection in list(client.connection_pool._in_use_connections):  # noqa: SLF001  (there is no other way to them)
        sock = connection._sock  # noqa: SLF001
        if sock is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own would also forget how to read the rest
