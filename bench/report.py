"""Tables and plots of what was measured: for a terminal, and for docs/performance.md."""

import re
import statistics
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from .conditions import AS_THEY_COME, CONDITIONS, EVERYWHERE
from .engine import CALL, CONVERSION, SCRIPTS
from .growth import condition
from .results import Results
from .tables import Table, number, spread
from .targets import DEFAULT, REFERENCE, TWO_PROCESSES, targets, versus
from .workloads import DRAINED, TITLES

ROOT = Path(__file__).parent.parent
DOCUMENTS = (ROOT / "docs" / "performance.md", ROOT / "README.md")
IMAGES = ROOT / "docs" / "images"
SUMMARY = {
    DEFAULT: "`rhai-worker`, 1 process",
    TWO_PROCESSES: "`rhai-worker`, 2 processes",
    REFERENCE: "the original worker, rebuilt in Rust",
    "ardiq": "ArdiQ",
    "dramatiq": "dramatiq",
    "taskiq": "taskiq",
    "celery": "Celery, prefork",
    "rq simple": "RQ, without forks",
}
"""The contenders of README.md, and what it calls them."""
MISSING = "-"
SERVER_LOAD = 0.7  # of one core: beyond it what waits for the server grows fast
QUIET = 1.0  # load average below which figures are trusted


def _median(results: Results, contender: str, workload: str, figure: str, condition: str = AS_THEY_COME) -> str:
    values = results.values(contender, workload, figure, condition).values()
    return number(statistics.median(values)) if values else MISSING


def _by_contender(
    results: Results, title: str, workload: str, columns: dict[str, tuple[str, str]], condition: str = AS_THEY_COME
) -> Table:
    names = results.contenders(workload, condition)
    rows = [[name, *(_median(results, name, *column, condition) for column in columns.values())] for name in names]
    return Table(title, ["", *columns], rows)


def conditions(results: Results) -> Table:
    """Compare ours with the reference in each condition of the cores, round by round, if all were measured."""
    rows = []
    for title, workload, figure in (
        ("trivial scripts a second", "W1", "tasks_per_second"),
        ("the same, each different", "W1d", "tasks_per_second"),
        ("one task, p50", "W4", "p50_ms"),
        ("one task, p99", "W4", "p99_ms"),
    ):
        found = [versus(workload, figure, condition)(results) for condition in CONDITIONS]
        if all(found):
            rows.append([title, *map(spread, found)])
    return Table("Ours / reference", ["ours / reference", *CONDITIONS], rows)


def trivial(condition: str) -> Callable[[Results], Table]:
    """Make the table of trivial scripts in one condition of the cores."""
    columns = {
        "tasks a second": ("W1", "tasks_per_second"),
        "each different": ("W1d", "tasks_per_second"),
        "CPU of the workers, µs": ("W1", "tree_cpu_us"),
        "of it in the system": ("W1", "tree_system_us"),
        "CPU of the server, µs": ("W1", "server_cpu_us"),
        "wake-ups": ("W1", "wakeups"),
        "alone, p50 ms": ("W4", "p50_ms"),
        "alone, p99 ms": ("W4", "p99_ms"),
    }
    return lambda results: _by_contender(results, f"Trivial scripts, {condition}", "W1", columns, condition)


def throughput(results: Results) -> Table:
    """Say how many tasks a second each contender runs from a full queue."""
    columns = {TITLES[name]: (name, "tasks_per_second") for name in DRAINED if name not in EVERYWHERE}
    return _by_contender(results, "Tasks a second from a full queue", "W1", columns)


def summary(results: Results) -> Table:
    """Make the table of README.md."""
    columns = {
        "trivial script": ("W1", "tasks_per_second"),
        "3 ms of CPU": ("W2", "tasks_per_second"),
        "20 ms blocked": ("W3", "tasks_per_second"),
        "workers' CPU a trivial task, µs": ("W1", "tree_cpu_us"),
    }
    able = [name for name in SUMMARY if name in results.contenders("W1")]
    rows = [[SUMMARY[name], *(_median(results, name, *column) for column in columns.values())] for name in able]
    return Table("In short", ["tasks a second", *columns], rows)


def latency(results: Results) -> Table:
    """Say how long a trivial task takes among others, and how long a worker takes to start."""
    columns = {
        "mixed, p50 ms": ("W5", "p50_ms"),
        "mixed, p99 ms": ("W5", "p99_ms"),
        "mixed, arrivals a second": ("W5", "rate"),
        "start to first result, s": ("W4", "start_s"),
    }
    return _by_contender(results, "Latency: push to visible result", "W4", columns)


def cost(results: Results) -> Table:
    """Say what a trivial task takes beside CPU, and what doing nothing does."""
    columns = {
        "commands": ("W1", "commands"),
        "requests": ("W1", "requests"),
        "resident, MiB": ("W1", "resident_mib"),
        "idle: commands a second": ("W4", "idle_commands"),
        "idle: requests a second": ("W4", "idle_requests"),
        "idle: wake-ups a second": ("W4", "idle_wakeups"),
    }
    return _by_contender(results, "What a trivial task costs", "W1", columns)


def submitting(results: Results) -> Table:
    """Say how fast tasks are submitted."""
    columns = {
        "one by one, tasks a second": ("W7", "submit_per_second"),
        "many at once, tasks a second": ("W7", "submit_many_per_second"),
    }
    return _by_contender(results, "Submitting, to a queue that nobody serves", "W7", columns)


def engine(results: Results) -> Table:
    """Compare the engine with Rhai in Rust."""
    rows = []
    for row in [*SCRIPTS, CALL, CONVERSION]:
        measured = [one[row] for one in results.records if row in one]
        if not measured:
            continue
        own, rust, *python = (statistics.median(column) * 1e6 for column in zip(*measured, strict=True))
        quotients = [one[1] / one[0] for one in measured]
        span = f"{statistics.median(quotients):.2f} ({min(quotients):.2f} .. {max(quotients):.2f})"
        rows.append([row, number(own), number(rust), span, number(python[0]) if python else MISSING])
    columns = ["µs", "ours", "Rhai in Rust", "its time / ours", "Python"]
    return Table("The engine alone", columns, rows)


def fleet(results: Results) -> Table:
    """Say on paper how many machines one server carries: what both took a task, at full queues."""
    rows = []
    for workload in ("W1", "W2"):
        tree, server = (results.values(DEFAULT, workload, figure) for figure in ("tree_cpu_us", "server_cpu_us"))
        if not tree:
            continue
        worker_us, server_us = statistics.median(tree.values()), statistics.median(server.values())
        if not worker_us or not server_us:  # a run shorter than a tick of the system's clock for CPU
            continue
        carried = SERVER_LOAD * 1e6 / server_us
        machine = 8 * 1e6 / worker_us
        rows.append(
            [
                TITLES[workload],
                number(worker_us),
                number(server_us),
                number(machine),
                number(carried),
                number(carried / machine),
            ]
        )
    columns = [
        "",
        "w, µs",
        "s, µs",
        "a machine of 8 cores, tasks/s",
        "one server, tasks/s",
        "machines a server carries",
    ]
    return Table("One server, on paper", columns, rows)


def failures(results: Results) -> Table:
    """List what could not be measured."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for (contender, workload), error in results.errors().items():
        reasons.setdefault((contender, " ".join(error.split())[:200]), []).append(workload)
    rows = [[contender, " ".join(workloads), error] for (contender, error), workloads in reasons.items()]
    return Table("Not measured", ["", "workloads", "why"], rows)


def growth_tables(results: Results) -> dict[str, Table]:
    """Show each step of the growth measurements."""
    columns = {
        "workers": {
            "trivial, tasks a second": "tasks_per_second",
            "3 ms CPU, tasks a second": "computing",
            "resident, MiB": "resident_mib",
        },
        "circles": {
            "tasks a second": "tasks_per_second",
            "idle: requests a second": "idle_requests",
            "idle: CPU of the workers, ms a second": "idle_cpu_ms",
            "resident, MiB": "resident_mib",
        },
        "callers": {
            "CPU of the workers, µs": "tree_cpu_us",
            "CPU of the server, µs": "server_cpu_us",
            "commands": "commands",
        },
        "backlog": {
            "tasks a second": "tasks_per_second",
            "resident, MiB": "resident_mib",
            "server, bytes a waiting task": "server_bytes",
        },
        "size": {
            "tasks a second": "tasks_per_second",
            "MiB a second": "mib_per_second",
            "CPU of the workers, µs": "tree_cpu_us",
            "CPU of the server, µs": "server_cpu_us",
        },
    }
    names = {"workers": "processes x threads", "backlog": "waiting tasks", "size": "script"}
    found = {}
    for axis, shown in columns.items():
        where = condition(axis)
        rows = [
            [step, *(_median(results, step, axis, figure, where) for figure in shown.values())]
            for step in results.contenders(axis, where)
        ]
        if rows:
            name = names.get(axis, axis)
            found[axis] = Table(f"Growth by {name}, {where}", [name, *shown], rows)
    return found


def setting(results: Results, *names: str) -> str:
    """Say where and when, in one paragraph: all that is known, or these parts of it."""
    rounds = max((one["round"] for one in results.records), default=0)
    machine = "; ".join(f"{name}: {results.machine[name]}" for name in names or results.machine)
    busy = float(results.machine["load before"].split(",")[0]) > QUIET
    warning = " **The machine was busy before: these figures are rough.**" if busy else ""
    return f"{machine}; rounds: {rounds}.{warning}"


TABLES: dict[str, Callable[[Results], Table]] = {
    "summary": summary,
    "conditions": conditions,
    "targets": targets,
    **{condition.replace(" ", "-"): trivial(condition) for condition in CONDITIONS},
    "throughput": throughput,
    "cost": cost,
    "latency": latency,
    "submitting": submitting,
    "engine": engine,
    "fleet": fleet,
    "failures": failures,
}
"""By the name of the place in a document."""


def show(results: Results, console: Console) -> None:
    """Print all tables that have something in them."""
    console.print(setting(results))
    for table in TABLES.values():
        made = table(results)
        if made.rows:
            console.print(made.rich())


def show_growth(results: Results, console: Console) -> None:
    """Print the growth tables."""
    console.print(setting(results))
    for table in [*growth_tables(results).values(), failures(results)]:
        if table.rows:
            console.print(table.rich())


def parts(results: Results) -> dict[str, str]:
    """Write the parts of documents that a run has figures for, by their names."""
    made = {name: table(results) for name, table in TABLES.items()}
    found = {name: table.markdown() for name, table in made.items() if table.rows}
    if "targets" in found:
        found["targets"] = f"{made['targets'].title}.\n\n{found['targets']}"
    return {"failures": "Nothing failed.", **found, "setting": setting(results)}


def growth_parts(results: Results) -> dict[str, str]:
    """Write the parts of the axes that a run has figures for: each says where and when, as runs may have one axis."""
    where = setting(results, "processor", "date", "load before")
    return {f"growth-{axis}": f"{table.markdown()}\n\n{where}" for axis, table in growth_tables(results).items()}


def write_documents(results: Results, grown: Results | None) -> None:
    """Put what was measured between the markers of the documents, and plots into docs/images/."""
    from . import plots  # noqa: PLC0415  (only here matplotlib is needed)

    IMAGES.mkdir(exist_ok=True)
    found = parts(results)
    plots.compare(results, IMAGES)
    if grown:
        found |= growth_parts(grown)
        plots.grow(grown, IMAGES)
    for document in DOCUMENTS:
        document.write_text(filled(document.read_text(), found))


def filled(text: str, parts: dict[str, str]) -> str:
    """Replace what stands between `<!-- measured: NAME -->` and `<!-- end -->`, where there are figures for it."""

    def replace(found: re.Match[str]) -> str:
        return f"{found[1]}\n\n{parts[found[2]]}\n\n{found[3]}" if found[2] in parts else found[0]

    return re.sub(r"(<!-- measured: ([\w-]+) -->).*?(<!-- end -->)", replace, text, flags=re.DOTALL)
