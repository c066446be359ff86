"""A limit of how many tasks wait: every way to submit one respects it, and what is submitted elsewhere counts."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest
from starlette.testclient import TestClient

from rhai_tasks import AsyncClient, Client, ScriptActor, Settings
from rhai_tasks.errors import QueueFull
from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import QueueKeys, Quota, Rule, queue_name
from rhai_tasks.web.api.keys import SCOPES, ApiKeys
from rhai_tasks.web.app import make_app
from tests.conftest import Dispatcher, Worker, wait_until
from tests.integration.conftest import Run
from tests.web_page import Browser, serve

CIRCLE = "circle"
KEYS = QueueKeys("rhai_dramatiq", queue_name(CIRCLE))
FULL = "task.s. of caller 'a' may wait"

Submit = Callable[[], object]


def limit(url: str, scope: Any, waiting: int) -> None:
    with Queues(Settings(redis_url=url), "me") as queues:
        queues.rules.set(CIRCLE, Rule("limit", scope, quota=Quota(waiting=waiting)))


@contextmanager
def actor(url: str) -> Iterator[ScriptActor]:
    script_actor = ScriptActor(url, circle=CIRCLE, caller_id="a")
    try:
        yield script_actor
    finally:
        script_actor.broker.close()


def expect_queue_full(submit: Submit) -> None:
    with pytest.raises(QueueFull, match=FULL):
        submit()


def by_client(url: str) -> None:
    with Client(url, circle=CIRCLE, caller_id="a") as app:
        expect_queue_full(lambda: app.submit("1"))


def by_many(url: str) -> None:
    with Client(url, circle=CIRCLE, caller_id="a") as app:
        expect_queue_full(lambda: app.submit_many(["1"]))


def by_client_to_dramatiq(url: str) -> None:
    with Client(url, circle=CIRCLE, caller_id="a") as app:
        expect_queue_full(lambda: app.submit("1", via="urgent"))
        expect_queue_full(lambda: app.submit("1", via="dramatiq", delay=60.0))


def by_async_client(url: str) -> None:
    async def submit() -> None:
        async with AsyncClient(url, circle=CIRCLE, caller_id="a") as app:
            await app.submit("1")

    expect_queue_full(lambda: asyncio.run(submit()))


def by_actor(url: str) -> None:
    with actor(url) as run_script:
        expect_queue_full(lambda: run_script.send("1"))
        expect_queue_full(lambda: run_script.send_with_options(args=("1",), delay=60_000))
        expect_queue_full(lambda: run_script.send_with_options(args=("1",), urgent=True))


def by_group(url: str) -> None:
    with actor(url) as run_script:
        scripts = dramatiq.group([run_script.message("1")], broker=run_script.broker)
        expect_queue_full(scripts.run)


def by_pipeline(url: str) -> None:
    with actor(url) as run_script:
        steps = dramatiq.pipeline([run_script.message("1"), run_script.message("2")], broker=run_script.broker)
        expect_queue_full(steps.run)


def by_page(url: str) -> None:
    with serve(url) as site:
        page = Browser(site).send("/submit", "/submit", 429, script="1", circle=CIRCLE, caller="a")
    assert "no more than 2 task(s) of caller 'a' may wait" in page.text


def by_api(url: str) -> None:
    with Queues(Settings(redis_url=url)) as queues:
        key = ApiKeys(queues.client, "rhai_dramatiq").make("one", SCOPES)
    app = make_app(Settings(redis_url=url), token=None, read_only=False, host="127.0.0.1", port=8020, has_api=True)
    with TestClient(app, base_url="http://localhost", headers={"Authorization": f"Bearer {key}"}) as site:
        task = {"circle": CIRCLE, "callerId": "a", "script": "1"}
        for answer in (site.post("/v1/tasks", json=task), site.post("/v1/batches", json={"tasks": [task]})):
            assert (answer.status_code, answer.json()["code"]) == (429, "queue-full")


WAYS = [
    by_client,
    by_many,
    by_client_to_dramatiq,
    by_async_client,
    by_actor,
    by_group,
    by_pipeline,
    by_page,
    by_api,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_way_to_submit_exceeds_the_limit(server_url: str, client: Any, way: Callable[[str], None]) -> None:
    limit(server_url, "callers", 2)
    with actor(server_url) as run_script, Client(server_url, circle=CIRCLE, caller_id="a") as app:
        run_script.send("1")
        app.submit("1")
    before = sorted(client.keys("rhai_task_details:*"))

    way(server_url)

    assert sorted(client.keys("rhai_task_details:*")) == before
    assert (client.llen(f"rhai_tasks:{CIRCLE}"), client.llen(KEYS.messages)) == (1, 1)
    assert client.hlen(KEYS.bodies) == 1


def test_the_commands_that_submit_say_why_they_do_not(server_url: str, client: Any, run: Run) -> None:
    ended = {"script": "1", "status": "completed", "output": "1", "circle": CIRCLE, "callerId": "a"}
    client.hset("rhai_task_details:ended", mapping=ended)
    limit(server_url, "callers", 1)
    assert run("submit", "--caller-id", "a", "1").returncode == 0

    for arguments in (("submit", "--caller-id", "a", "1"), ("resubmit", "--where", "status=completed", "--yes")):
        refused = run(*arguments)
        assert refused.returncode == 1
        assert "no more than 1 task(s) of caller 'a' may wait" in refused.stderr
    assert client.llen(f"rhai_tasks:{CIRCLE}") == 1


def test_the_message_of_an_actor_waits_no_more_once_it_has_begun(
    server_url: str, client: Any, start_worker: Callable[..., Worker], app: Client
) -> None:
    limit(server_url, "callers", 1)
    limit(server_url, "circle", 1)
    start_worker(CIRCLE)
    with actor(server_url) as run_script:
        for _ in range(5):
            message = run_script.send("40 + 2")
            assert app.task(message.args[0]).result(timeout=60) == "42"
    assert not client.exists(KEYS.waiting("a"), KEYS.waiting(None))


@pytest.mark.parametrize("order", [(), ("--fair",)], ids=["in the queue", "in lines"])
def test_tasks_of_foreign_dispatchers_count_for_the_circle_wherever_they_wait(
    server_url: str,
    client: Any,
    dispatcher: Dispatcher,
    start_worker: Callable[..., Worker],
    order: tuple[str, ...],
) -> None:
    limit(server_url, "circle", 6)
    with Queues(Settings(redis_url=server_url), "me") as queues:
        queues.rules.set(CIRCLE, Rule("pause", "circle"))
    for number in range(6):
        dispatcher.submit(CIRCLE, f"t{number}", "1", callerId=f"k{number}")
    start_worker(CIRCLE, *order)
    wait_until(lambda: client.llen(f"rhai_tasks:{CIRCLE}") == 0, what="the bridge to take them")

    with actor(server_url) as run_script, pytest.raises(QueueFull, match="of the circle may wait") as caught:
        run_script.send("1")
    assert caught.value.caller is None


def test_a_further_step_of_a_pipeline_is_not_refused(
    server_url: str, start_worker: Callable[..., Worker], app: Client, client: Any
) -> None:
    with actor(server_url) as run_script:
        steps = [run_script.message("1"), run_script.message("INPUT + 1")]
        dramatiq.pipeline(steps, broker=run_script.broker).run()
        limit(server_url, "callers", 1)
        run_script.send_with_options(args=("1",), delay=3_600_000)
        expect_queue_full(lambda: run_script.send("1"))
    start_worker(CIRCLE)
    wait_until(lambda: client.exists(f"rhai_task_details:{steps[1].args[0]}"), what="the step to come")
    assert app.task(steps[1].args[0]).result(timeout=60) == "11"
