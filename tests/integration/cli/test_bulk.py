"""Commands that act on all tasks of a filter."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Client
from tests.conftest import Dispatcher, Worker
from tests.integration.conftest import Run


def ended(client: Any, task_id: str, **fields: str) -> None:
    given = {"script": "1", "status": "error", "error": "boom", "circle": "circle", **fields}
    client.hset(f"rhai_task_details:{task_id}", mapping=given)


@pytest.mark.parametrize("verb", ["cancel", "resubmit", "delete"])
def test_without_yes_nothing_is_done_and_the_number_is_told(run: Run, client: Any, app: Client, verb: str) -> None:
    for number in range(7):
        ended(client, f"t{number}")
        app.submit("1", task_id=f"w{number}")
    keys = client.keys("rhai_task_details:*")

    told = run(verb, "--where", "circle=circle")

    assert told.returncode == 0
    assert "7 task(s) would be" in told.stderr
    assert "--yes" in told.stderr
    assert len(told.stdout.splitlines()) == 5
    assert client.keys("rhai_task_details:*") == keys
    assert client.llen("rhai_tasks:circle") == 7
    assert client.hget("rhai_task_details:w0", "status") == "pending"
    assert run("audit", "--json").stdout == "[]\n"


def test_failed_tasks_of_one_cause_are_submitted_again_with_all_that_belongs_to_them(
    run: Run, client: Any, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    for number in range(120):
        ended(client, f"t{number}", error=f"no stock {number}", script=f"{number}", callerId="ada", maxMemory="1000000")
    ended(client, "other", error="no customer 1")
    ended(client, "no script", error="no stock 1", script="")
    before = set(client.keys("rhai_task_details:*"))

    done = run("resubmit", "--where", "circle=circle error='no stock 7'", "--yes")

    assert done.stdout == "120 task(s) submitted again, 1 skipped\n"
    copies = [key.removeprefix("rhai_task_details:") for key in set(client.keys("rhai_task_details:*")) - before]
    assert sorted(int(dispatcher.result(copy)["output"]) for copy in copies) == list(range(120))
    details = dispatcher.details(copies[0])
    assert (details["callerId"], details["maxMemory"], details["circle"]) == ("ada", "1000000", "circle")
    assert dispatcher.status("t1") == "error"
    (change,) = json.loads(run("audit", "--json").stdout)
    assert change["what"] == "resubmit 120 task(s) where circle=circle error='no stock 7'"


def test_what_waits_is_cancelled_and_what_ended_is_not(run: Run, client: Any, app: Client) -> None:
    tasks = [app.submit("1", caller_id="ada") for _ in range(3)]
    other = app.submit("1", caller_id="bob")
    ended(client, "done", callerId="ada", status="completed")

    done = run("cancel", "--where", "caller=ada", "--yes", "--json")

    assert json.loads(done.stdout) | {"samples": []} == {"found": 3, "done": 3, "skipped": 0, "samples": []}
    assert {task.status().value for task in tasks} == {"error"}
    assert other.status().value == "pending"
    assert client.hget("rhai_task_details:done", "status") == "completed"


def test_details_of_ended_tasks_are_deleted_and_of_others_kept(run: Run, client: Any, app: Client) -> None:
    for number in range(3):
        ended(client, f"old{number}", updatedAt="2026-01-01T00:00:00.000000Z")
    ended(client, "new", updatedAt="2199-01-01T00:00:00.000000Z")
    app.submit("1", task_id="waits")

    done = run("delete", "--where", "circle=circle older=7d", "-y")

    assert done.stdout == "3 task(s) deleted\n"
    assert sorted(client.keys("rhai_task_details:*")) == ["rhai_task_details:new", "rhai_task_details:waits"]


@pytest.mark.parametrize("verb", ["cancel", "resubmit", "delete"])
@pytest.mark.parametrize("where", ["", "status=eror", "older=soon", "caller=", "nonsense", "error~'"])
def test_a_filter_that_is_wrong_or_means_everything_is_refused(run: Run, client: Any, verb: str, where: str) -> None:
    ended(client, "t")

    refused = run(verb, "--where", where, "--yes")

    assert refused.returncode == 2
    assert client.hget("rhai_task_details:t", "error") == "boom"


@pytest.mark.parametrize("arguments", [(), ("t", "--where", "caller=a")])
def test_cancel_takes_names_or_a_filter(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("cancel", *arguments).returncode == 2
