"""The arguments of a task are the constant ARGS of its script."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from dramatiq import pipeline

from rhai_tasks import AsyncClient, Client, ScriptActor, TaskSpec
from rhai_tasks.protocol import Dialect
from tests.conftest import Dispatcher, Worker, wait_until

pytestmark = pytest.mark.each_dialect

ARGS = {"n": 3, "half": 0.5, "one": 1.0, "list": [1, None, True, 'ü"\n'], "map": {"a b": {}}}


def test_a_script_gets_its_arguments(
    app: Client, server_url: str, start_worker: Callable[..., Worker], dialect: Dialect
) -> None:
    start_worker("circle")

    task = app.submit("fn all() { ARGS } all()", args=ARGS, json=True)
    specs = [TaskSpec("ARGS.n * ARGS.n", args={"n": n}) for n in range(5)]

    assert task.value(60) == ARGS
    assert isinstance(task.value()["one"], float)
    assert [task.result(60) for task in app.submit_many(specs)] == ["0", "1", "4", "9", "16"]

    async def ask() -> str:
        async with AsyncClient(server_url, dialect=dialect.name, circle="circle") as client:
            return await (await client.submit("ARGS.text", args={"text": '"; throw 1; "'})).result(60)

    assert asyncio.run(ask()) == '"; throw 1; "'


def test_each_task_sees_its_own_arguments_and_caller(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", "--threads", "2")
    script = "fn who() { [CALLER_ID, ARGS.n, ARGS.list.map(|n| n + ARGS.n)] } who()"
    specs = [TaskSpec(script, caller_id=f"c{n}", args={"n": n, "list": [n]}, json=True) for n in range(100)]

    values = [task.value(60) for task in app.submit_many(specs)]

    assert values == [[f"c{n}", n, [2 * n]] for n in range(100)]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("", "expected a JSON object"),
        ("[1]", "expected a JSON object"),
        ('{"a": }', "expected a JSON object: expected value at line 1 column 7"),
        ('{"a": 9223372036854775808}', "integer 9223372036854775808 does not fit a script's 64 bits"),
        ('{"a": NaN}', "expected a JSON object: expected value"),
    ],
)
def test_a_field_that_cannot_be_read_ends_the_task_and_nothing_else(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], field: str, reason: str
) -> None:
    start_worker("circle")

    details = dispatcher.run("circle", "1", args=field)

    assert (details["status"], details["errorKind"]) == ("error", "Malformed")
    assert details["error"].startswith(f"Field '{dispatcher.dialect.stored('args')}' of the task is ")
    assert reason in details["error"]
    assert dispatcher.run("circle", "ARGS.a", args=' {"a": 1} ')["output"] == "1"
    assert dispatcher.run("circle", 'is_def_var("ARGS")')["output"] == "false"


def test_arguments_that_take_more_than_the_script_may_are_its_memory_error(
    app: Client, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")

    task = app.submit("1", args={"list": list(range(100_000))}, max_memory=100_000)

    wait_until(lambda: task.details().get("error"))
    assert "the task's memory limit" in task.details()["error"]


def test_the_second_run_after_a_crash_has_the_same_arguments(
    app: Client, start_worker: Callable[..., Worker], tmp_path: Any
) -> None:
    engine = ("--engine", "tests.engine_for_tests:make_engine")
    killed = start_worker("circle", *engine)
    flag = tmp_path / "runs"
    task = app.submit('note(ARGS.flag, "t"); sleep(2); ARGS', json=True, args={"flag": str(flag), "n": 1.0})
    wait_until(flag.exists)
    killed.kill()

    start_worker("circle", *engine)

    assert task.value(60) == {"flag": str(flag), "n": 1.0}


def test_each_step_of_a_pipeline_has_its_own_arguments(
    app: Client, server_url: str, start_worker: Callable[..., Worker], dialect: Dialect
) -> None:
    start_worker("circle")
    actor = ScriptActor(server_url, dialect=dialect.name, circle="circle")
    steps = [actor.message("ARGS.n", args={"n": 20}), actor.message("parse_int(INPUT) + ARGS.n", args={"n": 22})]

    pipeline(steps, broker=actor.broker).run()

    last = app.task(steps[1].args[0])
    assert wait_until(lambda: _output(last)) == "42"


def _output(task: Any) -> str | None:
    try:
        output: str | None = task.details().get("output")
    except LookupError:
        return None
    return output


def test_a_value_that_no_script_can_hold_is_refused_before_it_is_sent(app: Client, client: Any) -> None:
    with pytest.raises(ValueError, match="args.n: integer 9223372036854775808 does not fit"):
        app.submit("1", args={"n": 2**63})
    with pytest.raises(TypeError, match=r"args.n\[0\]: a value of type bytes has no JSON form"):
        app.submit("1", args={"n": [b""]})

    assert client.dbsize() == 0


def test_the_field_is_json(app: Client, client: Any, dialect: Dialect) -> None:
    task = app.submit("1", args=ARGS)

    assert json.loads(client.hget(dialect.prefixes.details + task.id, dialect.stored("args"))) == ARGS
