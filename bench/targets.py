"""What the measurements aim at, and whether the figures meet it."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from .conditions import AS_THEY_COME, AWAKE, ONE_CORE
from .engine import CALL, CONVERSION, PARALLEL, SCRIPTS
from .results import Results
from .tables import Table, ratios, spread

REFERENCE = "reference"
NOT_PYTHON = (REFERENCE, "apalis", "bullmq")
DEFAULT = "ours 1x8"
TWO_PROCESSES = "ours 2x8"


@dataclass(frozen=True)
class Target:
    """What was aimed at: a figure for each round, and the bound that its median is to meet."""

    title: str
    rounds: Callable[[Results], list[float]]
    bound: float
    at_most: bool = False


def versus(
    workload: str, figure: str, condition: str = AS_THEY_COME, *, ours: str = DEFAULT, inverse: bool = False
) -> Callable[[Results], list[float]]:
    """Make a function that compares ours with the reference in each round."""

    def rounds(results: Results) -> list[float]:
        own, base = (ours, workload, figure, condition), (REFERENCE, workload, figure, condition)
        return ratios(results, base, own) if inverse else ratios(results, own, base)

    return rounds


def _own(
    workload: str, figure: str, condition: str = AS_THEY_COME, *, ours: str = DEFAULT
) -> Callable[[Results], list[float]]:
    return lambda results: list(results.values(ours, workload, figure, condition).values())


def best_python(results: Results, condition: str = AS_THEY_COME) -> str:
    """Name the contender in Python that is not ours and runs most trivial tasks a second."""
    names = [name for name in results.contenders("W1", condition) if not name.startswith((*NOT_PYTHON, "ours"))]

    def median(name: str) -> float:
        return statistics.median(results.values(name, "W1", "tasks_per_second", condition).values())

    return max(names, key=median, default="")


def _versus_python(condition: str) -> Callable[[Results], list[float]]:
    def rounds(results: Results) -> list[float]:
        own, best = ((name, "W1", "tasks_per_second", condition) for name in (DEFAULT, best_python(results, condition)))
        return ratios(results, own, best)

    return rounds


def _different(results: Results) -> list[float]:
    """Compare scripts that are each different with one that repeats."""
    different, same = ((DEFAULT, workload, "tasks_per_second", ONE_CORE) for workload in ("W1d", "W1"))
    return ratios(results, different, same)


def _of_engine(row: str, figure: Callable[..., float]) -> Callable[[Results], list[float]]:
    """Make a figure of each round's seconds of a row: ours, Rust's, and Python's own where there is such a thing."""
    return lambda results: [figure(*one[row]) for one in results.records if row in one]


def _scaling(place: int) -> Callable[[Results], list[float]]:
    return lambda results: [one["scaling"][place] for one in results.records if "scaling" in one]


def _sharing(results: Results) -> list[float]:
    """Compare a script that gets other values each time with one that gets the same."""
    pairs = [one["sharing"] for one in results.records if "sharing" in one]
    return [others / same for others, same in pairs]


TRIVIAL, *WORK = SCRIPTS
TARGETS = (
    Target("trivial script, one core: ours / reference", versus("W1", "tasks_per_second", ONE_CORE), 3.0),
    Target("trivial script, cores awake: ours / reference", versus("W1", "tasks_per_second", AWAKE), 3.0),
    Target("trivial script, as they come: ours / reference", versus("W1", "tasks_per_second"), 3.0),
    Target("trivial script, one core: ours / best of Python", _versus_python(ONE_CORE), 4.0),
    Target("trivial script, as they come: ours / best of Python", _versus_python(AS_THEY_COME), 4.0),
    Target("trivial script, two processes: tasks a second", _own("W1", "tasks_per_second", ours=TWO_PROCESSES), 40_000),
    Target("workers' CPU a trivial task, one core, µs", _own("W1", "tree_cpu_us", ONE_CORE), 18, at_most=True),
    Target("server's CPU a trivial task, one core, µs", _own("W1", "server_cpu_us", ONE_CORE), 10, at_most=True),
    Target("commands a trivial task", _own("W1", "commands", ONE_CORE), 2.5, at_most=True),
    Target("each script different, one core: to one that repeats", _different, 0.85),
    Target("3 ms of CPU: ours / reference", versus("W2", "tasks_per_second"), 1.8),
    Target("20 ms blocked: ours / reference", versus("W3", "tasks_per_second"), 8.0),
    Target("one task, p50, cores awake: ours / reference", versus("W4", "p50_ms", AWAKE), 1.3, at_most=True),
    Target("one task, p99, cores awake: ours / reference", versus("W4", "p99_ms", AWAKE), 1.3, at_most=True),
    Target("mixed, p99 of the trivial: reference / ours", versus("W5", "p99_ms", inverse=True), 3.0),
    Target("256 KiB: ours / reference", versus("W6", "tasks_per_second"), 1.0),
    Target("requests a second, idle", _own("W4", "idle_requests"), 3.0, at_most=True),
    Target("start to first result, s", _own("W4", "start_s"), 0.5, at_most=True),
    Target("resident, MiB", _own("W1", "resident_mib"), 100.0, at_most=True),
    Target(f"{TRIVIAL}: µs above Rust", _of_engine(TRIVIAL, lambda own, rust: (own - rust) * 1e6), 0.5, at_most=True),
    *(Target(f"{row}: Rust / ours", _of_engine(row, lambda own, rust: rust / own), 0.95) for row in WORK),
    # Not beside Rust's: there the function is one of Rust, and nothing crosses a border.
    Target(
        f"{CALL}: µs above Python's own",
        _of_engine(CALL, lambda own, _, python: (own - python) * 1e6),
        0.5,
        at_most=True,
    ),
    Target(f"{CONVERSION}: ours / JSON's", _of_engine(CONVERSION, lambda own, _, json: own / json), 1.0, at_most=True),
    Target("1.5 KB, another caller and arguments each time / the same", _sharing, 1.15, at_most=True),
    *(Target(f"{row}: two threads / one", _scaling(place), 1.9) for place, row in enumerate(PARALLEL)),
)


def targets(results: Results) -> Table:
    """Compare medians with what was aimed at; ours is `rhai-worker` with its defaults."""
    rows = []
    for target in TARGETS:
        values = target.rounds(results)
        if values:
            median = statistics.median(values)
            met = median <= target.bound if target.at_most else median >= target.bound
            bound = f"{'at most' if target.at_most else 'at least'} {target.bound:g}"
            rows.append([target.title, bound, spread(values), "yes" if met else "no"])
    title = f"Targets; the best of Python is {best_python(results) or 'not measured'}"
    return Table(title, ["", "target", "median", "met"], rows)
