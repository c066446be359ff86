"""Runs trivial tasks in a worker of this process while Valgrind counts the instructions that this takes.

valgrind --tool=callgrind --instr-atstart=no python -m tests.counted URL COUNT

What a worker does depends on how long scripts take, and under Valgrind they take fifty times as long. So that the count
does not depend on the machine, clocks run slowly here, and each script counts as a quick one.
"""

import os
import subprocess
import sys
import time

_SLOWER = 100
_monotonic = time.monotonic
time.monotonic = lambda: _monotonic() / _SLOWER  # before others import it

import redis  # noqa: E402

from bridge.circle import CircleBridge  # noqa: E402
from rhai_tasks import Engine, Settings  # noqa: E402
from rhai_tasks.queue.pace import Pace  # noqa: E402
from rhai_tasks.worker.make import make_worker  # noqa: E402

_QUICK = 1e-5
_BEFORE = 200  # tasks until the pace is known, and all code has run

_record_runs = Pace.record_runs


def _record_quick_ones(pace: Pace, seconds: list[float]) -> None:
    _record_runs(pace, [_QUICK] * len(seconds))


def _record_quick(pace: Pace, seconds: float) -> None:
    _record_runs(pace, [_QUICK])


def _count(what: str) -> None:
    command = ["callgrind_control", f"--instr={what}", str(os.getpid())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main(url: str, count: int) -> None:
    """Run so many tasks while instructions are counted."""
    Pace.record_runs = _record_quick_ones  # type: ignore[method-assign, assignment]
    Pace.record_run = _record_quick  # type: ignore[method-assign, assignment]
    settings = Settings(redis_url=url, threads=2, buffer=count + 1)
    client = redis.Redis.from_url(url, decode_responses=True)
    bridge = CircleBridge(settings, "circle", client)
    broker, worker = make_worker(settings, Engine())
    broker.declare_circle("circle")
    worker.start()

    def run(name: str, count: int) -> None:
        for number in range(count):
            key = f"rhai_task_details:{name}{number}"
            client.hset(key, mapping={"script": "40 + 2", "status": "pending", "callerId": "caller"})
            client.lpush("rhai_tasks:circle", f"{name}{number}")
        if name == "counted":
            _count("on")
        bridge.forward(0)
        while client.hget(f"rhai_task_details:{name}0", "output") != "42":  # it runs last
            time.sleep(0.2)
        if name == "counted":
            _count("off")

    run("before", _BEFORE)
    run("counted", count)
    bridge.close()
    worker.stop()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
