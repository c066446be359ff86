"""Bridge and dramatiq's own command, apart from each other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dramatiq
import psutil

from rhai_tasks import Engine, Settings
from rhai_tasks.operate.queues import Queues
from rhai_tasks.worker.actor import declare_actor
from rhai_tasks.worker.make import make_broker
from tests.conftest import Dispatcher, Worker, wait_until

DRAMATIQ = ("dramatiq", "rhai_tasks.worker:setup", "--processes", "2", "--threads", "2")
ENGINE = {"RHAI_TASKS_ENGINE": "tests.engine_for_tests:make_engine"}


def test_dramatiqs_command_runs_the_tasks_of_bridged_circles(
    dispatcher: Dispatcher, spawn: Callable[..., Worker]
) -> None:
    spawn("rhai-bridge", "--circle", "a", "--circle", "b c")
    spawn(*DRAMATIQ, env=ENGINE)

    tasks = [
        dispatcher.submit(circle, f"{circle}{n}", "nap(0.01); CONTEXT_ID") for circle in ("a", "b c") for n in range(20)
    ]

    assert [dispatcher.result(task)["output"] for task in tasks] == ["a"] * 20 + ["b c"] * 20


def test_circles_are_followed_as_their_lists_appear(dispatcher: Dispatcher, spawn: Callable[..., Worker]) -> None:
    spawn("rhai-bridge", "--all-circles")
    spawn(*DRAMATIQ)

    assert dispatcher.run("first", "CONTEXT_ID")["output"] == "first"
    assert dispatcher.run("second", "CONTEXT_ID")["output"] == "second"


def test_queues_can_be_chosen(dispatcher: Dispatcher, spawn: Callable[..., Worker]) -> None:
    spawn("rhai-bridge", "--circle", "a", "--circle", "b")
    spawn(*DRAMATIQ, "--queues", "rhai-a")

    other = dispatcher.submit("b", "other", "1")

    assert dispatcher.run("a", "1")["status"] == "completed"
    assert dispatcher.status(other) == "pending"


def test_a_worker_tells_of_the_circles_that_it_consumes_and_of_no_others(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], server_url: str, client: Any
) -> None:
    spawn("rhai-bridge", "--circle", "a", "--circle", "b")
    worker = spawn(*DRAMATIQ, "--queues", "rhai-a")
    nobody = spawn(*DRAMATIQ, "--queues", "rhai-other")

    assert dispatcher.run("a", "1")["status"] == "completed"

    def heartbeats() -> list[dict[str, Any]]:
        return [json.loads(text) for text in client.hvals("rhai_dramatiq:__workers__")]

    wait_until(lambda: len(heartbeats()) == 2, what="the heartbeats of both processes")
    assert [report["circles"] for report in heartbeats()] == [["a"], ["a"]]
    with Queues(Settings(redis_url=server_url)) as queues:
        assert [(queue.circle, queue.workers) for queue in queues.count(["a", "b"])] == [("a", 2), ("b", 0)]
    assert "Following circle b" not in worker.text() + nobody.text()


def test_a_queue_that_a_program_declares_and_does_not_consume_gets_no_lease(
    dispatcher: Dispatcher, server_url: str, client: Any
) -> None:
    settings = Settings(redis_url=server_url)
    broker = make_broker(settings)
    declare_actor(broker, Engine())
    worker = dramatiq.Worker(broker, queues={"rhai-a"}, worker_threads=1)
    for circle in ("a", "b"):
        broker.declare_circle(circle)
    worker.start()
    try:
        wait_until(lambda: client.hlen("rhai_dramatiq:__workers__"), what="a heartbeat")
        with Queues(settings) as queues:
            assert [queue.workers for queue in queues.count(["a", "b"])] == [1, 0]
    finally:
        worker.stop()


def test_a_worker_tells_of_the_threads_that_dramatiq_gave_it(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], client: Any
) -> None:
    spawn("rhai-bridge", "--circle", "a")
    spawn("dramatiq", "rhai_tasks.worker:setup", "--processes", "1", "--threads", "3")

    assert dispatcher.run("a", "1")["status"] == "completed"

    (heartbeat,) = wait_until(lambda: client.hvals("rhai_dramatiq:__workers__"), what="its heartbeat")
    assert json.loads(heartbeat)["threads"] == 3


def test_a_stopped_dramatiq_worker_gives_back_what_it_has_not_run(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], client: Any
) -> None:
    bridge = spawn("rhai-bridge", "--circle", "c")
    workers = spawn(
        "dramatiq",
        "rhai_tasks.worker:setup",
        "--processes",
        "1",
        "--threads",
        "2",
        env={"RHAI_TASKS_SHUTDOWN_TIMEOUT": "0.2"},
    )
    tasks = [dispatcher.submit("c", f"t{n}", "loop {}") for n in range(5)]
    wait_until(lambda: sum(dispatcher.status(task) == "processing" for task in tasks) == 2)

    assert workers.stop() == 0
    assert bridge.stop() == 0

    assert sorted(client.lrange("rhai_tasks:c", 0, -1)) == sorted(tasks)
    assert {dispatcher.status(task) for task in tasks} == {"pending"}


def test_an_engine_without_a_timeout_gets_the_workers(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("c", "--engine", "examples.embed_worker:make_engine", "--task-timeout", "0.2")

    assert "time limit of 0.2 s" in dispatcher.run("c", "greet(1); loop {}")["error"]


def test_an_application_runs_its_own_engine(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], tmp_path: Path, server_url: str
) -> None:
    program = tmp_path / "application.py"
    program.write_text(
        "from bridge import Args, run_worker_loop\n"
        "from rhai_tasks import Engine\n"
        "engine = Engine()\n"
        'engine.register("greet", lambda name: f"hello {name}")\n'
        f"raise SystemExit(run_worker_loop(engine, Args(redis_url={server_url!r}, circle_public_key='app')))\n"
    )
    application = spawn("python", str(program))

    assert dispatcher.run("app", "greet(CALLER_ID)")["output"] == "hello caller"
    assert application.stop() == 0


def test_what_waits_behind_a_script_that_turns_out_to_be_long_goes_to_another_worker(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    first = start_worker("circle", "--threads", "1", env=ENGINE)
    for _ in range(20):
        dispatcher.run("circle", "1")  # scripts are quick, it learns, and fetches many at a time
    tree = [psutil.Process(first.process.pid), *first.children()]
    for process in tree:
        process.suspend()
    quick = [dispatcher.submit("circle", f"quick{number}", "1") for number in range(10)]
    dispatcher.submit("circle", "long", "nap(50.0)")  # the list's head
    for process in tree[:-1]:  # the worker last: it would fetch the long one before the bridge has taken the others
        process.resume()
    wait_until(lambda: not client.exists("rhai_tasks:circle"), what="the bridge to take all")
    tree[-1].resume()
    wait_until(lambda: dispatcher.status("long") == "processing")
    wait_until(lambda: client.llen("rhai_dramatiq:rhai-circle") < 8, what="more to be fetched with it")

    start_worker("circle", "--threads", "1", env=ENGINE)

    assert [dispatcher.result(task)["output"] for task in quick] == ["1"] * len(quick)
    assert dispatcher.status("long") == "processing"
