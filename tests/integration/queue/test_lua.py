"""What Lua and Python both know: they must not differ."""

import json
import re
from typing import Any

import pytest

from rhai_tasks.connection.scripts import in_dialect
from rhai_tasks.protocol import CANCELLED, RHAI, QueueKeys, Status, is_circle_queue, message_head, queue_name
from tests.lua import FILES

KEYS = QueueKeys("rhai", queue_name("c"))


def call(client: Any, file: str, code: str, *args: str | bytes) -> Any:
    """Run code behind the functions of a Lua file and of the basic one."""
    basic = FILES["common"].read_text()
    return client.eval(in_dialect(f"{basic}\n{FILES[file].read_text()}\n{code}", RHAI), 0, *args)


@pytest.mark.parametrize("circle", ["c", "a.b:c", "blank and ümlaut", b"\xff\x00".decode("utf-8", "surrogateescape")])
def test_lua_names_the_queue_of_a_circle_as_python_does(client: Any, circle: str) -> None:
    queue = call(client, "keys", "return queue_of(ARGV[1])", circle.encode("utf-8", "surrogateescape"))

    assert queue == queue_name(circle)
    assert call(client, "keys", "return is_circle_queue(ARGV[1])", queue) == is_circle_queue(queue) == 1
    assert call(client, "keys", "return is_circle_queue(ARGV[1])", "default") is None
    assert not is_circle_queue("default")


@pytest.mark.parametrize("suffix", ["", ".DQ"], ids=["queue", "delay queue"])
def test_lua_names_the_keys_of_a_queue_as_python_does(client: Any, suffix: str) -> None:
    found = json.loads(call(client, "keys", "return cjson.encode(keys_of(ARGV[1]))", KEYS.messages + suffix))

    dead = {"dead": KEYS.dead, "dead_bodies": KEYS.dead_bodies, "dead_reasons": KEYS.dead_reasons}
    names = ("bodies", "delayed", "delayed_messages", "wake")
    own = {name: KEYS.messages + suffix + getattr(KEYS, name).removeprefix(KEYS.messages) for name in names}
    assert found == own | dead
    assert found["bodies"] == (KEYS.delay_bodies if suffix else KEYS.bodies)


def test_lua_names_the_messages_that_brokers_hold_as_python_does(client: Any) -> None:
    code = "return acks_of({'a', 'b'}, ARGV[1], ARGV[2])"
    found = call(client, "keys", code, KEYS.acks_start(KEYS.namespace), KEYS.queue)

    assert found == [KEYS.acks("a"), KEYS.acks("b")]


def test_lua_completes_a_message_that_python_has_begun(client: Any) -> None:
    code = "return message_of('m-1', ARGV[1], ARGV[2], dated(ARGV[3], {'12', '500999'}))"

    body = json.loads(call(client, "messages", code, 'task "1"', "a.2", message_head(KEYS.queue)))

    assert body == {
        "queue_name": KEYS.queue,
        "actor_name": "run_script",
        "args": ['task "1"'],
        "kwargs": {},
        "options": {"redis_message_id": "m-1", "submission": "a.2"},
        "message_id": "m-1",
        "message_timestamp": 12_500,
    }


def test_lua_knows_a_cancelled_task_as_python_does(client: Any) -> None:
    code = "return is_cancelled(ARGV[1], ARGV[2])"

    assert call(client, "cancellation", code, Status.ERROR, CANCELLED) == 1
    assert call(client, "cancellation", code, Status.COMPLETED, CANCELLED) is None
    assert call(client, "cancellation", code, Status.ERROR, "other") is None


@pytest.mark.parametrize(("length", "calls"), [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (2500, 3)])
def test_a_long_list_is_passed_on_in_parts(client: Any, length: int, calls: int) -> None:
    client.sadd("numbers", *range(0, 3000, 2))
    code = """
        local list = {'first'}
        for i = 0, ARGV[1] - 1 do list[#list + 1] = i end
        return call_with_all('SMISMEMBER', 'numbers', list, 2)
    """
    client.config_resetstat()

    found = call(client, "common", code, str(length))

    assert found == [1 - number % 2 for number in range(length)]
    assert client.info("commandstats").get("cmdstat_smismember", {"calls": 0})["calls"] == calls


@pytest.mark.parametrize(
    ("thing", "pattern", "place"),
    [
        ("the test for a cancelled task", r"== STATUS.error and \S+ == WORD.cancelled", {"cancellation"}),
        ("the end of a cancelled task", r"\.error, WORD.cancelled", {"cancellation", "finish"}),
        ("a dead letter", r"'HSET', \S+\.dead_bodies", {"letters"}),
        ("the wake-up of a bridge", r"'LPUSH', \S+, '1'", {"delays"}),
        ("room for a bridge", r"'RPUSH', \S+, '1'", {"hold"}),
        ("the server's millisecond", r"\[1\] \* 1000\b", {"common"}),
        ("a message's task", r"actor_name", {"messages"}),
        ("a message", r"redis_message_id\":", {"messages"}),
        ("a message's id", r"m-%", {"messages"}),
        ("parts of a long list", r"\b999\b", {"common"}),
        ("the text of a caught error", r"tostring\(", {"common"}),
        ("a wrong type", r"WRONGTYPE", {"common"}),
        ("names of a queue's keys", r"'\.(?:msgs|delayed|delayed_messages|wake|XQ|reasons)'", {"keys"}),
    ],
)
def test_one_thing_is_written_in_one_place(thing: str, pattern: str, place: set[str]) -> None:
    found = {name for name, path in FILES.items() if re.search(pattern, re.sub(r"--.*", "", path.read_text()))}

    assert found == place, thing
