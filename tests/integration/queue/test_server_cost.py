"""What a task costs the server, in instructions and commands, for batches of a set size: no load changes these."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import pytest
import redis

from bridge.circle import CircleBridge
from rhai_tasks import Settings
from rhai_tasks.connection.connect import connect
from rhai_tasks.protocol import completed, queue_name
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.endings import Finished
from rhai_tasks.queue.run import Run
from rhai_tasks.queue.sources import ListSource
from tests.conftest import free_port, wait_until

BATCH, BATCHES = 160, 6  # of W1 on one core, a fetch takes about so many


class World:
    """A bridge and a broker of one circle, whose steps a test takes."""

    def __init__(self, url: str) -> None:
        settings = Settings(redis_url=url)
        self.bridge = CircleBridge(settings, "c", connect(url))
        self.broker = TaskBroker(settings)
        consumer = self.broker.consume(queue_name("c"), 20, 10)
        self._reader, self._source = consumer._reader, cast("ListSource", consumer.source)
        self._source.more = True

    def take(self) -> None:
        self.bridge.take(**self.bridge.call)

    def fetch(self) -> list[Finished]:
        taken = self._source.fetch(BATCH)
        assert taken
        endings = list[Finished]()
        for run in cast("list[Run]", self._reader.read(taken)):
            run.finish(completed("42"), (0.0, 0.0001, 1, 1))
            endings.append(cast("Finished", run.ending))
        assert [one.is_simple for one in endings] == [True] * BATCH
        return endings

    def finish(self, endings: list[Finished]) -> None:
        assert self.broker.writer._finished(endings) == {}


def fill(client: Any, count: int) -> None:
    with client.pipeline(transaction=False) as pipeline:
        for number in range(count):
            name = f"0b8f9f2e-1a2b-4c3d-8e4f-{number:012d}"
            details = {"script": "40 + 2", "status": "pending", "callerId": "caller"}
            pipeline.hset(f"rhai_task_details:{name}", mapping=details)
            pipeline.lpush("rhai_tasks:c", name)
        pipeline.execute()


@contextmanager
def counted_server(program: str, folder: Path) -> Iterator[tuple[str, Callable[[str], None], list[str]]]:
    """Run a server under Callgrind. Yield its URL, a function that turns counting on and off, and what it prints."""
    port, printed = free_port(), list[str]()
    callgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder / 'profile'}"]
    process = subprocess.Popen(
        [*callgrind, program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )

    def count(what: str) -> None:
        subprocess.run(["callgrind_control", f"--instr={what}", str(process.pid)], check=True, capture_output=True)

    def answers() -> bool:
        with suppress(redis.ConnectionError):
            return bool(redis.Redis(port=port).ping())
        return False

    try:
        wait_until(answers)
        yield f"redis://127.0.0.1:{port}/", count, printed
    finally:
        process.terminate()
        printed += process.communicate()[1].splitlines()


@pytest.mark.skipif(not shutil.which("valgrind") and not os.environ.get("CI"), reason="Valgrind is not installed")
def test_a_task_takes_few_instructions_of_the_server(client: Any, tmp_path: Path) -> None:
    program = client.info("server")["executable"]

    with counted_server(program, tmp_path) as (url, count, printed):
        own = redis.Redis.from_url(url, decode_responses=True, socket_timeout=60)
        world = World(url)
        for what, batches in (("before", 1), ("counted", BATCHES)):
            fill(own, batches * BATCH)
            if what == "counted":
                count("on")
            for _ in range(batches):
                world.take()
                world.finish(world.fetch())
            if what == "counted":
                count("off")

    (found,) = re.findall(r"Collected : (\d+)", "\n".join(printed))
    # 99,000 with Valkey 9.1: 5,000 to take, 56,000 to fetch, 38,000 to finish.
    assert int(found) / (BATCH * BATCHES) < 112_000, printed


def test_a_task_takes_two_commands_and_its_share_of_a_batch(client: Any, server_url: str) -> None:
    world, found = World(server_url), Counter[str]()
    fill(client, BATCH)
    world.take()
    world.finish(world.fetch())  # connected, and with all scripts loaded
    fill(client, BATCH)
    for step, act in (("take", world.take), ("fetch and finish", lambda: world.finish(world.fetch()))):
        client.config_resetstat()
        act()
        stats = client.info("commandstats")
        for name, one in stats.items():
            if name not in {"cmdstat_info", "cmdstat_config|resetstat"}:
                found[step] += one["calls"]

    assert found["take"] <= 8
    # Details are read by HGETALL and written by HSET. Threads are idle here, so that eight are marked as processing.
    assert found["fetch and finish"] <= 2 * BATCH + 2 * 8 + 32
