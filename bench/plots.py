"""Plots, in colours that can be read on a light and on a dark page."""

import statistics
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .conditions import AS_THEY_COME, ONE_CORE
from .results import Results

OURS, REFERENCE, OTHERS = "#3b8eea", "#e0803a", "#8a8f98"
HUES = ("#c678a0", "#4fae86", "#b59a3c", "#8f7fd6", "#d0655a", "#4aa8b8", "#9a7b5c", "#7d9b46", "#a0a0a8", "#c08bd0")
INK = "#808890"
WIDTH = 7.2  # inches

mpl.rcParams.update(
    {
        "svg.fonttype": "none",  # text stays text: small, and set in the reader's font
        "svg.hashsalt": "bench",  # the same figures make the same file
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
        "grid.color": INK,
        "grid.alpha": 0.25,
        "legend.frameon": False,
    }
)


def colour(contender: str) -> str:
    """Tell ours and the reference from the others."""
    return OURS if contender.startswith("ours") else REFERENCE if contender == "reference" else OTHERS


def _figure(height: float, panels: int = 1, *, sharey: bool = False) -> tuple[Figure, list[Any]]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, list(figure.subplots(1, panels, squeeze=False, sharey=sharey)[0])


def _save(figure: Figure, results: Results, path: Path) -> None:
    machine = results.machine
    figure.supxlabel(
        f"{machine['date']}, {machine['cores']} cores, {machine['server']}, Python {machine['python']}", fontsize=7
    )
    figure.savefig(path, transparent=True, metadata={"Date": None})


def _medians(
    results: Results, names: list[str], workload: str, figure: str, condition: str = AS_THEY_COME
) -> list[float]:
    return [statistics.median(results.values(name, workload, figure, condition).values()) for name in names]


def compare(results: Results, folder: Path) -> None:
    """Draw throughput, CPU and latency of all contenders."""
    names = results.contenders("W1")[::-1]
    if not names:
        return
    figure, axes = _figure(0.9 + 0.22 * len(names), 3, sharey=True)
    titles = ("trivial", "3 ms of CPU", "20 ms blocked")
    for axis, workload, title in zip(axes, ("W1", "W2", "W3"), titles, strict=True):
        have = [name for name in names if results.values(name, workload, "tasks_per_second")]
        medians = _medians(results, have, workload, "tasks_per_second")
        values = [results.values(name, workload, "tasks_per_second").values() for name in have]
        errors = [
            [median - min(one) for median, one in zip(medians, values, strict=True)],
            [max(one) - median for median, one in zip(medians, values, strict=True)],
        ]
        axis.barh(have, medians, xerr=errors, color=[colour(name) for name in have], ecolor=INK)
        axis.set_title(title, fontsize=9)
        axis.grid(axis="x")
        axis.locator_params(axis="x", nbins=4)
    axes[1].set_xlabel("tasks a second")
    _save(figure, results, folder / "throughput.svg")

    figure, (axis,) = _figure(0.9 + 0.2 * len(names))
    colours = [colour(name) for name in names]
    tree, server = (_medians(results, names, "W1", one) for one in ("tree_cpu_us", "server_cpu_us"))
    axis.scatter(tree, names, c=colours, label="workers")
    axis.scatter(server, names, facecolors="none", edgecolors=colours, label="server")
    axis.set_xscale("log")
    axis.set_xlabel("CPU of a trivial task, µs: workers (full) and server (hollow)")
    axis.grid()
    _save(figure, results, folder / "cpu.svg")

    figure, axes = _figure(3.4, 2)
    others = [name for name in results.contenders("W4") if colour(name) == OTHERS]
    hues = dict(zip(others, HUES, strict=False))
    for axis, workload, title in zip(axes, ("W4", "W5"), ("one task at a time", "trivial among mixed"), strict=True):
        for name in results.contenders(workload):
            medians = [statistics.median(column) for column in zip(*results.quantiles(name, workload), strict=True)]
            style = "-" if name in {"reference", "ours 1x8"} or name in hues else "--"
            width = 1.0 if name in hues else 2.0
            axis.plot(medians, range(1, 100), style, color=hues.get(name, colour(name)), linewidth=width, label=name)
        axis.set_xscale("log")
        axis.set_title(f"{title}: ms to the result", fontsize=9)
        axis.grid()
    axes[0].set_ylabel("% of tasks")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right center")
    _save(figure, results, folder / "latency.svg")


def _line(axis: Any, results: Results, workload: str, across: str, figure: str, **style: Any) -> None:
    names = results.contenders(workload)
    where = _medians(results, names, workload, across)
    axis.plot(where, _medians(results, names, workload, figure), marker="o", color=OURS, **style)
    axis.set_ylim(bottom=0)
    axis.grid()


def grow(results: Results, folder: Path) -> None:
    """Draw a plot for each way to grow that was measured."""
    if names := results.contenders("workers"):
        figure, axes = _figure(2.6, 2)
        for axis, what, title in zip(
            axes, ("tasks_per_second", "computing"), ("trivial scripts", "scripts of 3 ms CPU"), strict=True
        ):
            for processes, style in ((1, ":"), (2, "--"), (4, "-")):
                some = [name for name in names if name.startswith(f"{processes} x")]
                if some:
                    threads = _medians(results, some, "workers", "threads")
                    values = _medians(results, some, "workers", what)
                    axis.plot(
                        threads,
                        values,
                        style,
                        marker="o",
                        color=OURS,
                        label=f"{processes} process{'es' * (processes > 1)}",
                    )
            axis.set_title(f"{title}, tasks a second", fontsize=9)
            axis.set_xlabel("threads of each process")
            axis.set_xticks([1, 2, 4])
            axis.set_ylim(bottom=0)
            axis.grid()
        axes[1].legend(fontsize=7)
        _save(figure, results, folder / "growth-workers.svg")
    if results.contenders("circles"):
        figure, axes = _figure(2.6, 2)
        _line(axes[0], results, "circles", "circles", "tasks_per_second")
        axes[0].set_title("tasks a second", fontsize=9)
        _line(axes[1], results, "circles", "circles", "idle_requests")
        axes[1].set_title("requests a second when idle", fontsize=9)
        for axis in axes:
            axis.set_xscale("log")
            axis.set_xlabel("circles of one bridge")
        _save(figure, results, folder / "growth-circles.svg")
    if results.contenders("callers", ONE_CORE):
        _by_callers(results, folder)
    if results.contenders("backlog"):
        figure, (axis,) = _figure(2.4)
        _line(axis, results, "backlog", "waiting", "tasks_per_second")
        axis.set_xscale("log")
        axis.set_xlabel("waiting tasks")
        axis.set_ylabel("tasks a second")
        _save(figure, results, folder / "growth-backlog.svg")
    if results.contenders("size"):
        figure, axes = _figure(2.6, 2)
        _line(axes[0], results, "size", "kibibytes", "tasks_per_second")
        axes[0].set_yscale("log")
        axes[0].set_title("tasks a second", fontsize=9)
        _line(axes[1], results, "size", "kibibytes", "mib_per_second")
        axes[1].set_title("MiB of scripts a second", fontsize=9)
        for axis in axes:
            axis.set_xscale("log")
            axis.set_xlabel("KiB of a script")
        _save(figure, results, folder / "growth-size.svg")


def _by_callers(results: Results, folder: Path) -> None:
    figure, (axis,) = _figure(2.4)
    for how, style in zip(("first come", "limits", "turns", "turns and limits"), ("-", "-.", "--", ":"), strict=True):
        some = [name for name in results.contenders("callers", ONE_CORE) if name.endswith(f", {how}")]
        where, *parts = (
            _medians(results, some, "callers", part, ONE_CORE) for part in ("callers", "tree_cpu_us", "server_cpu_us")
        )
        axis.plot(
            where,
            [sum(both) for both in zip(*parts, strict=True)],
            style,
            marker="o",
            color=OTHERS if how == "first come" else OURS,
            label=how,
        )
    axis.set_xscale("log")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("callers of a circle whose tasks wait")
    axis.set_ylabel("µs of CPU a trivial task")
    axis.grid()
    axis.legend(fontsize=7, loc="lower right")
    _save(figure, results, folder / "growth-callers.svg")
