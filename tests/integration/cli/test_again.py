"""Tasks of a server that run once more at a terminal."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Client
from rhai_tasks.errors import ScriptError
from tests.conftest import Dispatcher, Worker
from tests.integration.conftest import Run


def test_a_task_runs_here_as_it_did_in_a_worker(run: Run, app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")
    app.scripts.put("ARGS.n + `${CALLER_ID}${CONTEXT_ID}`", name="script")
    task = app.submit("@script", caller_id="me", args={"n": 1}, json=True)
    assert task.result(60) == "1mecircle"

    again = run("replay", task.id)

    assert (again.returncode, again.stdout) == (0, "1mecircle\n")
    assert again.stderr.endswith("; recorded outcome: the same\n")
    found = json.loads(run("replay", task.id, "--json").stdout)
    assert found.items() >= {"taskId": task.id, "status": "completed", "output": "1mecircle", "same": True}.items()
    assert found["operations"] > 1


@pytest.mark.parametrize(
    ("script", "terms"),
    [
        ("loop {}", {"timeout": "0.2"}),
        ("loop {}", {"maxOperations": "1000"}),
        ('let s = "x"; loop { s += s }', {"maxMemory": "1000000"}),
        ("throw #{a: 1}", {}),
        ("let x = ;", {}),
        ("[|| 1]", {"resultFormat": "json"}),
    ],
)
def test_an_error_is_the_same_here(
    run: Run, dispatcher: Dispatcher, start_worker: Callable[..., Worker], script: str, terms: dict[str, str]
) -> None:
    start_worker("circle")
    dispatcher.submit("circle", "t", script, **terms)
    error = dispatcher.result("t")["error"]

    again = run("replay", "t")

    assert again.returncode == 1
    assert again.stderr.startswith(error)
    assert "recorded outcome: the same" in again.stderr


def test_a_task_that_waits_is_tried_and_stays(run: Run, app: Client, client: Any) -> None:
    task = app.submit("40 + 2")

    again = run("replay", task.id)

    assert again.stdout == "42\n"
    assert "recorded outcome: not ended" in again.stderr
    assert client.lrange("rhai_tasks:circle", 0, -1) == [task.id]
    assert task.details()["status"] == "pending"
    assert run("replay", "nobody's").returncode == 3


def test_outcomes_of_another_engine_are_compared_to_the_letter(
    run: Run, app: Client, dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    for n in range(60):
        dispatcher.submit("circle", f"t{n}", f"[{n}, 1.0, ()]")
        dispatcher.result(f"t{n}")
    failing = app.submit("throw 1")
    with pytest.raises(ScriptError):
        failing.result(60)
    app.submit("1", circle="nobody's").cancel()
    client.hset("rhai_task_details:other", mapping={"script": "1", "status": "completed", "circle": "other"})
    client.hset("rhai_task_details:no script", mapping={"status": "completed", "output": "1"})
    client.hset("rhai_task_details:text", mapping={"status": "completed", "output": "1"})
    assert run("compare").stdout == "61 task(s) compared, 0 differ.\n"

    client.hset("rhai_task_details:t7", "output", "[7, 1, ()]")
    found = run("compare", "--json")

    assert found.returncode == 1
    (one,) = json.loads(found.stdout)["different"]
    assert (one["taskId"], one["recorded"], one["output"]) == ("t7", "[7, 1, ()]", "[7, 1.0, ()]")
    assert "t7" in run("compare").stdout
    assert "3 task(s) compared, " in run("compare", "-n", "3").stdout
