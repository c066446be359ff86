"""A kill -9 as an operator sees it: panels of the Grafana dashboard, drawn from a tree's /metrics.

python -m tests.chaos.kill_plot
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, nan
from pathlib import Path

import click
from rich.console import Console

from rhai_tasks.observe.reports import REPORT_SECONDS
from tests.observed import Observed, Samples

from .__main__ import machine
from .ledger import Account, as_table
from .world import WORKERS, Strain, World

KILLS = {20.0: "worker 1", 40.0: "bridge"}
"""Which process is killed after how many seconds."""
WINDOW = 4
"""How many scrapes rates are taken over: two seconds, as processes tell their counts once a second."""
_SECONDS, _PAUSE = 60.0, 0.5
_SETTLE_SECONDS = 5.0  # before the first scrape: threads compile, and the prefetch learns
_STRAIN = Strain(tasks_per_second=300.0, longest=2.0, threads=14)
_IMAGE = Path(__file__).parents[2] / "docs" / "images" / "kill.svg"


@dataclass(frozen=True)
class Scrape:
    """What a tree showed at a moment."""

    at: float  # seconds
    samples: Samples

    def total(self, name: str, **labels: str) -> float:
        """Sum all series with these labels, whatever others they have; NaN if there is none."""
        found = [value for (its, has), value in self.samples.items() if its == name and labels.items() <= has]
        return sum(found) if found else nan

    def buckets(self, name: str) -> dict[float, float]:
        """Return a histogram without labels: how many values by upper bound."""
        return {float(dict(has)["le"]): value for (its, has), value in self.samples.items() if its == f"{name}_bucket"}


def totals(scrapes: list[Scrape], name: str, **labels: str) -> list[float]:
    """Read a gauge over time."""
    return [scrape.total(name, **labels) for scrape in scrapes]


def rates(scrapes: list[Scrape], name: str, **labels: str) -> list[float]:
    """Say by how much a counter grew a second; NaN before a window has passed."""
    return [nan] * WINDOW + [
        (later.total(name, **labels) - earlier.total(name, **labels)) / (later.at - earlier.at)
        for earlier, later in zip(scrapes, scrapes[WINDOW:], strict=False)
    ]


def quantiles(scrapes: list[Scrape], quantile: float, name: str) -> list[float]:
    """Estimate a quantile of what a histogram counted in each window; NaN if that is nothing."""
    histograms = [scrape.buckets(name) for scrape in scrapes]
    return [nan] * WINDOW + [
        _quantile({bound: count - earlier[bound] for bound, count in sorted(later.items())}, quantile)
        for earlier, later in zip(histograms, histograms[WINDOW:], strict=False)
    ]


def _quantile(buckets: Mapping[float, float], quantile: float) -> float:
    """Estimate it as Prometheus does: values lie evenly within a bucket, none beyond the last finite bound."""
    rank = quantile * buckets[inf]
    lower = below = 0.0
    for bound, count in buckets.items():
        if count >= rank > 0:
            return lower if bound == inf else lower + (bound - lower) * (rank - below) / (count - below)
        lower, below = bound, count
    return nan


def observe(world: World, port: Observed) -> list[Scrape]:
    """Scrape the only tree of a world, and kill processes of it meanwhile."""
    (tree,) = world.trees
    time.sleep(_SETTLE_SECONDS)
    scrapes = []
    began = time.monotonic()
    for number in range(int(_SECONDS / _PAUSE) + 1):
        due = number * _PAUSE
        time.sleep(max(began + due - time.monotonic(), 0.0))
        scrapes.append(Scrape(time.monotonic() - began, port.samples()))
        if due in KILLS:
            world.kill(tree.process(KILLS[due]))
            world.takes()
    return scrapes


Line = Callable[[list[Scrape]], list[float]]


def _total(name: str, **labels: str) -> Line:
    return lambda scrapes: totals(scrapes, f"rhai_tasks_{name}", **labels)


def _rate(name: str, **labels: str) -> Line:
    return lambda scrapes: rates(scrapes, f"rhai_tasks_{name}", **labels)


def _wait_ms(quantile: float) -> Line:
    return lambda scrapes: [1000 * seconds for seconds in quantiles(scrapes, quantile, "rhai_tasks_wait_seconds")]


PANELS: dict[str, dict[str, Line]] = {
    "Finished tasks a second": {
        "completed": _rate("finished_total", status="completed"),
        "error": _rate("finished_total", status="error"),
    },
    "Wait, from createdAt to start, ms": {"p95": _wait_ms(0.95), "p50": _wait_ms(0.5)},
    "Queue: tasks by state": {
        state: _total("queue_tasks", state=state) for state in ("waiting", "buffered", "running", "dead")
    },
    "In flight and running": {"in flight": _total("in_flight"), "running": _total("running")},
    "Recovered tasks, since the start": {"recovered": _total("recovered_total")},
    "Processes": {"ready": _total("ready"), "with a lease": _total("leases")},
}


def caption(account: Account, counted: float, where: str) -> str:
    """Say what became of all tasks, how many of their ends the metrics show, and where and when."""
    return (
        f"{account.submitted:,} tasks submitted = {account.completed:,} completed + {account.error:,} error "
        f"(scripts that throw) + {len(account.lost)} lost; {account.run_twice} ran twice, "
        f"{len(account.written_twice)} written twice.\n"
        f"rhai_tasks_finished_total came to {counted:,.0f}. "
        f"{_STRAIN.tasks_per_second:g} tasks a second; {len(WORKERS)} processes, {_STRAIN.threads} threads each.\n"
        f"{where}"
    )


def draw(scrapes: list[Scrape], text: str, file: Path) -> None:
    """Draw all panels over time, the kills across them."""
    from matplotlib.figure import Figure

    from bench.plots import HUES, INK, OURS, REFERENCE, WIDTH

    *hues, kill = (OURS, REFERENCE, *HUES[:2], HUES[4])
    figure = Figure(figsize=(WIDTH, 1.3 * len(PANELS) + 0.6), layout="constrained")
    axes = figure.subplots(len(PANELS), sharex=True)
    times = [scrape.at for scrape in scrapes]
    for axis, (title, lines) in zip(axes, PANELS.items(), strict=True):
        for hue, (label, line) in zip(hues, lines.items(), strict=False):
            axis.plot(times, line(scrapes), color=hue, label=label, linewidth=1.4)
        for moment in KILLS:
            axis.axvline(moment, color=kill, linestyle="--", linewidth=1.2)
        axis.set_title(title, fontsize=9, loc="left")
        axis.set_ylim(0, 1.1 * axis.get_ylim()[1])
        axis.set_xlim(0, _SECONDS)
        axis.locator_params(axis="y", nbins=4, integer=True)
        axis.grid()
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for moment, name in KILLS.items():
        axes[0].annotate(
            f"kill -9 {name}", (moment, 1.0), xytext=(-2, 4), xycoords=("data", "axes fraction"),
            textcoords="offset points", color=kill,
        )  # fmt: skip
    axes[-1].set_xlabel("seconds")
    figure.supxlabel(text, fontsize=7, color=INK)
    figure.savefig(file, transparent=True, metadata={"Date": None})


@click.command()
@click.option("--output", default=_IMAGE, show_default="docs/images/kill.svg", type=click.Path(path_type=Path))
def main(output: Path) -> None:
    """Kill a worker process and the bridge of a loaded tree, draw its metrics; exit status 1 if a task suffered."""
    console = Console(width=150 if not sys.stdout.isatty() else None)
    where = machine()
    with (
        tempfile.TemporaryDirectory(prefix="kill-") as folder,
        World(Path(folder) / "world", _STRAIN, seed=1, single_tree=True, observed=True) as world,
    ):
        port = Observed(world.trees[0].worker)
        scrapes = observe(world, port)
        account = world.balance("kill", bound=15.0)
        time.sleep(2 * REPORT_SECONDS)
        (counted,) = totals([Scrape(_SECONDS, port.samples())], "rhai_tasks_finished_total")
    draw(scrapes, caption(account, counted, where), output)
    console.print(as_table(where, [account]))
    console.print(*(account.defects() or [f"No defects. See {output}"]), sep="\n")
    sys.exit(1 if account.defects() else 0)


if __name__ == "__main__":
    main()
