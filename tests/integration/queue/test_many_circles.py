"""Beyond the first circles of a bridge, and of a worker process, all others share a thread and a connection."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from dramatiq import Worker as DramatiqWorker

from bridge.bridge import Bridge
from rhai_tasks import Engine, Settings
from rhai_tasks.connection.connect import connect
from rhai_tasks.protocol import QueueKeys, queue_name
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.list_watcher import DEDICATED_LIMIT
from rhai_tasks.queue.native import circles_with_tasks
from rhai_tasks.worker.make import make_worker
from tests.conftest import FINAL, Dispatcher, Worker, wait_until

from .test_cost import requests

CIRCLES = [f"c{number}" for number in range(40)]


def test_more_circles_than_have_a_thread_of_their_own_are_served(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], client: Any
) -> None:
    tasks = [dispatcher.submit(circle, f"{circle}-{n}", "CONTEXT_ID") for circle in CIRCLES for n in range(3)]
    bridge = spawn("rhai-bridge", "--all-circles")
    workers = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "2")

    outputs = [dispatcher.result(task)["output"] for task in tasks]

    assert outputs == [task.partition("-")[0] for task in tasks]
    waiting = [connection for connection in client.client_list() if connection["cmd"] == "blmove"]
    assert len(waiting) <= 2 * DEDICATED_LIMIT  # not one for each circle, in each of the two
    assert workers.stop() == 0
    assert bridge.stop() == 0


@pytest.fixture
def all_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no circle have a thread of its own."""
    monkeypatch.setattr("bridge.bridge.DEDICATED_LIMIT", 0)
    monkeypatch.setattr("rhai_tasks.queue.broker.DEDICATED_LIMIT", 0)


@pytest.fixture
def running(all_share: None, server_url: str, client: Any) -> Iterator[tuple[Bridge, TaskBroker]]:
    """A bridge and a worker of many circles in this process, with little room between them."""
    settings = Settings(redis_url=server_url, threads=2, buffer=4, shutdown_timeout=1.0)
    broker, worker = make_worker(settings, Engine())
    bridge = Bridge(settings)
    for circle in CIRCLES:
        bridge.serve(circle)
        broker.declare_circle(circle)
    dramatiq: DramatiqWorker = worker
    dramatiq.start()
    yield bridge, broker
    bridge.stop()
    dramatiq.stop(2000)


@pytest.mark.usefixtures("running")
def test_a_circle_with_more_tasks_than_room_goes_on_as_there_is_room(dispatcher: Dispatcher) -> None:
    tasks = [dispatcher.submit("c7", f"t{number}", f"{number}") for number in range(100)]

    assert [dispatcher.result(task)["output"] for task in tasks] == [str(number) for number in range(100)]


def test_idle_circles_ask_for_nothing_but_their_leases_together(
    running: tuple[Bridge, TaskBroker], dispatcher: Dispatcher, client: Any
) -> None:
    bridge, broker = running
    wait_until(bridge.readiness.is_ready)
    wait_until(broker.readiness.is_ready)
    lease = f"lease of rhai-{CIRCLES[-1]}"
    before, began = requests(client), broker.readiness.times()[lease]

    wait_until(lambda: broker.readiness.times()[lease] > began, what="the leases to be renewed")

    assert requests(client) - before < len(CIRCLES) / 2


def test_a_search_for_circles_asks_only_about_those_that_are_not_served(server_url: str, client: Any) -> None:
    settings = Settings(redis_url=server_url)
    all_keys = {circle: QueueKeys(settings.namespace, queue_name(circle)) for circle in ("served", "other", "new")}
    for circle, keys in all_keys.items():
        client.sadd(QueueKeys.registry(settings.namespace), keys.queue)
        if circle != "other":
            client.zadd(keys.delayed, {"t": 1})
    client.config_resetstat()

    found = circles_with_tasks(connect(server_url), settings, ["served"])

    assert found == ["new"]
    assert client.info("commandstats")["cmdstat_exists"]["calls"] == 2


@pytest.mark.usefixtures("running")
def test_a_key_of_another_type_holds_no_other_circle_up(dispatcher: Dispatcher, client: Any) -> None:
    client.set("rhai_tasks:c1", "no list")
    client.set("rhai_dramatiq:rhai-c2", "no list")
    stuck = dispatcher.submit("c2", "stuck", "2")

    assert dispatcher.run("c3", "3")["output"] == "3"

    client.delete("rhai_tasks:c1", "rhai_dramatiq:rhai-c2")
    assert dispatcher.run("c1", "1")["output"] == "1"
    assert dispatcher.result(stuck)["output"] == "2"


@pytest.mark.parametrize("fault", ["connections", "scripts", "everything"])
def test_a_server_that_forgets_is_asked_anew(
    running: tuple[Bridge, TaskBroker], dispatcher: Dispatcher, client: Any, fault: str
) -> None:
    assert dispatcher.run("c5", "1")["output"] == "1"

    match fault:
        case "connections":
            client.client_kill_filter(_type="normal", skipme=True)
        case "scripts":
            client.script_flush()
        case _:
            client.flushall()

    assert [dispatcher.run(circle, "2")["output"] for circle in CIRCLES] == ["2"] * len(CIRCLES)


def test_a_bridge_that_stops_gives_back_what_no_worker_has(
    all_share: None, server_url: str, dispatcher: Dispatcher, client: Any
) -> None:
    bridge = Bridge(Settings(redis_url=server_url))
    for circle in CIRCLES:
        bridge.serve(circle)
    tasks = [dispatcher.submit("c9", f"t{number}", "1") for number in range(10)]
    wait_until(lambda: client.llen("rhai_dramatiq:rhai-c9") == len(tasks))

    bridge.stop()

    assert sorted(client.lrange("rhai_tasks:c9", 0, -1)) == tasks
    assert not any(dispatcher.status(task) in FINAL for task in tasks)
