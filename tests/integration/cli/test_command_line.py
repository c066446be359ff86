"""The commands, as launchers and people call them."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.commands import run_command as run
from tests.conftest import Dispatcher, Worker, make_server, wait_until


@pytest.mark.parametrize(
    "form", ["--redis-url {} --circle-public-key 02abc", "--redis-url={} --circle-public-key=02abc"]
)
def test_a_launcher_calls_it_like_the_original(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], server_url: str, form: str
) -> None:
    spawn("rhai-worker", *form.format(server_url).split())

    assert dispatcher.run("02abc", "CONTEXT_ID")["output"] == "02abc"


def test_options_are_environment_variables_too(dispatcher: Dispatcher, spawn: Callable[..., Worker]) -> None:
    spawn("rhai-worker", env={"RHAI_TASKS_CIRCLE_PUBLIC_KEY": "c", "RHAI_TASKS_TASK_TIMEOUT": "0.2"})

    assert "time limit of 0.2 s" in dispatcher.run("c", "loop {}")["error"]


@pytest.mark.parametrize("command", ["rhai-worker", "rhai-bridge"])
def test_help_and_version_are_there(command: str) -> None:
    assert "RHAI_TASKS_REDIS_URL" in run(command, "--help").stdout
    assert re.search(r"\d+\.\d+\.\d+", run(command, "--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--redis-url", "nonsense://x"), "--redis-url"),
        (("--redis-url", "redis://127.0.0.1:notaport/"), "--redis-url"),
        (("--engine", "no.such.module:factory"), "No module named 'no'"),
        (("--engine", "tests.engine_for_tests:missing"), "missing"),
        (("--engine", "tests.engine_for_tests:not_an_engine"), "returned int, not an Engine"),
        (("--threads", "0"), "--threads"),
        (("--nonsense",), "--nonsense"),
    ],
)
def test_bad_options_end_with_one_line_and_status_2(server_url: str, arguments: tuple[str, ...], words: str) -> None:
    ended = run("rhai-worker", "--circle-public-key", "c", "--redis-url", server_url, *arguments)

    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_circle_is_named() -> None:
    ended = run("rhai-worker")

    assert (ended.returncode, "--circle-public-key" in ended.stderr) == (2, True)
    assert run("rhai-bridge").returncode == 2


def test_a_wrong_password_is_said_without_showing_it(tmp_path: Path) -> None:
    with make_server(data_dir=str(tmp_path)) as server:
        redis.Redis.from_url(server.connection_url).config_set("requirepass", "right")
        ended = run(
            "rhai-worker", "--circle-public-key", "c", "--redis-url", f"redis://:wr0ng@127.0.0.1:{server.port}/"
        )

    assert ended.returncode == 2
    assert "password" in ended.stderr
    assert "wr0ng" not in ended.stderr


def test_rust_log_off_silences_everything(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("c", env={"RUST_LOG": "off"})
    dispatcher.run("c", "throw 1")
    worker.stop()

    assert worker.text() == ""


def test_print_and_debug_go_to_the_log_with_the_task(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("c", env={"RUST_LOG": "warn,rhai_tasks.script=debug"})
    dispatcher.submit("c", "my-task", 'print("hello"); debug("there")')
    dispatcher.result("my-task")

    task = "task_id='my-task' circle='c' caller_id='caller'"
    wait_until(lambda: f"DEBUG rhai_tasks.script] hello {task}\n" in worker.text())
    wait_until(lambda: f'DEBUG rhai_tasks.script] 1:17: "there" {task}\n' in worker.text())


def test_an_idle_tree_sends_at_most_three_commands_a_second(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("c")
    dispatcher.run("c", "1")
    before = _sent(client)
    seconds = 12
    time.sleep(seconds)  # what is measured is the time without work

    assert _sent(client) - before <= 3 * seconds


def _sent(client: Any) -> int:
    """Count the commands that our processes sent; what Lua scripts call in the server is none of them."""
    statistics = client.info("commandstats")
    return sum(statistics.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("blmove", "blpop", "evalsha", "ping"))


def test_check_reports_each_mistake_in_three_forms(tmp_path: Path) -> None:
    right, wrong, odd = (tmp_path / name for name in ("right.rhai", "wrong.rhai", "a,b:c%.rhai"))
    right.write_text("let x = 40; CALLER_ID; x + 2")
    wrong.write_text("\n nope\x1b[31m(")
    odd.write_text("let a = 1;\nnope(a)")
    (tmp_path / "bytes.rhai").write_bytes(b"1 + \xff")

    assert (run("rhai-tasks", "check", str(right)).returncode, run("rhai-tasks", "check", str(right)).stdout) == (0, "")
    ended = run("rhai-tasks", "check", str(right), str(odd))
    assert (ended.returncode, ended.stdout) == (1, f"{odd}:2:1: there is no function 'nope'\n")
    told = json.loads(run("rhai-tasks", "check", "--json", str(odd)).stdout)
    text = "there is no function 'nope'"
    assert told == [{"file": str(odd), "line": 2, "column": 1, "kind": "function", "text": text}]
    annotation = run("rhai-tasks", "check", "--github", str(odd), str(wrong)).stdout.splitlines()
    assert annotation[0] == f"::error file={tmp_path}/a%2Cb%3Ac%25.rhai,line=2,col=1::{text}"
    assert len(annotation) == 2
    assert "not UTF-8" in run("rhai-tasks", "check", str(tmp_path / "bytes.rhai")).stdout


def test_check_knows_the_functions_of_an_engine(tmp_path: Path) -> None:
    script = tmp_path / "script.rhai"
    script.write_text('note("a", "b")')

    assert run("rhai-tasks", "check", str(script)).returncode == 1
    ended = run("rhai-tasks", "check", "--engine", "tests.engine_for_tests:make_engine", str(script))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
