"""Tasks of a server that run once more at a terminal."""

import json
import signal
from collections.abc import Callable
from typing import Any
from zlib import crc32

import pytest

from rhai_tasks import Client, TaskSpec
from rhai_tasks.errors import ScriptError
from tests.conftest import Dispatcher, Worker, wait_until
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
    step = {"script": "parse_int(INPUT) + 22", "status": "completed", "output": "42"}
    client.hset("rhai_task_details:step of a pipeline", mapping=step)
    assert run("compare").stdout == "61 task(s) compared, 0 differ.\n"

    client.hset("rhai_task_details:t7", "output", "[7, 1, ()]")
    found = run("compare", "--json")

    assert found.returncode == 1
    (one,) = json.loads(found.stdout)["different"]
    assert (one["taskId"], one["recorded"], one["output"]) == ("t7", "[7, 1, ()]", "[7, 1.0, ()]")
    assert "t7" in run("compare").stdout
    assert "3 task(s) compared, " in run("compare", "-n", "3").stdout


def listens(client: Any) -> bool:
    return int(client.pubsub_numpat()) > 0


@pytest.mark.parametrize("as_json", [False, True])
def test_tasks_that_end_are_compared_until_ctrl_c(
    spawn: Callable[..., Worker],
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    client: Any,
    as_json: bool,
) -> None:
    start_worker("circle")
    shadow = spawn("rhai-tasks", "compare", "--shadow", "100%", *(["--json"] if as_json else []))
    wait_until(lambda: listens(client))

    dispatcher.run("circle", "40 + 2")
    dispatcher.submit("circle", "differs", "timestamp().elapsed")
    dispatcher.result("differs")
    wait_until(lambda: "differs" in shadow.text())
    shadow.process.send_signal(signal.SIGINT)

    assert shadow.process.wait(60) == 1
    line, last = shadow.text().splitlines()
    if as_json:
        assert json.loads(line)["taskId"] == "differs"
        assert json.loads(last)["compared"] == 2
    else:
        assert line.startswith("differs: recorded ")
        assert last == "2 task(s) compared, 1 differ."


def test_a_part_of_the_tasks_is_compared_and_the_number_is_bounded(
    spawn: Callable[..., Worker], app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    ids = [f"t{number}" for number in range(400)]
    chosen = {task_id for task_id in ids if crc32(task_id.encode()) < 0.1 * 2**32}
    shadow = spawn("rhai-tasks", "compare", "--shadow", "10", "-n", str(len(chosen)))
    wait_until(lambda: listens(client))

    # Those of the others would differ.
    tasks = app.submit_many(TaskSpec("1" if one in chosen else "timestamp().elapsed", task_id=one) for one in ids)
    assert len(list(app.as_completed(tasks))) == 400

    assert shadow.process.wait(60) == 0
    assert shadow.text() == f"{len(chosen)} task(s) compared, 0 differ.\n"


@pytest.mark.parametrize("value", ["0", "101%", "x", "nan", "-1", "1%%"])
def test_a_part_that_is_none_is_refused(run: Run, value: str) -> None:
    refused = run("compare", "--shadow", value)

    assert refused.returncode == 2
    assert "is not a percentage: expected a number above 0, up to 100, such as 1%" in refused.stderr
