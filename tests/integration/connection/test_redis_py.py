"""Private names of redis-py: an upgrade that drops one of those used here fails, and the text names the users."""

import socket
from typing import Any

import pytest
import redis

from rhai_tasks.connection.connect import connect, connect_async

USERS = {
    "ConnectionPool._in_use_connections": "break_off in connection/connect.py",
    "Connection._sock": "break_off in connection/connect.py, connection/deadlines.py, connection/direct.py and "
    "queue/list_watcher.py",
    "Connection._parser": "connection/direct.py and queue/list_watcher.py",
}


def missing(name: str) -> str:
    return f"redis-py {redis.__version__} has no {name} as before; it is used by {USERS[name]}"


@pytest.fixture
def connection(server_url: str) -> Any:
    """A connection in use, as `connect` makes it; it speaks the protocol of invalidations."""
    with connect(server_url, protocol=3) as client:
        connection = client.connection_pool.get_connection()
        yield connection
        connection.disconnect()
        client.connection_pool.release(connection)


def test_a_pool_lists_the_connections_in_use(server_url: str) -> None:
    name = "ConnectionPool._in_use_connections"
    with connect(server_url) as client:
        pool: Any = client.connection_pool
        assert hasattr(pool, "_in_use_connections"), missing(name)
        assert list(pool._in_use_connections) == [], missing(name)
        connection = pool.get_connection()
        assert list(pool._in_use_connections) == [connection], missing(name)
        pool.release(connection)
        assert list(pool._in_use_connections) == [], missing(name)


def test_a_connection_reads_no_file_for_the_version_of_redis_py(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(server_url).close()  # the first client may read it
    reads: list[str] = []

    def read_version() -> str:
        reads.append("read")
        return "0"

    monkeypatch.setattr(redis.utils, "get_lib_version", read_version)

    sentinels: Any = connect("redis+sentinel://127.0.0.1:1/mymaster").connection_pool
    direct, asynchronous = connect(server_url).connection_pool, connect_async(server_url).connection_pool
    for pool in (direct, asynchronous, sentinels, sentinels.sentinel_manager.sentinels[0].connection_pool):
        pool.make_connection()

    assert reads == []


def test_a_connection_has_its_socket(connection: Any) -> None:
    assert isinstance(getattr(connection, "_sock", None), socket.socket), missing("Connection._sock")

    connection.disconnect()

    assert connection._sock is None, missing("Connection._sock")


def test_a_parser_returns_replies_also_errors(connection: Any) -> None:
    parser: Any = getattr(connection, "_parser", None)
    assert callable(getattr(parser, "read_response", None)), missing("Connection._parser")
    connection.send_command("ECHO", "text")
    assert parser.read_response() == b"text", missing("Connection._parser")
    connection.send_command("EVALSHA", "0" * 40, 0)
    assert isinstance(parser.read_response(), redis.exceptions.NoScriptError), missing("Connection._parser")


def test_a_parser_takes_a_handler_of_invalidations(connection: Any, client: Any) -> None:
    heard: list[Any] = []
    set_handler = getattr(getattr(connection, "_parser", None), "set_invalidation_push_handler", None)
    assert callable(set_handler), missing("Connection._parser")
    set_handler(heard.append)
    connection.send_command("CLIENT", "TRACKING", "ON")
    connection.read_response()
    connection.send_command("LLEN", "list")
    connection.read_response()

    client.rpush("list", "element")
    connection.send_command("PING")
    while not heard and connection.can_read(timeout=5):
        connection.read_response(push_request=True)

    assert heard == [[b"invalidate", [b"list"]]], missing("Connection._parser")
