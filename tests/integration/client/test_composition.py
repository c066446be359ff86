"""Scripts as messages: sent, delayed, in groups and in pipelines with actors in Python."""

from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq import group, pipeline
from dramatiq.brokers.redis import RedisBroker

from rhai_tasks import Client, ScriptActor, ScriptError, TaskNotFound
from tests.conftest import Worker, wait_until


@pytest.fixture
def run_script(server_url: str, app: Client) -> Iterator[ScriptActor]:
    actor = ScriptActor(server_url, circle="circle", caller_id="me")
    yield actor
    actor.broker.close()


@pytest.fixture
def python_broker(server_url: str, app: Client) -> Iterator[RedisBroker]:
    """A broker for actors in Python, and a worker that runs them in this process."""
    broker = RedisBroker(url=server_url, namespace="rhai_dramatiq")  # type: ignore[no-untyped-call]
    yield broker
    broker.close()


@pytest.fixture
def received(python_broker: RedisBroker) -> Iterator[list[object]]:
    """What the actors `store` was sent; `load` returns its argument doubled."""
    received: list[object] = []
    dramatiq.actor(lambda number: number * 2, actor_name="load", broker=python_broker)  # type: ignore[call-overload]
    dramatiq.actor(received.append, actor_name="store", broker=python_broker)  # type: ignore[call-overload]
    worker = dramatiq.Worker(python_broker, worker_threads=1, worker_timeout=20)
    worker.start()
    yield received
    worker.stop()


def test_a_script_is_a_message_to_send(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]
) -> None:
    message = run_script.send("`${CALLER_ID} in ${CONTEXT_ID}`")
    named = run_script.send("CALLER_ID", caller_id="you", task_id="mine")
    assert app.task("mine").status() == "pending"

    start_worker("circle")

    assert app.task(message.args[0]).result(timeout=20) == "me in circle"
    assert app.task(named.args[0]).result(timeout=20) == "you"
    assert named.args[0] == "mine"


def test_a_message_with_a_delay_is_not_in_a_workers_memory(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    message = run_script.send_with_options(args=("5",), delay=300)

    assert client.zcard("rhai_dramatiq:rhai-circle.delayed_messages") == 1
    start_worker("circle")
    assert app.task(message.args[0]).result(timeout=20) == "5"


def test_a_message_may_have_ten_thousand_fields(app: Client, run_script: ScriptActor) -> None:
    fields = {f"field {number}": str(number) for number in range(10_000)}

    message = run_script.send("1", fields=fields)

    assert app.task(message.args[0]).details().items() > fields.items()


def test_an_urgent_message_goes_before_the_others(run_script: ScriptActor, client: Any) -> None:
    run_script.send("1")
    urgent = run_script.send_with_options(args=("2",), urgent=True)

    assert client.lindex("rhai_dramatiq:rhai-circle", 0) == urgent.options["redis_message_id"]


def test_a_group_of_scripts_is_awaited(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    scripts = group([run_script.message(f"{number} * 2") for number in range(20)], broker=run_script.broker)

    scripts.run()

    tasks = [app.task(message.args[0]) for message in scripts.children]
    assert sorted(int(task.result()) for task in app.as_completed(tasks, timeout=20)) == list(range(0, 40, 2))


def test_a_pipeline_leads_from_python_through_scripts_to_python(
    app: Client,
    run_script: ScriptActor,
    python_broker: RedisBroker,
    received: list[object],
    start_worker: Callable[..., Worker],
) -> None:
    start_worker("circle")
    load, store = python_broker.get_actor("load"), python_broker.get_actor("store")
    script, another = run_script.message("INPUT + 2"), run_script.message("`<${INPUT}>`")

    pipeline([load.message(20), script, another, store.message()], broker=python_broker).run()

    wait_until(lambda: received, within=20)
    assert received == ["<42>"]
    assert app.task(script.args[0]).result() == "42"


def test_a_script_that_fails_ends_its_pipeline(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle")
    first, second = run_script.message("throw 1"), run_script.message("2")

    pipeline([first, second], broker=run_script.broker).run()

    with pytest.raises(ScriptError):
        app.task(first.args[0]).result(timeout=20)
    with pytest.raises(TaskNotFound):
        app.task(second.args[0]).status()
    wait_until(lambda: not client.exists("rhai_dramatiq:rhai-circle.msgs"))


def test_a_step_can_leave_out_what_came_before(
    app: Client, run_script: ScriptActor, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    second = run_script.message_with_options(args=("is_def_var(`INPUT`)",), pipe_ignore=True)

    pipeline([run_script.message("1"), second], broker=run_script.broker).run()

    def result() -> str | None:
        try:
            return app.task(second.args[0]).result(timeout=20)
        except TaskNotFound:  # the first step has not ended
            return None

    assert wait_until(result) == "false"


def test_what_is_more_than_a_task_stays_in_dramatiq_when_the_bridge_stops(
    app: Client, run_script: ScriptActor, spawn: Callable[..., Worker], client: Any
) -> None:
    pipeline([run_script.message("1"), run_script.message("2")], broker=run_script.broker).run()
    plain = app.submit("3")
    bridge = spawn("rhai-bridge", "--circle", "circle")
    wait_until(lambda: client.llen("rhai_dramatiq:rhai-circle") == 2)

    assert bridge.stop() == 0

    assert client.lrange("rhai_tasks:circle", 0, -1) == [plain.id]
    assert client.llen("rhai_dramatiq:rhai-circle") == 1


def test_our_workers_do_not_follow_the_queues_of_other_actors(
    run_script: ScriptActor, python_broker: RedisBroker, client: Any
) -> None:
    dramatiq.actor(lambda: 1, actor_name="load", broker=python_broker)  # type: ignore[call-overload]

    pipeline([python_broker.get_actor("load").message(), run_script.message("1")], broker=run_script.broker).run()

    assert client.llen("rhai_dramatiq:default") == 1
    assert not client.exists("rhai_dramatiq:__queues__")


def test_scripts_are_not_called(run_script: ScriptActor) -> None:
    with pytest.raises(NotImplementedError, match="send a message"):
        run_script("1")
