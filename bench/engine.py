"""The engine alone, beside Rhai itself in a Rust program, in turns; and beside Python's own ways."""

import itertools
import json
import subprocess
import threading
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from rhai_tasks.engine import Engine, Limits

NATIVE = Path(__file__).parent / "native" / "target" / "release" / "native"
SCRIPTS = {  # row: script, evaluations in one measurement
    "trivial script, compiled before": ("40 + 2", 100_000),
    "fib(25)": ("fn fib(n) { if n < 2 { n } else { fib(n - 1) + fib(n - 2) } } fib(25)", 1),
    "20,000 pieces of text joined": ('let s = ""; for i in 0..20000 { s += `${i},`; } s.len()', 10),
    "loop of a million turns": ("let i = 0; while i < 1000000 { i += 1 } i", 1),
    "20,000 entries of a map": ("let m = #{}; for i in 0..20000 { m[`k${i % 100}`] = i; } m.len()", 10),
    "array of 20,000, filtered": ("let a = []; for i in 0..20000 { a.push(i) } a.filter(|x| x % 2 == 0).len()", 10),
}
CALL = "call of a host function"
CONVERSION = "nested value of 1,000 elements, there and back"
CALLS = 100_000
VALUE = [{"id": i, "name": f"item {i}", "price": i * 1.25, "sold": i % 2 == 0, "tags": ["a", None]} for i in range(200)]
PARALLEL = ("fib(25)", "20,000 pieces of text joined", "20,000 entries of a map", "array of 20,000, filtered")


RULES = "\n".join(
    f"fn rule{n}(total) {{ if total > {n}.0 {{ total - ARGS.less }} else {{ total }} }}" for n in range(22)
)
SHARED = f"""{RULES}
let total = 0.0;
for line in ARGS.lines {{ total += line.price * line.count; }}
`${{CALLER_ID}}: ${{rule0(rule1(total))}}`"""
"""A script of 1.5 KB, for any caller and arguments."""


def best(measured: str | Callable[[], object], repetitions: int, **names: object) -> float:
    """Return seconds of one statement or call, the best of seven measurements."""
    return min(timeit.repeat(measured, number=repetitions, repeat=7, globals=names)) / repetitions


def native(work: str, text: str, repetitions: int) -> float:
    """Return seconds of one evaluation or conversion in the Rust program, also the best of seven."""
    done = subprocess.run([NATIVE, work, str(repetitions)], input=text, capture_output=True, text=True, check=True)
    return int(done.stdout) / 1e9


def measure() -> dict[str, list[float]]:
    """Return seconds of each row: ours, the Rust program's, and Python's own where there is such a thing."""
    engine = Engine(limits=Limits(timeout=600.0))
    found = {}
    for row, (script, repetitions) in SCRIPTS.items():
        ours = best("evaluate(script)", repetitions, evaluate=engine.eval, script=script)
        found[row] = [ours, native("eval", script, repetitions)]
    found[CALL] = _host_call(engine)
    found[CONVERSION] = [
        best(lambda: engine.eval("x", scope={"x": VALUE}), 100),
        native("convert", json.dumps(VALUE), 100),
        best(lambda: json.loads(json.dumps(VALUE)), 100),
    ]
    return found


def _host_call(engine: Engine) -> list[float]:
    """Time a script's call of a host function, of Python here and of Rust there; and Python's own call of it."""

    def inc(number: int) -> int:
        return number + 1

    engine.register("inc", inc)
    loop = "let i = 0; let n = 0; while i < {calls} {{ {call} i += 1; }}".replace("{calls}", str(CALLS))
    called, empty = loop.format(call="n = inc(i);"), loop.format(call="n = i;")
    ours = best(lambda: engine.eval(called), 1) - best(lambda: engine.eval(empty), 1)
    theirs = native("eval", called, 1) - native("eval", empty, 1)
    return [ours / CALLS, theirs / CALLS, best(lambda: inc(1), CALLS)]


def scaling() -> dict[str, float]:
    """Return how many times as much two threads do as one."""
    return {row: _threads(Engine(), SCRIPTS[row][0]) for row in PARALLEL}


def sharing() -> list[float]:
    """Return seconds of a script with another caller and other arguments each time, and with the same, in turns."""
    engine = Engine()
    numbers = itertools.count()

    def run(number: int) -> str:
        lines = [{"price": 1.5, "count": number}, {"price": 2.5, "count": 2}]
        return engine.run(SHARED, constants={"CALLER_ID": f"caller {number}"}, args={"less": 0.5, "lines": lines})

    turns = [(best(lambda: run(next(numbers)), 200), best(lambda: run(1), 200)) for _ in range(3)]
    return [min(column) for column in zip(*turns, strict=True)]


def _threads(engine: Engine, script: str) -> float:
    def run(count: int) -> float:
        def work() -> None:
            engine.run(script)  # compiled before the start
            start.wait()
            for _ in range(10):
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
