"""The conditions of a measurement: which processors it has, and whether they are awake.

A processor that sleeps takes long to wake up in a virtual machine, up to 100 µs, so a contender with more wake-ups a
task looks slower there than on hardware that wakes quickly. On one core, and on cores that never sleep, the work itself
is measured.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

ONE_CORE = "one core"
AWAKE = "cores awake"
AS_THEY_COME = "as they come"

_LOOP = "import os; os.nice(19); os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process, and all that it starts meanwhile, on the first of its cores."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


@contextmanager
def _awake() -> Iterator[None]:
    """Keep every core awake with a loop that gives way to everything else."""
    loops = [
        subprocess.Popen([sys.executable, "-c", _LOOP.format(core=core)]) for core in sorted(os.sched_getaffinity(0))
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


CONDITIONS: dict[str, Callable[[], AbstractContextManager[None]]] = {
    ONE_CORE: _one_core,
    AWAKE: _awake,
    AS_THEY_COME: nullcontext,
}
"""In the order in which they are measured and shown."""

EVERYWHERE = ("W1", "W1d", "W4")
"""Workloads that are measured in every condition; the others as the cores come."""
