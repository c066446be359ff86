"""The engine of chaos tasks: each run leaves a trace in a file, whatever becomes of its process.

For `--engine tests.chaos.guests:make_engine`. The environment says the folder of the traces, and how far
this process's clock is off.
"""

import ctypes
import os
import time
from dataclasses import dataclass
from pathlib import Path

from rhai_tasks import Engine, Limits

RUNS = "CHAOS_RUNS"
CLOCK_OFFSET = "CHAOS_CLOCK_OFFSET"  # seconds
LONGEST_TASK = "CHAOS_LONGEST_TASK"  # seconds that one may run


@dataclass
class Run:
    """One run of a task. Times are of the monotonic clock, which all processes of a machine share."""

    task: str
    token: str  # what the script returns, or throws: it names this very run
    pid: int
    began: float
    ended: float | None = None

    def __str__(self) -> str:
        return f"process {self.pid} from {self.began:.2f} to {self.ended and round(self.ended, 2)}"


def skew_clock() -> None:
    """Put this process's wall clock wrong, for all Python code."""
    offset = float(os.environ.get(CLOCK_OFFSET, "0"))
    if offset:
        right = time.time
        time.time = lambda: right() + offset


def make_engine() -> Engine:
    """Make an engine whose scripts say when they begin and end, and can crash."""
    engine = Engine(limits=Limits(timeout=float(os.environ[LONGEST_TASK])))
    folder = Path(os.environ[RUNS])

    def trace(*words: object) -> None:
        # A write of its own, into a file of its own: it is there whole even if the process is killed next.
        descriptor = os.open(folder / str(os.getpid()), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, (" ".join(map(str, words)) + "\n").encode())
        os.close(descriptor)

    @engine.function
    def begin(task: str) -> str:
        """Note that a run of this task begins; return its token."""
        now = time.monotonic()
        token = f"<{os.getpid()}-{now:.6f}>"
        trace("begin", token, task, now)
        return token

    @engine.function
    def end(token: str) -> None:
        """Note that this run has come to its end."""
        trace("end", token, time.monotonic())

    engine.register("crash", lambda: ctypes.string_at(0))
    return engine


def read_runs(folder: Path) -> dict[str, list[Run]]:
    """Read all traces: every run of each task, in order."""
    by_token: dict[str, Run] = {}
    for file in folder.iterdir():
        for line in file.read_text().splitlines():
            kind, token, *rest = line.split()
            if kind == "begin":
                by_token[token] = Run(rest[0], token, int(file.name), float(rest[1]))
            else:
                by_token[token].ended = float(rest[0])
    by_task: dict[str, list[Run]] = {}
    for run in sorted(by_token.values(), key=lambda run: run.began):
        by_task.setdefault(run.task, []).append(run)
    return by_task


skew_clock()  # as early as possible: the supervisor imports this module before it forks
