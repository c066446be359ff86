"""What a script prints can be read while it runs, and is kept with the task."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from typing import Any

import psutil
import pytest

from rhai_tasks import AsyncClient, Client, TaskSpec
from rhai_tasks.errors import NotAsked, ScriptError, TaskNotFound, TaskTimeout
from rhai_tasks.protocol import Dialect
from tests.conftest import Dispatcher, Worker, wait_until
from tests.integration.conftest import Run

pytestmark = pytest.mark.each_dialect

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")


def test_prints_come_while_the_script_runs_and_are_kept(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle")
    task = app.submit('print("one"); print("two\\nthree"); loop {}', keep_prints=1000)

    lines = task.prints(60)
    assert list(itertools.islice(lines, 3)) == ["one", "two", "three"]
    assert task.details()["status"] == "processing"
    task.cancel()

    assert list(lines) == []
    wait_until(lambda: task.details().get("updatedAt"))
    assert list(task.prints()) == ["one", "two", "three"]
    assert task.details()["printed"] == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("script", "printed"),
    [
        ('print("a"); 1', "a\n"),
        ('print("a"); throw "b"', "a\n"),
        ("1", ""),
        ('print(""); print("ü"); 1', "\nü\n"),
        (
            'for n in 0..1000 { print("0123456789") } 1',
            "0123456789\n" * 9 + "0\n[cut: it printed more than 100 bytes]\n",
        ),
    ],
)
def test_any_dispatcher_may_ask_for_prints(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], script: str, printed: str
) -> None:
    start_worker("circle")

    details = dispatcher.run("circle", script, keepPrints="100")

    assert details["printed"] == printed
    assert "printed" not in dispatcher.run("circle", script)


def test_prints_up_to_the_kill_of_the_process_are_there_and_the_next_run_replaces_them(
    dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker]
) -> None:
    killed = start_worker("circle", *ENGINE)
    task = app.submit('print("pid " + pid()); print("second"); nap(1.0); loop {}', keep_prints=1000, timeout=20)
    lines = task.prints(120)
    first = next(lines)
    assert next(lines) == "second"
    killed.kill()
    assert dispatcher.details(task.id)["printed"] == f"{first}\nsecond\n"

    start_worker("circle", *ENGINE)

    again = next(lines)
    assert again.startswith("pid ")
    assert again != first
    task.cancel()
    assert list(lines) == ["second"]


def test_prints_of_a_script_that_kills_its_processes_are_kept(app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", *ENGINE, "--max-deliveries", "1")
    task = app.submit('print("last words"); nap(1.0); crash()', keep_prints=1000)

    with pytest.raises(ScriptError, match="died"):
        task.result(60)

    assert list(task.prints()) == ["last words"]


def test_a_flood_of_prints_is_cut_and_does_not_grow_its_process(
    app: Client, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle", "--threads", "2")
    dispatcher.run("circle", "1")
    process: psutil.Process = worker.children()[1]
    before = process.memory_info().rss
    flood = app.submit('let s = ""; s.pad(1000, "x"); loop { print(s) }', keep_prints=1_000_000)
    silent = app.task(flood.id).prints()
    next(silent)  # and reads no more

    for _ in range(20):
        assert dispatcher.run("circle", "40 + 2")["output"] == "42"
    lines = list(itertools.islice(app.task(flood.id).prints(), 1000))

    assert len(lines) == 1000
    assert process.memory_info().rss - before < 64 * 2**20
    flood.cancel()
    assert list(app.task(flood.id).prints())[-1] == "[cut: it printed more than 1000000 bytes]"


def test_a_task_without_prints_says_so(app: Client, start_worker: Callable[..., Worker]) -> None:
    with pytest.raises(NotAsked, match="has no prints: submit it with keep_prints="):
        next(app.submit("1").prints())
    with pytest.raises(TaskNotFound):
        next(app.task("nobody's").prints())
    waiting = app.submit("1", keep_prints=10, circle="nobody's")
    with pytest.raises(TaskTimeout):
        list(waiting.prints(0.2))
    with pytest.raises(ValueError, match="keep_prints=0: expected a whole number from 1 to 16777216"):
        app.submit("1", keep_prints=0)


def test_prints_are_read_in_asyncio_and_by_many_tasks(
    server_url: str, start_worker: Callable[..., Worker], dialect: Dialect
) -> None:
    start_worker("circle")

    async def read() -> list[list[str]]:
        async with AsyncClient(server_url, dialect=dialect.name, circle="circle") as client:
            specs = [TaskSpec(f"print({n}); sleep(0.3); print({n} + 1)", keep_prints=100) for n in range(5)]
            tasks = await client.submit_many(specs)

            async def lines(task: Any) -> list[str]:
                return [line async for line in task.prints(60)]

            return list(await asyncio.gather(*map(lines, tasks)))

    assert asyncio.run(read()) == [[str(n), str(n + 1)] for n in range(5)]


def test_a_terminal_follows_the_prints_of_a_task(run: Run, app: Client, start_worker: Callable[..., Worker]) -> None:
    def tell(*arguments: str) -> tuple[int, str, str]:
        done = run(*arguments)
        return done.returncode, done.stdout, done.stderr

    start_worker("circle")
    script = 'print("a"); sleep(0.3); print("b"); 42'
    assert tell("submit", "--wait", "--prints", script) == (0, "42\n", "a\nb\n")
    assert tell("submit", "--prints", "--task-id=t", 'print("a"); loop {}')[0] == 0
    wait_until(lambda: app.task("t").details().get("printed"))
    assert tell("logs", "t") == (0, "a\n", "")
    threading.Timer(1.0, app.cancel, ["t"]).start()
    assert tell("logs", "-f", "t") == (0, "a\n", "")
    code, _, error = tell("logs", app.submit("1").id)
    assert code == 1
    assert "has no prints" in error


def test_a_server_that_is_away_for_a_while_loses_no_prints(
    dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    task = app.submit('print("a"); sleep(3); print("b"); 1', keep_prints=100)
    wait_until(lambda: dispatcher.details(task.id).get("printed"))
    client.client_kill_filter(_type="normal", skipme=True)

    assert list(task.prints(60)) == ["a", "b"]
