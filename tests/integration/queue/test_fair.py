"""Callers that take turns: no caller waits for another's backlog, and nothing is lost or out of order."""

import json
import sys
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from rhai_tasks import Settings
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import QueueKeys, Quota, Rule, queue_name
from tests.conftest import FINAL, PATIENCE, Dispatcher, Worker, wait_until
from tests.lua import FILES
from tests.runs import most_at_once, spans
from tests.turns import Turns

CIRCLE = "circle"
NATIVE = f"rhai_tasks:{CIRCLE}"
KEYS = QueueKeys("rhai_dramatiq", queue_name(CIRCLE))


@pytest.fixture
def rules(client: Any, server_url: str) -> Rules:
    return Queues(Settings(redis_url=server_url), "me").rules


def submit(dispatcher: Dispatcher, caller: str, count: int, script: str) -> list[str]:
    return [
        dispatcher.submit(CIRCLE, f"{caller}-{number}", script, callerId=caller, stats="1") for number in range(count)
    ]


def ended(dispatcher: Dispatcher, ids: list[str]) -> int:
    return sum(dispatcher.status(task_id) in FINAL for task_id in ids)


def test_a_few_tasks_of_a_quiet_caller_do_not_wait_for_a_flood(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    noisy = submit(dispatcher, "noisy", 200, "sleep(0.02)")
    start_worker(CIRCLE, "--threads", "2", "--fair")
    wait_until(lambda: ended(dispatcher, noisy[:10]) == 10)
    before = ended(dispatcher, noisy)

    quiet = [dispatcher.submit(CIRCLE, f"quiet-{number}", "1", callerId="quiet") for number in range(3)]
    numbers = range(200, 2000)

    def feed() -> bool:
        """Submit more than can run in the meantime; say whether the quiet caller's tasks have ended."""
        submit_more = next(more)
        noisy.append(dispatcher.submit(CIRCLE, f"noisy-{submit_more}", "sleep(0.02)", callerId="noisy"))
        return ended(dispatcher, quiet) == 3

    more = iter(numbers)
    wait_until(feed)
    assert ended(dispatcher, noisy) - before < 100


@pytest.mark.parametrize("program", ["rhai-worker", "rhai-bridge"])
def test_callers_get_worker_seconds_by_their_weights_however_long_their_scripts_are(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], rules: Rules, program: str
) -> None:
    rules.set(CIRCLE, Rule("limit", "caller", "large", quota=Quota(weight=2)))
    scripts = {"large": 0.02, "long": 0.2, "": 0.05}
    ids = {
        caller: submit(dispatcher, caller, int(40 / seconds), f"sleep({seconds})")
        for caller, seconds in scripts.items()
    }
    if program == "rhai-worker":
        spawn(program, "--circle", CIRCLE, "--threads", "4", "--fair")
    else:
        spawn(program, "--all-circles", "--fair")
        spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "2", "--threads", "2")

    # The first ones run before the server knows how long any takes.
    wait_until(lambda: ended(dispatcher, ids["large"][:1000]) == 1000, within=120.0)

    # As measured: under load a short sleep takes longer than it should by a larger part than a long one.
    done = {caller: [task for task in some if dispatcher.status(task) in FINAL] for caller, some in ids.items()}
    used = {caller: sum(end - begin for begin, end in spans(dispatcher, some)) for caller, some in done.items()}
    shares = {caller: seconds / sum(used.values()) for caller, seconds in used.items()}
    assert shares == pytest.approx({"large": 0.5, "long": 0.25, "": 0.25}, abs=0.1)


def test_a_caller_at_its_limit_holds_nobody_up(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules
) -> None:
    rules.set(CIRCLE, Rule("limit", "caller", "noisy", quota=Quota(concurrency=1)))
    rules.set(CIRCLE, Rule("pause", "caller", "paused"))
    paused = submit(dispatcher, "paused", 20, "1")
    noisy = submit(dispatcher, "noisy", 20, "sleep(0.1)")
    start_worker(CIRCLE, "--processes", "2", "--threads", "4", "--fair")
    wait_until(lambda: ended(dispatcher, noisy))

    other = submit(dispatcher, "other", 50, "1")
    wait_until(lambda: ended(dispatcher, other) == 50)

    assert ended(dispatcher, noisy) < 20
    assert ended(dispatcher, paused) == 0
    wait_until(lambda: ended(dispatcher, noisy) == 20)
    rules.clear(CIRCLE, Rule("pause", "caller", "paused"))
    wait_until(lambda: ended(dispatcher, paused) == 20)


def test_an_idle_worker_begins_at_once_with_a_task_that_comes(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker(CIRCLE, "--processes", "2", "--threads", "2", "--fair")
    for number in range(50):
        assert dispatcher.result(dispatcher.submit(CIRCLE, f"t{number}", "1", callerId=f"k{number % 3}"))
    assert not client.exists(KEYS.lines, KEYS.messages, KEYS.charges)


def test_on_stop_all_tasks_are_in_the_native_list_in_their_order(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, rules: Rules
) -> None:
    rules.set(CIRCLE, Rule("pause", "circle"))
    for number in range(1500):
        dispatcher.submit(CIRCLE, f"t{number}", "1", callerId=f"k{number % 7}")
    worker = start_worker(CIRCLE, "--threads", "2", "--fair")
    for number in range(1500, 3500):
        dispatcher.submit(CIRCLE, f"t{number}", "1", callerId=f"k{number % 11}")
    wait_until(lambda: client.llen(NATIVE) == 0, what="all to be sorted")

    assert worker.stop() == 0

    assert client.lrange(NATIVE, 0, -1) == [f"t{number}" for number in reversed(range(3500))]
    assert client.keys(f"{KEYS.messages}.line*") == [KEYS.line_number]


def test_a_task_does_not_wait_for_a_million_of_another_caller(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    many = "for i = ARGV[1], ARGV[1] + 4999 do redis.call('LPUSH', KEYS[1], 'n' .. string.format('%.0f', i)) end"
    for first in range(0, 1_000_000, 5_000):
        client.eval(many, 1, NATIVE, first)
    worker = start_worker(CIRCLE, "--fair", "--threads", "1")
    wait_until(lambda: client.llen(NATIVE) == 0, within=4 * PATIENCE, what="all to be sorted")

    before = client.llen(KEYS.line(""))
    assert dispatcher.result(dispatcher.submit(CIRCLE, "t", "1", callerId="other"))
    after = client.llen(KEYS.line(""))

    assert before - after < 20_000
    assert worker.stop() == 0
    left = client.lrange(NATIVE, 0, -1)
    assert left == [f"n{number}" for number in range(999_999, 999_999 - len(left), -1)]
    assert len(left) > 800_000


def test_killed_trees_lose_no_task_and_exceed_no_limit(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], rules: Rules, client: Any
) -> None:
    rules.set(CIRCLE, Rule("limit", "callers", quota=Quota(concurrency=2)))
    ids = [task_id for caller in ("a", "b", "c") for task_id in submit(dispatcher, caller, 15, "sleep(0.5)")]
    for _ in range(2):
        doomed = start_worker(CIRCLE, "--processes", "2", "--threads", "3", "--fair", "--max-deliveries", "10")
        wait_until(lambda: sum(dispatcher.status(task_id) == "processing" for task_id in ids) >= 4)
        doomed.kill()
    start_worker(CIRCLE, "--processes", "2", "--threads", "3", "--fair", "--max-deliveries", "10")

    wait_until(lambda: ended(dispatcher, ids) == len(ids), within=120.0)

    assert {dispatcher.status(task_id) for task_id in ids} == {"completed"}
    for caller in ("a", "b", "c"):
        assert most_at_once(dispatcher, [task_id for task_id in ids if task_id.startswith(caller)]) <= 2
    wait_until(lambda: not client.exists(KEYS.lines, KEYS.charges), what="lines and charges to be gone")


def test_each_task_runs_once_beside_an_original_worker_and_one_without_turns(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], start_worker: Callable[..., Worker], client: Any
) -> None:
    port = client.connection_pool.connection_kwargs["port"]
    engine = ("--engine", "tests.engine_for_tests:make_engine")
    spawn(sys.executable, "-m", "tests.chaos.original", str(port), CIRCLE)
    fair = start_worker(CIRCLE, *engine, "--fair", "--threads", "2")
    start_worker(CIRCLE, *engine, "--threads", "2", "--buffer", "4")
    ids = [
        dispatcher.submit(CIRCLE, f"t{number}", "sleep(0.01); 1", callerId=f"k{number % 3}", replyToQueue=f"r{number}")
        for number in range(300)
    ]
    wait_until(lambda: ended(dispatcher, ids) > 50)
    fair.stop()
    wait_until(lambda: ended(dispatcher, ids) == len(ids))

    assert [client.llen(f"r{number}") for number in range(300)] == [1] * 300


def test_turns_end_soon_after_the_bridge_that_keeps_them(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    fair = start_worker(CIRCLE, "--fair")
    dispatcher.run(CIRCLE, "1")
    fair.kill()

    assert 0 < client.pttl(KEYS.turns) <= 30_000


def test_it_is_refused_through_rabbitmq() -> None:
    with pytest.raises(ConfigurationError, match="--fair with --broker-url"):
        Settings(fair=True, broker_url="amqp://127.0.0.1")


_REPLAY = """
local reply = {}
local function open(now)
  redis.call('HSETNX', 'q.turns', 'highest', '0')
  return read_turns('q', {math.floor(now), math.floor(now * 1000000 + 0.5) % 1000000})
end
for _, step in ipairs(cjson.decode(ARGV[1])) do
  local what, now, caller, task, weight = unpack(step, 1, 5)
  local turns = open(now)
  if what == 'join' then
    turns.settle({'acks'})
    turns.write()
    turns.load({caller})
    turns.join(caller, turns.first())
    redis.call('ZADD', 'q.lines', string.format('%.3f', turns.callers[caller].virtual), caller)
  elseif what == 'begin' then
    turns.settle({'acks'})
    turns.load({caller})
    local use = turns.expected(caller)
    turns.set(caller, turns.callers[caller].virtual + use / weight)
    redis.call('SADD', 'acks', task)
    turns.charge({task}, {{use, weight, caller}})
  elseif what == 'leave' then
    redis.call('ZREM', 'q.lines', caller)
  else
    turns.finish({task}, {})
    redis.call('SREM', 'acks', task)
  end
  turns.write()
end
for _, name in ipairs(cjson.decode(ARGV[2])) do
  reply[#reply + 1] = string.format('%.3f', (struct.unpack('>d', redis.call('HGET', 'q.turns', 'caller ' .. name))))
end
return reply
"""


@pytest.mark.parametrize("seed", range(10))
def test_the_server_counts_as_the_model_does(client: Any, seed: int) -> None:
    random, model, steps = Random(seed), Turns(), list[tuple[Any, ...]]()
    weights = {"a": 1.0, "b": 2.5, "a caller": 0.5}
    running, now = list[int](), 0.0
    for task in range(300):
        now = round(now + random.choice([0.0004, 0.03, 1.7]) * random.random(), 4)
        idle = [name for name in weights if name not in model.waiting]
        what = random.choice(["join", "begin", "begin", "end", "leave"])
        if what == "join" and idle:
            caller = random.choice(idle)
            model.join(caller, now)
            steps.append(("join", now, caller))
        elif what == "begin" and model.waiting and (chosen := model.next(now)):
            model.begin(task, chosen, weights[chosen], now)
            running.append(task)
            steps.append(("begin", now, chosen, str(task), weights[chosen]))
        elif what == "leave" and model.waiting:
            caller = random.choice(sorted(model.waiting))
            model.leave(caller)
            steps.append(("leave", now, caller))
        elif what == "end" and running:
            one = running.pop(random.randrange(len(running)))
            steps.append(("end", now, model.charges[one].caller, str(one)))
            model.end(one, now)

    names = sorted(model.times)
    assert len(names) == 3
    expected = [1000 * model.times[name] for name in names]
    assert replay(client, steps, names) == pytest.approx(expected, abs=0.1)


def replay(client: Any, steps: list[tuple[Any, ...]], names: list[str]) -> list[float]:
    """Return the virtual times of callers after these steps."""
    functions = "\n".join(FILES[name].read_text() for name in ("common", "lines", "turns"))
    found = client.eval(functions + _REPLAY, 0, json.dumps(steps), json.dumps(names))
    return [float(virtual) for virtual in found]


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_clock_that_jumps_charges_no_running_task_for_the_time_that_it_skipped(client: Any, jump: float) -> None:
    begun = 10_000.0
    steps: list[tuple[Any, ...]] = [
        ("join", begun, "a"),
        ("join", begun, "b"),
        ("begin", begun, "a", "long", 1.0),
        ("begin", begun + 5.0, "b", "quick", 1.0),
        ("end", begun + 5.1, "b", "quick"),
        ("begin", begun + 5.2 + jump, "b", "quick", 1.0),
        ("begin", begun + 8.2 + jump, "b", "another", 1.0),
    ]

    (first,) = replay(client, steps[:5], ["a"])
    client.flushdb()
    (second,) = replay(client, steps, ["a"])

    # Milliseconds: 3 s have passed since, and at most MOST_SECONDS of the jump count.
    assert 1_000.0 <= second - first <= 13_500.0


@pytest.mark.parametrize("size", [0, 15, 16, 64, 200])
def test_turns_that_somebody_has_spoiled_hold_no_task_up(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, size: int
) -> None:
    start_worker(CIRCLE, "--fair", "--threads", "2")
    garbage = b"\xff" * size  # NaN as a double
    ids = submit(dispatcher, "a", 100, "sleep(0.01)")
    for number in range(100, 300):
        ids += [dispatcher.submit(CIRCLE, f"{name}-{number}", "sleep(0.01)", callerId=name) for name in ("a", "b")]
        client.hset(KEYS.turns, mapping={"caller a": garbage, "caller b": garbage})
        for message_id in client.hkeys(KEYS.charges):
            client.hset(KEYS.charges, message_id, garbage)

    wait_until(lambda: ended(dispatcher, ids) == len(ids))


@pytest.mark.parametrize("options", [("--fair",), ()], ids=["turns", "limits"])
def test_a_caller_whose_line_is_gone_is_forgotten(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any, options: tuple[str, ...]
) -> None:
    client.zadd(KEYS.lines, {"gone": 5.0})
    start_worker(CIRCLE, *options)
    ids = submit(dispatcher, "a", 20, "1")

    wait_until(lambda: ended(dispatcher, ids) == len(ids))
    wait_until(lambda: not client.exists(KEYS.lines), what="the line to be forgotten")


HOSTILE = [
    "",
    " ",
    "\0",
    "a b",
    "a\nb",
    "__proto__",
    "caller a",
    "highest",
    "1:2 3",
    "-",
    "*",
    "\U0001f600",
    "x" * 100_000,
]


@pytest.mark.parametrize("options", [("--fair",), ()], ids=["turns", "limits"])
def test_callers_may_have_any_name(
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    rules: Rules,
    client: Any,
    options: tuple[str, ...],
) -> None:
    rules.set(CIRCLE, Rule("limit", "callers", quota=Quota(concurrency=1, waiting=100)))
    names: list[Any] = [*HOSTILE, b"\xff\xfe", b"\x00\x80 %s"]  # the last two are no UTF-8: their tasks end as errors
    ids = [
        dispatcher.submit(CIRCLE, f"t{place}-{number}", "sleep(0.005); 1", callerId=name, stats="1")
        for number in range(5)
        for place, name in enumerate(names)
    ]
    worker = start_worker(CIRCLE, "--threads", "4", *options)
    wait_until(lambda: ended(dispatcher, ids) == len(ids))

    for place in range(len(HOSTILE)):
        assert {dispatcher.status(f"t{place}-{number}") for number in range(5)} == {"completed"}
        assert most_at_once(dispatcher, [f"t{place}-{number}" for number in range(5)]) == 1
    wait_until(lambda: not client.exists(KEYS.lines), what="the lines to be gone")
    assert worker.stop() == 0
