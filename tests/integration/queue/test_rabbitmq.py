"""Messages through RabbitMQ: the same contract, and what lies where meanwhile."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from dramatiq import Message, pipeline
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from bridge.relay.publisher import Publisher
from bridge.relay.relay import Relay
from rhai_tasks import Client, ScriptActor, Settings, Status
from rhai_tasks.connection.outage import Outage
from rhai_tasks.errors import TaskCancelled
from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import Quota, Rule
from rhai_tasks.signatures import SigningKey
from tests.commands import BIN, run_command
from tests.conftest import FINAL, Dispatcher, Worker, free_port, wait_until
from tests.integration.queue.test_terms import ALL_TERMS, LIMITS, check_all
from tests.rabbitmq import Queue, RabbitServer

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")
Start = Callable[..., Worker]


@pytest.fixture
def start(start_worker: Start, rabbitmq: RabbitServer) -> Start:
    """Start a drop-in worker whose messages travel through RabbitMQ."""
    return lambda *options: start_worker("circle", "--broker-url", rabbitmq.url, *ENGINE, *options)


@pytest.fixture
def bridge(spawn: Start, rabbitmq: RabbitServer) -> Start:
    """Start a bridge alone."""
    return lambda *options: spawn("rhai-bridge", "--circle", "circle", "--broker-url", rabbitmq.url, *options)


@pytest.fixture
def queue(rabbitmq: RabbitServer) -> Iterator[Queue]:
    """Look at the circle's queue in RabbitMQ."""
    broker = RabbitmqBroker(url=rabbitmq.url)
    broker.declare_queue("rhai-circle", ensure=True)
    broker.close()
    queue = Queue(rabbitmq.url, "rhai-circle")
    yield queue
    queue.close()


def test_a_task_ends_as_on_redis(dispatcher: Dispatcher, start: Start) -> None:
    start()

    done = dispatcher.run("circle", "CONTEXT_ID + CALLER_ID")
    failed = dispatcher.run("circle", "throw `boom`")

    assert (done["status"], done["output"]) == ("completed", "circlecaller")
    assert (failed["status"], failed["error"]) == ("error", "Runtime error: boom (line 1, position 1)")
    assert set(done) == {"script", "callerId", "status", "updatedAt", "output"}
    assert "not found" in dispatcher.run("circle", None)["error"]


@pytest.mark.each_dialect
def test_a_script_that_runs_is_seen_to_and_can_be_cancelled(
    dispatcher: Dispatcher, start: Start, app: Client, queue: Queue
) -> None:
    start("--threads", "2")
    long = app.submit("loop {}")
    wait_until(lambda: dispatcher.status(long.id) == "processing")

    assert long.cancel()

    with pytest.raises(TaskCancelled):
        long.result(timeout=60)
    assert dispatcher.run("circle", "1")["output"] == "1"


@pytest.mark.parametrize("dialect", ["hero"], indirect=True)
def test_a_task_with_prerequisites_is_held_and_then_published_again(
    client: Any, dispatcher: Dispatcher, start: Start
) -> None:
    dispatcher.put("first", {"script": "1", "status": "pending"})
    dispatcher.submit("circle", "t", "ENV.n", args='{"n": 42}', prerequisites='["first"]')
    start()
    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-circle.delayed_messages"))

    client.lpush(dispatcher.native_list("circle"), "first")

    assert dispatcher.result("t")["output"] == "42"
    wait_until(lambda: client.hlen("rhai_dramatiq:rhai-circle.msgs") == 0)


def test_ids_hold_any_bytes(client: Any, dispatcher: Dispatcher, start: Start) -> None:
    start()
    client.hset(b"rhai_task_details:\xff\n\x00", "script", "1")
    client.lpush("rhai_tasks:circle", b"\xff\n\x00")

    wait_until(lambda: client.hget(b"rhai_task_details:\xff\n\x00", "status") == "completed")


def test_no_more_than_the_buffer_lies_in_rabbitmq_and_a_stop_gives_it_back_in_order(
    client: Any, dispatcher: Dispatcher, bridge: Start, queue: Queue
) -> None:
    for number in range(30):
        dispatcher.submit("circle", f"t{number}", "1")
    before = client.lrange("rhai_tasks:circle", 0, -1)
    running = bridge("--buffer", "8")
    wait_until(lambda: queue.count() == 8)
    assert client.llen("rhai_tasks:circle") == 22

    assert running.stop() == 0

    assert client.lrange("rhai_tasks:circle", 0, -1) == before


def test_tasks_begin_in_the_order_of_the_native_list(
    client: Any, dispatcher: Dispatcher, start: Start, bridge: Start, queue: Queue, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    tasks = [dispatcher.submit("circle", f"t{n}", f'note("{runs}", "{n}")') for n in range(30)]

    start("--threads", "1", "--buffer", "8")

    wait_until(lambda: all(dispatcher.status(task) in FINAL for task in tasks))
    assert runs.read_text().split() == [str(number) for number in reversed(range(30))]


def test_what_a_stopped_bridge_left_in_rabbitmq_is_nobodys(
    dispatcher: Dispatcher, bridge: Start, start: Start, queue: Queue, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    tasks = [dispatcher.submit("circle", f"t{n}", f'note("{runs}", "{n}")') for n in range(4)]
    first = bridge()
    wait_until(lambda: queue.count() == 4)
    assert first.stop() == 0
    assert queue.count() == 4

    start()

    wait_until(lambda: all(dispatcher.status(task) in FINAL for task in tasks))
    wait_until(lambda: queue.count() == 0)
    assert sorted(runs.read_text().split()) == ["0", "1", "2", "3"]


def test_a_copy_of_a_message_does_not_run_its_task_again(
    dispatcher: Dispatcher, bridge: Start, start: Start, queue: Queue, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    task = dispatcher.submit("circle", "t", f'note("{runs}", "once")')
    first = bridge()
    wait_until(lambda: queue.count() == 1)
    copy = queue.peek()
    for _ in range(5):
        queue.publish(copy)
    first.kill()
    start()
    details = dispatcher.result(task)

    queue.publish(copy)
    dispatcher.run("circle", "1")

    wait_until(lambda: queue.count() == 0)
    assert runs.read_text() == "once\n"
    assert dispatcher.details(task) == details


@pytest.mark.parametrize("jump", [0, 3600])
def test_what_was_purged_from_rabbitmq_is_published_again(
    dispatcher: Dispatcher, bridge: Start, start: Start, queue: Queue, client: Any, jump: int
) -> None:
    """Also what was published before the server's clock went back, by as many seconds."""
    task = dispatcher.submit("circle", "t", "1")
    bridge()
    wait_until(lambda: queue.count() == 1)
    ((name, at),) = client.zrange("rhai_dramatiq:rhai-circle.published", 0, -1, withscores=True)
    client.zadd("rhai_dramatiq:rhai-circle.published", {name: at + jump * 1000})

    queue.purge()

    wait_until(lambda: queue.count() == 1)
    start()
    assert dispatcher.result(task)["output"] == "1"


def test_a_signed_task_runs_once(client: Any, server_url: str, start: Start) -> None:
    start("--signatures", "require")
    with Client(server_url, circle="circle", signing_key=SigningKey.new()) as app:
        task = app.submit("sleep(0.3); CALLER_VERIFIED")
        wait_until(lambda: task.status() is Status.PROCESSING)
        client.lpush("rhai_tasks:circle", task.id)

        wait_until(lambda: task.details().get("errorKind") == "Replayed")
        wait_until(lambda: task.details().get("output") == "true")


def test_bridges_and_dramatiqs_command_find_rabbitmq_in_the_environment(
    dispatcher: Dispatcher, spawn: Start, rabbitmq: RabbitServer
) -> None:
    found = {"RHAI_TASKS_BROKER_URL": rabbitmq.url}
    spawn("rhai-bridge", "--all-circles", env=found)
    workers = spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "2", env=found)

    assert dispatcher.run("circle", "CONTEXT_ID")["output"] == "circle"
    assert workers.stop() == 0


def test_delays_urgent_tasks_and_pipelines_work(
    dispatcher: Dispatcher, server_url: str, start: Start, app: Client
) -> None:
    start()
    script = ScriptActor(server_url, circle="circle")

    delayed = app.submit("1", delay=0.3)
    urgent = app.submit("2", via="urgent")
    last = script.message("INPUT + 1", task_id="last")
    pipeline([script.message("40 + 1"), last], broker=script.broker).run()

    assert (urgent.result(timeout=60), delayed.result(timeout=60)) == ("2", "1")
    assert dispatcher.result("last")["output"] == "411"
    script.broker.close()


def test_a_message_that_dramatiq_sends_itself_runs_too(
    dispatcher: Dispatcher, client: Any, start: Start, rabbitmq: RabbitServer
) -> None:
    start()
    client.hset("rhai_task_details:t", "script", "42")
    broker = RabbitmqBroker(url=rabbitmq.url, confirm_delivery=True, middleware=[])
    message: Message[Any] = Message(
        queue_name="rhai-circle", actor_name="run_script", args=("t",), kwargs={}, options={}
    )

    broker.enqueue(message.copy(kwargs={"details": "none"}))  # cannot be read
    broker.enqueue(message)
    broker.close()

    assert dispatcher.result("t")["output"] == "42"


@pytest.mark.parametrize(
    "fields",
    [
        {"options": {"redis_message_id": "\ud800"}},
        {"options": []},
        {"kwargs": {"details": {"script": None}}},
        {"kwargs": {"details": {"script": "\ud800"}}},
        {"args": ["\ud800"]},
    ],
)
def test_a_message_that_nobody_can_read_does_not_come_again(
    dispatcher: Dispatcher, start: Start, queue: Queue, fields: dict[str, Any]
) -> None:
    start("--threads", "1")
    message = {"queue_name": "rhai-circle", "actor_name": "run_script", "args": ["t"], "kwargs": {}, "options": {}}

    queue.publish(json.dumps(message | fields).encode())

    assert dispatcher.run("circle", "42")["output"] == "42"


def test_a_relay_that_finds_nothing_goes_on(
    dispatcher: Dispatcher, rabbitmq: RabbitServer, server_url: str, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage(server_url)
    publisher = Publisher(rabbitmq.url)
    relay = Relay(Settings(redis_url=server_url, broker_url=rabbitmq.url), "circle", publisher, outage)
    monkeypatch.setattr(relay._blocking, "blmove", lambda *_: b"taken by another bridge meanwhile")
    turn = threading.Thread(target=relay._forward, daemon=True)
    turn.start()
    turn.join(60)

    assert not turn.is_alive()
    publisher.close()
    relay.close()


def command(server_url: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return run_command("rhai-tasks", "--redis-url", server_url, *arguments)


def test_an_operator_sees_and_purges_what_lies_in_rabbitmq(
    dispatcher: Dispatcher, bridge: Start, start: Start, queue: Queue, server_url: str
) -> None:
    for number in range(3):
        dispatcher.submit("circle", f"t{number}", "1")
    bridge()
    wait_until(lambda: queue.count() == 3)

    (counted,) = json.loads(command(server_url, "queues", "--json").stdout)
    found = command(server_url, "doctor").stdout
    purged = command(server_url, "purge", "--circle", "circle", "--yes").stdout

    assert (counted["waiting"], counted["buffered"], counted["running"]) == (0, 3, 0)
    assert "3 task(s) are ready and no worker process is alive" in found
    assert purged == "3 task(s) cancelled\n"
    assert {dispatcher.details(f"t{number}")["error"] for number in range(3)} == {"cancelled"}
    start()
    assert dispatcher.run("circle", "1")["output"] == "1"


def test_an_operator_gives_back_what_lies_in_rabbitmq(
    client: Any, dispatcher: Dispatcher, bridge: Start, queue: Queue, server_url: str
) -> None:
    dispatcher.submit("circle", "t", "1")
    running = bridge()
    wait_until(lambda: queue.count() == 1)
    running.kill()

    assert command(server_url, "return", "--circle", "circle").stdout == "1 task(s) given back\n"

    assert client.lrange("rhai_tasks:circle", 0, -1) == ["t"]


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://user:secret@127.0.0.1/", "expected amqp://"),
        ("amqp://user:sec?ret@127.0.0.1/", "expected amqp://"),
        ("amqp://user:secret@127.0.0.1:notaport/", "expected amqp://"),
        ("amqp://user:secret@127.0.0.1/?nonsense=1", "nonsense"),
    ],
)
@pytest.mark.parametrize("program", ["rhai-worker", "rhai-bridge", "dramatiq"])
def test_a_url_that_cannot_be_read_ends_with_one_line(program: str, url: str, told: str, server_url: str) -> None:
    arguments = {
        "rhai-worker": ("--circle-public-key", "c", "--broker-url", url),
        "rhai-bridge": ("--circle", "c", "--broker-url", url),
        "dramatiq": ("rhai_tasks.worker:setup", "--processes", "1"),
    }
    ended = start_in_vain(program, *arguments[program], server_url=server_url, broker_url=url)

    assert ended.returncode == 2
    assert told in ended.stderr
    assert "sec" not in ended.stderr


def start_in_vain(
    program: str, *arguments: str, server_url: str, broker_url: str
) -> "subprocess.CompletedProcess[str]":
    return run_command(
        program, *arguments, env={"RHAI_TASKS_REDIS_URL": server_url, "RHAI_TASKS_BROKER_URL": broker_url}
    )


def test_limits_and_turns_are_refused_with_one_line_at_start(
    server_url: str, rabbitmq: RabbitServer, client: Any
) -> None:
    with Queues(Settings(redis_url=server_url), "me") as queues:
        queues.rules.set("limited", Rule("limit", "callers", quota=Quota(concurrency=2)))

    for arguments, told in (
        (("--circle", "limited"), "circle limited has rules"),
        (("--circle", "c", "--fair"), "callers cannot take turns through RabbitMQ"),
    ):
        ended = start_in_vain("rhai-worker", *arguments, server_url=server_url, broker_url=rabbitmq.url)
        assert ended.returncode == 2
        assert told in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("wrong", ["amqp://guest:secret@127.0.0.1:{}/", "amqp://guest:guest@127.0.0.1:{}/secret"])
@pytest.mark.parametrize("program", ["rhai-worker --circle-public-key c", "rhai-bridge --circle c"])
def test_a_refused_login_or_host_ends_with_one_line(
    program: str, wrong: str, rabbitmq: RabbitServer, server_url: str
) -> None:
    ended = start_in_vain(*program.split(), server_url=server_url, broker_url=wrong.format(rabbitmq.port))

    assert ended.returncode == 2
    assert "refuses the login" in ended.stderr
    assert "Check user, password and virtual host" in ended.stderr
    assert "guest:secret" not in ended.stderr


def test_without_pika_one_line_says_what_to_install(tmp_path: Path, server_url: str) -> None:
    (tmp_path / "hide.py").write_text(
        "import sys\nsys.modules['pika'] = None\nfrom bridge.cli import worker\nworker()\n"
    )
    ended = subprocess.run(
        [str(BIN / "python"), str(tmp_path / "hide.py"), "--circle-public-key", "c"],
        env={**os.environ, "RHAI_TASKS_REDIS_URL": server_url, "RHAI_TASKS_BROKER_URL": "amqp://127.0.0.1/"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 2
    assert "pip install 'rhai-tasks[rabbitmq]'" in ended.stderr


def test_a_worker_waits_for_a_server_that_is_not_there_yet(
    dispatcher: Dispatcher, start_worker: Start, rabbitmq: RabbitServer, server_url: str
) -> None:
    port = free_port()
    worker = start_worker("circle", "--broker-url", f"amqp://guest:secret@127.0.0.1:{port}/")
    wait_until(lambda: "RabbitMQ at amqp://guest:***@127.0.0.1" in worker.text())

    assert "secret" not in " ".join(psutil.Process(worker.process.pid).cmdline())
    assert worker.stop() == 0
    assert "secret" not in worker.text()


def test_terms_hold_as_on_redis(dispatcher: Dispatcher, start: Start, app: Client) -> None:
    start()
    app.scripts.put("print(ARGS.n); ARGS.n", name="n")

    for script in ("print(ARGS.n); ARGS.n", "@n"):
        check_all(app, app.submit(script, **ALL_TERMS).id, 2, "2")
    for script, fields, error in LIMITS:
        assert dispatcher.run("circle", script, **fields)["error"].startswith(error)
    assert dispatcher.run("circle", "1", startBefore="1")["error"] == "expired before it began"
