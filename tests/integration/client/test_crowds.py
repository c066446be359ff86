"""Thousands of calls at once with one client: they wait for a connection for as long as the server answers others."""

import asyncio
import threading
import time
from typing import Any

import pytest

from rhai_tasks import AsyncClient, Client
from rhai_tasks.errors import ServerUnavailable, TaskTimeout
from tests.conftest import free_port


def test_thousands_of_asyncio_calls_wait_for_a_connection(server_url: str, client: Any) -> None:
    async def use() -> int:
        async with AsyncClient(server_url, circle="circle") as app:
            tasks = await asyncio.gather(*(app.submit("1") for _ in range(1500)))
            client.hset("rhai_task_details:ended", mapping={"status": "completed", "output": "1"})
            outputs = await asyncio.gather(*(app.task("ended").result() for _ in range(1500)))
            assert set(outputs) == {"1"}
            return len({task.id for task in tasks})

    assert asyncio.run(use()) == 1500
    assert client.llen("rhai_tasks:circle") == 1500


def test_a_call_waits_in_line_for_as_long_as_others_are_answered(
    server_url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line takes longer than `retry_timeout`; who stands in it has a server that answers."""
    began = time.monotonic()

    async def use() -> None:
        async with AsyncClient(server_url, circle="circle", retry_timeout=3.0) as app:
            run = app._sender._run

            async def run_slowly(*arguments: Any) -> Any:
                await asyncio.sleep(0.25)
                return await run(*arguments)

            monkeypatch.setattr(app._sender, "_run", run_slowly)
            await asyncio.gather(*(app.submit("1") for _ in range(1000)))

    asyncio.run(use())

    assert client.llen("rhai_tasks:circle") == 1000
    assert time.monotonic() - began > 3.0


def test_a_line_before_a_server_that_is_away_ends_in_time() -> None:
    async def use() -> None:
        async with AsyncClient(f"redis://127.0.0.1:{free_port()}/", circle="circle", retry_timeout=1.0) as app:
            ended = await asyncio.gather(*(app.submit("1") for _ in range(500)), return_exceptions=True)
            assert all(isinstance(error, ServerUnavailable) for error in ended)

    began = time.monotonic()
    asyncio.run(use())

    assert time.monotonic() - began < 10


def test_a_few_connections_carry_them_all(server_url: str, client: Any) -> None:
    connected: list[Any] = []
    before = {peer["id"] for peer in client.client_list()}  # also of tests before, until the server notices their end

    async def use() -> None:
        async with AsyncClient(server_url, circle="circle") as app:
            await asyncio.gather(*(app.submit("1") for _ in range(500)))
            connected.extend(peer for peer in client.client_list() if peer["id"] not in before)

    asyncio.run(use())

    assert 0 < len(connected) <= 60


def test_hundreds_of_threads_wait_for_a_connection(server_url: str, client: Any) -> None:
    errors: list[BaseException] = []
    begin = threading.Barrier(300)
    with Client(server_url, circle="circle") as app:

        def use() -> None:
            begin.wait()
            try:
                for _ in range(3):
                    app.submit("1")
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=use) for _ in range(300)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert errors == []
    assert client.llen("rhai_tasks:circle") == 900


@pytest.mark.parametrize("timeout", [0, 0.01])
def test_looking_again_and_again_leaves_no_subscriptions(server_url: str, client: Any, timeout: float) -> None:
    def subscribed() -> int:
        return int(client.info("stats")["pubsub_channels"])

    with Client(server_url, circle="circle") as app:
        tasks = app.submit_many(["1"] * 600)
        for _ in range(8):
            with pytest.raises(TaskTimeout):
                next(app.as_completed(tasks, timeout=timeout))
        with pytest.raises(TaskTimeout):
            app.submit("1").result(timeout=0.5)  # by now it has tidied up

        assert subscribed() <= 1200
