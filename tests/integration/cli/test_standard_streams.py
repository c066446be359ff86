"""Commands that are started without standard streams."""

import os
import subprocess
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import psutil
import pytest

from tests.commands import BIN
from tests.conftest import Dispatcher, Worker, free_port, wait_until

CLOSED = [some for count in (1, 2, 3) for some in combinations((0, 1, 2), count)]
CLOSED_TO_COMMANDS = [some for some in CLOSED if len(some) != 2]  # for a tree, also each two
ROOT = Path(__file__).parents[3]
Start = Callable[..., Worker]


@pytest.fixture
def start(server_url: str, tmp_path: Path) -> Iterator[Start]:
    """Start a command with some of the descriptors 0 to 2 closed, and the others open at a file."""
    started: list[Worker] = []

    def start(closed: tuple[int, ...], *command: str) -> Worker:
        log = tmp_path / f"log-{len(started)}"
        log.touch()
        closing = " ".join(f"{descriptor}>&-" for descriptor in closed)
        with log.open("r+") as file:
            process = subprocess.Popen(
                ["sh", "-c", f'exec "$@" {closing}', "sh", str(BIN / command[0]), *command[1:]],
                stdin=file,
                stdout=file,
                stderr=file,
                text=True,
                cwd=ROOT,
                env={**os.environ, "RHAI_TASKS_REDIS_URL": server_url},
            )
        started.append(Worker(process, log))
        return started[-1]

    yield start
    for worker in started:
        worker.kill()


def opened(pid: int, log: Path) -> list[str]:
    """Say what stands behind descriptors 0 to 2: `/dev/null`, the log, or something else."""
    links = [str(Path(f"/proc/{pid}/fd/{number}").readlink()) for number in range(3)]
    return ["log" if link == str(log) else link for link in links]


def wanted(closed: tuple[int, ...]) -> list[str]:
    return ["/dev/null" if number in closed else "log" for number in range(3)]


@pytest.mark.parametrize("closed", CLOSED)
def test_a_tree_without_standard_streams_works_and_stops(
    closed: tuple[int, ...], dispatcher: Dispatcher, start: Start
) -> None:
    tree = start(closed, "rhai-worker", "--circle-public-key", "circle", "--metrics-address", "0")

    assert dispatcher.run("circle", "1")["output"] == "1"

    for pid in [tree.process.pid, *(child.pid for child in tree.children())]:
        assert opened(pid, tree.log) == wanted(closed)
    assert tree.stop() == 0
    assert ("Stopping" in tree.text()) == (2 not in closed)


@pytest.mark.parametrize("closed", CLOSED_TO_COMMANDS)
@pytest.mark.parametrize("command", [("rhai-bridge", "--all-circles"), ("rhai-tasks", "web"), ("rhai-tasks", "repl")])
def test_commands_that_stay_open_what_is_closed(
    command: tuple[str, ...], closed: tuple[int, ...], client: object, start: Start
) -> None:
    if command[-1] == "web":
        command = (*command, "--port", str(free_port()))
    process = start(closed, *command)

    if command[-1] == "repl":  # stdin is at its end
        assert process.process.wait(60) == 0
        return
    wait_until(psutil.Process(process.process.pid).net_connections, what="a connection or port of its own")
    assert opened(process.process.pid, process.log) == wanted(closed)


@pytest.mark.parametrize("closed", CLOSED_TO_COMMANDS)
@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("queues",), 0),
        (("status", "t"), 3),
        (("run", "SCRIPT"), 0),
        (("run", "-"), 0),
        (("submit", "--circle", "c", "1"), 0),
        (("--help",), 0),
        (("nonsense",), 2),
    ],
)
def test_commands_that_end_do_so_as_ever(
    command: tuple[str, ...], status: int, closed: tuple[int, ...], client: object, start: Start, tmp_path: Path
) -> None:
    script = tmp_path / "script.rhai"
    script.write_text("print(1)")
    ran = start(closed, "rhai-tasks", *(str(script) if word == "SCRIPT" else word for word in command))

    ended = ran.process.wait(60)

    assert ended == status
    assert "Traceback" not in ran.text()
    assert script.read_text() == "print(1)"
