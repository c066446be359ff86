"""A connection that runs scripts without redis-py's pool."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from rhai_tasks.connection.connect import break_off, connect
from rhai_tasks.connection.direct import DirectConnection, pack, pack_call
from rhai_tasks.connection.outage import Outage
from rhai_tasks.protocol import to_bytes

NAME = "direct"


@pytest.fixture
def outage(server_url: str) -> Outage:
    return Outage(server_url)


@pytest.fixture
def own(server_url: str) -> Iterator[redis.Redis]:
    with connect(server_url, client_name=NAME) as client:
        yield client


@pytest.fixture
def direct(own: redis.Redis, outage: Outage) -> DirectConnection:
    return DirectConnection(own, outage)


def ids(client: Any) -> list[str]:
    """List the server's numbers of our connections."""
    return [one["id"] for one in client.client_list() if one["name"] == NAME]


def test_it_runs_a_script_that_the_server_does_not_know(
    client: Any, own: redis.Redis, direct: DirectConnection
) -> None:
    script = own.register_script("return {KEYS[1], ARGV[1], tonumber(ARGV[2])}")
    call = pack_call(script, ["kéy"], [b"\xff", 3])
    client.script_flush()

    assert direct.run(script, call) == ["kéy".encode(), b"\xff", 3]
    client.script_flush()
    assert direct.run(script, call, pack("INCR", "a")) == ["kéy".encode(), b"\xff", 3]
    assert client.get("a") == "1", "the command is not sent again with the script"


def test_it_keeps_one_connection(client: Any, own: redis.Redis, direct: DirectConnection) -> None:
    script = own.register_script("return 1")
    direct.run(script, pack_call(script, [], []))
    before = ids(client)

    direct.run(script, pack_call(script, [], []))

    assert ids(client) == before
    assert before


@pytest.mark.parametrize("ended", ["by the server", "by another thread", "as idle ones are"])
def test_a_connection_that_was_closed_is_made_again(
    client: Any, own: redis.Redis, direct: DirectConnection, ended: str
) -> None:
    direct.ping()
    before = ids(client)
    match ended:
        case "by the server":
            client.client_kill_filter(_id=before[0])
        case "by another thread":
            break_off(own)
        case _:
            own.connection_pool.disconnect()

    direct.ping()

    (again,) = ids(client)
    assert again not in before


def test_it_connects_again_once_another_connection_has_failed(
    client: Any, direct: DirectConnection, outage: Outage
) -> None:
    direct.ping()
    before = ids(client)

    outage.failed(redis.ResponseError("the server answers"))
    direct.ping()
    assert ids(client) == before

    outage.failed(redis.TimeoutError("it hangs"))
    direct.ping()
    (again,) = ids(client)
    direct.ping()

    assert again not in before
    assert ids(client) == [again]


def test_a_reply_that_comes_too_late_is_not_taken_for_the_next_one(client: Any, server_url: str) -> None:
    with connect(server_url, timeout=0.2) as own:
        script = own.register_script("return 'of the script'")
        direct = DirectConnection(own)
        direct.ping()

        with pytest.raises(redis.TimeoutError):
            direct.run(script, pack_call(script, [], []), pack("BLPOP", "list", 30))
        client.rpush("list", "late")

        assert direct.run(script, pack_call(script, [], [])) == b"of the script"


class Broken:
    """A socket that does not send."""

    def __init__(self, socket: Any, error: BaseException) -> None:
        self._socket, self._error = socket, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def sendall(self, _: bytes) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (TimeoutError("timed out"), redis.TimeoutError),
        (BrokenPipeError("broken pipe"), redis.ConnectionError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
def test_a_connection_that_does_not_send_is_made_again(
    client: Any, direct: DirectConnection, error: BaseException, raised: type[BaseException]
) -> None:
    direct.ping()
    before = ids(client)
    direct._socket = direct._connection._sock = Broken(direct._socket, error)

    with pytest.raises(raised):
        direct.ping()

    direct.ping()
    (again,) = ids(client)
    assert again not in before


@pytest.mark.parametrize("failing", ["the command", "the script"])
def test_an_error_is_raised_once_all_replies_are_read(
    client: Any, own: redis.Redis, direct: DirectConnection, failing: str
) -> None:
    client.set("text", "x")
    script = own.register_script("return redis.call('LLEN', KEYS[1])")
    key, other = ("text", "list") if failing == "the script" else ("list", "text")

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        direct.run(script, pack_call(script, [key], []), pack("LLEN", other))

    assert direct.run(script, pack_call(script, ["list"], []), pack("LLEN", "list")) == 0


def test_bytes_that_are_no_utf_8_reach_the_server(own: redis.Redis, direct: DirectConnection) -> None:
    script = own.register_script("return ARGV[1]")

    assert direct.run(script, pack_call(script, [], [to_bytes("\udcff")])) == b"\xff"
    with pytest.raises(UnicodeEncodeError):
        pack_call(script, [], ["\udcff"])
