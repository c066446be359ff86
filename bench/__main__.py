"""The commands: `python -m bench all`, `growth`, `report`."""

import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from . import contenders as contenders_
from .contenders import Contender, chosen
from .measure import Failure, load, machine, measure, measure_submitting, session
from .results import FOLDER, Results
from .workloads import TITLES

LATEST = FOLDER / "latest.json"
console = Console(width=160, highlight=False)


def _split(_: click.Context, __: click.Parameter, value: str | None) -> list[str]:
    return [name.strip() for name in value.split(",")] if value else []


def _installed(wanted: list[Contender], results: Results, workloads: list[str], *, again: bool) -> list[Contender]:
    """Build and install; note who cannot be installed, and go on with the others."""
    began = time.perf_counter()
    if again:
        contenders_.build()
    able, environments = [], {"": ""}  # folder -> why it failed
    for contender in wanted:
        if contender.environment not in environments:
            environments[contender.environment] = ""
            try:
                if again:
                    contenders_.install(contender)
            except RuntimeError as error:
                environments[contender.environment] = str(error)
        if reason := environments[contender.environment]:
            console.print(f"[red]{contender.name} cannot be installed: {reason}")
            for workload in set(workloads) & set(contender.workloads):
                results.add(contender.name, workload, 1, {"error": f"not installed: {reason}"})
        else:
            results.versions[contender.name] = contender.versions()
            able.append(contender)
    console.print(f"Built and installed in {time.perf_counter() - began:.0f} s")
    return able


def _measured(contender: Contender, workloads: Iterable[str], seconds: float) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield figures or errors; workers that failed are started anew for what is left."""
    left = list(workloads)
    while left:
        try:
            with tempfile.TemporaryDirectory() as folder, session(contender, Path(folder)) as running:
                while left:
                    workload = left.pop(0)
                    yield workload, measure(running, contender, workload, seconds)
                    workload = left[0] if left else ""
        except Failure as failure:
            if left and workload == left[0]:
                left.pop(0)
            yield workload, {"error": str(failure)}
