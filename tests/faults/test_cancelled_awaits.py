"""A cancel of an await ends it, whenever it comes: asyncio's timeouts and groups work by cancels.

In Python 3.11 redis-py's timeout of a write forgets a cancel that comes in the same turn of the loop as its end.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from rhai_tasks import AsyncClient
from rhai_tasks.connection.deadlines import answer_within
from rhai_tasks.errors import TaskNotFound

TRIES = 50
LATEST = 0.003  # seconds: by then a call has connected, asked and heard
MOST = 30.0  # seconds for the await to end; then it is lost


def moments() -> Iterator[float]:
    """Times at which a call connects, sends, waits and reads, and 0 to 20 turns of the loop."""
    for number in range(TRIES):
        yield -number if number < 20 else (number - 20) / (TRIES - 20) * LATEST


async def pause(moment: float) -> None:
    """Wait for so many seconds, or, if negative, turns of the loop."""
    if moment > 0:
        await asyncio.sleep(moment)
    for _ in range(round(-moment)):
        await asyncio.sleep(0)


async def by_cancel(ask: Callable[[], Awaitable[Any]], moment: float) -> None:
    task = asyncio.ensure_future(ask())
    await pause(moment)
    task.cancel()
    await task


async def by_wait_for(ask: Callable[[], Awaitable[Any]], moment: float) -> None:
    await asyncio.wait_for(ask(), max(moment, 1e-6))


async def by_timeout(ask: Callable[[], Awaitable[Any]], moment: float) -> None:
    async with asyncio.timeout(max(moment, 0)):
        await ask()


async def by_group(ask: Callable[[], Awaitable[Any]], moment: float) -> None:
    async def fail() -> None:
        await pause(moment)
        raise ZeroDivisionError

    with suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(_of(ask))


async def by_gather(ask: Callable[[], Awaitable[Any]], moment: float) -> None:
    both = asyncio.gather(_of(ask), _of(ask), return_exceptions=True)
    await pause(moment)
    both.cancel()
    await both


async def _of(ask: Callable[[], Awaitable[Any]]) -> None:
    await ask()


ENDS = [by_cancel, by_wait_for, by_timeout, by_group, by_gather]


async def first(app: AsyncClient) -> None:
    async for _ in app.as_completed([app.task("pending"), app.task("pending too")]):
        return


async def _submit_and_wait(app: AsyncClient) -> None:
    await (await app.submit("1", circle="elsewhere")).result()


CALLS: dict[str, Callable[[AsyncClient], Awaitable[Any]]] = {
    "result": lambda app: app.task("pending").result(),
    "as_completed": first,
    "submit and result": _submit_and_wait,
    "submit": lambda app: app.submit("1", circle="elsewhere"),
    "submit_many": lambda app: app.submit_many(["1"] * 600),
    "status": lambda app: app.task("pending").status(),
    "details": lambda app: app.task("pending").details(),
    "cancel": lambda app: app.cancel("nobody's"),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("call", CALLS)
def test_a_cancelled_await_ends(call: str, end: Callable[..., Awaitable[None]], server_url: str, client: Any) -> None:
    for task in ("pending", "pending too"):
        client.hset(f"rhai_task_details:{task}", "status", "pending")

    async def use() -> list[float]:
        lost = []
        for moment in moments():
            async with AsyncClient(server_url, circle="circle") as app:  # so that it connects each time
                if moment < 0 and round(moment) % 2:
                    with suppress(TaskNotFound):
                        await app.task("nobody's").status()  # and at times is connected
                ending = asyncio.ensure_future(_of(partial(end, partial(CALLS[call], app), moment)))
                done, _ = await asyncio.wait([ending], timeout=MOST)
                if not done:
                    lost.append(moment)
                    ending.cancel()
                elif not ending.cancelled() and ending.exception():
                    error = ending.exception()
                    assert isinstance(error, TimeoutError | TaskNotFound), repr(error)
        return lost

    assert asyncio.run(use()) == []


def test_a_cancelled_await_leaves_a_client_that_works(server_url: str, client: Any) -> None:
    async def use() -> None:
        async with AsyncClient(server_url, circle="circle") as app:
            for moment in moments():
                with suppress(asyncio.CancelledError, TaskNotFound):
                    await by_cancel(lambda: app.task("t").status(), moment)
                async with asyncio.timeout(MOST):
                    task = await app.submit("1", task_id=f"t{moment}")
                    assert await task.status() == "pending", "an answer is of its own call"

    asyncio.run(use())


def test_a_cancel_that_a_library_forgets_is_raised_after_the_call() -> None:
    async def forget() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return "an answer"

    async def use() -> None:
        task = asyncio.create_task(answer_within(5, forget()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(use())


def test_what_cleans_up_after_a_cancel_may_call_the_server(server_url: str, client: Any) -> None:
    client.hset("rhai_task_details:t", "status", "pending")
    statuses = []

    async def wait(app: AsyncClient) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            statuses.append(await app.task("t").status())

    async def use() -> None:
        async with AsyncClient(server_url) as app:
            task = asyncio.create_task(wait(app))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(use())
    assert statuses == ["pending"]
