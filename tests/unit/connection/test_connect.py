import asyncio
import inspect
import traceback
from typing import Any

import pytest
import redis

from rhai_tasks.connection.connect import connect, connect_async
from rhai_tasks.connection.server import check_server
from rhai_tasks.connection.urls import redact
from rhai_tasks.errors import ConfigurationError


def test_an_old_server_is_refused_with_its_version() -> None:
    with pytest.raises(ConfigurationError, match="is version 6.0.16; 6.2 or newer is needed"):
        check_server({"redis_version": "6.0.16"}, "redis://localhost")


@pytest.mark.parametrize("version", ["6.2.0", "7.2.4", "10.0"])
def test_newer_servers_will_do(version: str) -> None:
    check_server({"redis_version": version}, "redis://localhost")


@pytest.mark.parametrize("name", ["redis_mode", "server_mode"], ids=["Redis", "Valkey"])
def test_a_cluster_is_refused_with_what_to_use_instead(name: str) -> None:
    with pytest.raises(ConfigurationError, match="is part of a Redis Cluster.*Use a single server"):
        check_server({"redis_version": "7.2.4", name: "cluster"}, "redis://localhost")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:secret@host:1/0", "redis://user:***@host:1/0"),
        ("redis://:p@ss@host", "redis://:***@host"),
        ("redis://host", "redis://host"),
        ("redis://host/0?password=secret&db=1", "redis://host/0?password=***&db=1"),
        ("rediss://host?ssl_password=secret", "rediss://host?ssl_password=***"),
    ],
)
def test_a_password_is_never_shown(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_a_url_of_another_kind_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="--redis-url 'http://x'"):
        connect("http://x")


@pytest.mark.parametrize("make", [connect, connect_async])
def test_a_master_that_no_sentinel_names_is_missed_in_few_words(make: Any) -> None:
    client = make("redis+sentinel://user:hunter2@127.0.0.1:1,127.0.0.1:2/mymaster?sentinel_password=hunter3")

    async def ping() -> None:
        pinged = client.ping()
        if inspect.isawaitable(pinged):
            await pinged

    with pytest.raises(redis.ConnectionError) as caught:
        asyncio.run(ping())

    assert str(caught.value) == "no Sentinel names the master 'mymaster'"
    assert "hunter" not in "".join(traceback.format_exception(caught.value))
