"""How a fetch reads the details of tasks: all fields at once, unless that would read much that no worker needs."""

from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Settings
from rhai_tasks.protocol import HERO, RHAI, Dialect, QueueKeys, queue_name
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.delivery import DETAILS, Delivery

KEYS = QueueKeys("rhai_dramatiq", queue_name("c"))
LARGE = "x" * 20_000


@pytest.fixture
def fetch(server_url: str, client: Any) -> Callable[..., tuple[TaskBroker, list[Delivery]]]:
    """Fetch tasks of these details, in this order, and return what was read of them."""

    def fetch(tasks: dict[str, dict[str, str]], **settings: Any) -> tuple[TaskBroker, list[Delivery]]:
        broker = TaskBroker(Settings(redis_url=server_url, **settings))
        for task_id, details in tasks.items():
            client.hset(broker.context.settings.prefixes.details + task_id, mapping=details)
        client.rpush(KEYS.messages, *tasks)
        client.config_resetstat()
        consumer = broker.consume(KEYS.queue, 100, 10)
        source: Any = consumer.source
        source.more = True
        return broker, [run.delivery for run in consumer._reader.read(source.fetch(100))]

    return fetch


def calls(client: Any, command: str) -> int:
    return int(client.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})["calls"])


@pytest.mark.parametrize("dialect", [RHAI, HERO], ids=["rhai", "hero"])
@pytest.mark.parametrize("signatures", ["off", "require"])
def test_each_field_is_read_in_both_ways(
    fetch: Callable[..., Any], client: Any, dialect: Dialect, signatures: str
) -> None:
    names = dialect.stored_names(dialect.read_fields)
    full = {name: f"value of {name}" for name in names}
    one_missing = {f"without {name}": {other: value for other, value in full.items() if other != name} for name in full}
    tasks = {"full": full, **one_missing}
    filler = {f"large{number}": {"script": "1", "unknown": LARGE} for number in range(3)}
    again = {f"again {task_id}": details for task_id, details in tasks.items()}

    broker, found = fetch({**tasks, **filler, **again}, dialect=dialect.name, signatures=signatures)

    assert calls(client, "hgetall") >= len(tasks)
    assert calls(client, "hmget") >= len(again)
    read = broker.context.stored_fields
    expected = {}
    for task_id, details in {**tasks, **again}.items():
        places = [read.index(name) == place for place, name in enumerate(read)]  # of two of one name, the first counts
        values = [
            details[name].encode() if name in details and counts else None
            for name, counts in zip(read, places, strict=True)
        ]
        while len(values) > DETAILS and values[-1] is None:
            values.pop()
        expected[task_id] = values
    got = {
        delivery.task_id: [*delivery.details, *delivery.terms, *delivery.signature]
        for delivery in found
        if delivery.task_id in expected
    }
    assert got == expected


def test_other_fields_are_read_of_few_tasks(fetch: Callable[..., Any], client: Any) -> None:
    tasks = {f"t{number}": {"script": "1", "status": "pending", "output": LARGE} for number in range(50)}

    _, found = fetch(tasks)

    assert [delivery.details.script for delivery in found] == [b"1"] * 50
    assert calls(client, "hgetall") == 1


def test_small_other_fields_do_not_change_how_a_task_is_read(fetch: Callable[..., Any], client: Any) -> None:
    tasks = {f"t{number}": {"script": "1", "status": "pending", "unknown": "x" * 50} for number in range(50)}

    _, found = fetch(tasks)

    assert [delivery.changes for delivery in found] == [b""] * 50  # simple ones
    assert calls(client, "hgetall") == 50
