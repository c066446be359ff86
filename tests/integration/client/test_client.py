"""The client against a real server and a real worker."""

import asyncio
import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis

from rhai_tasks import AsyncClient, Client, Status, TaskSpec
from rhai_tasks.errors import (
    ClientClosed,
    ConfigurationError,
    ScriptError,
    ServerError,
    ServerUnavailable,
    TaskCancelled,
    TaskExists,
    TaskMalformed,
    TaskNotFound,
    TaskTimeout,
)
from tests.conftest import Dispatcher, Worker, wait_until

ENGINE = ("--engine", "tests.engine_for_tests:make_engine")


@pytest.fixture
def worker(start_worker: Callable[..., Worker], client: Any) -> Worker:
    assert client.ping()
    return start_worker("circle", *ENGINE)


# --- submit, follow, get results


def test_a_script_is_submitted_and_its_result_awaited(app: Client, worker: Worker) -> None:
    task = app.submit("40 + 2")

    assert task.result(timeout=60) == "42"
    assert task.status() is Status.COMPLETED
    assert task.result() == "42"


def test_a_failed_script_raises_its_message_position_and_calls(app: Client, worker: Worker) -> None:
    task = app.submit('fn f(x) {\n  throw "boom" }\nf(1)')

    with pytest.raises(ScriptError, match="^Runtime error: boom") as caught:
        task.result(timeout=60)

    assert (caught.value.line, caught.value.column) == (2, 3)
    assert caught.value.frames == (("f", 3, 1),)
    assert caught.value.task_id == task.id


KINDS = {
    "throw 1": "Runtime",
    "1 +": "Parsing",
    "nothing": "VariableNotFound",
    "[][1]": "ArrayBounds",
    "1 / 0": "Arithmetic",
    'fail("no")': "Host",
    "let x = []; loop { x.push(x) }": "OutOfMemory",
    "throw " + "`x`.pad(9000, 'x')": "Runtime",  # too long to be published with the end
}


def test_the_error_of_a_task_says_its_kind_however_the_client_learns_of_it(app: Client, worker: Worker) -> None:
    tasks = [app.submit(script) for script in KINDS]
    kinds = [app.submit("sleep(0.5); throw 1"), *tasks]  # the first is waited for, the others are read

    def kind_of(client: Client, task_id: str) -> str:
        with pytest.raises(ScriptError) as caught:
            client.task(task_id).result(timeout=60)
        assert pickle.loads(pickle.dumps(caught.value)).kind == caught.value.kind
        return caught.value.kind

    assert [kind_of(app, task.id) for task in kinds] == ["Runtime", *KINDS.values()]
    assert [kind_of(app, task.id) for task in kinds] == ["Runtime", *KINDS.values()]


def test_the_kind_of_an_error_does_not_outlive_it(app: Client, worker: Worker, dispatcher: Dispatcher) -> None:
    assert dispatcher.result(dispatcher.submit("circle", "t", "throw 1"))["errorKind"] == "Runtime"
    dispatcher.submit("circle", "t", "2")
    wait_until(lambda: dispatcher.status("t") == "completed")
    assert "errorKind" not in dispatcher.details("t")

    assert dispatcher.result(dispatcher.submit("circle", "t", "throw 1"))["errorKind"] == "Runtime"
    dispatcher.submit("circle", "t", "loop {}")
    wait_until(lambda: dispatcher.status("t") == "processing")
    assert app.cancel("t")
    wait_until(lambda: dispatcher.details("t")["error"] == "cancelled")
    assert "errorKind" not in dispatcher.details("t")


def test_an_error_of_another_worker_has_no_kind(app: Client, client: Any) -> None:
    client.hset("rhai_task_details:t", mapping={"status": "error", "error": "Runtime error: 1"})

    with pytest.raises(ScriptError) as caught:
        app.task("t").result(timeout=60)

    assert caught.value.kind == ""


def test_a_timeout_leaves_the_task_running(app: Client, worker: Worker) -> None:
    task = app.submit("sleep(1); 5")

    with pytest.raises(TaskTimeout, match="not ended within 0.1 s") as caught:
        task.result(timeout=0.1)

    assert isinstance(caught.value, TimeoutError)
    assert task.result(timeout=60) == "5"


def test_statuses_are_followed(app: Client, start_worker: Callable[..., Worker]) -> None:
    task = app.submit("sleep(1)")
    assert task.status() is Status.PENDING

    start_worker("circle")

    wait_until(lambda: task.status() is Status.PROCESSING)
    assert not task.status().is_final
    assert task.result(timeout=60) == ""


@pytest.mark.parametrize("ask", ["status", "details", "result", "cancel"])
def test_an_unknown_task_is_not_found(app: Client, ask: str) -> None:
    task = app.task("nobody's")

    with pytest.raises(TaskNotFound, match='task "nobody\'s" has no details'):
        getattr(task, ask)()


def test_a_status_that_nobody_knows_is_said_to_be_one(app: Client, client: Any) -> None:
    client.hset("rhai_task_details:t", "status", "odd")

    with pytest.raises(TaskMalformed, match="task 't' has an unknown status: 'odd'"):
        app.task("t").status()


def test_options_stand_in_the_details(app: Client, client: Any) -> None:
    task = app.submit(
        "1",
        circle="other",
        caller_id="me",
        context_id="here",
        task_id="mine",
        fields={"replyToQueue": "answers"},
    )

    assert task.id == "mine"
    details = task.details()
    assert details.pop("createdAt") == details.pop("updatedAt")
    assert details == {
        "script": "1",
        "status": "pending",
        "callerId": "me",
        "contextId": "here",
        "circle": "other",
        "replyToQueue": "answers",
        "keepFinished": "60",
    }
    assert client.lrange("rhai_tasks:other", 0, -1) == ["mine"]


def test_named_fields_of_a_task_are_read_and_no_others(app: Client) -> None:
    task = app.submit("1", context_id="context")

    assert task.details("script", "contextId", "output") == {"script": "1", "contextId": "context"}
    with pytest.raises(TaskNotFound):
        task.details("output")
    with pytest.raises(TaskNotFound):
        app.task("no such task").details("script")


def test_a_task_may_have_ten_thousand_fields(app: Client) -> None:
    fields = {f"field {number}": str(number) for number in range(10_000)}

    first, second = app.submit_many([TaskSpec("1", fields=fields, circle="circle"), "2"])

    assert first.details().items() > fields.items()
    assert second.details()["script"] == "2"


def test_a_field_of_the_clients_own_is_refused(app: Client, client: Any) -> None:
    with pytest.raises(ValueError, match="'status'"):
        app.submit("1", fields={"status": "completed"})

    assert client.dbsize() == 0


def test_a_way_that_does_not_exist_is_refused(app: Client) -> None:
    with pytest.raises(ValueError, match="via='express': expected one of native, dramatiq, urgent"):
        app.submit("1", via="express")  # type: ignore[arg-type]  # that is the point


def test_a_task_needs_a_circle(server_url: str) -> None:
    with Client(server_url) as app, pytest.raises(ValueError, match="no circle"):
        app.submit("1")


def test_a_unique_id_is_submitted_once(app: Client, client: Any) -> None:
    app.submit("1", task_id="t", unique=True)

    with pytest.raises(TaskExists, match="task 't' exists"):
        app.submit("2", task_id="t", unique=True)

    assert app.task("t").details()["script"] == "1"
    assert client.llen("rhai_tasks:circle") == 1


def test_an_id_submitted_again_runs_anew(app: Client, worker: Worker) -> None:
    assert app.submit("1", task_id="t").result(timeout=60) == "1"

    assert app.submit('throw "2"', task_id="t", delay=60).details().get("output") is None
    assert app.submit("3", task_id="t").result(timeout=60) == "3"


def test_many_scripts_are_submitted_in_order_from_any_iterable(app: Client, client: Any) -> None:
    tasks = app.submit_many(str(number) for number in range(1200))

    assert client.lrange("rhai_tasks:circle", 0, -1) == [task.id for task in reversed(tasks)]
    assert app.task(tasks[700].id).details()["script"] == "700"


def test_many_tasks_may_have_arguments_of_their_own(app: Client, client: Any) -> None:
    one, two, three = app.submit_many(["1", TaskSpec("2", circle="other", task_id="two"), "3"])

    assert client.lrange("rhai_tasks:circle", 0, -1) == [three.id, one.id]
    assert client.lrange("rhai_tasks:other", 0, -1) == [two.id] == ["two"]


@pytest.mark.parametrize("scripts", ["40 + 2", ["1", 2], ["1", None]], ids=["a single text", "a number", "None"])
def test_what_is_no_script_is_refused(app: Client, client: Any, scripts: Any) -> None:
    with pytest.raises(TypeError, match="expected a"):
        app.submit_many(scripts)

    assert client.dbsize() == 0


def test_nothing_to_submit_is_fine(app: Client) -> None:
    assert app.submit_many([]) == []
    assert list(app.as_completed([])) == []


def test_tasks_are_yielded_as_they_end(app: Client, worker: Worker) -> None:
    slow, quick = app.submit_many(["sleep(0.5); 1", "2"])

    ended = [task.id for task in app.as_completed([slow, quick, slow], timeout=60)]

    assert ended == [quick.id, slow.id, slow.id]


def test_as_completed_names_how_many_have_not_ended(app: Client, worker: Worker) -> None:
    quick = app.submit("1")
    quick.result(timeout=60)
    ended = []

    with pytest.raises(TaskTimeout, match="and 1 more not ended within 0.5 s"):
        ended += list(app.as_completed([quick, *app.submit_many(["sleep(5)", "sleep(5)"])], timeout=0.5))


def test_tasks_of_other_dispatchers_are_followed_too(app: Client, dispatcher: Dispatcher, worker: Worker) -> None:
    dispatcher.submit("circle", "theirs", "sleep(0.2); 5")

    assert app.task("theirs").result(timeout=60) == "5"


def test_results_of_a_worker_that_only_writes_the_hash_arrive(app: Client, client: Any) -> None:
    task = app.submit("5")

    def original_worker() -> None:
        client.blpop("rhai_tasks:circle")
        channel = f"rhai_dramatiq:__state__:rhai_task_details:{task.id}"
        wait_until(lambda: client.pubsub_numsub(channel) == [(channel, 1)])  # it is awaited
        client.hset(f"rhai_task_details:{task.id}", mapping={"status": "completed", "output": "5"})

    def wait_for_others() -> None:
        """Keep the client busy: what it waits for must not be forgotten over what it is asked for anew."""
        while not arrived.is_set():
            with pytest.raises(TaskTimeout):
                app.submit("1", circle="nobody's").result(timeout=0.01)

    arrived = threading.Event()
    threads = [threading.Thread(target=target) for target in (original_worker, wait_for_others)]
    for thread in threads:
        thread.start()
    try:
        assert task.result(timeout=60) == "5"
    finally:
        arrived.set()
        for thread in threads:
            thread.join()


def test_a_result_whose_details_are_to_be_deleted_arrives(
    app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle", "--delete-finished")

    task = app.submit("sleep(0.3); 5")

    assert task.result(timeout=60) == "5"
    assert 50_000 < client.pttl(f"rhai_task_details:{task.id}") <= 60_000


@pytest.mark.parametrize("size", [1, 4096, 4097, 100_000])
def test_a_worker_that_deletes_what_has_ended_keeps_it_for_our_clients(
    app: Client, start_worker: Callable[..., Worker], size: int
) -> None:
    start_worker("circle", "--delete-finished")
    script = f'let s = ""; s.pad({size}, "x"); s'

    for _ in range(30):
        assert app.submit(script).result(timeout=60) == "x" * size
    late = app.submit(script)
    wait_until(lambda: late.status() is Status.COMPLETED)
    assert late.result() == "x" * size
    assert app.submit("throw 1").cancel() in {True, False}


@pytest.mark.parametrize(("expire", "ttl"), [(100.0, range(95_000, 100_001)), (0, [-1]), (0.001, [-2])])
def test_how_long_a_client_keeps_its_tasks_counts_also_where_a_worker_deletes(
    start_worker: Callable[..., Worker], server_url: str, client: Any, expire: float, ttl: Any
) -> None:
    start_worker("circle", "--delete-finished")
    with Client(server_url, circle="circle", expire_finished=expire) as app:
        task = app.submit("1", fields={"replyToQueue": "answers"})
    assert client.blpop(["answers"], 60)

    wait_until(lambda: client.pttl(f"rhai_task_details:{task.id}") in ttl)


@pytest.mark.parametrize("fields", [{}, {"expireFinished": "soon"}, {"keepFinished": ""}])
def test_what_other_dispatchers_submit_is_deleted_at_once(
    start_worker: Callable[..., Worker], dispatcher: Dispatcher, client: Any, fields: dict[str, str]
) -> None:
    start_worker("circle", "--delete-finished")

    dispatcher.submit("circle", "t", "1", replyToQueue="answers", **fields)

    assert client.blpop(["answers"], 60)
    assert not client.exists("rhai_task_details:t")


def test_an_output_too_long_to_be_told_is_read(app: Client, worker: Worker) -> None:
    assert app.submit('let s = ""; s.pad(100_000, "é"); s').result(timeout=60) == "é" * 100_000


def test_ten_thousand_tasks_are_awaited_over_a_few_connections(
    app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    before = len(client.client_list())
    tasks = app.submit_many(str(number) for number in range(10_000))
    outputs: list[int] = []

    def collect() -> None:
        outputs.extend(int(task.result()) for task in app.as_completed(tasks, timeout=100))

    thread = threading.Thread(target=collect)
    thread.start()
    wait_until(lambda: int(client.info("stats")["pubsub_channels"]) >= 10_000)
    connections = len(client.client_list()) - before
    start_worker("circle")
    thread.join()

    assert sorted(outputs) == list(range(10_000))
    assert connections <= 3  # commands, the subscription, polls


# --- outages, retries, closing


def test_a_submit_whose_reply_got_lost_is_done_once(app: Client, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = app._sender._run
    lost = [redis.ConnectionError("cut off"), redis.TimeoutError("too late")]

    def lose_replies(redis_client: Any, request: Any) -> Any:
        reply = run(redis_client, request)
        if lost:
            raise lost.pop()
        return reply

    monkeypatch.setattr(app._sender, "_run", lose_replies)
    task = app.submit("1", task_id="t", unique=True)

    assert not lost
    assert client.lrange("rhai_tasks:circle", 0, -1) == [task.id]


def test_what_the_server_remembers_of_submits_stays_small(app: Client, client: Any) -> None:
    for _ in range(50):
        app.submit("1")

    (key,) = client.keys("rhai_dramatiq:__submits__.*")
    assert client.zcard(key) == 1
    assert client.pttl(key) > 0


def test_a_server_that_stays_away_is_an_error_after_a_while() -> None:
    with Client("redis://127.0.0.1:1/", circle="c", retry_timeout=0.2) as app:
        with pytest.raises(ServerUnavailable, match="Redis at redis://127.0.0.1:1/ does not answer"):
            app.submit("1")
        with pytest.raises(ServerUnavailable):
            app.task("t").result()


def test_a_server_that_refuses_is_an_error_at_once(app: Client, client: Any) -> None:
    client.set("rhai_tasks:circle", "no list")

    with pytest.raises(ServerError, match="WRONGTYPE"):
        app.submit("1")


def test_a_wrong_password_is_an_error_at_once(server_url: str) -> None:
    with Client(server_url.replace("redis://", "redis://nobody:secret@"), circle="c") as app:
        with pytest.raises(ConfigurationError, match="Check user and password") as caught:
            app.submit("1")
        with pytest.raises(ConfigurationError):
            app.task("t").result()
    assert "secret" not in str(caught.value)


@pytest.fixture
def await_closed(client: Any) -> Callable[[], None]:
    """Wait until all connections are closed that were opened in the test; those of a test before may be closing."""
    before = {peer["id"] for peer in client.client_list()}

    def opened() -> list[dict[str, str]]:
        return [peer for peer in client.client_list() if peer["id"] not in before]

    def await_closed() -> None:
        with suppress(AssertionError):
            wait_until(lambda: not opened())
        assert opened() == []

    return await_closed


def test_closing_ends_waiting_and_leaves_nothing_behind(
    app: Client, client: Any, await_closed: Callable[[], None]
) -> None:
    before = set(threading.enumerate())
    task = app.submit("1")
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            task.result()
        except ClientClosed as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: int(client.info("stats")["pubsub_channels"]) >= 2)

    app.close()
    thread.join(60)

    assert len(errors) == 1
    assert set(threading.enumerate()) <= before
    await_closed()
    for call in (lambda: app.submit("1"), task.result, task.status):
        with pytest.raises(ClientClosed):
            call()
    app.close()


def test_a_client_that_is_forgotten_leaves_nothing_behind(server_url: str, await_closed: Callable[[], None]) -> None:
    before = set(threading.enumerate())
    app = Client(server_url, circle="circle")
    with pytest.raises(TaskTimeout):
        app.submit("1").result(timeout=0.1)

    del app
    gc.collect()

    wait_until(lambda: set(threading.enumerate()) <= before, what="its thread to end")
    await_closed()


def test_a_program_that_never_closes_its_client_ends_in_silence(server_url: str, client: Any) -> None:
    program = f"""if True:
        import os, sys
        from rhai_tasks import Client
        from rhai_tasks.errors import TaskTimeout
        app = Client({server_url!r}, circle="circle")
        try:
            app.submit("1").result(timeout=0.1)
        except TaskTimeout:
            print("waited", flush=True)
        if os.fork() == 0:
            sys.exit()
        os.wait()
    """
    ended = subprocess.run(
        [sys.executable, "-W", "default", "-c", program], capture_output=True, text=True, check=False, timeout=60
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "waited\n", "")


def test_threads_share_a_client(app: Client, worker: Worker) -> None:
    outputs: list[str] = []

    def ask(number: int) -> None:
        outputs.extend(app.submit(f"{number}").result(timeout=60) for _ in range(20))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outputs) == sorted(str(number) for number in range(8) for _ in range(20))


def test_a_fork_uses_its_parents_client(app: Client, worker: Worker) -> None:
    app.submit("1").result(timeout=60)

    child = os.fork()
    if not child:
        code = 1
        try:
            code = 0 if app.submit("2").result(timeout=60) == "2" else 1
            app.close()
        finally:
            os._exit(code)

    assert app.submit("3").result(timeout=60) == "3"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert app.submit("4").result(timeout=60) == "4"


def test_finished_tasks_keep_by_default_and_expire_where_the_client_says(
    app: Client, worker: Worker, server_url: str, client: Any
) -> None:
    kept = app.submit("1")
    with Client(server_url, circle="circle", expire_finished=100) as other:
        expiring = other.submit("2")
        expiring.result(timeout=60)
    kept.result(timeout=60)

    assert client.ttl(f"rhai_task_details:{kept.id}") == -1
    assert 0 < client.ttl(f"rhai_task_details:{expiring.id}") <= 100


def test_finished_tasks_expire_where_the_worker_says(
    app: Client, start_worker: Callable[..., Worker], client: Any
) -> None:
    start_worker("circle", "--expire-finished", "0.1")

    task = app.submit("1")
    assert task.result(timeout=60) == "1"

    wait_until(lambda: not client.exists(f"rhai_task_details:{task.id}"))
    with pytest.raises(TaskNotFound):
        app.task(task.id).result()


def test_host_functions_know_their_task(app: Client, worker: Worker) -> None:
    task = app.submit("who()", context_id="here")

    assert task.result(timeout=60) == f"{task.id} circle caller here 1"


def test_scripts_wait_for_coroutine_host_functions_side_by_side(app: Client, worker: Worker) -> None:
    tasks = app.submit_many(["ask(0.05)"] * 20)

    assert [task.result(timeout=60) for task in tasks] == [task.id for task in tasks]


def test_a_script_that_waits_for_a_coroutine_is_cancelled(app: Client, worker: Worker) -> None:
    task = app.submit("ask(60)")
    wait_until(lambda: task.status() is Status.PROCESSING)

    task.cancel()

    with pytest.raises(TaskCancelled):
        task.result(timeout=60)
    assert app.submit("ask(0)").result(timeout=60), "its process goes on"


# --- asyncio


def test_every_call_has_its_asyncio_twin(server_url: str, client: Any, worker: Worker) -> None:
    async def use() -> None:
        async with AsyncClient(server_url, circle="circle") as app:
            task = await app.submit("40 + 2")
            assert await task.result(timeout=60) == "42"
            assert await task.status() is Status.COMPLETED
            assert (await task.details())["output"] == "42"
            assert await task.details("output") == {"output": "42"}
            assert await app.task(task.id).result(timeout=60) == "42"

            tasks = await app.submit_many(["1", TaskSpec("2"), "throw 3"])
            ended = [task async for task in app.as_completed(tasks, timeout=60)]
            assert {task.id for task in ended} == {task.id for task in tasks}
            assert await tasks[1].result() == "2"
            with pytest.raises(ScriptError):
                await tasks[2].result()

            endless = await app.submit("loop {}")
            with pytest.raises(TaskTimeout):
                await endless.result(timeout=0.1)
            assert await endless.cancel()
            assert not await app.cancel(task.id)
            with pytest.raises(TaskNotFound):
                await app.task("nobody's").result()
        with pytest.raises(ClientClosed):
            await app.submit("1")
        with pytest.raises(ClientClosed):
            await endless.result()

    asyncio.run(use())


def test_a_cancelled_await_leaves_nothing_behind(server_url: str, await_closed: Callable[[], None]) -> None:
    async def use() -> None:
        async with AsyncClient(server_url, circle="circle") as app:
            task = await app.submit("1")
            waiting = asyncio.create_task(task.result())
            await asyncio.sleep(0.1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            gc.collect()
            assert not app._results._sinks
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(use())
    await_closed()


def test_closing_ends_awaiting(server_url: str, client: Any) -> None:
    async def use() -> None:
        app = AsyncClient(server_url, circle="circle")
        task = await app.submit("1")
        waiting = asyncio.create_task(task.result())
        await asyncio.sleep(0.1)
        await app.aclose()
        with pytest.raises(ClientClosed):
            await waiting

    asyncio.run(use())


def test_a_client_can_be_closed_at_any_moment(server_url: str, client: Any) -> None:
    assert client.ping()

    async def use(seconds: float) -> None:
        app = AsyncClient(server_url, circle="circle")
        waiting = asyncio.create_task((await app.submit("1")).result())
        await asyncio.sleep(seconds)
        async with asyncio.timeout(10):
            await app.aclose()
        with pytest.raises(ClientClosed):
            await waiting

    for number in range(300):  # about the time in which it connects, subscribes and looks
        asyncio.run(use(number % 60 * 0.0003))
