"""Logs an outage once, and retries until the server answers."""

import logging
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

import redis
import tenacity

from rhai_tasks.errors import ConfigurationError, RhaiTasksError, ServerError, ServerUnavailable

from .tls import tls_failure, wrong_files
from .urls import check_server_url, redact

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS = 0.5
"""Pause of a loop whose blocking read or subscription failed. Single calls have `retry_until_answered`."""

_REMIND_SECONDS = 30.0  # between two lines about a command that the server refuses
NO_CLUSTER = (
    "is part of a Redis Cluster, which cannot be used: each step touches several keys at once. "
    "Use a single server, with replicas and Sentinel"
)
"""The message about such a server, after its name."""

_NO_RIGHT = re.compile(r"permission|user executing the script can't")  # inside Lua scripts it has no code of its own


def is_transient(error: BaseException) -> bool:
    """Whether waiting can help: the server is away, starting, failing over, or cannot write at the moment."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError) or tls_failure(error):
        return False
    return isinstance(error, _PASSING) or (
        isinstance(error, redis.ResponseError) and _PASSES.search(str(error)) is not None
    )


_PASSING = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.MasterDownError,
    redis.exceptions.OutOfMemoryError,
    redis.exceptions.TryAgainError,
)
# Errors without a class in redis-py: at the start of the text, or after the place in a script that Redis 6 puts first.
_PASSES = re.compile(
    r"(?:^|@user_script: ?\d+: -?)"
    r"(?:max number of clients|"
    r"(?:BUSY|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNBLOCKED|UNKILLABLE) )"
)


def to_our_error(error: redis.RedisError, url: str) -> RhaiTasksError:
    """Return this project's error for an error of the server that ended the retries."""
    if wrong := wrong_files(check_server_url(url)):
        return ConfigurationError(f"--redis-url {redact(url)!r}: {wrong}")
    if wrong := tls_failure(error):
        return ConfigurationError(f"Redis at {redact(url)}: {wrong}. Check the certificates in the URL")
    if is_transient(error):
        how = "refuses" if isinstance(error, _ANSWERS) else "does not answer"
        return ServerUnavailable(f"Redis at {redact(url)} {how}: {error}")
    if isinstance(error, redis.AuthenticationError | redis.exceptions.AuthorizationError):
        return ConfigurationError(
            f"Redis at {redact(url)} refuses the login: {error}. Check user and password in the URL"
        )
    return ServerError(f"Redis at {redact(url)} refuses: {advised(error)}")


def advised(error: BaseException) -> str:
    """Return the server's words, with advice where they have none."""
    words = str(error)
    if _NO_RIGHT.search(words):
        return f"{words.rstrip('.')}. Give this user all rights that docs/security.md lists"
    if isinstance(error, _OF_CLUSTERS) and not is_transient(error):
        return f"{words.rstrip('.')}. It {NO_CLUSTER}"
    return words


_OF_CLUSTERS = (
    redis.exceptions.ClusterCrossSlotError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.AskError,  # and MOVED
)


class Outage:
    """Logs once when the server goes away and once when it is back, however many tries lie between.

    A refused command is not an outage: the server answers, and may do everything else. It is logged now and then.

    Each process has one; every thread that uses the server reports to it.
    """

    def __init__(self, url: str, *, server: str = "Redis") -> None:
        self._server, self._url = server, redact(url)
        self._since: float | None = None
        self._refused = float("-inf")  # when a refusal was last logged
        self._lock = threading.Lock()
        self._clients: WeakSet[redis.Redis] = WeakSet()
        self.failures = 0
        """How often a connection has failed."""

    def watch_pool(self, client: redis.Redis) -> None:
        """Drop this client's idle connections whenever any connection fails.

        If one connection hangs, so do the others: each would cost its next user a timeout.
        """
        with self._lock:
            self._clients.add(client)

    def failed(self, error: BaseException | None) -> None:
        """Note that a command failed."""
        with self._lock:
            if isinstance(error, redis.ConnectionError | redis.TimeoutError):
                self.failures += 1
                for client in self._clients:
                    client.connection_pool.disconnect(inuse_connections=False)
            if isinstance(error, _ANSWERS):
                if time.monotonic() - self._refused >= _REMIND_SECONDS:
                    self._refused = time.monotonic()
                    logger.warning("%s at %s refuses, trying again: %s", self._server, self._url, advised(error))
            elif self._since is None:
                self._since = time.monotonic()
                logger.warning(
                    "%s at %s does not answer, trying again until it does: %s", self._server, self._url, error
                )

    def succeeded(self) -> None:
        """Note that a command succeeded."""
        if self._since is None:
            return
        with self._lock:
            if self._since is not None:
                logger.warning("%s is back after %.1f s", self._server, time.monotonic() - self._since)
                self._since = None


_ANSWERS = (redis.ResponseError, redis.AuthenticationError, redis.exceptions.AuthorizationError)


def retry_until_answered(
    call: Callable[[], T],
    outage: Outage,
    give_up: threading.Event,
    *,
    errors: type[Exception] | tuple[type[Exception], ...] = redis.RedisError,
) -> T:
    """Call until the server answers: exponential backoff with jitter, at most a second between tries.

    Only for calls that may take effect twice.

    Raises:
        redis.RedisError, or one of `errors`: `give_up` was set while the server did not answer.
    """

    def note(state: tenacity.RetryCallState) -> None:
        outage.failed(state.outcome.exception() if state.outcome else None)

    try:
        return call()  # most calls need no more
    except errors as error:
        if give_up.is_set():
            raise
        outage.failed(error)
    result = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(errors),
        wait=tenacity.wait_exponential_jitter(multiplier=0.05, max=1.0, jitter=0.1),
        stop=tenacity.stop_when_event_set(give_up),
        sleep=tenacity.sleep_using_event(give_up),
        before_sleep=note,
        reraise=True,
    )(call)
    outage.succeeded()
    return result
