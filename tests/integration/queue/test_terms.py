"""A task's own fields: its limits, alone and together, wherever it comes from."""

import asyncio
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from dramatiq import pipeline

from rhai_tasks import AsyncClient, Client, Engine, ScriptActor, Stats, TaskSpec
from rhai_tasks.errors import NotAsked, ScriptError, TaskNotFound
from rhai_tasks.protocol import Dialect, Status
from tests.clock import ClockedServer
from tests.conftest import Dispatcher, Worker, wait_until
from tests.unit.protocol.test_terms import UNREADABLE

pytestmark = pytest.mark.each_dialect

HOARD = 'let a = []; loop { a.push("xxxxxxxxxxxxxxxxxxxxxxxx" + a.len()); }'

LIMITS = [
    ("loop {}", {"timeout": "0.2"}, "Script terminated: the task's time limit of 0.2 s exceeded (line 1, position 6)"),
    ("sleep(100)", {"timeout": "0.2"}, "Script terminated: the task's time limit of 0.2 s exceeded (line 1, "),
    ("loop {}", {"maxOperations": "1000"}, "Too many operations for the task's limit of 1000 (line 1, position 6)"),
    (HOARD, {"maxMemory": "1048576"}, "Script terminated: the task's memory limit of 1 MiB exceeded (line 1, "),
]
"""Script, fields, and how the error begins."""


@pytest.mark.parametrize(("script", "fields", "error"), LIMITS)
def test_a_task_has_limits_of_its_own_and_its_error_names_them(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], script: str, fields: dict[str, str], error: str
) -> None:
    start_worker("circle", "--task-timeout", "30")

    assert dispatcher.run("circle", script, **fields)["error"].startswith(error)
    generous = {"timeout": "20", "maxOperations": "9223372036854775807", "maxMemory": "60000000"}
    assert dispatcher.run("circle", script, **(generous | fields))["error"].startswith(error)
    assert dispatcher.run("circle", "40 + 2", **fields)["output"] == "42"


@pytest.mark.parametrize(
    ("script", "option", "field", "error"),
    [
        ("loop {}", ("--task-timeout", "0.2"), "timeout", "Script terminated: time limit of 0.2 s exceeded (line 1, "),
        ("loop {}", ("--max-operations", "1000"), "maxOperations", "Too many operations (line 1, position 6)"),
        (
            HOARD,
            ("--max-memory", "1"),
            "maxMemory",
            "Script terminated: memory limit of 1 MiB exceeded (line 1, ",
        ),
    ],
)
def test_a_lower_limit_of_the_worker_holds_in_its_own_words(
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    script: str,
    option: tuple[str, str],
    field: str,
    error: str,
) -> None:
    start_worker("circle", *option)

    for own in ({}, {field: "1000000000"}):
        assert dispatcher.run("circle", script, **own)["error"].startswith(error)


def test_a_field_that_cannot_be_read_ends_its_task_alone(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    bad = [(field, text) for field, texts in UNREADABLE.items() for text in texts]
    tasks = [dispatcher.submit("circle", f"t{n}", "1", **{field: text}) for n, (field, text) in enumerate(bad)]
    tasks.append(dispatcher.submit("circle", "bytes", "1", timeout=b"\xff"))

    for (field, _), task in zip(bad, tasks, strict=False):
        details = dispatcher.result(task)
        assert details["status"] == "error"
        assert details["error"].startswith(f"Field '{dispatcher.dialect.stored(field)}' of the task is ")
    assert client.zcard("rhai_dramatiq:rhai-circle.XQ") == 0
    assert dispatcher.run("circle", "1")["output"] == "1"


def test_a_bad_field_is_told_in_the_reply_too(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")

    dispatcher.submit("circle", "t", "1", timeout="soon", replyToQueue="replies")

    _, reply = client.blpop(["replies"], 60)
    assert "Field 'timeout' of the task is 'soon'" in reply


def test_a_client_gives_a_task_its_limits(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")

    late = app.submit("loop {}", timeout=0.2)
    with pytest.raises(ScriptError, match="the task's time limit of 0.2 s"):
        late.result(60)
    greedy = app.submit("loop {}", timeout=30.0, max_operations=1000, max_memory=32 * 1024 * 1024)
    with pytest.raises(ScriptError, match="the task's limit of 1000"):
        greedy.result(60)
    assert greedy.details().items() >= {"timeout": "30.0", "maxOperations": "1000", "maxMemory": "33554432"}.items()
    with pytest.raises(ValueError, match="timeout=-1: expected a number of seconds from 0.001"):
        app.submit("1", timeout=-1)


def test_the_second_run_of_a_task_whose_worker_was_killed_has_the_same_limits(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    killed = start_worker("circle")
    dispatcher.submit("circle", "t", "loop {}", timeout="4")
    wait_until(lambda: dispatcher.status("t") == "processing")
    killed.kill()

    start_worker("circle")

    assert dispatcher.result("t")["error"].startswith("Script terminated: the task's time limit of 4 s exceeded")


def expired(details: dict[str, str]) -> bool:
    """Whether a task ended without a run, because it was too late."""
    return (details["status"], details["error"]) == ("error", "expired before it began")


def test_a_task_that_waited_too_long_in_the_list_does_not_run(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    now = time.time()
    late = dispatcher.submit("circle", "late", "1", startBefore=str(now - 1))
    by_date = dispatcher.submit("circle", "date", "1", startBefore="2020-02-29T12:00:00+02:00", replyToQueue="replies")
    early = dispatcher.submit("circle", "early", "1", startBefore=str(now + 3600))

    start_worker("circle")

    assert expired(dispatcher.result(late))
    assert expired(dispatcher.result(by_date))
    assert dispatcher.result(early)["output"] == "1"
    assert json.loads(client.blpop(["replies"], 60)[1])["error"] == "expired before it began"


@pytest.mark.parametrize("quick", [0, 200], ids=["buffered", "fetched"])
def test_a_task_that_waited_too_long_behind_others_does_not_run(
    app: Client, start_worker: Callable[..., Worker], quick: int
) -> None:
    start_worker("circle", "--processes", "1", "--threads", "1")
    for task in app.submit_many(["1"] * quick):
        task.result(60)
    long = app.submit("sleep(2)")
    wait_until(lambda: long.status() is Status.PROCESSING)
    late = app.submit("1", start_within=0.5)
    with pytest.raises(ScriptError, match="^expired before it began$"):
        late.result(60)
    assert long.result(60) == ""
    assert app.submit("1", start_within=60).result(60) == "1"


def test_a_state_of_a_task_that_expires_is_never_processing(
    app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.psubscribe("*__state__*")
        wait_until(lambda: client.pubsub_numpat() == 1)
        with pytest.raises(ScriptError):
            app.submit("1", task_id="t", start_before=time.time() - 1).result(60)

        def state() -> str | None:
            message = channel.get_message(timeout=0.1)
            return str(message["data"]) if message else None

        assert [wait_until(state), wait_until(state)] == ["pending", "error/Expired expired before it began"]


def test_a_delay_that_is_longer_than_the_task_may_wait_expires(
    app: Client, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")

    for via in ("native", "dramatiq"):
        with pytest.raises(ScriptError, match="^expired before it began$"):
            app.submit("1", delay=1.0, start_before=time.time() + 0.5, via=via).result(60)
    assert app.submit("1", delay=0.5, start_within=60).result(60) == "1"


def test_a_task_of_a_killed_worker_that_cannot_begin_again_in_time_expires(
    app: Client, start_worker: Callable[..., Worker], client: Any, dialect: Dialect
) -> None:
    killed = start_worker("circle")
    task = app.submit("sleep(1000)", start_within=3600)
    wait_until(lambda: task.status() == "processing")
    killed.kill()
    client.hset(dialect.prefixes.details + task.id, dialect.stored("startBefore"), time.time())

    start_worker("circle")

    with pytest.raises(ScriptError, match="^expired before it began$"):
        task.result(60)


@pytest.mark.parametrize("ahead", [3600, -3600])
def test_a_task_expires_by_the_servers_clock(
    tmp_path: Path, spawn: Callable[..., Worker], ahead: int, dialect: Dialect
) -> None:
    server = ClockedServer(tmp_path)
    server.start()
    try:
        url = str(server.connection_url)
        with redis.Redis.from_url(url) as client, Client(url, dialect=dialect.name, circle="circle") as app:
            server.move_clock(ahead)
            wait_until(lambda: abs(server.clock(client) - ahead) < 1)
            worker = spawn("rhai-worker", "--circle-public-key", "circle", "--redis-url", url)

            assert app.submit("1", start_within=60).result(60) == "1"
            by_machine = app.submit("1", start_before=time.time() + ahead / 2)
            if ahead > 0:
                with pytest.raises(ScriptError, match="^expired before it began$"):
                    by_machine.result(60)
            else:
                assert by_machine.result(60) == "1"
            assert worker.stop() == 0
    finally:
        server.stop()


def test_an_expired_step_ends_its_pipeline(
    server_url: str, app: Client, start_worker: Callable[..., Worker], dialect: Dialect
) -> None:
    start_worker("circle")
    script = ScriptActor(server_url, dialect=dialect.name, circle="circle")
    late = script.message_with_options(args=("1",), kwargs={"start_within": 0.5})
    step = script.message_with_options(args=("INPUT",), kwargs={"timeout": 0.2})
    first = script.message_with_options(args=("sleep(1); 7",), kwargs={"start_within": 60, "max_operations": 1000})
    endless = script.message_with_options(args=("loop {}",), kwargs={"max_operations": 1000})

    pipeline([first, step, late, script.message("1")], broker=script.broker).run()
    pipeline([script.message("1"), endless], broker=script.broker).run()

    wait_until(lambda: exists(app, late.args[0]))
    assert app.task(step.args[0]).result(60) == "7"
    with pytest.raises(ScriptError, match="^expired before it began$"):
        app.task(late.args[0]).result(60)
    wait_until(lambda: exists(app, endless.args[0]))
    with pytest.raises(ScriptError, match="the task's limit of 1000"):
        app.task(endless.args[0]).result(60)
    script.broker.close()


def exists(app: Client, task_id: str) -> bool:
    """Whether a task has details."""
    try:
        return bool(app.task(task_id).details())
    except TaskNotFound:
        return False


def test_an_original_worker_passes_over_the_terms(dispatcher: Dispatcher, client: Any) -> None:
    terms = {"timeout": "0.001", "maxOperations": "1", "startBefore": "2020-01-01T00:00:00Z", "maxMemory": "none"}
    dispatcher.submit("circle", "t", "40 + 2", **terms)

    _, task = client.blpop([dispatcher.native_list("circle")], 60)
    dispatcher.put(task, {"status": "processing"})
    dispatcher.put(task, {"status": "completed", "output": Engine().run(dispatcher.details(task)["script"])})

    assert dispatcher.details("t").items() >= {**terms, "status": "completed", "output": "42"}.items()


def test_a_task_answers_what_its_terms_ask_for_and_nothing_else(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    plain = {"script", "callerId", "status", "updatedAt", "output"}
    stats = {"startedAt", "runSeconds", "operations", "peakMemory", "deliveries", "workerId"}

    assert set(dispatcher.run("circle", "1")) == plain
    json_alone = dispatcher.run("circle", "[1, 2.5]", resultFormat="json")
    assert (json_alone["output"], json_alone["result"]) == ("[1, 2.5]", "[1,2.5]")
    assert set(json_alone) == plain | {"resultFormat", "result"}
    stats_alone = dispatcher.run("circle", "1", stats="1")
    assert set(stats_alone) == plain | {"stats"} | stats
    assert set(dispatcher.run("circle", "1", stats="0")) == plain | {"stats"}
    both = dispatcher.run("circle", "[|| 1]", resultFormat="json", stats="1", timeout="9", replyToQueue="replies")
    assert both["error"] == "The result has no JSON form: a function pointer at [0]"
    assert set(both) >= stats
    assert "result" not in both
    assert json.loads(client.blpop(["replies"], 60)[1])["operations"] == both["operations"]


def test_the_answers_to_an_earlier_run_of_an_id_do_not_stay(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    dispatcher.submit("circle", "t", "1", resultFormat="json", stats="1")
    assert dispatcher.result("t")["result"] == "1"

    dispatcher.put("t", {"startBefore": "1"})
    dispatcher.submit("circle", "t", "throw 2")

    details = dispatcher.result("t")
    assert details["error"] == "expired before it began"
    assert details["deliveries"] == "1"
    assert details.keys().isdisjoint({"result", "startedAt", "runSeconds", "operations", "peakMemory"})


def test_a_client_gets_values_and_stats(
    app: Client, server_url: str, start_worker: Callable[..., Worker], dialect: Dialect
) -> None:
    start_worker("circle")
    before = datetime.now(UTC)

    task = app.submit("let a = []; for i in 0..1000 { a.push(i); } #{n: a.len(), half: 0.5}", json=True, stats=True)
    assert task.value(60) == {"n": 1000, "half": 0.5}
    stats = task.stats()
    assert stats.started_at is not None
    assert before <= stats.started_at <= datetime.now(UTC)
    assert stats.operations is not None
    assert stats.operations > 1000
    assert stats.peak_memory is not None
    assert stats.peak_memory > 1000
    assert (stats.deliveries, bool(stats.worker_id)) == (1, True)
    failed = app.submit("throw 1", json=True, stats=True)
    assert failed.stats(60).deliveries == 1
    with pytest.raises(ScriptError):
        failed.value()
    unasked = app.submit("1")
    with pytest.raises(NotAsked, match="has no value: submit it with json=True"):
        unasked.value(60)
    with pytest.raises(TypeError, match="has no stats: submit it with stats=True"):
        unasked.stats()

    async def ask() -> tuple[Any, Stats]:
        async with AsyncClient(server_url, dialect=dialect.name, circle="circle") as client:
            (task,) = await client.submit_many([TaskSpec("[()]", json=True, stats=True)])
            return await task.value(60), await task.stats()

    value, stats = asyncio.run(ask())
    assert (value, stats.deliveries) == ([None], 1)


def test_a_cancelled_task_has_stats_and_no_value(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")
    task = app.submit("let s = sleep(1000); 1", json=True, stats=True)
    wait_until(lambda: task.status() == "processing")

    assert task.cancel()

    wait_until(lambda: "runSeconds" in task.details())
    assert "result" not in task.details()


def test_the_second_delivery_of_a_task_is_counted_in_its_stats(
    app: Client, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    engine = ("--engine", "tests.engine_for_tests:make_engine")
    killed = start_worker("circle", *engine)
    flag = tmp_path / "runs"
    task = app.submit(f'note("{flag}", "t"); sleep(2); [1]', json=True, stats=True, timeout=30.0)
    wait_until(flag.exists)
    killed.kill()

    start_worker("circle", *engine)

    assert task.value(60) == [1]
    assert task.stats().deliveries == 2


ALL_TERMS: dict[str, Any] = {
    "args": {"n": 2},
    "timeout": 20.0,
    "max_operations": 1_000_000,
    "max_memory": 32 * 2**20,
    "start_within": 50.0,
    "json": True,
    "stats": True,
    "keep_prints": 100,
}


def check_all(app: Client, task_id: str, value: Any, printed: str) -> None:
    """Check what a task answers that has all terms."""
    task = app.task(task_id)
    assert task.value(60) == value
    assert task.stats().deliveries == 1
    assert list(task.prints(60)) == [printed]


def test_steps_of_a_pipeline_have_all_terms_each(
    server_url: str, app: Client, start_worker: Callable[..., Worker], dialect: Dialect
) -> None:
    start_worker("circle")
    app.scripts.put("print(INPUT); [ARGS.n, parse_int(INPUT)]", name="second")
    script = ScriptActor(server_url, dialect=dialect.name, circle="circle")
    first = script.message_with_options(args=("print(ARGS.n); ARGS.n * 10",), kwargs=ALL_TERMS)
    second = script.message_with_options(args=("@second",), kwargs=ALL_TERMS | {"args": {"n": 3}})

    pipeline([first, second], broker=script.broker).run()

    wait_until(lambda: exists(app, second.args[0]))
    check_all(app, first.args[0], 20, "2")
    check_all(app, second.args[0], [3, 20], "20")
    script.broker.close()
