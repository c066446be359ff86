"""Batches of quick tasks, in this process, against a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import dramatiq
import pytest

from bridge.circle import CircleBridge
from rhai_tasks import Client, Engine, Limits, Settings, current_task
from rhai_tasks.errors import RhaiSystemMemoryError
from rhai_tasks.protocol import changes_key, completed, queue_name, state_channel
from rhai_tasks.queue.batch import RunBatch
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.consumer import TaskConsumer
from rhai_tasks.worker.batches import Batches
from rhai_tasks.worker.shortage import Shortage
from tests.conftest import FINAL, Dispatcher, wait_until
from tests.own_worker import worker_of

QUEUE = queue_name("c")
MANY = 200


def fill(dispatcher: Dispatcher, settings: Settings, client: Any, scripts: list[str]) -> None:
    """Submit tasks `t0`, `t1`... by different callers, and move them into the circle's queue in this order."""
    for number, script in reversed(list(enumerate(scripts))):
        dispatcher.submit("c", f"t{number}", script, callerId=f"caller {number}")
    bridge = CircleBridge(settings, "c", client)
    while client.llen("rhai_tasks:c"):
        bridge.forward(0)
    bridge.close()


def waiting_engine() -> tuple[Engine, threading.Event]:
    """Make an engine with a function that waits for an event."""
    engine, end = Engine(), threading.Event()

    @engine.function
    def wait() -> None:
        assert end.wait(60)

    return engine, end


def is_processing(dispatcher: Dispatcher, number: int) -> bool:
    return dispatcher.status(f"t{number}") == "processing"


def have_ended(client: Any, keys: list[str]) -> bool:
    return all(client.hget(key, "status") in FINAL for key in keys)


@pytest.fixture
def settings(server_url: str) -> Settings:
    return Settings(redis_url=server_url, threads=4, buffer=1000)


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Collect the sizes of the batches that threads run."""
    sizes: list[int] = []
    run = Engine.run_batch

    def counted(engine: Engine, batch: Any, **options: Any) -> Any:
        sizes.append(batch.left)
        return run(engine, batch, **options)

    monkeypatch.setattr(Engine, "run_batch", counted)
    return sizes


def test_quick_tasks_run_in_batches_each_as_its_own_caller(
    dispatcher: Dispatcher, settings: Settings, client: Any, batches: list[int]
) -> None:
    fill(dispatcher, settings, client, ["`${CALLER_ID} in ${CONTEXT_ID}`"] * MANY)

    with worker_of(settings, Engine()):
        outputs = [dispatcher.result(f"t{number}")["output"] for number in range(MANY)]

    assert outputs == [f"caller {number} in c" for number in range(MANY)]
    assert max(batches) > 10


def test_a_host_function_sees_the_task_that_called_it(
    dispatcher: Dispatcher, settings: Settings, client: Any, batches: list[int]
) -> None:
    engine = Engine()

    @engine.function
    def whose() -> str:
        task = current_task()
        return f"{task.id} {task.caller_id} {task.circle} {task.delivery}"

    fill(dispatcher, settings, client, ["whose()"] * MANY)

    with worker_of(settings, engine):
        outputs = [dispatcher.result(f"t{number}")["output"] for number in range(MANY)]

    assert outputs == [f"t{number} caller {number} c 1" for number in range(MANY)]
    assert max(batches) > 10


def test_none_waits_behind_a_slow_script_and_it_is_marked_as_processing(
    dispatcher: Dispatcher, settings: Settings, client: Any, batches: list[int]
) -> None:
    engine, end = waiting_engine()
    slow = {3, 20, 21}
    fill(dispatcher, settings, client, ["wait()" if number in slow else "1" for number in range(MANY)])

    with worker_of(settings, engine) as broker:
        for number in set(range(MANY)) - slow:
            assert dispatcher.result(f"t{number}")["output"] == "1"
        for number in slow:
            wait_until(partial(is_processing, dispatcher, number))
        assert {task.task_id for task in broker.writer.running.tasks()} == {f"t{number}" for number in slow}
        end.set()
        assert [dispatcher.result(f"t{number}")["output"] for number in slow] == [""] * len(slow)
    assert max(batches) > 10


def test_where_the_system_has_no_memory_the_rest_of_a_batch_goes_back_and_its_thread_pauses(
    dispatcher: Dispatcher, settings: Settings, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[str] = []
    released: list[int] = []
    monkeypatch.setattr(Shortage, "pause", lambda *_: pauses.append(threading.current_thread().name))
    end, release = Batches._end, RunBatch.release

    def count_released(batch: RunBatch) -> None:
        released.append(batch.left)
        release(batch)

    monkeypatch.setattr(RunBatch, "release", count_released)

    def without_memory(batches: Batches, batch: Any, runs: list[Any], ended: list[Any]) -> None:
        if not pauses:  # as the engine tells it
            ended[0] = (ended[0][0], RhaiSystemMemoryError("no room for a stack"), *ended[0][2:])
        end(batches, batch, runs, ended)

    monkeypatch.setattr(Batches, "_end", without_memory)
    # So slow that a batch ends its turn with the first one, and has a rest.
    fill(dispatcher, settings, client, ["sleep(0.01)"] * 30)

    with worker_of(replace(settings, threads=1), Engine()):
        assert [dispatcher.result(f"t{number}")["status"] for number in range(30)] == ["completed"] * 30
    assert max(released) > 0
    assert len(pauses) == 1
    assert "status-writer" not in pauses


def test_where_all_threads_run_slow_scripts_the_rest_of_their_batches_goes_back(
    dispatcher: Dispatcher, settings: Settings, client: Any
) -> None:
    engine, end = waiting_engine()
    fill(dispatcher, settings, client, ["wait()"] * 100)

    with worker_of(settings, engine) as broker:
        wait_until(lambda: len(broker.writer.running.runs()) == settings.threads)
        wait_until(lambda: client.scard(broker.keys(QUEUE).acks(broker.broker_id)) == settings.threads, within=20)
        assert client.llen(broker.keys(QUEUE).messages) == 100 - settings.threads
        end.set()
        assert all(dispatcher.result(f"t{number}")["output"] == "" for number in range(100))


def test_a_worker_that_stops_begins_no_further_task_of_a_batch(
    dispatcher: Dispatcher, settings: Settings, client: Any
) -> None:
    engine, began, end = Engine(), threading.Event(), threading.Event()

    @engine.function
    def wait() -> None:
        began.set()
        assert end.wait(60)
        time.sleep(0.01)  # longer than a batch runs before the worker is asked again

    one = Settings(redis_url=settings.redis_url, threads=1, buffer=1000)
    fill(dispatcher, one, client, ["wait()", *["1"] * 30])

    with worker_of(one, engine) as broker:
        assert began.wait(60)
        broker.context.draining.set()
        end.set()

    assert dispatcher.status("t0") == "completed"
    assert {dispatcher.status(f"t{number}") for number in range(1, 31)} == {"pending"}
    assert client.llen(broker.keys(QUEUE).messages) == 30


def test_each_ending_of_a_batch_is_that_of_a_single_run(
    dispatcher: Dispatcher, settings: Settings, client: Any, batches: list[int]
) -> None:
    engine = Engine(limits=Limits(timeout=0.2))

    @engine.function
    def fail() -> None:
        raise ValueError("no")

    scripts = 4 * ["1", "throw 1", "1 +", "fail()", "CALLER_ID = 1", "[1.5, ()]"] + ["loop {}"]
    keys = [f"rhai_task_details:t{number}" for number in range(len(scripts))]
    endings = []
    for is_quick in (False, True):
        fill(dispatcher, settings, client, scripts)
        client.hset("rhai_task_details:t1", "script", b"\xff")
        client.hdel("rhai_task_details:t2", "script")
        with worker_of(settings, engine, batches=is_quick):
            wait_until(partial(have_ended, client, keys))
        endings.append([client.hmget(key, "status", "output", "error", "errorKind") for key in keys])
        client.delete(*keys)

    assert endings[0] == endings[1]
    assert max(batches) > 10


def test_an_applications_middleware_is_called_for_each_message(
    dispatcher: Dispatcher, settings: Settings, client: Any, batches: list[int]
) -> None:
    seen: list[str] = []

    class Counting(dramatiq.Middleware):
        def before_process_message(self, _: dramatiq.Broker, message: Any) -> None:
            seen.append(message.args[0])

    fill(dispatcher, settings, client, ["1"] * 50)

    with worker_of(settings, Engine(), Counting()):
        for number in range(50):
            dispatcher.result(f"t{number}")

    assert sorted(seen) == sorted(f"t{number}" for number in range(50))
    assert not batches


def test_a_cancelled_task_of_a_batch_ends_as_cancelled(
    dispatcher: Dispatcher, settings: Settings, client: Any, app: Client
) -> None:
    engine, began, end = Engine(), threading.Event(), threading.Event()

    @engine.function
    def wait() -> None:
        began.set()
        assert end.wait(60)

    one = Settings(redis_url=settings.redis_url, threads=1, buffer=1000)
    fill(dispatcher, one, client, ["wait()", *["1"] * 20])

    with worker_of(one, engine):
        assert began.wait(60)
        assert app.task("t7").cancel()
        end.set()
        endings = [dispatcher.result(f"t{number}") for number in range(21)]

    assert [number for number, ending in enumerate(endings) if ending["status"] == "error"] == [7]
    assert endings[7]["error"] == "cancelled"
    assert "output" not in endings[7]


# --- outputs that are written without a look at the details


@pytest.fixture
def held(settings: Settings, app: Client, client: Any, dispatcher: Dispatcher) -> Iterator[tuple[TaskConsumer, Any]]:
    """A consumer, and a simple task that it holds."""
    dispatcher.submit("c", "t", "1")
    CircleBridge(settings, "c", client).forward(0)
    broker = TaskBroker(settings)
    broker.declare_circle("c")
    consumer = broker.consume(QUEUE, 4, 100)
    broker.writer.start()
    next_message: Callable[[], Any] = consumer.__next__
    message = wait_until(next_message)
    assert message.run.delivery.changes is not None
    yield consumer, message
    broker.writer.stop()
    consumer.close()


def finish(held: tuple[TaskConsumer, Any], output: str = "42") -> None:
    consumer, message = held
    message.run.finish(completed(output), (time.time(), 1e-5, 1, 1))
    consumer.ack(message)


def test_it_is_written_with_the_time_and_told(held: tuple[TaskConsumer, Any], client: Any) -> None:
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(f"{state_channel('rhai_dramatiq')}rhai_task_details:t")
        assert channel.get_message(timeout=10) is None

        finish(held, "é")

        assert wait_until(lambda: channel.get_message(timeout=1))["data"] == "completed é"
    details = client.hgetall("rhai_task_details:t")
    assert (details["status"], details["output"]) == ("completed", "é")
    assert details["updatedAt"].endswith("Z")


def test_a_cancel_that_came_meanwhile_stands(held: tuple[TaskConsumer, Any], client: Any, app: Client) -> None:
    assert app.task("t").cancel()

    finish(held)

    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-c.msgs"))
    details = client.hgetall("rhai_task_details:t")
    assert (details["status"], details["error"]) == ("error", "cancelled")
    assert "output" not in details


def test_the_output_of_an_earlier_submission_is_dropped(
    held: tuple[TaskConsumer, Any], client: Any, app: Client
) -> None:
    app.submit("2", circle="c", task_id="t", unique=False)

    finish(held)

    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-c.msgs"))
    details = client.hgetall("rhai_task_details:t")
    assert (details["status"], details.get("output"), details["script"]) == ("pending", None, "2")


def test_details_that_were_deleted_stay_away_if_a_client_submitted_the_task(
    settings: Settings, client: Any, app: Client
) -> None:
    for _ in range(2):  # only a task that is submitted again has a submission
        app.submit("1", circle="c", task_id="t", unique=False)
    CircleBridge(settings, "c", client).forward(0)
    broker = TaskBroker(settings)
    broker.declare_circle("c")
    consumer = broker.consume(QUEUE, 4, 100)
    broker.writer.start()
    next_message: Callable[[], Any] = consumer.__next__
    message = wait_until(next_message)
    assert message.run.delivery.submission
    client.delete("rhai_task_details:t")

    finish((consumer, message))

    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-c.msgs"))
    assert not client.exists("rhai_task_details:t")
    broker.writer.stop()
    consumer.close()


@pytest.mark.parametrize("garbage", ["x", "-1", "9" * 30, "", ["a", "list"]], ids=repr)
def test_with_garbage_in_the_place_of_the_number_cancels_are_kept(
    settings: Settings, client: Any, app: Client, dispatcher: Dispatcher, garbage: Any
) -> None:
    key = changes_key("rhai_dramatiq")
    if isinstance(garbage, list):
        client.rpush(key, *garbage)
    else:
        client.set(key, garbage)
    dispatcher.submit("c", "t", "1")
    CircleBridge(settings, "c", client).forward(0)
    broker = TaskBroker(settings)
    broker.declare_circle("c")
    consumer = broker.consume(QUEUE, 4, 100)
    broker.writer.start()
    next_message: Callable[[], Any] = consumer.__next__
    message = wait_until(next_message)

    assert app.task("t").cancel()
    finish((consumer, message))

    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-c.msgs"))
    assert client.hget("rhai_task_details:t", "error") == "cancelled"
    broker.writer.stop()
    consumer.close()


def test_details_of_another_type_make_a_dead_letter(held: tuple[TaskConsumer, Any], client: Any) -> None:
    client.delete("rhai_task_details:t")
    client.set("rhai_task_details:t", "text")

    finish(held)

    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-c.XQ"))
    assert client.get("rhai_task_details:t") == "text"


def test_many_outputs_are_told_only_to_those_who_listen(
    dispatcher: Dispatcher, settings: Settings, client: Any
) -> None:
    fill(dispatcher, settings, client, ["1"] * MANY)
    client.config_resetstat()
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(f"{state_channel('rhai_dramatiq')}rhai_task_details:t{MANY - 1}")
        with worker_of(settings, Engine()):
            wait_until(lambda: (channel.get_message(timeout=1) or {}).get("data") == "completed 1")
            wait_until(lambda: all(dispatcher.status(f"t{number}") in FINAL for number in range(MANY)))
    assert client.info("commandstats")["cmdstat_publish"]["calls"] < MANY / 2


def test_who_listens_to_a_pattern_hears_of_all(dispatcher: Dispatcher, settings: Settings, client: Any) -> None:
    fill(dispatcher, settings, client, ["1"] * MANY)
    with client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.psubscribe(f"{state_channel('rhai_dramatiq')}*")
        heard: set[str] = set()
        with worker_of(settings, Engine()):

            def hear() -> bool:
                message = channel.get_message(timeout=1)
                if message and message["data"] == "completed 1":
                    heard.add(message["channel"])
                return len(heard) == MANY

            wait_until(hear)
