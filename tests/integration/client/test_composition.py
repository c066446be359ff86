"""Scripts as messages: sent, delayed, in groups and in pipelines with actors in Python."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast
from uuid import uuid4

import dramatiq
import pytest
import redis
from dramatiq import group, pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.encoder import PickleEncoder
from dramatiq.middleware import Callbacks, GroupCallbacks, Pipelines
from dramatiq.rate_limits.backends import RedisBackend as RedisRateLimits
from dramatiq.rate_limits.backends import StubBackend as StubRateLimits
from dramatiq.results import ResultFailure, ResultMissing, Results
from dramatiq.results.backends import RedisBackend as RedisResults
from dramatiq.results.backends import StubBackend as StubResults

from rhai_tasks import Client, Engine, ScriptActor, Settings
from rhai_tasks.errors import ConfigurationError, ScriptError, TaskNotFound
from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import QueueKeys, completed
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.delivery import Delivery, Details
from rhai_tasks.queue.endings import Finished
from rhai_tasks.queue.follow_ups import follow_ups
from rhai_tasks.worker.make import make_worker
from tests.conftest import Worker, wait_until
from tests.lua import commands_of

ENGINE = ("--engine", "tests.engine_for_tests:make_engine", "--threads", "1")
NS = "rhai_dramatiq"


@pytest.fixture
def run_script(server_url: str, app: Client) -> Iterator[ScriptActor]:
    actor = ScriptActor(server_url, circle="circle", caller_id="me")
    yield actor
    actor.broker.close()


@pytest.fixture
def python_broker(server_url: str, app: Client) -> Iterator[RedisBroker]:
    """A broker for actors in Python, and a worker that runs them in this process."""
    broker = RedisBroker(url=server_url, namespace="rhai_dramatiq")  # type: ignore[no-untyped-call]
    yield broker
    broker.close()


@pytest.fixture
def received(python_broker: RedisBroker) -> Iterator[list[object]]:
    """What the actors `store` was sent; `load` returns its argument doubled."""
    received: list[object] = []
    dramatiq.actor(lambda number: number * 2, actor_name="load", broker=python_broker)  # type: ignore[call-overload]
    dramatiq.actor(received.append, actor_name="store", broker=python_broker)  # type: ignore[call-overload]
    worker = dramatiq.Worker(python_broker, worker_threads=1, worker_timeout=20)
    worker.start()
    yield received
    worker.stop()


def test_a_script_is_a_message_to_send(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]
) -> None:
    message = run_script.send("`${CALLER_ID} in ${CONTEXT_ID}`")
    named = run_script.send("CALLER_ID", caller_id="you", task_id="mine")
    assert app.task("mine").status() == "pending"

    start_worker("circle")

    assert app.task(message.args[0]).result(timeout=60) == "me in circle"
    assert app.task(named.args[0]).result(timeout=60) == "you"
    assert named.args[0] == "mine"


def test_a_message_with_a_delay_is_not_in_a_workers_memory(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    message = run_script.send_with_options(args=("5",), delay=300)

    assert client.zcard("rhai_dramatiq:rhai-circle.delayed_messages") == 1
    start_worker("circle")
    assert app.task(message.args[0]).result(timeout=60) == "5"


def test_a_message_may_have_ten_thousand_fields(app: Client, run_script: ScriptActor) -> None:
    fields = {f"field {number}": str(number) for number in range(10_000)}

    message = run_script.send("1", fields=fields)

    assert app.task(message.args[0]).details().items() > fields.items()


def test_an_urgent_message_goes_before_the_others(run_script: ScriptActor, client: Any) -> None:
    run_script.send("1")
    urgent = run_script.send_with_options(args=("2",), urgent=True)

    assert client.lindex("rhai_dramatiq:rhai-circle", 0) == urgent.options["redis_message_id"]


def test_a_group_of_scripts_is_awaited(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    scripts = group([run_script.message(f"{number} * 2") for number in range(20)], broker=run_script.broker)

    scripts.run()

    tasks = [app.task(message.args[0]) for message in scripts.children]
    assert sorted(int(task.result()) for task in app.as_completed(tasks, timeout=60)) == list(range(0, 40, 2))


def test_a_pipeline_leads_from_python_through_scripts_to_python(
    app: Client,
    run_script: ScriptActor,
    python_broker: RedisBroker,
    received: list[object],
    start_worker: Callable[..., Worker],
) -> None:
    start_worker("circle")
    load, store = python_broker.get_actor("load"), python_broker.get_actor("store")
    script, another = run_script.message("INPUT + 2"), run_script.message("`<${INPUT}>`")

    pipeline([load.message(20), script, another, store.message()], broker=python_broker).run()

    wait_until(lambda: received)
    assert received == ["<42>"]
    assert app.task(script.args[0]).result() == "42"


def test_a_script_that_fails_ends_its_pipeline(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    first, second = run_script.message("throw 1"), run_script.message("2")

    pipeline([first, second], broker=run_script.broker).run()

    with pytest.raises(ScriptError):
        app.task(first.args[0]).result(timeout=60)
    with pytest.raises(TaskNotFound):
        app.task(second.args[0]).status()
    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-circle.msgs"))


def test_a_step_can_leave_out_what_came_before(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    second = run_script.message_with_options(args=("is_def_var(`INPUT`)",), pipe_ignore=True)

    pipeline([run_script.message("1"), second], broker=run_script.broker).run()

    def result() -> str | None:
        try:
            return app.task(second.args[0]).result(timeout=60)
        except TaskNotFound:  # the first step has not ended
            return None

    assert wait_until(result) == "false"


def test_what_is_more_than_a_task_stays_in_dramatiq_when_the_bridge_stops(
    app: Client, run_script: ScriptActor, spawn: Callable[..., Worker], client: Any
) -> None:
    pipeline([run_script.message("1"), run_script.message("2")], broker=run_script.broker).run()
    plain = app.submit("3")
    bridge = spawn("rhai-bridge", "--circle", "circle")
    wait_until(lambda: client.llen("rhai_dramatiq:rhai-circle") == 2)

    assert bridge.stop() == 0

    assert client.lrange("rhai_tasks:circle", 0, -1) == [plain.id]
    assert client.llen("rhai_dramatiq:rhai-circle") == 1


def test_our_workers_do_not_follow_the_queues_of_other_actors(
    run_script: ScriptActor, python_broker: RedisBroker, client: Any
) -> None:
    dramatiq.actor(lambda: 1, actor_name="load", broker=python_broker)  # type: ignore[call-overload]

    pipeline([python_broker.get_actor("load").message(), run_script.message("1")], broker=run_script.broker).run()

    assert client.llen("rhai_dramatiq:default") == 1
    assert not client.exists("rhai_dramatiq:__queues__")


def test_scripts_are_not_called(run_script: ScriptActor) -> None:
    with pytest.raises(NotImplementedError, match="send a message"):
        run_script("1")


# --- delays


@pytest.mark.parametrize("kinds", ["ss", "sa", "as", "ssa", "sas", "ass"])
@pytest.mark.parametrize("delay", [400, timedelta(milliseconds=400)])
def test_a_later_step_waits_for_its_delay(
    app: Client,
    run_script: ScriptActor,
    python_broker: RedisBroker,
    received: list[object],
    start_worker: Callable[..., Worker],
    kinds: str,
    delay: Any,
) -> None:
    """The letters are a script or an actor in Python; the last of them is delayed, and an actor in Python ends it."""
    load, store = python_broker.get_actor("load"), python_broker.get_actor("store")
    steps: list[dramatiq.Message[Any]] = []
    for place, kind in enumerate(kinds):
        first, options = place == 0, {"delay": delay} if place == len(kinds) - 1 else {}
        if kind == "s":
            steps.append(run_script.message_with_options(args=("7" if first else "`${INPUT}${INPUT}`",), **options))
        else:
            milliseconds: dict[str, Any] = (
                {"delay": 400} if options else {}
            )  # dramatiq cannot write a timedelta into a message
            steps.append(load.message_with_options(args=(7,) if first else (), **milliseconds))
    start_worker("circle")
    app.submit("1").result(timeout=60)
    chain = pipeline([*steps, store.message()], broker=run_script.broker if kinds[0] == "s" else python_broker)

    began = time.monotonic()
    chain.run()

    wait_until(lambda: received)
    assert time.monotonic() - began >= 0.4
    # `load` doubles a number, repeats a text; a script makes a text of what it gets, and repeats it.
    assert received == [{"ss": "77", "sa": "77", "as": "1414", "ssa": "7777", "sas": "7777", "ass": "14141414"}[kinds]]


def _ended(app: Client, task_id: str) -> bool:
    try:
        return app.task(task_id).status() in {"completed", "error"}
    except TaskNotFound:
        return False


def test_a_step_with_a_delay_outlives_a_restart(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    worker = start_worker("circle")
    second = run_script.message_with_options(args=("INPUT",), delay=2500)
    pipeline([run_script.message("5"), second], broker=run_script.broker).run()
    wait_until(lambda: client.zcard(f"{NS}:rhai-circle.delayed_messages") == 1)

    worker.kill()
    start_worker("circle")

    assert wait_until(lambda: _ended(app, second.args[0]))
    assert app.task(second.args[0]).result() == "5"


def test_a_delay_for_an_actor_in_python_is_in_dramatiqs_own_queue(
    run_script: ScriptActor, python_broker: RedisBroker, client: Any
) -> None:
    dramatiq.actor(lambda: 1, actor_name="load", broker=python_broker)  # type: ignore[call-overload]
    load = python_broker.get_actor("load")

    group([load.message(), load.message()], broker=run_script.broker).run(delay=60_000)

    bodies = [json.loads(body) for body in client.hvals(f"{NS}:default.DQ.msgs")]
    assert len(bodies) == client.llen(f"{NS}:default.DQ") == 2
    assert all(body["options"]["eta"] > time.time() * 1000 + 50_000 for body in bodies)
    assert not client.exists(f"{NS}:default.delayed_messages")


@pytest.mark.parametrize(
    "delay", [float("nan"), float("inf"), 1e300, 10**400, "5", True, [5], {"a": 1}], ids=lambda delay: str(delay)[:9]
)
def test_a_delay_that_is_none_is_refused_when_it_is_given(run_script: ScriptActor, client: Any, delay: Any) -> None:
    for give in (
        lambda: run_script.message_with_options(args=("1",), delay=delay),
        lambda: run_script.send_with_options(args=("1",), delay=delay),
        lambda: run_script.broker.enqueue(run_script.message("1"), delay=delay),
        lambda: pipeline(
            [run_script.message("1"), run_script.message("2").copy(options={"delay": delay})], broker=run_script.broker
        ).run(),
    ):
        with pytest.raises(ValueError, match="delay=.*milliseconds"):
            give()
    assert not client.keys("*")


@pytest.mark.parametrize("delay", [0, -5, None, 0.4])
def test_no_delay_is_none(run_script: ScriptActor, client: Any, delay: Any) -> None:
    run_script.broker.enqueue(run_script.message_with_options(args=("1",), delay=delay), delay=delay)

    assert client.llen(f"{NS}:rhai-circle") == 1


def test_a_step_of_another_circle_is_found_by_workers_that_follow(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], server_url: str, client: Any
) -> None:
    start_worker("circle")
    other = ScriptActor(server_url, circle="other")

    pipeline([run_script.message("1"), other.message("INPUT")], broker=run_script.broker).run()

    wait_until(lambda: client.sismember(f"{NS}:__queues__", "rhai-other"))
    assert client.llen(f"{NS}:rhai-other") == 1


# --- callbacks of groups


@pytest.fixture
def group_callbacks(server_url: str, run_script: ScriptActor, python_broker: RedisBroker) -> None:
    for broker in (run_script.broker, python_broker):
        broker.add_middleware(GroupCallbacks(RedisRateLimits(url=server_url)))


@pytest.mark.usefixtures("group_callbacks")
@pytest.mark.parametrize("on_python_broker", [False, True])
def test_a_groups_callbacks_are_called_once_all_have_succeeded(
    run_script: ScriptActor,
    python_broker: RedisBroker,
    received: list[object],
    start_worker: Callable[..., Worker],
    app: Client,
    client: Any,
    on_python_broker: bool,
) -> None:
    load, store = python_broker.get_actor("load"), python_broker.get_actor("store")
    finale = run_script.message("`finale`")
    slow = run_script.message("sleep(0.5); `slow`")
    many = group(
        [
            run_script.message("1"),
            slow,
            load.message(1),
            pipeline([run_script.message("2"), run_script.message("INPUT")], broker=run_script.broker),
            pipeline([load.message(1), run_script.message_with_options(args=("3",), delay=200)], broker=python_broker),
            pipeline([run_script.message("4"), load.message()], broker=run_script.broker),
        ],
        broker=python_broker if on_python_broker else run_script.broker,
    )
    many.add_completion_callback(store.message("all"))
    many.add_completion_callback(finale)

    many.run()
    (barrier,) = (key for key in client.keys("*") if key.count("-") == 4 and ":" not in key)
    assert int(client.get(barrier)) in {5, 6}  # one may have ended: no worker runs scripts yet, but one runs `load`
    start_worker("circle")

    wait_until(lambda: received)
    assert app.task(slow.args[0]).status() == "completed"
    assert wait_until(lambda: _ended(app, finale.args[0]))
    assert received == ["all"]
    assert client.get(barrier) == "1"  # as dramatiq leaves it
    assert client.lrange(f"{barrier}@events", 0, -1) == ["x"]


@pytest.mark.usefixtures("group_callbacks")
@pytest.mark.parametrize("end", ["throw 1", "1 +", "cancelled", "cancelled while it runs", "pipeline"])
def test_a_group_of_which_one_fails_calls_nobody(
    run_script: ScriptActor,
    python_broker: RedisBroker,
    received: list[object],
    start_worker: Callable[..., Worker],
    app: Client,
    client: Any,
    end: str,
) -> None:
    failing = run_script.message("loop { sleep(0.01) }" if end.startswith("cancelled") else end)
    child = pipeline([failing, run_script.message("2")], broker=run_script.broker) if end == "pipeline" else failing
    many = group([run_script.message("1"), child, run_script.message("3")], broker=run_script.broker)
    many.add_completion_callback(python_broker.get_actor("store").message("all"))
    many.run()
    (barrier,) = (key for key in client.keys("*") if key.count("-") == 4 and ":" not in key)
    if end == "cancelled":
        app.task(failing.args[0]).cancel()

    start_worker("circle")
    if end == "cancelled while it runs":
        wait_until(lambda: app.task(failing.args[0]).status() == "processing")
        app.task(failing.args[0]).cancel()

    wait_until(lambda: _ended(app, failing.args[0]) and client.get(barrier) == "1")
    wait_until(lambda: not client.exists(f"{NS}:rhai-circle.msgs"))
    assert received == []
    assert not client.exists(f"{barrier}@events", f"{NS}:default")


def test_a_group_with_a_callback_needs_dramatiqs_middleware(run_script: ScriptActor, client: Any) -> None:
    many = group([run_script.message("1")], broker=run_script.broker)
    many.add_completion_callback(run_script.message("2"))

    with pytest.raises(RuntimeError, match="GroupCallbacks"):
        many.run()
    assert not client.keys("*")


@pytest.mark.usefixtures("group_callbacks")
def test_what_dramatiq_does_not_compose_is_refused_by_it(run_script: ScriptActor, client: Any) -> None:
    inner = group([run_script.message("1")], broker=run_script.broker)
    nested = group([inner], broker=run_script.broker)
    nested.add_completion_callback(run_script.message("2"))

    with pytest.raises(NotImplementedError):
        nested.run()
    with pytest.raises(AttributeError):
        pipeline([inner, run_script.message("2")], broker=run_script.broker)  # type: ignore[list-item]
    assert not client.llen(f"{NS}:rhai-circle")


def test_a_group_in_a_group_runs(app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")
    inner = group([run_script.message("1"), run_script.message("2")], broker=run_script.broker)

    group([inner, run_script.message("3")], broker=run_script.broker).run()

    assert [app.task(message.args[0]).result(timeout=60) for message in inner.children] == ["1", "2"]


def test_a_group_whose_barrier_is_elsewhere_ends_and_says_so(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    elsewhere = str(uuid4())
    for barrier in (None, "text", ["a", "list"]):
        if isinstance(barrier, list):
            client.rpush(elsewhere, *barrier)
        elif barrier:
            client.set(elsewhere, barrier)
        options = {
            "group_completion_uuid": elsewhere,
            "group_completion_callbacks": [run_script.message("2").asdict()],
        }
        run_script.broker.enqueue(run_script.message("1", task_id=f"t{barrier}").copy(options=options))
        client.delete(elsewhere) if barrier == "text" else None
    worker = start_worker("circle")

    assert app.task("tNone").result(timeout=60) == "1"
    wait_until(lambda: worker.text().count("its group has no barrier in this database") == 3)
    assert not client.exists(f"{NS}:rhai-circle.msgs")


# --- callbacks of messages


@pytest.fixture
def told(python_broker: RedisBroker, received: list[object]) -> Iterator[list[Any]]:
    """What the actor `note` was told, by on_success or on_failure."""
    told: list[Any] = []
    dramatiq.actor(lambda message, what: told.append((message, what)), actor_name="note", broker=python_broker)  # type: ignore[call-overload]
    yield told
    del received


def test_actors_are_called_on_success_and_on_failure(
    app: Client,
    run_script: ScriptActor,
    python_broker: RedisBroker,
    told: list[Any],
    start_worker: Callable[..., Worker],
) -> None:
    note = python_broker.get_actor("note")
    both: dict[str, Any] = {"on_success": note, "on_failure": note}
    start_worker("circle")
    for source, what in [
        ("40 + 2", "42"),
        ("()", ""),
        ("", ""),
        ("throw `no`", {"type": "ScriptError", "message": "Runtime error: no (line 1, position 1)"}),
        ("1 +", {"type": "ScriptError", "message": "Syntax error: Script is incomplete (line 1, position 4)"}),
        ("loop { sleep(0.01) }", {"type": "TaskCancelled", "message": "cancelled"}),
    ]:
        message = run_script.send_with_options(args=(source,), **both)
        if "loop" in source:
            wait_until(lambda: app.task(message.args[0]).status() == "processing")  # noqa: B023  (called in this turn)
            app.task(message.args[0]).cancel()
        wait_until(lambda: told)
        assert told[0][1] == what
        assert told[0][0]["message_id"] == message.message_id
        assert told[0][0]["actor_name"] == "run_script"
        assert told[0][0]["args"] == [message.args[0]]
        told.clear()

    run_script.send_with_options(args=("1",), on_failure=note)
    run_script.send_with_options(args=("throw 1",), on_success=note)
    last = run_script.send_with_options(args=("1",), on_success=note)
    wait_until(lambda: any(message["message_id"] == last.message_id for message, _ in told))
    assert len(told) == 1


def test_a_task_that_cannot_be_run_calls_on_failure(
    app: Client,
    run_script: ScriptActor,
    python_broker: RedisBroker,
    told: list[Any],
    start_worker: Callable[..., Worker],
    client: Any,
) -> None:
    note = python_broker.get_actor("note")
    gone = run_script.send_with_options(args=("1",), on_failure=note)
    poison = run_script.send_with_options(args=("2",), on_failure=note)
    cancelled = run_script.send_with_options(args=("3",), on_failure=note)
    client.hdel(f"rhai_task_details:{gone.args[0]}", "script")
    client.hset(f"{NS}:rhai-circle.deliveries", poison.options["redis_message_id"], 3)
    app.task(cancelled.args[0]).cancel()

    start_worker("circle")

    wait_until(lambda: len(told) == 3)
    failures = {message["message_id"]: what for message, what in told}
    assert failures[gone.message_id] == {
        "type": "ScriptError",
        "message": "Script content not found in Redis hash",
    }
    assert "died 3 times" in failures[poison.message_id]["message"]
    assert failures[cancelled.message_id] == {"type": "TaskCancelled", "message": "cancelled"}


def test_each_step_of_a_pipeline_has_its_callbacks(
    run_script: ScriptActor,
    python_broker: RedisBroker,
    told: list[Any],
    start_worker: Callable[..., Worker],
) -> None:
    start_worker("circle")
    note = python_broker.get_actor("note")
    steps = [
        run_script.message_with_options(args=("1",), on_success=note),
        run_script.message_with_options(args=("INPUT + `2`",), on_success=note, delay=100),
        run_script.message_with_options(args=("throw INPUT",), on_failure=note),
        run_script.message_with_options(args=("4",), on_success=note),
    ]

    pipeline(steps, broker=run_script.broker).run()

    wait_until(lambda: len(told) == 3)
    assert [what for _, what in told[:2]] == ["1", "12"]
    assert told[2][1]["message"] == "Runtime error: 12 (line 1, position 1)"
    assert [message["message_id"] for message, _ in told] == [step.message_id for step in steps[:3]]


def test_a_callback_is_named_as_an_actor_of_dramatiqs_global_broker(
    run_script: ScriptActor,
    python_broker: RedisBroker,
    told: list[Any],
    start_worker: Callable[..., Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dramatiq.broker.global_broker", None)
    with pytest.raises(ValueError, match="on_success='note'.*give the actor itself"):
        run_script.send_with_options(args=("1",), on_success="note")
    monkeypatch.setattr("dramatiq.broker.global_broker", python_broker)
    with pytest.raises(ValueError, match="on_failure='nobody'.*give the actor itself"):
        run_script.send_with_options(args=("1",), on_failure="nobody")

    run_script.send_with_options(args=("1",), on_success="note")
    start_worker("circle")

    wait_until(lambda: told)


def test_a_callback_that_workers_cannot_reach_is_refused(run_script: ScriptActor, server_url: str, client: Any) -> None:
    def on(broker: Any) -> Any:
        return dramatiq.actor(lambda *_: 1, actor_name="note", broker=broker)  # type: ignore[call-overload]

    for elsewhere in (
        on(RedisBroker(url=server_url)),  # type: ignore[no-untyped-call]
        on(RedisBroker(url=f"{server_url.rstrip('/')}/5", namespace=NS)),  # type: ignore[no-untyped-call]
        on(RedisBroker(url="redis://127.0.0.1:1/0", namespace=NS)),  # type: ignore[no-untyped-call]
        on(StubBroker()),
    ):
        with pytest.raises(
            ValueError, match="'note' must be on a RedisBroker with this ScriptActor's URL and namespace"
        ):
            run_script.send_with_options(args=("1",), on_success=elsewhere)
    with pytest.raises(ValueError, match="a step of a pipeline"):
        run_script.send_with_options(args=("1",), on_failure=run_script)
    for option in ("on_success", "on_failure"):
        for odd in (print, 5, {"a": 1}, True):
            with pytest.raises(TypeError, match=f"{option} value must be an Actor"):
                run_script.message_with_options(args=("1",), **cast("dict[str, Any]", {option: odd}))
    with pytest.raises(TypeError, match="on_success='note' does not name the actor's queue"):
        run_script.broker.enqueue(run_script.message("1").copy(options={"on_success": "note"}))
    assert not client.keys("*")


# --- results


@pytest.fixture
def results(server_url: str, run_script: ScriptActor, python_broker: RedisBroker) -> RedisResults:
    backend = RedisResults(url=server_url)
    for broker in (run_script.broker, python_broker):
        broker.add_middleware(Results(backend=backend, store_results=True))  # type: ignore[no-untyped-call]
    return backend


def test_dramatiqs_results_are_stored(
    run_script: ScriptActor,
    results: RedisResults,
    python_broker: RedisBroker,
    start_worker: Callable[..., Worker],
    client: Any,
) -> None:
    start_worker("circle")
    chain = pipeline(
        [
            run_script.message("40"),
            run_script.message_with_options(args=("INPUT + `!`",), delay=100),
            run_script.message_with_options(args=("`é`",), pipe_ignore=True),
        ],
        broker=run_script.broker,
    )
    with pytest.raises(ResultMissing):
        chain.messages[0].get_result(backend=results)
    many = group([run_script.message(f"{number}") for number in range(3)], broker=run_script.broker)
    nested = group([group([run_script.message("1")], broker=run_script.broker), chain], broker=run_script.broker)

    many.run()
    nested.run()

    assert list(many.get_results(block=True, timeout=60_000)) == ["0", "1", "2"]
    assert list(chain.get_results(block=True, timeout=60_000)) == ["40", "40!", "é"]
    assert list(nested.get_results(block=True, timeout=60_000)) == [["1"], "é"]
    (key,) = (results.build_message_key(message) for message in chain.messages[2:])
    assert 0 < client.pttl(key) <= 600_000
    short = run_script.send_with_options(args=("1",), result_ttl=5000)
    assert short.get_result(backend=results, block=True, timeout=60_000) == "1"
    assert client.pttl(results.build_message_key(short)) <= 5000


@pytest.mark.parametrize(("source", "kind"), [("throw `no`", "ScriptError"), ("loop { sleep(0.01) }", "TaskCancelled")])
def test_a_failure_is_a_result_of_dramatiqs(
    app: Client,
    run_script: ScriptActor,
    results: RedisResults,
    start_worker: Callable[..., Worker],
    source: str,
    kind: str,
) -> None:
    start_worker("circle")
    message = run_script.send(source)
    if kind == "TaskCancelled":
        wait_until(lambda: app.task(message.args[0]).status() == "processing")
        app.task(message.args[0]).cancel()

    with pytest.raises(ResultFailure, match=f"actor raised {kind}: "):
        message.get_result(backend=results, block=True, timeout=60_000)


def test_results_need_dramatiqs_middleware(run_script: ScriptActor, client: Any) -> None:
    with pytest.raises(ValueError, match=r"store_results: add dramatiq's middleware Results.*Client\.task"):
        run_script.send_with_options(args=("1",), store_results=True)
    assert not client.keys("*")


def test_a_backend_that_workers_cannot_reach_is_refused(run_script: ScriptActor, server_url: str) -> None:
    elsewhere, results = f"{server_url.rstrip('/')}/5", cast("Any", Results)
    for middleware in (
        GroupCallbacks(StubRateLimits()),  # type: ignore[no-untyped-call]
        GroupCallbacks(RedisRateLimits(url=elsewhere)),
        results(backend=StubResults()),
        results(backend=RedisResults(url=elsewhere)),
        results(backend=RedisResults(url=server_url, encoder=PickleEncoder())),
    ):
        with pytest.raises(ConfigurationError, match="needs dramatiq's RedisBackend.*URL of this broker's server"):
            run_script.broker.add_middleware(middleware)


# --- nothing twice, nothing lost


@pytest.fixture
def own_worker(server_url: str) -> Iterator[TaskBroker]:
    """A worker in this process, to which an application has added all of dramatiq's middleware for compositions."""
    broker, worker = make_worker(Settings(redis_url=server_url, threads=2), Engine())
    broker.add_middleware(Pipelines())
    broker.add_middleware(Callbacks())
    broker.add_middleware(GroupCallbacks(RedisRateLimits(url=server_url)))
    broker.add_middleware(Results(backend=RedisResults(url=server_url)))  # type: ignore[no-untyped-call]
    broker.declare_circle("circle")
    worker.start()
    yield broker
    worker.stop()


@pytest.mark.usefixtures("group_callbacks", "results")
def test_a_repeated_finish_and_dramatiqs_own_middleware_do_nothing_twice(
    run_script: ScriptActor,
    python_broker: RedisBroker,
    own_worker: TaskBroker,
    server_url: str,
    client: Any,
) -> None:
    note = dramatiq.actor(lambda *_: 1, actor_name="note", broker=python_broker)  # type: ignore[call-overload]
    write: Any = own_worker.writer._finished
    finish, replies = write._connection.run, []

    def finish_twice(*call: Any) -> Any:
        reply = finish(*call)
        deviations, results = finish(*call)
        replies.extend([*deviations[1::2], *results])
        return reply

    write._connection.run = finish_twice
    first = run_script.message_with_options(args=("1",), on_success=note)
    child = pipeline([first, run_script.message_with_options(args=("2",), delay=60_000)], broker=run_script.broker)
    many = group([run_script.message("3"), run_script.message("4"), child], broker=run_script.broker)
    many.add_completion_callback(note.message("all", "done"))

    many.run()

    delayed = f"{NS}:rhai-circle.delayed_messages"
    wait_until(lambda: client.zcard(delayed) == 1 and len(replies) == 3)
    assert replies == [b"lost"] * 3
    assert client.llen(f"{NS}:default") == 1  # on_success
    (barrier,) = (key for key in client.keys("*") if key.count("-") == 4 and ":" not in key)
    assert client.get(barrier) == "1"
    client.rpush(f"{NS}:rhai-circle", client.zpopmin(delayed)[0][0])
    wait_until(lambda: client.llen(f"{NS}:default") == 2)
    wait_until(lambda: len(replies) == 4)
    bodies = [json.loads(body) for body in client.hvals(f"{NS}:default.msgs")]
    assert sorted(len(str(body["args"])) < 30 for body in bodies) == [False, True]  # one of each kind
    assert first.get_result(backend=RedisResults(url=server_url)) == "1"


def test_a_queue_that_takes_no_message_gets_a_dead_letter_and_holds_no_outcome_up(
    app: Client,
    run_script: ScriptActor,
    python_broker: RedisBroker,
    start_worker: Callable[..., Worker],
    client: Any,
) -> None:
    load = dramatiq.actor(lambda _: 1, actor_name="load", broker=python_broker)  # type: ignore[call-overload]
    client.set(f"{NS}:default", "no list")
    client.set(f"{NS}:default.DQ", "no list")
    worker = start_worker("circle")
    for delay in (None, 60_000):
        first = run_script.message("7")
        pipeline([first, load.message_with_options(delay=delay)], broker=run_script.broker).run()
        assert app.task(first.args[0]).result(timeout=60) == "7"

    assert app.submit("8").result(timeout=60) == "8"
    wait_until(lambda: client.zcard(f"{NS}:default.XQ") == 2)
    letters = client.hgetall(f"{NS}:default.XQ.msgs")
    assert all(json.loads(body)["args"] == ["7"] for body in letters.values())
    reasons = client.hvals(f"{NS}:default.XQ.reasons")
    assert len(reasons) == 2
    assert all("refuses a message: WRONGTYPE" in reason for reason in reasons)
    assert not client.exists(f"{NS}:default.msgs", f"{NS}:default.DQ.msgs", f"{NS}:rhai-circle.msgs")
    assert worker.text().count("A follow-up of the task failed: queue default") == 2


@pytest.mark.usefixtures("group_callbacks", "results")
@pytest.mark.parametrize("command", sorted(commands_of("finish")))
def test_a_refused_command_enqueues_nothing_twice(
    run_script: ScriptActor, python_broker: RedisBroker, server_url: str, client: Any, command: str
) -> None:
    note = dramatiq.actor(lambda *_: 1, actor_name="note", broker=python_broker)  # type: ignore[call-overload]
    steps = [
        run_script.message_with_options(args=("1",), on_success=note),
        run_script.message_with_options(args=("2",), delay=60_000),
    ]
    last = run_script.message("3", fields={"replyToQueue": "replies"})
    many = group([pipeline(steps, broker=run_script.broker), last], broker=run_script.broker)
    many.add_completion_callback(note.message("all", "done"))
    many.run()
    settings = Settings(redis_url=server_url.replace("://", "://finish:finish@"), expire_finished=60.0)
    client.execute_command("ACL", "SETUSER", "finish", "reset", "on", ">finish", "~*", "&*", "+@all", f"-{command}")
    write = TaskBroker(settings, broker_id="b").writer._finished
    keys = QueueKeys(NS, "rhai-circle")
    batch = []
    for name in client.lpop(keys.messages, 2):
        client.sadd(keys.acks("b"), name)
        message: dramatiq.Message[Any] = dramatiq.Message.decode(client.hget(keys.bodies, name).encode())
        details = Details(script=b"1", reply_to=b"replies")
        delivery = Delivery(keys, name, message.args[0], details, composed=message)
        following = follow_ups(message, completed("7"), lambda *_: pytest.fail("unreadable"))
        batch.append(Finished(delivery, completed("7"), following, time.time()))
    (barrier,) = (key for key in client.keys("*") if key.count("-") == 4 and ":" not in key)
    client.set(barrier, 1)  # the other one has ended

    def count() -> int:
        """Count what was enqueued: on_success, the next step, the group's callback; as dead letters, too."""
        dead = client.zcard(f"{NS}:default.XQ") + client.zcard(f"{NS}:rhai-circle.XQ")
        return int(client.llen(f"{NS}:default") + client.zcard(keys.delayed_messages) + dead)

    for _ in range(3):
        with suppress(redis.ResponseError):
            write(batch)
        assert count() in {0, 2, 3}  # the group's callback waits alone for a right to its barrier
    client.execute_command("ACL", "SETUSER", "finish", f"+{command}")
    write(batch)

    assert client.scard(keys.acks("b")) == 0
    assert count() == 3
    assert client.hget(f"rhai_task_details:{last.args[0]}", "status") == "completed"
    client.execute_command("ACL", "DELUSER", "finish")


@pytest.mark.parametrize(
    "options",
    [
        {"pipe_target": 5},
        {"pipe_target": {"queue_name": "q"}},
        {"pipe_target": {"queue_name": "q", "actor_name": "a", "args": [], "kwargs": {}, "options": {"delay": "x"}}},
        {"pipe_target": {"queue_name": "q", "actor_name": "a", "args": [], "kwargs": {}, "options": 5}},
        {"pipe_target": {"queue_name": "q\ud800", "actor_name": "a", "args": 5, "kwargs": {}, "options": {}}},
        {"on_success": "somebody"},
        {"on_success": {"a": 1}, "on_success_queue": 5},
        {"group_completion_uuid": "b", "group_completion_callbacks": 5},
        {"group_completion_uuid": ["b"], "group_completion_callbacks": [{"actor_name": 5}]},
        {"group_completion_uuid": "precious", "group_completion_callbacks": [{"queue_name": "q"}]},
        {"result_key": 5},
        {"result_key": "precious"},
        {"result_key": "0" * 32, "result_ttl": "x", "store_results": True},
        {"store_results": "perhaps"},
    ],
)
def test_options_that_cannot_be_read_do_no_more_than_be_logged(
    app: Client, run_script: ScriptActor, own_worker: TaskBroker, client: Any, options: dict[str, Any]
) -> None:
    message = run_script.message("`fine`")
    body = message.copy(options={"redis_message_id": "x", **options}).asdict()
    client.hset(f"{NS}:rhai-circle.msgs", "x", json.dumps(body))
    client.set("precious", "5")
    client.rpush(f"{NS}:rhai-circle", "x")

    wait_until(lambda: _ended(app, message.args[0]))
    assert client.get("precious") == "5"
    assert app.task(message.args[0]).result() == "fine"
    assert not client.exists(f"{NS}:rhai-circle.msgs", f"{NS}:rhai-circle.XQ")
    assert own_worker.writer._thread.is_alive()


# --- INPUT


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (2**64, "type int.*64 bits"),
        ([1, {"a": 2**80}], "type list.*64 bits"),
        ({"a": [-(2**70)]}, "type dict.*64 bits"),
        ("\ud800", "type str.*surrogates"),
        (eval("[" * 150 + "]" * 150), "type list.*nested"),
    ],
)
def test_an_input_that_no_script_can_hold_is_an_error_of_the_task(
    app: Client, run_script: ScriptActor, own_worker: TaskBroker, value: object, what: str
) -> None:
    message = run_script.message("1", task_id="t")

    run_script.broker.enqueue(message.copy(args=(*message.args, value)))

    with pytest.raises(ScriptError, match=f"INPUT is a value of {what}"):
        app.task("t").result(timeout=60)


@pytest.mark.parametrize(
    ("value", "output"),
    [(float("nan"), "NaN"), (float("inf"), "inf"), (None, ""), (True, "true"), ({"a": [1]}, '#{"a": [1]}'), ("", "")],
)
def test_whatever_else_json_holds_is_an_input(
    app: Client, run_script: ScriptActor, own_worker: TaskBroker, value: object, output: str
) -> None:
    message = run_script.message("`${INPUT}`", task_id="t")

    run_script.broker.enqueue(message.copy(args=(*message.args, value)))

    assert app.task("t").result(timeout=60) == output


def test_a_message_that_names_no_task_writes_none(run_script: ScriptActor, own_worker: TaskBroker, client: Any) -> None:
    for number, args in enumerate([[5], [None], [["t"]], [{"a": 1}], [], [True, "\ud800"]]):
        body = {**run_script.message("1").asdict(), "args": args, "options": {"redis_message_id": f"x{number}"}}
        client.hset(f"{NS}:rhai-circle.msgs", f"x{number}", json.dumps(body))
        client.rpush(f"{NS}:rhai-circle", f"x{number}")

    wait_until(lambda: client.zcard(f"{NS}:rhai-circle.XQ") == 6)
    assert not client.keys("rhai_task_details:*")
    assert own_worker.writer._thread.is_alive()


# --- actors in Python on brokers for scripts


def test_an_actor_in_python_is_refused_by_a_broker_for_scripts(run_script: ScriptActor, server_url: str) -> None:
    worker_broker = TaskBroker(Settings(redis_url=server_url))
    for broker in (run_script.broker, worker_broker):
        with pytest.raises(
            ConfigurationError, match="actor 'save' .* RedisBroker .*namespace='rhai_dramatiq'.*docs/delay"
        ):
            dramatiq.actor(lambda: 1, actor_name="save", broker=broker)  # type: ignore[call-overload]
        assert "save" not in broker.actors


def test_a_message_for_an_unknown_actor_is_a_dead_letter_that_quotes_nothing(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    for number, name in enumerate(["save", "rhai", "", "\x1b[1m" * 1000, "run_script "]):
        message = run_script.message("'secret'", task_id="t").copy(
            actor_name=name, options={"redis_message_id": f"x{number}"}
        )
        client.hset(f"{NS}:rhai-circle.msgs", f"x{number}", message.encode())
        client.rpush(f"{NS}:rhai-circle", f"x{number}")
    worker = start_worker("circle")

    assert app.submit("1").result(timeout=60) == "1"
    wait_until(lambda: client.zcard(f"{NS}:rhai-circle.XQ") == 5)
    assert client.hget(f"{NS}:rhai-circle.XQ.reasons", "x0").startswith("no actor of this name runs here: 'save'; ")
    assert client.hget("rhai_task_details:t", "error") is None
    assert "secret" not in worker.text()
    assert "Traceback" not in worker.text()
    assert "\x1b" not in worker.text()
    assert len(worker.text()) < 5000


def test_a_message_for_an_unknown_actor_names_no_task(
    app: Client, run_script: ScriptActor, server_url: str, client: Any
) -> None:
    task = app.submit("1", task_id="t", circle="other")
    foreign = dramatiq.Message[Any]("rhai-circle", "save", ("t",), {}, {})
    RedisBroker(url=server_url, namespace=NS).enqueue(foreign)  # type: ignore[no-untyped-call]

    assert Queues(Settings(redis_url=server_url)).purge("circle") == 1

    assert task.status() == "pending"
    assert not client.exists(f"{NS}:rhai-circle.msgs")


# --- dramatiq's own view


def test_a_broker_for_scripts_counts_what_has_no_body_yet(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]
) -> None:
    for number in range(3):
        app.submit(str(number), via="dramatiq")
    app.submit("later", via="dramatiq", delay=1)
    run_script.send("4")
    broker: Any = run_script.broker
    assert broker.do_qsize("rhai-circle") == 5

    start_worker("circle")

    broker.join("rhai-circle", timeout=60_000)
    assert broker.do_qsize("rhai-circle") == 0


def test_a_broker_counts_what_a_new_worker_fetches_at_that_moment(
    client: Any, run_script: ScriptActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker: Any = run_script.broker
    run_script.send("1")
    execute = redis.client.Pipeline.execute

    def fetch_first(pipeline: Any, *args: Any) -> Any:
        if message := client.lpop(f"{NS}:rhai-circle"):
            client.zadd(f"{NS}:rhai-circle.leases", {"new": 2e12})
            client.sadd(f"{NS}:__acks__.new.rhai-circle", message)
        return execute(pipeline, *args)

    monkeypatch.setattr(redis.client.Pipeline, "execute", fetch_first)

    assert broker.do_qsize("rhai-circle") == 1
