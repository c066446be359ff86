"""Measure the engine beside Rhai itself, used by a Rust program, in turns; and beside Python's own ways.

python -m bench.engine --rounds 5
"""

import json
import statistics
import subprocess
import threading
import time
import timeit
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from rhai_tasks.engine import RHAI_VERSION, Engine, Limits

from .run import machine

NATIVE = Path(__file__).parent / "native"
SCRIPTS = {  # name: script, evaluations in one measurement
    "trivial": ("40 + 2", 100_000),
    "fib(25)": ("fn fib(n) { if n < 2 { n } else { fib(n - 1) + fib(n - 2) } } fib(25)", 1),
    "text": ('let s = ""; for i in 0..20000 { s += `${i},`; } s.len()', 10),
    "map": ("let m = #{}; for i in 0..20000 { m[`k${i % 100}`] = i; } m.len()", 10),
    "loop": ("let i = 0; while i < 1000000 { i += 1 } i", 1),
    "array": ("let a = []; for i in 0..20000 { a.push(i) } a.filter(|x| x % 2 == 0).len()", 10),
}
CALLS = 100_000
VALUE = [{"id": i, "name": f"item {i}", "price": i * 1.25, "sold": i % 2 == 0, "tags": ["a", None]} for i in range(200)]


def best(measured: str | Callable[[], object], repetitions: int, **names: object) -> float:
    """Return seconds of one statement or call, the best of seven measurements."""
    return min(timeit.repeat(measured, number=repetitions, repeat=7, globals=names)) / repetitions


def native(script: str, repetitions: int) -> float:
    """Return seconds of one evaluation in the Rust program."""
    program = NATIVE / "target" / "release" / "native"
    done = subprocess.run([program, str(repetitions)], input=script, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1e9


def host_call(engine: Engine) -> tuple[float, float]:
    """Return seconds of a script's call of a Python function, and of Python's own call of it."""

    def inc(number: int) -> int:
        return number + 1

    engine.register("inc", inc)
    loop = "let i = 0; let n = 0; while i < {calls} {{ {call} i += 1; }}".replace("{calls}", str(CALLS))
    with_call = best(lambda: engine.eval(loop.format(call="n = inc(i);")), 1)
    without = best(lambda: engine.eval(loop.format(call="n = i;")), 1)
    return (with_call - without) / CALLS, best(lambda: inc(1), CALLS)


def conversion(engine: Engine) -> tuple[float, float]:
    """Return seconds of 1,000 values to the engine and back, and through JSON."""
    return best(lambda: engine.eval("x", scope={"x": VALUE}), 100), best(lambda: json.loads(json.dumps(VALUE)), 100)


def threads(engine: Engine, script: str) -> float:
    """Return how many times as much two threads do as one."""

    def run(count: int) -> float:
        def work() -> None:
            engine.run(script)  # compiled before the start
            start.wait()
            for _ in range(20):
                engine.run(script)

        start = threading.Barrier(count + 1)
        workers = [threading.Thread(target=work) for _ in range(count)]
        for worker in workers:
            worker.start()
        start.wait()
        began = time.perf_counter()
        for worker in workers:
            worker.join()
        return count / (time.perf_counter() - began)

    alone = run(1)
    return run(2) / alone


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Measurements of each, in turns.")
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="Also write figures here.")
def main(rounds: int, json_path: Path | None) -> None:
    """Print medians of the rounds, and the spread of their ratios."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=NATIVE, check=True)
    console = Console()
    console.print(f"Rhai {RHAI_VERSION}; {machine()}")
    figures: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        engine = Engine(limits=Limits(timeout=600.0))
        for name, (script, repetitions) in SCRIPTS.items():
            ours = best("evaluate(script)", repetitions, evaluate=engine.eval, script=script)
            figures.setdefault(name, []).append((ours, native(script, repetitions)))
        figures.setdefault("a call of a Python function", []).append(host_call(engine))
        figures.setdefault("1,000 values there and back", []).append(conversion(engine))
    table = Table("", "ours", "other", "other / ours", "ours - other", title="Microseconds; the other is Rhai in Rust")
    for name, measured in figures.items():
        ours, other = (statistics.median(column) * 1e6 for column in zip(*measured, strict=True))
        ratios = sorted(theirs / own for own, theirs in measured)
        table.add_row(
            name, f"{ours:,.2f}", f"{other:,.2f}", f"{ratios[0]:.2f} .. {ratios[-1]:.2f}", f"{ours - other:,.2f}"
        )
    table.caption = "For the call, the other is Python's own call; for the values, json.dumps and json.loads."
    console.print(table)
    scaling = {
        name: [threads(Engine(), SCRIPTS[name][0]) for _ in range(rounds)]
        for name in ("fib(25)", "text", "map", "array")
    }
    for name, ratios in scaling.items():
        console.print(f"{name}: two threads do {min(ratios):.2f} .. {max(ratios):.2f} times the work of one")
    if json_path:
        json_path.write_text(json.dumps({"engine": figures, "threads": scaling}))


if __name__ == "__main__":
    main()
