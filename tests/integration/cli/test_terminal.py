"""What strangers have written does nothing to a terminal, and outputs come out of a pipe byte by byte."""

import os
import pty
import re
import shlex
import threading
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from rhai_tasks import Client
from rhai_tasks.protocol import to_bytes
from rhai_tasks.terminal import visible
from tests.commands import Forked, run_bytes

ROOT = Path(__file__).parents[3]
EVIL = "\x1b]0;title\x07\x1b[2J\x1b[31mred\r\x08\x7f\x0c\x9b2Jé\u202e\u200b\U000e0041 世界"
"""Sets a title, clears, colours, goes back, and turns lines round."""
NO_TEXT = "\udcff\udc9b"  # bytes that are not UTF-8, as `to_text` reads them
ID = f"id {EVIL}{NO_TEXT}"

Run = Callable[..., tuple[bytes, bytes]]


@pytest.fixture
def environment(server_url: str) -> dict[str, str]:
    # No colours of our own: what is left of control characters is a stranger's.
    own = {"RHAI_TASKS_REDIS_URL": server_url, "RHAI_TASKS_CIRCLE": ID, "TERM": "dumb", "COLUMNS": "1000"}
    return {**os.environ, **own}


@pytest.fixture
def tell(environment: dict[str, str]) -> Callable[..., str]:
    """Run a command on a terminal to its end, and return what that gets."""

    def tell(*command: str, stdin: str = "") -> str:
        def read() -> None:
            with suppress(OSError):  # that is how the end looks
                while some := os.read(master, 65536):
                    shown.append(some)

        master, slave = pty.openpty()
        shown: list[bytes] = []
        reader = threading.Thread(target=read)
        reader.start()
        process = Forked(("rhai-tasks", *command), (Path(os.ttyname(slave)),) * 3, environment, ROOT)
        os.write(master, stdin.encode())
        process.wait(60)
        os.close(slave)
        reader.join()
        os.close(master)
        return b"".join(shown).decode("utf-8", "surrogateescape")

    return tell


@pytest.fixture
def pipe(environment: dict[str, str]) -> Run:
    """Run a command to its end, and return what it writes to stdout and stderr."""

    def pipe(*command: str, stdin: str = "") -> tuple[bytes, bytes]:
        ended = run_bytes("rhai-tasks", *command, stdin=stdin.encode(), env=environment)
        return ended.stdout, ended.stderr

    return pipe


@pytest.fixture
def foul(client: Any, app: Client) -> None:
    """Have strangers' texts wherever there is one."""
    evil, circle = to_bytes(EVIL), to_bytes(ID)
    queue = b"rhai-" + re.sub(rb"[^A-Za-z0-9_-]", lambda match: b".%02x" % match[0][0], circle)
    fields = {"script": evil, "callerId": evil + b"\xff", "updatedAt": evil, "contextId": circle}
    client.hset(b"rhai_task_details:" + circle, mapping={**fields, "status": "completed", "output": evil + b"\xff"})
    client.hset("rhai_task_details:failed", mapping={**fields, "status": "error", "error": evil + b"\xff"})
    client.hset("rhai_task_details:odd", mapping={**fields, "status": evil})
    client.hset("rhai_task_details:lost", mapping={**fields, "status": "processing", "updatedAt": "1"})
    client.lpush(b"rhai_tasks:" + circle, circle, b"no-details" + evil)
    client.sadd("rhai_dramatiq:__queues__", queue)
    for name in (circle, b"other"):
        client.zadd(b"rhai_dramatiq:" + queue + b".XQ", {name: 1})
        client.hset(b"rhai_dramatiq:" + queue + b".XQ.reasons", name, evil)
        client.hset(b"rhai_dramatiq:" + queue + b".XQ.msgs", name, b'{"args": ["\\u001b[31m\\ud800"]}')


class _Foul(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503)
        self.end_headers()
        self.wfile.write(to_bytes(EVIL))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def foul_address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Foul) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "submit": (("submit", "1", "--task-id", f"new {EVIL}"), ""),
    "submit, taken": (("submit", "1", "--task-id", ID, "--unique"), ""),
    "submit, wait": (("submit", "1", "--task-id", f"new {EVIL}", "--wait", "--timeout", "0.1"), ""),
    "submit, wrong": (("submit", "1", "--via", EVIL), ""),
    "submit, no file": (("submit", "--file", f"/no/{EVIL}"), ""),
    "no such command": ((EVIL,), ""),
    "no such option": ((f"--{EVIL}", "queues"), ""),
    "wrong URL": (("--redis-url", f"nonsense://{EVIL}", "queues"), ""),
    "no server": (("--redis-url", f"unix:///no/{EVIL}", "queues"), ""),
    "status": (("status", ID, "failed", "odd"), ""),
    "status, unknown": (("status", EVIL), ""),
    "wait": (("wait", ID, "failed"), ""),
    "wait, unknown": (("wait", EVIL), ""),
    "result": (("result", ID), ""),
    "result, failed": (("result", "failed"), ""),
    "result, unknown": (("result", EVIL), ""),
    "result, not yet": (("result", "odd"), ""),
    "cancel": (("cancel", ID, "odd"), ""),
    "cancel, unknown": (("cancel", EVIL), ""),
    "queues": (("queues",), ""),
    "queues of one": (("queues", "--circle", ID), ""),
    "health": (("health", "--address", "{address}"), ""),
    "health, wrong": (("health", "--address", EVIL), ""),
    "purge, no": (("purge",), "n\n"),
    "purge": (("purge",), "y\n"),
    "return": (("return",), ""),
    "dead list": (("dead", "list"), ""),
    "dead retry": (("dead", "retry", f"none {EVIL}{NO_TEXT}"), ""),
    "dead delete": (("dead", "delete", ID), ""),
    "logs": (("logs", ID), ""),
    "tasks": (("tasks",), ""),
    "tasks, failed": (("tasks", "--status", "error"), ""),
    "workers": (("workers",), ""),
    "pause": (("pause", ID, "--reason", EVIL, "--by", EVIL), ""),
    "resume, not paused": (("resume", ID), ""),
    "block": (("block", ID, "--caller", ID, "--reason", EVIL), ""),
    "unblock, not blocked": (("unblock", ID, "--caller", ID), ""),
    "scripts, no name": (("scripts", "show", f"@{EVIL}"), ""),
    "scripts": (("scripts", "list"), ""),
    "definitions, not an engine": (("definitions", "/no", "--engine", f"no:{EVIL}"), ""),
    "replay, failed": (("replay", "failed"), ""),
    "compare": (("compare",), ""),
    "why": (("why", ID), ""),
    "why, waiting": (("why", "odd", "--circle", "other"), ""),
    "drain": (("drain", ID), ""),
    "limits": (("limits", "show"), ""),
    "rules": (("rules",), ""),
    "audit": (("audit",), ""),
    "cancel, many": (("cancel", "--where", f"circle={shlex.quote(EVIL)}"), ""),
    "cancel, wrong filter": (("cancel", "--where", f"{shlex.quote(EVIL)}=1"), ""),
    "resubmit": (("resubmit", "--where", f"error~{shlex.quote(EVIL)}"), ""),
    "delete": (("delete", "--where", "status=error"), ""),
    "keys, no folder": (("keys", "new", f"/no/{EVIL}"), ""),
    "policy, no file": (("policy", "check", f"/no/{EVIL}", "--caller", ID, "--circle", ID), ""),
    "doctor": (("doctor",), ""),
    "doctor, repair": (("doctor", "--repair"), ""),
    "profile": (("profile", "{script}"), ""),
    "profile, throw": (("profile", "{throw}"), ""),
    "profile, no file": (("profile", f"/no/{EVIL}.rhai"), ""),
    "profile of a task": (("profile", "failed"), ""),
    "run": (("run", "{script}"), ""),
    "run, throw": (("run", "{throw}"), ""),
    "run, wrong": (("run", "{wrong}"), ""),
    "run, no file": (("run", f"/no/{EVIL}"), ""),
    "repl": (("repl",), 'let x = "\\x1b[2J"; print(x); x\n:variables\nthrow "\\x1b[2J"\n:x\n:quit\n'),
    "check": (("check", "{wrong}", "{odd}"), ""),
    "check, no file": (("check", f"/no/{EVIL}"), ""),
    "check for GitHub": (("check", "--github", "{odd}"), ""),
    "test": (("test", "{tests}"), ""),
    "test, no file": (("test", f"/no/{EVIL}"), ""),
    "API key": (("api-keys", "new", f"mine {EVIL}", "--scope", "read"), ""),
    "API keys": (("api-keys", "list"), ""),
    "API key, unknown": (("api-keys", "delete", EVIL + NO_TEXT), ""),
    "json": (("status", ID, "failed", "odd", "--json"), ""),
    "json of results": (("wait", ID, "failed", "--json"), ""),
    "json of dead letters": (("dead", "list", "--json"), ""),
    "json of queues": (("queues", "--json"), ""),
}


def write_scripts(folder: Path) -> dict[str, str]:
    """Write scripts that print, throw and do not compile; return their names."""
    (folder / "script").write_text('print("\\x1b[2J\\u202e"); debug("\\x1b[2J"); "\\x1b[2J"')
    (folder / "throw").write_text('/* \x1b[2J\u202e */ throw "\\x1b[2J\\u202e"')
    (folder / "wrong").write_text("let x = \x1b[2J;")
    (folder / "odd").write_text('`\x1b[2J${unknown}`; nothing("\x1b[2J"); unknown["\x1b[2J\u202e"]')
    tests = folder / "tests"
    tests.mkdir(exist_ok=True)
    (tests / "odd.test.rhai").write_text('fn test_it() { throw "\x1b[2J\u202e" }')
    return {name: str(folder / name) for name in ("script", "throw", "wrong", "odd", "tests")}


@pytest.mark.parametrize("case", COMMANDS)
def test_no_command_prints_what_a_terminal_obeys(
    foul: None, foul_address: str, tell: Callable[..., str], tmp_path: Path, case: str
) -> None:
    command, stdin = COMMANDS[case]
    words = (word.format(address=foul_address, **write_scripts(tmp_path)) for word in command)

    text = tell(*words, stdin=stdin)

    assert text.strip()
    assert "Traceback" not in text, text
    obeyed = [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs"} and char not in "\r\n\t"]
    assert obeyed == [], text
    assert "\r" not in text.replace("\r\n", ""), "a line that writes over itself"


def test_tail_prints_nothing_that_a_terminal_obeys(
    client: Any, environment: dict[str, str], tell: Callable[..., str]
) -> None:
    def publish() -> None:
        while not ended.wait(0.05):
            client.publish(b"rhai_dramatiq:__state__:rhai_task_details:" + to_bytes(ID), b"error " + to_bytes(EVIL))

    ended = threading.Event()
    publisher = threading.Thread(target=publish)
    publisher.start()
    try:
        text = tell("tail", "--count", "2")
    finally:
        ended.set()
        publisher.join()

    assert "title" in text
    assert not [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs"} and char not in "\r\n\t"]


def test_every_command_is_tried() -> None:
    tried = {command[0] for command, _ in COMMANDS.values()}
    from rhai_tasks.cli import main

    assert {*main.commands} - tried == {"tail", "web", "demo"}  # the first has a test of its own


FAILING = re.compile("taken|wrong|no |not |unknown|failed|throw|retry|repl")


@pytest.mark.parametrize("case", [case for case in COMMANDS if FAILING.search(case)])
def test_no_command_writes_what_a_terminal_obeys_to_a_log_of_its_errors(
    foul: None, foul_address: str, pipe: Run, tmp_path: Path, case: str
) -> None:
    command, stdin = COMMANDS[case]
    words = (word.format(address=foul_address, **write_scripts(tmp_path)) for word in command)

    text = pipe(*words, stdin=stdin)[1].decode()

    assert text
    assert [char for char in text if unicodedata.category(char) in {"Cc", "Cf", "Cs"} and char not in "\n\t"] == []


def test_outputs_come_out_of_a_pipe_byte_by_byte(foul: None, pipe: Run, client: Any) -> None:
    evil, name = to_bytes(EVIL), to_bytes(ID)
    assert pipe("result", ID) == (evil + b"\xff\n", b"")
    shown = visible(f"{EVIL}\udcff").encode()
    assert pipe("result", "failed") == (b"", shown + b"\n")
    assert pipe("wait", ID, "failed") == (evil + b"\xff\n", b"failed: " + shown + b"\n")
    assert pipe("cancel", ID, "odd")[0] == name + b": had ended already\nodd: cancelled\n"
    assert pipe("submit", "1", "--circle", "c", "--task-id", f"new {ID}") == (b"new " + name + b"\n", b"")
    assert pipe("result", f"no {ID}")[1].startswith(b"task ")
    for output in (b"", b"\n", b"\r\n", b"a\rb", b"\x00", bytes(range(256)), "\ufeff\u2028".encode(), b"x" * 200_000):
        client.hset("rhai_task_details:t", mapping={"status": "completed", "output": output})
        assert pipe("result", "t") == (output + b"\n", b"")


def test_what_scripts_print_comes_out_of_a_pipe_as_it_is(pipe: Run, tmp_path: Path) -> None:
    (tmp_path / "script").write_text('print("\\x1b[2J\\u202e"); "\\x1b[31m\\r"')
    (tmp_path / "throw").write_text('throw "\\x1b[2J\\u202e"')

    assert pipe("run", str(tmp_path / "script"))[0] == "\x1b[2J\u202e\n\x1b[31m\r\n".encode()
    assert rb"\x1b[2J\u202e" in pipe("run", str(tmp_path / "throw"))[1]
    assert pipe("repl", stdin='print("\\x1b[2J"); "\\x1b[31m"\n')[0] == b"\x1b[2J\n\x1b[31m\n"


@pytest.mark.parametrize(
    "module",
    [*sorted((ROOT / "rhai_tasks/cli").glob("*.py")), ROOT / "bridge/cli.py"],
    ids=lambda path: f"{path.parent.name}/{path.name}",
)
def test_commands_print_by_one_function(module: Path) -> None:
    source = module.read_text()

    assert not re.findall(r"click\.(?:echo|secho|ClickException)|(?<![_.\w])print\(|sys\.std(?:out|err)\.write", source)
