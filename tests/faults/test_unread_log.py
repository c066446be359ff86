"""Nobody takes what is logged: work goes on, processes are restarted, and all of it stops when it is told to."""

import contextlib
import fcntl
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import tty
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.commands import BIN
from tests.conftest import Dispatcher, Worker, free_port, wait_until

ROOT = Path(__file__).parents[2]
FORMATS = ["text", "json"]


def fill(descriptor: int) -> None:
    """Write until there is no room; the open file stays as it was."""
    os.set_blocking(descriptor, False)
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(descriptor, b"x" * (size - 1) + b"\n")
    os.set_blocking(descriptor, True)


class FullPipe:
    """A pipe without room, and its reader, who begins to read when told to."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        fill(self.writer)
        self._came = b""

    def read(self) -> None:
        """Read from now on."""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            while came := os.read(self.reader, 65536):
                self._came += came

    def lines(self) -> list[str]:
        """Return whole lines that were logged, so far."""
        return [line for line in self._came.decode().split("\n")[:-1] if line.strip("x")]


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    pipe = FullPipe()
    yield pipe.writer
    os.close(pipe.writer)
    os.close(pipe.reader)


@contextlib.contextmanager
def full_pipe_that_does_not_block() -> Iterator[int]:
    with full_pipe() as writer:
        os.set_blocking(writer, False)
        yield writer


@contextlib.contextmanager
def full_socket() -> Iterator[int]:
    reader, writer = socket.socketpair()
    with reader, writer:
        fill(writer.fileno())
        yield writer.fileno()


@contextlib.contextmanager
def stopped_terminal() -> Iterator[int]:
    reader, terminal = os.openpty()
    tty.setraw(terminal)
    fill(terminal)
    yield terminal
    os.close(reader)
    os.close(terminal)


@contextlib.contextmanager
def pipe_without_reader() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@contextlib.contextmanager
def full_disk() -> Iterator[int]:
    with Path("/dev/full").open("w") as full:
        yield full.fileno()


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    yield None


UNREAD = [
    full_pipe,
    full_pipe_that_does_not_block,
    full_socket,
    stopped_terminal,
    pipe_without_reader,
    full_disk,
    nothing,
]
Launch = Callable[..., Worker]


@pytest.fixture
def launch(server_url: str, tmp_path: Path) -> Iterator[Launch]:
    """Start a command with a descriptor as its stderr; `None`: a closed one."""
    started: list[Worker] = []

    def launch(stderr: int | None, *command: str, env: dict[str, str] | None = None) -> Worker:
        program = [str(BIN / command[0]), *command[1:]]
        process = subprocess.Popen(
            program if stderr is not None else ["sh", "-c", 'exec "$@" 2>&-', "sh", *program],
            stderr=stderr,
            text=True,
            cwd=ROOT,
            env={**os.environ, "RHAI_TASKS_REDIS_URL": server_url, **(env or {})},
        )
        started.append(Worker(process, tmp_path / "no-log"))
        return started[-1]

    yield launch
    for worker in started:
        worker.kill()


def bad_ids(client: Any, count: int) -> None:
    """Submit tasks each of which logs an error: their details are not hashes."""
    for number in range(count):
        client.set(f"rhai_task_details:bad{number}", "no hash")
    client.lpush("rhai_tasks:circle", *(f"bad{number}" for number in range(count)))


def dead_letters(client: Any) -> int:
    return int(client.zcard("rhai_dramatiq:rhai-circle.XQ"))


def kill(process: psutil.Process) -> None:
    process.kill()
    process.wait(60)


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("unread", UNREAD)
def test_a_tree_works_restarts_and_stops(
    unread: Callable[[], contextlib.AbstractContextManager[int | None]],
    log_format: str,
    dispatcher: Dispatcher,
    client: Any,
    launch: Launch,
) -> None:
    options = ["--circle-public-key", "circle", "--metrics-address", "0", "--log-format", log_format]
    with unread() as stderr:
        tree = launch(stderr, "rhai-worker", *options, env={"RUST_LOG": "debug"})
        assert dispatcher.run("circle", "print(`x`); 1")["output"] == "1"

        bad_ids(client, 400)
        wait_until(lambda: dead_letters(client) == 400)
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        assert dispatcher.run("circle", "2")["output"] == "2"
        for role in ("[worker 1]", "[bridge]", "[monitor]"):
            found = next(child for child in tree.children() if " ".join(child.cmdline()).endswith(role))
            kill(found)
            wait_until(lambda: len(tree.children()) == 3, what=f"another {role}")
            assert dispatcher.run("circle", "3")["output"] == "3"

        assert tree.stop() == 0


def test_the_children_of_a_killed_supervisor_end(dispatcher: Dispatcher, launch: Launch) -> None:
    with full_pipe() as stderr:
        tree = launch(stderr, "rhai-worker", "--circle-public-key", "circle", env={"RUST_LOG": "debug"})
        dispatcher.run("circle", "1")
        children = tree.children()

        tree.process.kill()

        wait_until(lambda: not any(child.is_running() for child in children))


@pytest.mark.parametrize("log_format", FORMATS)
@pytest.mark.parametrize("unread", [full_pipe, pipe_without_reader, nothing])
def test_a_bridge_works_and_stops(
    unread: Callable[[], contextlib.AbstractContextManager[int | None]],
    log_format: str,
    dispatcher: Dispatcher,
    client: Any,
    launch: Launch,
) -> None:
    with unread() as stderr:
        bridge = launch(stderr, "rhai-bridge", "--all-circles", "--log-format", log_format, env={"RUST_LOG": "trace"})
        for number in range(200):
            dispatcher.submit(f"c{number}", f"t{number}", "1")
        wait_until(lambda: not list(client.scan_iter("rhai_tasks:*", count=1000)))
        client.execute_command("CLIENT", "KILL", "TYPE", "normal")
        dispatcher.submit("another", "t", "1")
        wait_until(lambda: client.llen("rhai_dramatiq:rhai-another") == 1)

        assert bridge.stop() == 0


def test_workers_of_dramatiqs_command_work_and_give_back(
    dispatcher: Dispatcher, client: Any, spawn: Callable[..., Worker], launch: Launch
) -> None:
    spawn("rhai-bridge", "--circle", "circle")
    environment = {"RHAI_TASKS_ENGINE": "tests.engine_for_tests:make_engine", "RHAI_TASKS_SHUTDOWN_TIMEOUT": "0"}
    pipe = FullPipe()
    command = ["dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "1"]
    main = launch(pipe.writer, *command, env=environment)
    os.close(pipe.writer)
    bad_ids(client, 1000)
    wait_until(lambda: dead_letters(client) == 1000)
    logging = "let s = ``; s.pad(100, `x`); for n in 0..3000 { log(s) }"
    assert dispatcher.run("circle", logging)["status"] == "completed"
    assert dispatcher.run("circle", "2")["output"] == "2"
    task = dispatcher.submit("circle", "t", "sleep(600)")
    wait_until(lambda: dispatcher.status(task) == "processing")

    main.process.send_signal(signal.SIGTERM)

    wait_until(lambda: dispatcher.status(task) == "pending")
    pipe.read()  # dramatiq's main process itself waits for that, as docs/operations/logs.md says
    assert main.process.wait(60) == 0


def test_dramatiqs_command_stops_where_it_logs_to_a_file(
    dispatcher: Dispatcher, client: Any, spawn: Callable[..., Worker], launch: Launch, tmp_path: Path
) -> None:
    spawn("rhai-bridge", "--circle", "circle")
    with full_pipe() as stderr:
        log = tmp_path / "dramatiq.log"
        worker = launch(stderr, "dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--log-file", str(log))
        bad_ids(client, 100)
        wait_until(lambda: dead_letters(client) == 100)

        assert worker.stop() == 0

    assert log.read_text().count("Task goes to the dead letters") == 100


@pytest.mark.parametrize("unread", [full_pipe, pipe_without_reader, nothing])
def test_the_web_page_answers_and_stops(
    unread: Callable[[], contextlib.AbstractContextManager[int | None]], client: Any, launch: Launch
) -> None:
    port = free_port()

    def answers() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as page:
                return bool(page.status == 200)
        except urllib.error.URLError:
            return False

    with unread() as stderr:
        page = launch(stderr, "rhai-tasks", "web", "--port", str(port))
        wait_until(answers)
        for _ in range(100):  # each is worth a warning
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(b"no request at all\r\n\r\n")
                assert connection.recv(100).startswith(b"HTTP/1.1 400")

        assert answers()
        page.process.send_signal(signal.SIGTERM)
        page.process.wait(60)


@pytest.mark.parametrize("log_format", FORMATS)
def test_lines_that_found_no_room_are_counted_once_there_is_some(
    log_format: str, dispatcher: Dispatcher, launch: Launch
) -> None:
    pipe = FullPipe()
    options = ["--circle-public-key", "circle", "--threads", "1", "--log-format", log_format]
    tree = launch(pipe.writer, "rhai-worker", *options, env={"RUST_LOG": "off,rhai_tasks.script=debug"})
    os.close(pipe.writer)
    printing = "let s = ``; s.pad(10_000, `x`); for n in 0..200 { print(`${n} ${s}`) }"
    assert dispatcher.run("circle", printing)["status"] == "completed"

    pipe.read()

    def printed() -> list[str]:
        return [line for line in pipe.lines() if "xxx" in line]

    def accounted() -> bool:  # one count for each time that there was no room
        counts = re.findall(r"(\d+) log line\(s\) were dropped", "\n".join(pipe.lines()))
        return sum(map(int, counts)) + len(printed()) == 200

    wait_until(accounted)
    assert 1_000_000 < sum(map(len, printed())) < 1_100_000
    assert "dropped" in pipe.lines()[-1]
    dispatcher.run("circle", "print(`afterwards`)")
    wait_until(lambda: "afterwards" in pipe.lines()[-1])
    assert tree.stop() == 0
    if log_format == "json":
        assert all(json.loads(line) for line in pipe.lines())


def test_the_watchdog_ends_a_process_and_another_takes_its_place(dispatcher: Dispatcher, launch: Launch) -> None:
    options = ["--circle-public-key", "circle", "--engine", "tests.engine_for_tests:make_hasty_engine"]
    with full_pipe() as stderr:
        tree = launch(stderr, "rhai-worker", *options, "--task-timeout", "1", "--shutdown-timeout", "0")

        stuck = dispatcher.submit("circle", "stuck", "nap(600)")
        assert "its process was ended" in dispatcher.result(stuck)["error"]

        assert dispatcher.result(dispatcher.submit("circle", "next", "1"))["output"] == "1"
        assert tree.stop() == 0


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(["--engine", "tests.engine_for_tests:not_an_engine"], id="a child ends as wrongly configured"),
        pytest.param(["--engine", "no.such.module:x"], id="the command ends as wrongly configured"),
        pytest.param(["--metrics-address", "nowhere"], id="it has no address to listen at"),
        pytest.param(["--threads", "0"], id="an option has a value that it cannot have"),
        pytest.param(["--nonsense"], id="there is no such option"),
    ],
)
@pytest.mark.parametrize("log_format", FORMATS)
def test_a_start_that_fails_ends(options: list[str], log_format: str, client: Any, launch: Launch) -> None:
    with full_pipe() as stderr:
        tree = launch(stderr, "rhai-worker", "--circle-public-key", "c", "--log-format", log_format, *options)

        assert tree.process.wait(60) == 2


_ENDS = {
    "a vital thread fails": ("vital_thread('t', lambda: 1 / 0).start(); time.sleep(600)", 1),
    "the main thread fails": ("1 / 0", 1),
    "a thread fails": ("t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join(); sys.exit(3)", 3),
    "a destructor fails": ("type('T', (), {'__del__': lambda self: 1 / 0})(); sys.exit(3)", 3),
    "a line cannot be formatted": ("logger.error('%d', 'x'); sys.exit(3)", 3),
    "another writes to stderr": ("print('x' * 100_000, file=sys.stderr, flush=True); sys.exit(3)", 3),
    "a warning is given": ("warnings.warn('x'); sys.exit(3)", 3),
    "the library shuts down": ("logging.shutdown(); os._exit(3)", 3),
}


@pytest.mark.parametrize(("code", "status"), _ENDS.values(), ids=list(_ENDS))
@pytest.mark.parametrize("log_format", FORMATS)
def test_a_process_with_something_to_tell_ends(code: str, status: int, log_format: str) -> None:
    begin = f"""
import logging, os, sys, threading, time, warnings
from rhai_tasks.log import capture_stderr, configure_logging
from rhai_tasks.threads import vital_thread
configure_logging(None, {log_format!r})
capture_stderr()
logger = logging.getLogger("x")
for _ in range(100_000):
    logger.info("x" * 100)
"""
    with full_pipe() as stderr:
        ended = subprocess.run([sys.executable, "-c", begin + code], stderr=stderr, timeout=120, check=False)

    assert ended.returncode == status
