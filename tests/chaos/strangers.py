"""Faults that other programs and operators cause: rights, types and words that nobody expects."""

import threading
import time
from contextlib import suppress
from typing import Any

import redis
from dramatiq import Message
from dramatiq.brokers.redis import RedisBroker

from rhai_tasks import Client
from rhai_tasks.protocol import ACTOR, QueueKeys, cancel_channel, queue_name, state_channel, workers_key
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.settings import Settings
from tests.conftest import FINAL, wait_until
from tests.lua import FILES, commands_of

from .ledger import Expected
from .world import CIRCLE, PREFIX, USER, World

_SECONDS = 1.0  # for which something is wrong
_PAUSE_SECONDS = 0.6  # until the next thing is: a worker that could not renew its lease has tried again by then
_RUNS = 'let run = begin("TASK"); {} end(run); run'
_COMPLETES = Expected("completed")
_NS = Settings().namespace
_QUEUE = queue_name(CIRCLE)
_KEYS = QueueKeys(_NS, _QUEUE)


# --- rights


def refused_command(world: World) -> None:
    """The trees' user loses the right to a command for a second, and then to the next one."""
    for command in _some(world, commands(world)):
        since = time.monotonic()
        _allow(world, f"-{command}")
        time.sleep(_SECONDS)
        _allow(world, f"+{command}")
        if command == "lpush":
            world.silence(since)  # "a reply that may not be pushed is dropped" (docs/security.md)
        time.sleep(_PAUSE_SECONDS)
    _allow(world, "+@all")
    world.all_resume()


def _allow(world: World, rule: str) -> None:
    world.persistently(lambda client: client.execute_command("ACL", "SETUSER", USER, rule))


def commands(world: World) -> list[str]:
    """List the commands that Lua scripts call and those that the server has been sent, without an operator's."""
    known = set(world.client.command_list())
    spared = {*world.client.acl_cat("admin"), *world.client.acl_cat("dangerous"), "hello", "auth", "select", "eval"}
    sent = {name.removeprefix("cmdstat_") for name in world.client.info("commandstats")}
    called = {command.lower() for name in FILES for command in commands_of(name)}
    return sorted(((called | sent) & known | {name for name in sent if "|" in name}) - spared - {"client|setinfo"})


def _some(world: World, things: list[str]) -> list[str]:
    """Bring things in any order, as many as the strain allows."""
    return world.random.sample(things, min(len(things), world.strain.victims))


# --- types

_ASIDE, _MARK = "chaos:aside", "chaos:wrong"  # the value that was there; which key is wrong now
_SPOIL = """
if redis.call('GET', KEYS[3]) then return end -- repeated: its reply got lost
redis.call('SET', KEYS[3], KEYS[1])
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('RENAME', KEYS[1], KEYS[2]) end
if ARGV[1] == 'list' then redis.call('RPUSH', KEYS[1], 'wrong') else redis.call('SET', KEYS[1], 'wrong') end
"""
_MEND = """
if redis.call('GET', KEYS[3]) ~= KEYS[1] then return end
redis.call('DEL', KEYS[3])
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == ARGV[1] and (kind ~= 'string' or redis.call('GET', KEYS[1]) == 'wrong') then
  redis.call('DEL', KEYS[1])
  kind = 'none'
end
-- What somebody has put there in the meantime is joined with what was there.
local join = {
  none = function() redis.call('RENAME', KEYS[2], KEYS[1]) end,
  string = function() end,
  list = function()
    for _, one in ipairs(redis.call('LRANGE', KEYS[2], 0, -1)) do redis.call('RPUSH', KEYS[1], one) end
  end,
  set = function() redis.call('SUNIONSTORE', KEYS[1], 2, KEYS[1], KEYS[2]) end,
  zset = function() redis.call('ZUNIONSTORE', KEYS[1], 2, KEYS[1], KEYS[2]) end,
  hash = function()
    local all = redis.call('HGETALL', KEYS[2])
    for i = 1, #all, 2 do redis.call('HSETNX', KEYS[1], all[i], all[i + 1]) end
  end,
}
if redis.call('EXISTS', KEYS[2]) == 1 then join[kind]() end
redis.call('DEL', KEYS[2])
"""
_MISCOUNT = """
for _, field in ipairs(ARGV) do redis.call('HSETNX', KEYS[1], field, 'many') end
"""
_RECOUNT = """
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  if all[i + 1] == 'many' then redis.call('HDEL', KEYS[1], all[i]) end
end
"""


def wrong_type(world: World) -> None:
    """A key gets a value of another type for a second and is mended, then the next one; then counts are not numbers."""
    for key in _some(world, keys(world)):
        for value in _wrong_types(key):
            world.persistently(lambda client: spoil(client, key, value))  # noqa: B023  (called in this turn)
            time.sleep(_SECONDS)
            world.persistently(lambda client: mend(client, key, value))  # noqa: B023
            time.sleep(_PAUSE_SECONDS)
    upcoming = len(world.load.submitted)
    fields = [f":t{number}" for number in range(upcoming, upcoming + 200)]
    world.persistently(lambda client: client.eval(_MISCOUNT, 1, _KEYS.deliveries, *fields))
    time.sleep(_SECONDS)
    world.persistently(lambda client: client.eval(_RECOUNT, 1, _KEYS.deliveries))
    world.all_resume()


def spoil(client: Any, key: str | bytes, value: str) -> None:
    """Put a value of another type, "string" or "list", in a key's place; also if it is called again."""
    client.eval(_SPOIL, 3, key, _ASIDE, _MARK, value)


def mend(client: Any, key: str | bytes, value: str) -> None:
    """Put back what stood there, and join it with what others have written there since."""
    client.eval(_MEND, 3, key, _ASIDE, _MARK, value)


def keys(world: World) -> list[str]:
    """Name all keys that the circle's tasks pass through; those of some brokers for all that have their own."""
    of_queue = [getattr(_KEYS, name) for name, member in vars(QueueKeys).items() if isinstance(member, property)]
    brokers = world.client.zrange(_KEYS.leases, 0, -1)
    brokers = world.random.sample(brokers, min(len(brokers), 2))
    of_brokers = [name(broker) for broker in brokers for name in (_KEYS.acks, _KEYS.released)]
    return [f"rhai_tasks:{CIRCLE}", *of_queue, *of_brokers, QueueKeys.registry(_NS), workers_key(_NS)]


def _wrong_types(key: str) -> list[str]:
    if key == _KEYS.sequence:
        return ["list", "string"]  # one that is not a number
    return ["list"] if key == _KEYS.full or ":__released__." in key else ["string"]


# --- words


def foreign_words(world: World) -> None:
    """Others write what nobody understands: on channels, in heartbeats, into dramatiq's queue, as the ids of tasks."""
    waiting = _Waiting(world)
    with redis.Redis(port=world.connect_port, socket_timeout=5.0) as client, suppress(redis.RedisError):
        # Once: where faults are mixed the server may be away, and nobody needs to hear each word.
        _say(client, waiting.tasks)
        _claim_to_work(client)
        _send(world, client)
        _enqueue_garbage(client)
        _replace_details(world)
        _share_names(world, client)
    time.sleep(5.0)
    waiting.check()
    world.persistently(lambda client: client.hdel(workers_key(_NS), *_BEATS))


class _Waiting:
    """A client that waits for some tasks, while others speak."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._client = Client(f"redis://127.0.0.1:{world.connect_port}", circle=CIRCLE, retry_timeout=120.0)
        self._got: set[str] = set()
        self.tasks = world.load.submit([(_RUNS.format("sleep(4.0);"), _COMPLETES)] * 4)
        for task in self.tasks:
            threading.Thread(target=self._wait, args=(task,), daemon=True).start()
        time.sleep(1.0)  # until it has subscribed

    def _wait(self, task: str) -> None:
        try:
            self._client.task(task).result()
        except Exception as error:
            self._world.hangs(f"a client, because of which the wait for {task} failed: {error!r}")
        self._got.add(task)

    def check(self) -> None:
        """Say that the client hangs if it still waits for what has ended, or cannot be closed."""
        for task in self.tasks:
            with suppress(AssertionError):  # then it is lost
                wait_until(lambda: self._has_ended(task), within=60.0)  # noqa: B023  (called in this turn)
        with suppress(AssertionError):
            wait_until(lambda: self._got.issuperset(self.tasks))
        for task in set(self.tasks) - self._got:
            self._world.hangs(f"a client that waits for {task}, which has ended")
        closing = threading.Thread(target=self._client.close, daemon=True)
        closing.start()
        closing.join(10.0)
        if closing.is_alive():
            self._world.hangs("a client that was closed")

    def _has_ended(self, task: str) -> bool:
        with suppress(redis.RedisError):
            return self._world.client.hget(PREFIX + task, "status") in FINAL
        return False


_WORDS = (
    *(b"", b" ", b"finished", b"completed", b"error", b"\xff\xfe", b"pending pending", b'{"status": 1}', b"x" * 9999),
)
"""What is not a status, or says too little, and no id of a task that was cancelled."""

_BEATS = {
    f"stranger-{number}": text
    for number, text in enumerate(
        ("", "no JSON", "null", "[]", '{"at":1e999}', '{"at":1,"host":[]}', '{"at":99999999999999,', "[" * 9999)
    )
}
_BODIES = {
    f"garbage-{number}": body
    for number, body in enumerate(
        (b"", b"no JSON", b"[]", b"null", b"\xff", b'{"args":null}', b'{"args":[1],"actor_name":2}', b"[" * 9999)
    )
}


def _say(client: Any, tasks: list[str]) -> None:
    """Publish on channels of states and of cancels."""
    for word in _WORDS:
        for task in (*tasks, "nobody"):
            client.publish(state_channel(_NS) + PREFIX + task, word)
        client.publish(cancel_channel(_NS), word)
    for task in tasks:  # which are not cancelled
        client.publish(cancel_channel(_NS), task)


def _claim_to_work(client: Any) -> None:
    """Write heartbeats that are none."""
    client.hset(workers_key(_NS), mapping=_BEATS)


def _send(world: World, client: Any) -> None:
    """Send messages of another actor, and of ours with arguments that are none, by dramatiq's own broker."""
    broker = RedisBroker(client=client, namespace=_NS)  # type: ignore[no-untyped-call]  # dramatiq's is not annotated
    details = {"script": "1", "status": "pending", "createdAt": "now"}
    hashed = world.strange("victim-with-hash", {"status": "mine", "script": "mine"})
    for name in ("1", "None"):
        world.strange(name)
    messages: list[tuple[str, tuple[Any, ...], dict[str, Any], dict[str, Any]]] = [
        ("send_mail", (hashed,), {}, {}),
        ("send_mail", (world.strange("victim-without"),), {}, {}),
        ("send_mail", (world.strange("victim-with-details"),), {"details": details}, {}),
        ("send_mail", (hashed,), {"details": details}, {"pipe_target": 3}),
        ("send_mail", (), {"details": details}, {}),
        ("send_mail", (None, 1), {}, {"urgent": True}),
        *((ACTOR, args, {}, {}) for args in ((), (1,), (None,), ([hashed],), ({"a": hashed},))),
        *((ACTOR, (), {"details": odd}, {}) for odd in (1, "x", [hashed], {"script": ["x"]})),
    ]
    for actor, args, kwargs, options in messages:
        broker.enqueue(Message(_QUEUE, actor, args, kwargs, options))


def _enqueue_garbage(client: Any) -> None:
    """Put what is not a message among the messages."""
    with client.pipeline() as pipeline:
        pipeline.hset(_KEYS.bodies, mapping=_BODIES)
        pipeline.rpush(_KEYS.messages, *_BODIES)
        pipeline.execute()


def _replace_details(world: World) -> None:
    """Enqueue another actor's message through the broker of scripts, whose keyword is ours by chance."""
    victim = world.strange("victim-of-a-pipeline", {"script": "mine", "status": "pending"})
    message: Message[Any] = Message("mails", "send_mail", (victim,), {"details": {"script": "1"}}, {})
    broker = TaskBroker(Settings(redis_url=f"redis://127.0.0.1:{world.connect_port}"))
    with suppress(Exception):  # it may refuse
        broker.enqueue(message)
    broker.client.close()


def _share_names(world: World, client: Any) -> None:
    """Give tasks the ids of messages that live, and a message the id that a task will have."""
    world.load.submit([(_RUNS.format("sleep(3.0);"), _COMPLETES)] * 4)
    time.sleep(1.0)
    held = sorted({name.decode() for key in client.scan_iter(_KEYS.acks("*")) for name in client.smembers(key)})
    taken = f"{time.monotonic_ns()}-taken"
    body = Message(_QUEUE, "send_mail", ("x",), {}, {"redis_message_id": taken}).encode()
    client.hset(_KEYS.bodies, taken, body)
    client.rpush(_KEYS.messages, taken)
    world.load.submit([(_RUNS.format(""), _COMPLETES)] * (len(held) + 1), names=[*held, taken])
