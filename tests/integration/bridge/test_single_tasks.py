"""Tasks that come one at a time: the bridge's process is woken for some of them only."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis

import bridge.circle
from bridge.circle import CircleBridge
from rhai_tasks import Settings
from tests.conftest import wait_until

ROOM = Settings().buffer


@contextmanager
def waiting(settings: Settings, client: Any, room: int = ROOM) -> Iterator[Callable[[], list[int]]]:
    """Have a bridge that has just moved a task wait in a thread meanwhile; yield what returns its results so far."""
    circle, found = CircleBridge(settings, "circle", client), list[int]()
    client.lpush("rhai_tasks:circle", "first")
    circle.forward(room)
    client.delete("rhai_dramatiq:rhai-circle")
    thread = threading.Thread(target=lambda: found.append(circle.forward(room)))
    thread.start()
    try:
        yield lambda: found
    finally:
        thread.join(10)
        circle.close()


def submit(client: Any, count: int) -> None:
    """Push ids one by one, each after the one before was moved."""
    for _ in range(count):
        before = client.llen("rhai_dramatiq:rhai-circle")
        client.lpush("rhai_tasks:circle", f"t{before}")
        wait_until(lambda: client.llen("rhai_dramatiq:rhai-circle") == before + 1, what="the id to be moved")  # noqa: B023  (called at once)


def test_a_bridge_wakes_for_one_in_16_single_tasks(
    server_url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge.circle, "BLOCK_SECONDS", 80)  # a wait that ends without a task counts, too
    with waiting(Settings(redis_url=server_url), client) as results:
        submit(client, 15)
        assert results() == []
        submit(client, 1)

    assert results() == [ROOM - 16]
    assert client.lrange("rhai_dramatiq:rhai-circle", 0, -1) == [f"t{number}" for number in range(16)]


def test_an_idle_bridge_waits_with_one_command_and_wakes_for_a_task(
    server_url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge.circle, "BLOCK_SECONDS", 0.5)
    circle = CircleBridge(Settings(redis_url=server_url), "circle", client)
    client.lpush("rhai_tasks:circle", "t")

    for waits in (1, 16, 1, 1):  # the second one follows a task
        before = client.info("commandstats").get("cmdstat_blmove", {"calls": 0})["calls"]
        circle.forward(ROOM)
        assert client.info("commandstats")["cmdstat_blmove"]["calls"] - before == waits
    circle.close()


@pytest.mark.parametrize(("settings", "room"), [({"fair": True}, ROOM), ({}, 16)], ids=["fair turns", "hardly room"])
def test_a_bridge_wakes_for_each_task_that_it_has_to_sort_or_to_count(
    server_url: str, client: Any, settings: dict[str, Any], room: int
) -> None:
    with waiting(Settings(redis_url=server_url, **settings), client, room) as results:
        submit(client, 1)
        wait_until(results)


def test_a_bridge_without_the_right_wakes_for_each_task(server_url: str, client: Any) -> None:
    client.execute_command("ACL", "SETUSER", "few", "on", ">secret", "~*", "+@all", "-client|reply")
    url = server_url.replace("://", "://few:secret@")

    with waiting(Settings(redis_url=url), client) as results:
        submit(client, 1)
        wait_until(results)


def test_a_bridge_is_told_of_a_list_that_is_none(server_url: str, client: Any) -> None:
    client.set("rhai_tasks:circle", "text")
    circle = CircleBridge(Settings(redis_url=server_url), "circle", client)

    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        circle.forward(ROOM)

    client.delete("rhai_tasks:circle")
    client.lpush("rhai_tasks:circle", *map(str, range(10)))
    assert circle.forward(ROOM) == ROOM - 10
    circle.close()


def test_a_bridge_that_no_task_comes_for_goes_on_in_time(
    server_url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridge.circle, "BLOCK_SECONDS", 0.2)
    circle = CircleBridge(Settings(redis_url=server_url), "circle", client)

    before = client.info("stats")["total_commands_processed"]
    assert [circle.forward(ROOM) for _ in range(3)] == [ROOM] * 3
    assert client.info("stats")["total_commands_processed"] - before < 100  # it waited
    client.lpush("rhai_tasks:circle", *map(str, range(10)))
    assert circle.forward(ROOM) == ROOM - 10
    circle.close()
