"""Connections to Redis, and how an outage is waited out."""

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast
from weakref import WeakSet

import redis
import redis.asyncio
import tenacity
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from .errors import ConfigurationError, RhaiTasksError, ServerError, ServerUnavailable
from .sentinel import SentinelUrl

logger = logging.getLogger(__name__)

T = TypeVar("T")

BLOCK_SECONDS = 3
"""Longest blocking command."""

_OLDEST_SERVER = (6, 2)  # BLMOVE, LPOP with a count
_REMIND_SECONDS = 30.0  # between two lines about what the server refuses, for as long as it does
_NO_CLUSTER = (
    "is part of a Redis Cluster, which cannot be used: each step touches several keys at once. "
    "Use a single server, with replicas and Sentinel"
)
_NO_RIGHT = re.compile(r"permission|user executing the script can't")  # only outside scripts has it a code of its own


def connect(url: str, *, outage: "Outage | None" = None, timeout: float = 5.0, **options: Any) -> redis.Redis:
    """Make a client for commands that answer at once, within `timeout` seconds; it connects on first use.

    `options` are redis-py's. When an `outage` is told of a failure, the client's idle connections are given up.

    Nothing is retried below us: a command whose reply got lost may have been done, and only its caller
    knows whether doing it twice is harmless.

    Raises:
        ConfigurationError: The URL is none that redis-py reads.
    """
    client = _client(url, timeout, **options)
    if outage:
        outage.concerns(client)
    return client


def connect_blocking(url: str, outage: "Outage | None" = None) -> redis.Redis:
    """Make a client for commands that block up to `BLOCK_SECONDS`.

    Its socket outlives the command: a client that gives up first, as redis-py's defaults do, would leave a
    blocked pop behind that takes a task for nobody.
    """
    return connect(url, outage=outage, timeout=BLOCK_SECONDS + 3.0)


class _Client(redis.Redis):
    """Connects anew when the server turns out to be no primary any more: its address may be another's by now."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py's is not
        except redis.exceptions.ReadOnlyError:
            self.connection_pool.disconnect()
            raise


def connect_async(url: str, *, socket_timeout: float | None = 5.0) -> redis.asyncio.Redis:
    """Make an asyncio client, otherwise like `connect`.

    Raises:
        ConfigurationError: As `connect`.
    """
    client: redis.asyncio.Redis = _make(
        url, redis.asyncio.Redis, redis.asyncio.Sentinel, AsyncRetry(NoBackoff(), 0), socket_timeout
    )
    return client


async def close_async(client: redis.asyncio.Redis) -> None:
    """Disconnect such a client, and those of its Sentinels."""
    await client.aclose()
    sentinels = getattr(client.connection_pool, "sentinel_manager", None)
    if sentinels is not None:
        await sentinels.aclose()


def _client(url: str, socket_timeout: float, **options: Any) -> redis.Redis:
    client: redis.Redis = _make(url, _Client, redis.Sentinel, Retry(NoBackoff(), 0), socket_timeout, **options)
    return client


def _make(
    url: str, plain: Any, through_sentinels: Any, retry: Any, socket_timeout: float | None, **options: Any
) -> Any:
    options |= {
        "retry": retry,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": min(socket_timeout or 5.0, 5.0),
    }
    try:
        if named := SentinelUrl.parse(url):
            patience = {"retry": retry, "socket_timeout": 2.0, "socket_connect_timeout": 2.0}
            sentinels = through_sentinels(named.addresses, sentinel_kwargs={**patience, **named.sentinel_options})
            return sentinels.master_for(named.service, **{**named.options, **options})
        return plain.from_url(url, **options)
    except ValueError as error:
        raise ConfigurationError(f"--redis-url {redact(url)!r}: {error}") from error


def break_off(client: redis.Redis) -> None:
    """End what another thread waits for with this client, as if the server had closed the connection.

    redis-py's `disconnect` would take the socket from under the command, which then fails in any way at all.
    """
    for connection in list(client.connection_pool._in_use_connections):  # noqa: SLF001  (there is no other way to them)
        sock = connection._sock  # noqa: SLF001
        if sock is not None:
            with suppress(OSError):  # it is closed already
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # TLS's own would also forget how to read the rest


def wait_and_run(
    client: redis.Redis, source: bytes | str, destination: str, end: str, script: Script, **call: Any
) -> Any:
    """Wait up to `BLOCK_SECONDS` for something in a list, move it, and run a script at once: in one round trip.

    Args:
        client: A blocking one.
        source: The list; what stands at its head is moved.
        destination: The list that gets it; may be the same.
        end: LEFT or RIGHT, where it goes there.
        script: Runs right after the move; also if nothing came.
        **call: Its `keys` and `args`.

    Returns:
        What the script returned.

    Raises:
        redis.RedisError: The move or the script failed. The other may have been done.
    """
    with client.pipeline(transaction=False) as pipeline:
        pipeline.blmove(cast("str", source), destination, BLOCK_SECONDS, "LEFT", end)
        # Not `script(client=pipeline)`: that asks each time whether the server knows it.
        pipeline.evalsha(script.sha, len(call["keys"]), *call["keys"], *call["args"])
        replies = pipeline.execute(raise_on_error=False)  # raised by redis-py, an error would quote all arguments
    for reply in replies:
        if isinstance(reply, redis.exceptions.NoScriptError):
            return script(client=client, **call)
        if isinstance(reply, redis.exceptions.ReadOnlyError):
            client.connection_pool.disconnect()
        if isinstance(reply, redis.RedisError):
            raise reply
    return replies[-1]


def run_each(client: redis.Redis, script: Script, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Run a script once for each of these calls, which are its `keys` and `args`, in one round trip.

    Returns:
        For each call what the script returned, or the server's error: the others are done all the same.

    Raises:
        redis.RedisError: The server does not answer. Any of them may have been done.
    """
    with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.evalsha(script.sha, len(call["keys"]), *call["keys"], *call["args"])
        replies = pipeline.execute(raise_on_error=False)
    if any(isinstance(reply, redis.exceptions.ReadOnlyError) for reply in replies):
        client.connection_pool.disconnect()
    return [
        script(client=client, **call) if isinstance(reply, redis.exceptions.NoScriptError) else reply
        for call, reply in zip(calls, replies, strict=True)
    ]


def redact(url: str) -> str:
    """Blank the passwords in a URL, for messages."""
    url = re.sub(r"(password=)[^&]*", r"\1***", url)
    head, at, tail = url.rpartition("@")
    scheme, separator, user = head.partition("://")
    return f"{scheme}{separator}{user.partition(':')[0]}:***@{tail}" if at else url


def may_pass(error: BaseException) -> bool:
    """Whether waiting can help: the server is away, starting, failing over, or short of memory."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
        return False
    return isinstance(error, _PASSING) or (
        isinstance(error, redis.ResponseError) and str(error).startswith(("BUSY ", "NOREPLICAS", "MASTERDOWN"))
    )


_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.OutOfMemoryError,
)


def explain(error: redis.RedisError, url: str) -> RhaiTasksError:
    """Make an error of ours from one of the server's that its caller gave up on."""
    if may_pass(error):
        how = "refuses" if isinstance(error, _ANSWERS) else "does not answer"
        return ServerUnavailable(f"Redis at {redact(url)} {how}: {error}")
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
        return ConfigurationError(f"Redis at {redact(url)} refuses us: {error}. Check user and password in the URL")
    return ServerError(f"Redis at {redact(url)} refuses: {_advised(error)}")


def _advised(error: BaseException) -> str:
    """Add what to do to the server's words, where they do not say it."""
    words = str(error)
    if _NO_RIGHT.search(words):
        return f"{words.rstrip('.')}. Give this user all rights that docs/security.md lists"
    if isinstance(error, _OF_CLUSTERS) and not may_pass(error):
        return f"{words.rstrip('.')}. It {_NO_CLUSTER}"
    return words


_OF_CLUSTERS = (
    redis.exceptions.ClusterCrossSlotError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,  # and MOVED
)


class Outage:
    """Log once when the server goes away and once when it is back, however many tries lie between.

    What the server refuses is another matter: it answers, and may do all else. That is logged now and then until
    it ends.

    One for each process; every thread that talks to the server reports here.
    """

    def __init__(self, url: str, *, server: str = "Redis") -> None:
        self._server, self._url = server, redact(url)
        self._since: float | None = None
        self._refused = float("-inf")  # when that was logged last
        self._lock = threading.Lock()
        self._clients: WeakSet[redis.Redis] = WeakSet()

    def concerns(self, client: redis.Redis) -> None:
        """Give up this client's idle connections whenever a connection fails, whoever used it.

        What made one connection hang has silenced the others, too. Each would hold up who tries it next until he
        gives up in his turn.
        """
        with self._lock:
            self._clients.add(client)

    def begin(self, error: BaseException | None) -> None:
        """Note that a command failed."""
        with self._lock:
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                for client in self._clients:
                    client.connection_pool.disconnect(inuse_connections=False)
            if isinstance(error, _ANSWERS):
                if time.monotonic() - self._refused >= _REMIND_SECONDS:
                    self._refused = time.monotonic()
                    logger.warning("%s at %s refuses, trying again: %s", self._server, self._url, _advised(error))
            elif self._since is None:
                self._since = time.monotonic()
                logger.warning(
                    "%s at %s does not answer, trying again until it does: %s", self._server, self._url, error
                )

    def end(self) -> None:
        """Note that a command succeeded."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                logger.warning("%s is back after %.1f s", self._server, time.monotonic() - self._since)
                self._since = None


_ANSWERS = (redis.ResponseError, redis.AuthenticationError, redis.exceptions.AuthorizationError)


def persist(
    call: Callable[[], T],
    outage: Outage,
    give_up: threading.Event,
    *,
    errors: type[Exception] = redis.RedisError,
) -> T:
    """Call until the server answers: exponential backoff with jitter, at most a second between tries.

    Only for what may be done twice.

    Raises:
        redis.RedisError, or what `errors` says: `give_up` was set while the server did not answer.
    """

    def note(state: tenacity.RetryCallState) -> None:
        outage.begin(state.outcome.exception() if state.outcome else None)

    try:
        return call()  # most calls need no more
    except errors as error:
        if give_up.is_set():
            raise
        outage.begin(error)
    result = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(errors),
        wait=tenacity.wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
        stop=tenacity.stop_when_event_set(give_up),
        sleep=tenacity.sleep_using_event(give_up),
        before_sleep=note,
        reraise=True,
    )(call)
    outage.end()
    return result


def await_server(url: str, give_up: threading.Event) -> None:
    """Wait until the server can be worked with, however long it takes to come up.

    Raises:
        ConfigurationError: Waiting will not help: wrong URL or password, or a server that cannot be used.
        redis.RedisError: `give_up` was set meanwhile.
    """
    client = connect(url)

    def look() -> dict[str, Any]:
        try:
            return dict(client.info("server"))
        except redis.AuthenticationError as error:
            raise ConfigurationError(
                f"Redis at {redact(url)} refuses us: {error}. Check user and password in --redis-url"
            ) from error
        except redis.ResponseError as error:
            if may_pass(error):
                raise
            raise ConfigurationError(f"Redis at {redact(url)} refuses us: {_advised(error)}") from error

    with client:
        found = persist(look, Outage(url), give_up)
    check_server(found, url)


def check_server(found: Mapping[str, Any], url: str) -> None:
    """Say whether a server will do that tells this of itself (`INFO server`).

    Raises:
        ConfigurationError: It is too old, or part of a cluster.
    """
    version = str(found["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_SERVER:
        raise ConfigurationError(f"Redis at {redact(url)} is version {version}; 6.2 or newer is needed (BLMOVE)")
    if "cluster" in {found.get("redis_mode"), found.get("server_mode")}:  # Redis, Valkey
        raise ConfigurationError(f"Redis at {redact(url)} {_NO_CLUSTER}")
