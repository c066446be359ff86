"""Scripts that are stored once, and named by tasks."""

import asyncio
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from rhai_tasks import AsyncClient, Client, ScriptRef, TaskSpec
from rhai_tasks.errors import ScriptError, ScriptNotFound, TaskExists
from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import Dialect, Rule
from rhai_tasks.settings import Settings
from tests.conftest import Dispatcher, Worker, wait_until
from tests.integration.conftest import Run

pytestmark = pytest.mark.each_dialect

DOUBLE = "CALLER_ID + CALLER_ID"
SCRIPTS = "rhai_dramatiq:__scripts__"


def test_a_task_names_a_stored_script_by_name_or_hash(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")
    ref = app.scripts.put(DOUBLE, name="double")

    assert ref == ScriptRef(sha256(DOUBLE.encode()).hexdigest(), "double")
    for script in ("@double", ref, str(ref), TaskSpec("@double", stats=True)):
        (task,) = app.submit_many([script if isinstance(script, TaskSpec) else TaskSpec(script, caller_id="a")])
        assert task.result(60) in {"aa", "callercaller"}
        details = task.details()
        assert details["scriptRef"] == str(ref)
        assert "script" not in details


def test_a_name_that_moves_changes_no_task_that_waits(app: Client, start_worker: Callable[..., Worker]) -> None:
    first = app.scripts.put("1", name="n")
    waiting = app.submit("@n")
    second = app.scripts.put("2", name="n")
    later = app.submit("@n")

    start_worker("circle")

    assert (waiting.result(60), later.result(60)) == ("1", "2")
    assert [version.ref for version in app.scripts.history("n")] == [second, first]
    assert app.scripts.find("@n") == second
    assert app.scripts.list() == [second]
    assert app.scripts.get(first) == "1"


def test_an_unknown_name_submits_nothing(app: Client, client: Any) -> None:
    app.scripts.put("1", name="known")

    with pytest.raises(ScriptNotFound, match="no script is stored as '@unknown'"):
        app.submit_many(["@known", "@unknown"])
    assert not client.exists("rhai_tasks:circle", "hero:work_queue:circle")
    with pytest.raises(ScriptNotFound):
        app.submit(f"sha256:{'0' * 64}", materialize=True)
    with pytest.raises(ValueError, match="materialize=True: the script is not a reference"):
        app.submit("1", materialize=True)
    app.submit("1", task_id="t", unique=True)
    with pytest.raises(TaskExists):
        app.submit("@known", task_id="t", unique=True)


def test_a_script_crosses_the_network_once_for_a_process(
    app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    ref = app.scripts.put("/*" + "x" * 256 * 1024 + "*/ 42", name="large")
    app.submit(ref).result(60)
    before = client.info("stats")

    for task in app.submit_many([ref] * 200):
        assert task.result(60) == "42"

    after = client.info("stats")
    for sent in ("total_net_output_bytes", "total_net_input_bytes"):
        assert after[sent] - before[sent] < 200 * 16 * 1024


@pytest.mark.parametrize(
    ("reference", "error"),
    [
        (f"sha256:{'0' * 64}", f"The script sha256:{'0' * 64} is not stored: it was deleted, or never put"),
        ("@nobody", "' of the task is '@nobody': no script has this name"),
        ("", "expected sha256: and 64 hex digits, or @ and a name"),
        ("sha256:ABC", "expected sha256: and 64 hex digits, or @ and a name"),
        (f"sha256:{'A' * 64}", "expected sha256: and 64 hex digits, or @ and a name"),
        ("@", "expected sha256: and 64 hex digits, or @ and a name"),
        ("@a b", "expected sha256: and 64 hex digits, or @ and a name"),
    ],
)
def test_a_reference_that_leads_nowhere_ends_its_task_alone(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], reference: str, error: str
) -> None:
    start_worker("circle")

    dispatcher.submit("circle", "t", None, scriptRef=reference, status="pending")

    assert error in dispatcher.result("t")["error"]
    assert dispatcher.run("circle", "1")["output"] == "1"


@pytest.mark.parametrize("stored", ["another source", b"\xff", "1 "])
def test_a_source_that_was_changed_is_not_run(
    app: Client, start_worker: Callable[..., Worker], client: Any, stored: str | bytes
) -> None:
    ref = app.scripts.put("1")
    client.hset(SCRIPTS, ref.hash, stored)
    start_worker("circle")

    with pytest.raises(ScriptError, match="has another hash: it was changed"):
        app.submit(ref).result(60)


def test_any_dispatcher_may_name_a_script(
    dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    ref = app.scripts.put("40 + 2", name="answer")

    for reference in ("@answer", str(ref)):
        dispatcher.submit("circle", reference, None, scriptRef=reference, status="pending")
        assert dispatcher.result(reference)["output"] == "42"
    assert dispatcher.run("circle", "1", scriptRef="@answer")["output"] == "1", "a script that is there counts"


def test_a_materialized_task_has_the_source_for_an_original_worker(
    app: Client, start_worker: Callable[..., Worker]
) -> None:
    app.scripts.put("40 + 2", name="answer")

    task = app.submit("@answer", materialize=True)

    assert task.details()["script"] == "40 + 2"
    start_worker("circle")
    assert task.result(60) == "42"


def test_scripts_and_names_are_deleted_one_by_one(app: Client, start_worker: Callable[..., Worker]) -> None:
    ref = app.scripts.put("1", name="n")

    with pytest.raises(ValueError, match="the name 'n' points to"):
        app.scripts.delete(ref)
    app.scripts.delete("@n")
    with pytest.raises(ScriptNotFound):
        app.scripts.delete("@n")
    assert app.scripts.history("n") == []
    waiting = app.submit(ref)
    app.scripts.delete(ref)
    with pytest.raises(ScriptNotFound):
        app.scripts.get(ref)
    start_worker("circle")
    with pytest.raises(ScriptError, match="is not stored: it was deleted, or never put"):
        waiting.result(60)


@pytest.mark.parametrize("name", ["", "@n", "a b", "-n", "n" * 101, "é", "a/b", "\n"])
def test_names_that_cannot_be_are_refused(app: Client, name: str) -> None:
    with pytest.raises(ValueError, match="name="):
        app.scripts.put("1", name=name)
    with pytest.raises(ValueError, match="name="):
        app.scripts.history(name)


def test_the_second_run_after_a_kill_has_the_same_script(
    dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker]
) -> None:
    killed = start_worker("circle")
    app.scripts.put("sleep(3); 42", name="slow")
    task = app.submit("@slow")
    wait_until(lambda: dispatcher.status(task.id) == "processing")
    app.scripts.put("43", name="slow")
    killed.kill()

    start_worker("circle")

    assert task.result(60) == "42"


def test_asyncio_has_the_same(server_url: str, start_worker: Callable[..., Worker], dialect: Dialect) -> None:
    start_worker("circle")

    async def use() -> tuple[str, list[ScriptRef], str]:
        async with AsyncClient(server_url, dialect=dialect.name, circle="circle") as client:
            ref = await client.scripts.put("40 + 2", name="answer")
            assert await client.scripts.find("@answer") == ref
            task = await client.submit("@answer")
            return await task.result(60), await client.scripts.list(), await client.scripts.get(ref)

    output, names, source = asyncio.run(use())
    assert (output, [ref.name for ref in names], source) == ("42", ["answer"], "40 + 2")


def test_a_terminal_stores_and_names_scripts(run: Run, start_worker: Callable[..., Worker], tmp_path: Path) -> None:
    file = tmp_path / "answer.rhai"
    file.write_text("40 + 2")
    start_worker("circle")

    ref = run("scripts", "put", str(file), "--name", "answer").stdout
    assert ref == f"sha256:{sha256(b'40 + 2').hexdigest()}\n"
    assert run("submit", "--wait", "@answer").stdout == "42\n"
    assert "answer" in run("scripts", "list").stdout
    assert run("scripts", "show", "@answer").stdout == "40 + 2\n"
    assert ref.strip() in run("scripts", "history", "answer").stdout
    assert run("scripts", "delete", ref.strip()).returncode == 2
    assert run("scripts", "delete", "@answer").returncode == 0
    assert run("scripts", "show", "@answer").returncode == 3
    assert run("submit", "@answer").returncode == 3


@pytest.mark.parametrize("form", ["text", "hash", "name", "name of a dispatcher"])
def test_a_block_of_a_script_holds_however_a_task_names_it(
    dispatcher: Dispatcher,
    app: Client,
    start_worker: Callable[..., Worker],
    server_url: str,
    form: str,
    dialect: Dialect,
) -> None:
    ref = app.scripts.put(DOUBLE, name="double")
    Queues(Settings(redis_url=server_url, dialect=dialect.name), "ada").rules.set(
        "circle", Rule("block", "script", ref.hash, "it doubles")
    )
    start_worker("circle")

    match form:
        case "text":
            dispatcher.submit("circle", "t", DOUBLE)
        case "hash":
            app.submit(ref, task_id="t")
        case "name":
            app.submit("@double", task_id="t")
        case _:
            dispatcher.submit("circle", "t", None, scriptRef="@double", status="pending")

    assert dispatcher.result("t")["error"] == "blocked: it doubles"
    assert app.submit("1").result(60) == "1"


def test_an_empty_script_can_be_stored(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")
    ref = app.scripts.put("")

    assert app.scripts.get(ref) == ""
    assert [app.submit(ref).result(60) for _ in range(2)] == ["", ""]
