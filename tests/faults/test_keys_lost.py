"""Keys of ours deleted or replaced while a tree runs tasks: what is known anywhere ends, and nothing crashes."""

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rhai_tasks import Settings
from rhai_tasks.protocol import QueueKeys, queue_name, workers_key
from tests.conftest import FINAL, Dispatcher, Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")
KEYS = QueueKeys(Settings().namespace, queue_name("circle"))
NAMES = sorted(name for name in dir(QueueKeys) if isinstance(getattr(QueueKeys, name), property))
EVERY_KEY = [*(name for name in NAMES if name != "acks_prefix"), "acks", "released", "registry", "workers"]
TASKS = [f"t{number}" for number in range(3)]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def begun(runs: Path) -> Counter[str]:
    """Count how often each task has begun."""
    return Counter(runs.read_text().split()) if runs.exists() else Counter()


def key(client: Any, name: str) -> str:
    """Name a key of the circle, for the only worker process."""
    if name in {"acks", "released"}:
        (broker_id,) = client.zrange(KEYS.leases, 0, -1)
        return str(getattr(KEYS, name)(broker_id))
    if name == "registry":
        return KEYS.registry(KEYS.namespace)
    return workers_key(KEYS.namespace) if name == "workers" else str(getattr(KEYS, name))


@pytest.fixture
def tree(dispatcher: Dispatcher, start_worker: Callable[..., Worker], runs: Path) -> Worker:
    """A tree whose threads are all busy, for longer than it takes to renew a lease."""
    for name in TASKS:
        dispatcher.submit("circle", name, f'note("{runs}", "{name}"); sleep(6); "{name}"')
    tree = start_worker("circle", *ENGINE, "--threads", "3")
    wait_until(lambda: set(begun(runs)) == set(TASKS))
    wait_until(lambda: all(dispatcher.status(task) == "processing" for task in TASKS))
    return tree


def all_end_once(dispatcher: Dispatcher, tree: Worker, runs: Path, children: list[int]) -> None:
    """Wait for all that ran, and see that the tree goes on with others."""
    assert [dispatcher.result(task).get("output") for task in TASKS] == TASKS
    assert set(begun(runs).values()) == {1}
    assert dispatcher.run("circle", "1")["output"] == "1"
    assert [child.pid for child in tree.children()] == children
    assert len(tree.text().splitlines()) < 40


@pytest.mark.parametrize("name", EVERY_KEY)
def test_running_tasks_end_once_though_a_key_is_deleted(
    dispatcher: Dispatcher, tree: Worker, client: Any, runs: Path, name: str
) -> None:
    children = [child.pid for child in tree.children()]
    waiting = [dispatcher.submit("circle", f"w{number}", "1") for number in range(3)]
    wait_until(lambda: client.llen(KEYS.messages) == 3)

    client.delete(key(client, name))

    all_end_once(dispatcher, tree, runs, children)
    if name != "messages":  # where alone their ids are
        assert {dispatcher.result(task)["status"] for task in waiting} == {"completed"}
    assert client.zcard(KEYS.leases) == 1
    wait_until(lambda: client.hlen(KEYS.bodies) == 0)
    assert not client.keys("rhai_dramatiq:__acks__.*")


@pytest.mark.parametrize("name", EVERY_KEY)
def test_running_tasks_end_once_though_a_key_holds_something_else_for_a_while(
    dispatcher: Dispatcher, tree: Worker, client: Any, runs: Path, name: str
) -> None:
    children = [child.pid for child in tree.children()]
    name = key(client, name)
    if kept := client.exists(name):
        client.rename(name, "aside")
    kind = client.type("aside") if kept else "none"
    client.hset(name, "x", "x") if kind == "string" else client.set(name, "garbage")
    renewals = client.info("commandstats")["cmdstat_evalsha"]["calls"]
    wait_until(lambda: client.info("commandstats")["cmdstat_evalsha"]["calls"] > renewals + 4)

    client.delete(name)
    if kept:
        client.rename("aside", name)

    all_end_once(dispatcher, tree, runs, children)


@pytest.mark.parametrize("name", ["acks", "leases", "messages", "bodies", "deliveries", "sequence", "workers"])
def test_what_a_killed_tree_ran_runs_again_though_a_key_is_deleted(
    dispatcher: Dispatcher, tree: Worker, start_worker: Callable[..., Worker], client: Any, runs: Path, name: str
) -> None:
    name = key(client, name)
    tree.kill()
    if name != KEYS.bodies:  # without them nobody knows which tasks the messages were of
        client.delete(name)

    successor = start_worker("circle", *ENGINE, "--threads", "3")

    wait_until(lambda: all(dispatcher.status(task) in FINAL for task in TASKS), within=120.0)
    assert set(begun(runs).values()) == {2}
    assert len(re.findall(r"Put \d+ task", successor.text())) == 1


def test_a_tree_goes_on_though_everything_is_deleted(
    dispatcher: Dispatcher, tree: Worker, client: Any, runs: Path
) -> None:
    children = [child.pid for child in tree.children()]

    client.flushall()

    assert dispatcher.run("circle", "sleep(7); 1")["output"] == "1"  # what ran would have ended before
    assert [child.pid for child in tree.children()] == children
    assert set(begun(runs).values()) == {1}
    assert not any(dispatcher.details(task) for task in TASKS)
