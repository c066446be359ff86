"""Numbers that no client can work with: one documented error each, before anything is asked of the server."""

import asyncio
import math
from datetime import timedelta
from typing import Any

import pytest

from rhai_tasks import AsyncClient, Client, ScriptActor, TaskSpec
from tests.commands import run_command

ODD: list[Any] = [math.nan, math.inf, -math.inf, -1, -1e-9, 1e300, 10**400, "", "soon", None, [], timedelta(seconds=1)]
ODD_EXPIRIES = [1e-9, 0.0009, *(value for value in ODD if value is not None)]
ODD_TRIES = [value for value in ODD if value not in (math.inf, 1e300)]
MESSAGE = "expected a number of seconds from"


@pytest.mark.parametrize("value", ODD, ids=repr)
def test_a_delay_is_a_number_of_seconds(value: Any, app: Client, server_url: str, client: Any) -> None:
    async def submit() -> None:
        async with AsyncClient(server_url, circle="circle") as async_app:
            await async_app.submit("1", delay=value)

    for give in (
        lambda: TaskSpec("1", delay=value),
        lambda: app.submit("1", delay=value),
        lambda: app.submit_many([TaskSpec("1", delay=value)]),
        lambda: asyncio.run(submit()),
        lambda: ScriptActor(server_url, circle="circle").message("1", delay=value),
    ):
        with pytest.raises(ValueError, match=f"delay=.*{MESSAGE} 0"):
            give()
    assert client.dbsize() == 0


@pytest.mark.parametrize("value", [math.nan, math.inf, -1, 1e300, 10**400, "soon", timedelta(seconds=-1)], ids=repr)
def test_a_delay_of_dramatiq_is_a_number_of_milliseconds(value: Any, server_url: str, client: Any) -> None:
    actor = ScriptActor(server_url, circle="circle")

    with pytest.raises(ValueError, match="delay=.*expected .*milliseconds"):
        actor.send_with_options(args=("1",), delay=value)

    assert client.dbsize() == 0
    for well in (timedelta(seconds=60), 60_000, 0.4):
        actor.send_with_options(args=("1",), delay=well)
    assert client.zcard("rhai_dramatiq:rhai-circle.delayed_messages") == 2


@pytest.mark.parametrize("value", ODD_EXPIRIES, ids=repr)
def test_an_expiry_is_a_number_of_seconds(value: Any, server_url: str) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(ValueError, match=f"expire_finished=.*{MESSAGE} 0.001"):
            make(server_url, expire_finished=value)


@pytest.mark.parametrize("value", ODD_TRIES, ids=repr)
def test_a_time_for_tries_is_a_number_of_seconds(value: Any, server_url: str) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(ValueError, match=f"retry_timeout=.*{MESSAGE} 0"):
            make(server_url, retry_timeout=value)


@pytest.mark.parametrize("value", [math.nan, "soon", [], timedelta(seconds=1)], ids=repr)
def test_a_timeout_is_a_number_of_seconds(value: Any, app: Client, server_url: str) -> None:
    async def wait() -> None:
        async with AsyncClient(server_url, circle="circle") as async_app:
            await async_app.task("t").result(timeout=value)

    task = app.submit("1", task_id="t")
    for give in (
        lambda: task.result(timeout=value),
        lambda: next(app.as_completed([task], timeout=value)),
        lambda: asyncio.run(wait()),
    ):
        with pytest.raises(ValueError, match=f"timeout=.*{MESSAGE}"):
            give()


@pytest.mark.parametrize("value", [math.inf, 1e300, 1e10, 10**30])
def test_a_timeout_may_be_as_long_as_can_be(value: float, app: Client, client: Any, server_url: str) -> None:
    task = app.submit("1")
    waiting = app.as_completed([task], timeout=value)
    client.hset(f"rhai_task_details:{task.id}", mapping={"status": "completed", "output": "1"})
    assert [task.result() for task in waiting] == ["1"]

    async def wait() -> str:
        async with AsyncClient(server_url, retry_timeout=value) as async_app:
            return await async_app.task(task.id).result(timeout=value)

    assert asyncio.run(wait()) == "1"


@pytest.mark.parametrize("value", [0, 0.001, 0.5, 3600, 100 * 365.25 * 86400])
def test_what_can_be_done_is_done(value: float, server_url: str, client: Any) -> None:
    with Client(server_url, circle="circle", expire_finished=value) as app:
        task = app.submit("1", delay=value)

    assert float(client.hget(f"rhai_task_details:{task.id}", "expireFinished")) == value
    assert client.zcard("rhai_dramatiq:rhai-circle.delayed") == (1 if value else 0)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e300", "", "soon"])
@pytest.mark.parametrize(
    "command",
    [
        ("submit", "1", "--circle", "circle", "--delay"),
        ("wait", "t", "--timeout"),
        ("submit", "1", "--circle", "circle", "--wait", "--timeout"),
        ("doctor", "--stale"),
        ("queues", "--watch"),
    ],
    ids=lambda command: " ".join(command[::2]),
)
def test_the_command_line_refuses_them_with_status_2(
    command: tuple[str, ...], value: str, server_url: str, client: Any
) -> None:
    client.hset("rhai_task_details:t", mapping={"status": "completed"})

    ended = run_command("rhai-tasks", "--redis-url", server_url, *command[:-1], f"{command[-1]}={value}")

    assert ended.returncode == 2, ended
    assert "Traceback" not in ended.stderr
    # A value may follow --watch or not, so click takes -1 for an option of its own.
    assert f"'{command[-1]}': " in ended.stderr or "No such option '-1'" in ended.stderr
    assert client.dbsize() == 1
