"""Load without faults, for long: does anything grow, or become slower?

python -m tests.chaos.soak --minutes 30
"""

import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

import click
import psutil
from rich.console import Console
from rich.table import Table

from .__main__ import machine
from .world import CIRCLE, PREFIX, Strain, Tree, World

_PROBE = "soak:probe"
_PROBE_SECONDS = 0.1  # between two probes, whose times are the latency
_PATIENCE_SECONDS = 4
_WARM = 0.25  # of the whole time: each thread's cache fills with compiled scripts, and the prefetch learns


@dataclass(frozen=True)
class Sample:
    """What one tree was like at a moment, and how long probes took since the last one."""

    minutes: float
    memory_mib: float  # private to its processes
    descriptors: int
    threads: int
    p50_ms: float  # from submission to reply
    p99_ms: float


FLAT = {"memory_mib": 1.1, "descriptors": 1.05, "threads": 1.0, "p50_ms": 1.5, "p99_ms": 2.0}
"""How many times as much the last third of the samples may have, in the median, as the first."""


TITLES = {
    "memory_mib": "Private memory, MiB",
    "descriptors": "Open file descriptors",
    "threads": "Threads",
    "p50_ms": "Trivial task, from submission to reply: p50, ms",
    "p99_ms": "Trivial task, from submission to reply: p99, ms",
}


class Probe:
    """Submits a trivial task now and then, and waits for its reply."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._milliseconds: list[float] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe", daemon=True)
        self._thread.start()

    def take(self) -> list[float]:
        """Return the times since the last call."""
        taken, self._milliseconds = self._milliseconds, []
        return taken

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for number in count():
            if self._stop.wait(_PROBE_SECONDS):
                return
            task = f"{_PROBE}:{number}"  # its own reply list, too: a late reply is nobody else's
            self._client.hset(f"{PREFIX}{task}", mapping={"script": "1", "replyToQueue": task})
            started = time.perf_counter()
            self._client.lpush(f"rhai_tasks:{CIRCLE}", task)
            self._client.blpop([task], _PATIENCE_SECONDS)  # no reply counts as one that took so long
            self._milliseconds.append((time.perf_counter() - started) * 1000)


def sample(tree: Tree, probe: Probe, since: float) -> Sample:
    """Look at a tree."""
    processes = [psutil.Process(pid) for pid in tree.pids()]
    percentiles = statistics.quantiles(probe.take(), n=100)
    return Sample(
        minutes=round((time.monotonic() - since) / 60, 3),
        memory_mib=round(sum(process.memory_full_info().uss for process in processes) / 2**20, 2),
        descriptors=sum(process.num_fds() for process in processes),
        threads=sum(process.num_threads() for process in processes),
        p50_ms=round(percentiles[49], 3),
        p99_ms=round(percentiles[98], 3),
    )


def thirds(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Return the first and the last third after warming up."""
    samples = samples[int(len(samples) * _WARM) :]
    third = max(len(samples) // 3, 1)
    return samples[:third], samples[-third:]


def compare(samples: list[Sample]) -> dict[str, tuple[float, float]]:
    """Return the medians of the first and of the last third after warming up."""

    def median(part: list[Sample], name: str) -> float:
        return float(statistics.median(getattr(one, name) for one in part))

    first, last = thirds(samples)
    return {name: (median(first, name), median(last, name)) for name in FLAT}


def plot(samples: list[Sample], title: str, file: Path) -> None:
    """Draw all there is over time, the medians that are compared, and how far the last one may rise."""
    from matplotlib.figure import Figure

    from bench.plots import INK, OURS, REFERENCE, WIDTH

    figure = Figure(figsize=(WIDTH, 1.4 * len(FLAT) + 0.6), layout="constrained")
    axes = figure.subplots(len(FLAT), sharex=True)
    parts = thirds(samples)
    for axis, (name, medians) in zip(axes, compare(samples).items(), strict=True):
        axis.plot([one.minutes for one in samples], [getattr(one, name) for one in samples], color=OURS, linewidth=1.2)
        for part, median in zip(parts, medians, strict=True):
            axis.hlines(median, part[0].minutes, part[-1].minutes, color=REFERENCE, linewidth=2, label="median")
        bound = FLAT[name] * medians[0]
        axis.hlines(bound, parts[1][0].minutes, parts[1][-1].minutes, color=INK, linestyle="--", label="at most")
        axis.set_title(TITLES[name], fontsize=9, loc="left")
        axis.set_ylim(0, 1.1 * max(axis.get_ylim()[1], bound))
        axis.grid()
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(handles[1:], labels[1:], fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1.0, 1.0))
    axes[-1].set_xlabel("minutes")
    figure.supxlabel(title, fontsize=7)
    figure.savefig(file, transparent=True, metadata={"Date": None})


def soak(world: World, seconds: float, pause: float, report: Callable[[Sample], object]) -> list[Sample]:
    """Take samples of the first tree for some time."""
    probe = Probe(world.client)
    samples = []
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        time.sleep(pause)
        samples.append(sample(world.trees[0], probe, began))
        report(samples[-1])
    probe.stop()
    return samples


@click.command()
@click.option("--minutes", default=30.0, show_default=True)
@click.option("--rate", default=Strain().tasks_per_second, show_default=True, help="Tasks a second.")
@click.option("--longest", default=5.0, show_default=True, help="Seconds of the longest script.")
@click.option("--output", default="soak", show_default=True, help="Name of the files: .json and .svg.")
def main(minutes: float, rate: float, longest: float, output: str) -> None:
    """Say whether memory, descriptors, threads and latency stay as they are; the exit status is 1 if not."""
    console = Console(width=120 if not sys.stdout.isatty() else None)
    title = f"{minutes:g} minutes of {rate:g} tasks a second.\n{machine()}"
    console.print(title, highlight=False)
    pause = max(minutes * 60 / 180, 2.0)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        strain = Strain(tasks_per_second=rate, longest=longest)
        with World(Path(folder) / "world", strain, seed=1) as world:
            samples = soak(world, minutes * 60, pause, lambda one: console.print(one, highlight=False))
            account = world.balance("soak", None)
    Path(f"{output}.json").write_text(json.dumps({"machine": title, "samples": [asdict(one) for one in samples]}))
    plot(samples, title, Path(f"{output}.svg"))
    table = Table("", "first third", "last third", "times", "at most", title=f"{account.submitted} tasks")
    defects = account.defects()
    for name, (first, last) in compare(samples).items():
        times = last / first
        table.add_row(name, f"{first:g}", f"{last:g}", f"{times:.2f}", f"{FLAT[name]:g}")
        if times > FLAT[name]:
            defects.append(f"{name} grew {times:.2f} times")
    console.print(table)
    console.print(*(defects or ["Everything is flat."]), sep="\n")
    sys.exit(1 if defects else 0)


if __name__ == "__main__":
    main()
