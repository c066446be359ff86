"""Waits for the server, and checks that it can be used."""

import threading
from collections.abc import Mapping
from typing import Any

import redis

from rhai_tasks.errors import ConfigurationError

from .connect import connect
from .outage import NO_CLUSTER, Outage, advised, is_transient, retry_until_answered
from .tls import check_files, tls_failure
from .urls import redact

_OLDEST_SERVER = (6, 2)  # BLMOVE, LPOP with a count


def await_server(url: str, give_up: threading.Event) -> None:
    """Wait until the server can be used, however long that takes.

    Raises:
        ConfigurationError: Waiting will not help: wrong URL or password, or a server that cannot be used.
        redis.RedisError: `give_up` was set meanwhile.
    """
    check_files(url)
    client = connect(url)

    def read_info() -> dict[str, Any]:
        try:
            return dict(client.info("server"))
        except redis.AuthenticationError as error:
            raise ConfigurationError(
                f"Redis at {redact(url)} refuses the login: {error}. Check user and password in --redis-url"
            ) from error
        except redis.ConnectionError as error:
            if wrong := tls_failure(error):
                raise ConfigurationError(
                    f"Redis at {redact(url)}: {wrong}. Check the certificates in --redis-url"
                ) from error
            raise
        except redis.ResponseError as error:
            if is_transient(error):
                raise
            raise ConfigurationError(f"Redis at {redact(url)} refuses: {advised(error)}") from error

    with client:
        found = retry_until_answered(read_info, Outage(url), give_up)
    check_server(found, url)


def check_server(found: Mapping[str, Any], url: str) -> None:
    """Check that a server with this `INFO server` can be used.

    Raises:
        ConfigurationError: The server is too old, or part of a cluster.
    """
    version = str(found["redis_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST_SERVER:
        raise ConfigurationError(f"Redis at {redact(url)} is version {version}; 6.2 or newer is needed (BLMOVE)")
    if "cluster" in {found.get("redis_mode"), found.get("server_mode")}:  # Redis, Valkey
        raise ConfigurationError(f"Redis at {redact(url)} {NO_CLUSTER}")
