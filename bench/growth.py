"""How cost grows: by workers, circles, callers, what waits, and the size of scripts."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rhai_tasks import Settings
from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import Quota, Rule

from .conditions import AS_THEY_COME, ONE_CORE
from .contenders import CIRCLE, CONTENDERS, Contender
from .measure import PATIENCE_SECONDS, Figures, session, until
from .workloads import DRAINED, TRIVIAL, Workload, large

AXES = {
    "workers": "processes and threads",
    "circles": "circles of one bridge",
    "callers": "callers of one circle",
    "backlog": "tasks that wait",
    "size": "size of a script",
}
SHARED = {  # how callers share a circle: option of the worker, figures of each caller's limit
    "first come": ("", None),
    "turns": (" --fair", None),
    "limits": ("", Quota(concurrency=1_000)),
    "turns and limits": (" --fair", Quota(concurrency=1_000)),
}
TASKS = 10_000  # of one measurement
PART = 20_000  # of a backlog: the time that these take is measured
KIBIBYTE = 1024
DEFAULT = next(one for one in CONTENDERS if one.name == "ours 1x8")


@dataclass(frozen=True)
class Step:
    """One point of a plot."""

    axis: str
    name: str
    measure: Callable[[], Figures]

    @property
    def condition(self) -> str:
        """The condition of the cores."""
        return condition(self.axis)


def condition(axis: str) -> str:
    """Return the condition of the cores that an axis is measured in: callers differ by little, so on one core."""
    return ONE_CORE if axis == "callers" else AS_THEY_COME


def steps(axes: list[str], most: int) -> list[Step]:
    """List the points of these axes; a backlog has at most so many tasks."""
    found = []
    for processes in (1, 2, 4):
        for threads in (1, 2, 4):
            work = partial(_workers, processes, threads)
            found.append(Step("workers", f"{processes} x {threads}", work))
    found += [Step("circles", f"{count:,}", partial(_circles, count)) for count in (1, 10, 100, 1000)]
    for count in (1, 10, 100, 1000):
        found += [Step("callers", f"{count:,}, {how}", partial(_callers, count, how)) for how in SHARED]
    found += [
        Step("backlog", f"{count:,}", partial(_backlog, count))
        for count in (1_000, 10_000, 100_000, 1_000_000)
        if count <= most
    ]
    found += [Step("size", f"{size:,} KiB", partial(_size, size)) for size in (1, 4, 16, 64, 256, 1024, 4096)]
    return [step for step in found if step.axis in axes]


def _workers(processes: int, threads: int) -> Figures:
    command = DEFAULT.commands[0].replace("--processes 1", f"--processes {processes}")
    contender = replace(DEFAULT, commands=(command.replace("--threads 8", f"--threads {threads}"),))
    with tempfile.TemporaryDirectory() as folder, session(contender, Path(folder)) as running:
        trivial = running.drain(DRAINED["W1"], TASKS)
        computing = running.drain(DRAINED["W2"], 500)
    return {"processes": processes, "threads": threads, "computing": computing["tasks_per_second"], **trivial}


def _circles(count: int) -> Figures:
    """Serve so many circles with one bridge and two worker processes, all of them with tasks at first."""
    bridged = next(one for one in CONTENDERS if one.name.startswith("ours bridge"))
    bridge, workers = bridged.commands
    contender: Contender = replace(bridged, commands=(bridge.replace("--circle {circle}", "--all-circles"), workers))
    with (
        tempfile.TemporaryDirectory() as folder,
        session(contender, Path(folder), BENCH_CIRCLES=str(count)) as running,
    ):
        running.client("fill", script=TRIVIAL, count=count)  # the bridge finds a circle when its list appears
        running.client("drain", patience=120.0)
        running.client("verify")
        idle = running.idle(5.0)
        figures = running.drain(DRAINED["W1"], TASKS)
    return {"circles": count, **idle, **figures}


def _callers(count: int, how: str) -> Figures:
    """Serve a circle of so many callers that have tasks."""
    option, quota = SHARED[how]
    contender = replace(DEFAULT, commands=(DEFAULT.commands[0] + option,))
    with (
        tempfile.TemporaryDirectory() as folder,
        session(contender, Path(folder), BENCH_CALLERS=str(count)) as running,
    ):
        if quota:
            Rules(running.database, Settings().namespace, "bench").set(CIRCLE, Rule("limit", "callers", quota=quota))
        return {"callers": count, "how": how, **running.drain(DRAINED["W1"], TASKS)}


def _backlog(count: int) -> Figures:
    """Time the first tasks of a queue of so many, or all of a short one."""
    queue = f"rhai_tasks:{CIRCLE}"
    with tempfile.TemporaryDirectory() as folder, session(DEFAULT, Path(folder)) as running:
        if count <= PART:
            return {"waiting": count, **running.drain(DRAINED["W1"], count)}
        with running.standing_still():
            running.client("fill", script=TRIVIAL, count=count)
            waiting = running.database.llen(queue)
        began = time.perf_counter()
        until(lambda: running.database.llen(queue) <= waiting - PART, PATIENCE_SECONDS, "the first tasks to be taken")
        return {
            "waiting": count,
            "tasks_per_second": PART / (time.perf_counter() - began),
            "resident_mib": running.resident(),
            "server_bytes": running.database.info("memory")["used_memory"] / count,
        }


def _size(kibibytes: int) -> Figures:
    """Run scripts of this size, each different: every one is compiled."""
    count = max(16, min(5_000, 40_000 // kibibytes))
    workload = Workload(title="", script=large(kibibytes))
    with tempfile.TemporaryDirectory() as folder, session(DEFAULT, Path(folder)) as running:
        figures = running.drain(workload, count)
    return {"kibibytes": kibibytes, "mib_per_second": figures["tasks_per_second"] * kibibytes / KIBIBYTE, **figures}
