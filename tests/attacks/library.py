"""Call every function of Rhai's library with extreme arguments, under limits.

python -m tests.attacks.library SEED CALLS: prints the scripts that made the engine panic or ended long after their
deadline, and last the number of calls and the most MiB that the process held. What runs when it dies is stderr's last
line.
"""

import itertools
import random
import re
import sys
import time
from pathlib import Path

from rhai_tasks.engine import Engine, Function, Limits
from rhai_tasks.errors import RhaiError, RhaiPanic

MIB = 1024 * 1024
TIMEOUT, LATE = 0.1, 5.0  # seconds; what a machine with other things to do takes is not yet late
VARIABLES = {"TEXT": "x" * 100_000, "LIST": [1, "a", None, 2.5, [1]] * 400, "MAX": 2**63 - 1, "MIN": -(2**63)}
INTEGERS = ["0", "1", "-1", "64", "MAX", "MIN", "4294967296"]
VALUES = {
    "i64": INTEGERS,
    "f64": ["0.0", "-0.5", "1e300", "-1e300", "0.0/0.0", "1.0/0.0"],
    "Decimal": ["parse_decimal('0')", "parse_decimal('-79228162514264337593543950335')", "parse_decimal('1e-28')"],
    "str": ['""', '"x"', '"aé🦀\\0"', "TEXT", '"9223372036854775808"', '"{"'],
    "char": ["'x'", "'🦀'", "'\\0'"],
    "FnPtr": ["|x| x", "|x| throw 1", "|a, b| true", "|a, b| loop {}", "|| this", 'Fn("nosuch")', 'Fn("sleep")'],
    "Range<i64>": ["0..3", "0..MAX", "MAX..MIN", "MIN..MAX", "-5..5"],
    "RangeInclusive<i64>": ["0..=3", "0..=MAX", "MIN..=MAX", "-5..=5"],
    "Array": ["[]", "[1, 2, 3]", "LIST", "[[[]]]"],
    "Blob": ["blob(0)", "blob(9, 255)", "blob(1000)"],
    "Map": ["#{}", "#{a: 1, b: #{}}"],
    "Instant": ["timestamp()"],
    "bool": ["true"],
    "()": ["()"],
}
ANY = ["()", "MIN", "0.0/0.0", "TEXT", "'x'", "LIST", "#{a: 1}", "blob(9)", "0..MAX", "|x| x", "timestamp()"]


def values(parameter: str) -> list[str]:
    """Return expressions for a parameter; integers stand for the types that scripts cannot make."""
    type_ = parameter.rpartition(": ")[2].removeprefix("&mut ").removeprefix("&").replace("ImmutableString", "str")
    return VALUES.get(type_) or (ANY if type_ == "Dynamic" else INTEGERS)


def script(function: Function, arguments: tuple[str, ...]) -> str:
    """Write the call as a script would."""
    name, (first, *rest) = function.name, arguments or ("",)
    kind, _, member = name.rpartition("$")
    forms = {
        "get": f"({first}).{member}",
        "set": f"let v = {first}; v.{member} = {','.join(rest)}; v",
        "index$get": f"let v = {first}; v[{','.join(rest)}]",
        "index$set": f"let v = {first}; v[{','.join(rest[:1])}] = {','.join(rest[1:])}; v",
    }
    if kind in forms:
        return forms[kind]
    if not re.fullmatch(r"\w+", name):
        return f"({first}) {name} ({rest[0]})" if rest else f"{name}({first})"
    if function.parameters and function.parameters[0].partition(": ")[2].startswith("&mut"):
        return f"let v = {first}; [v.{name}({', '.join(rest)}), v]"
    return f"{name}({', '.join(arguments)})"


def peak_memory() -> int:
    """Return the most bytes that this process held; `ru_maxrss` counts those of the process that started it, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main(seed: int, most: int) -> None:
    """Call each function with every combination of its arguments, or a sample of `most` of them."""
    chance = random.Random(seed)
    limits = Limits(timeout=TIMEOUT, max_memory=16 * MIB, max_operations=5_000)
    engine = Engine(limits=limits)
    calls = 0
    for function in engine.functions():
        combinations = list(itertools.product(*(values(parameter) for parameter in function.parameters)))
        for arguments in chance.sample(combinations, min(len(combinations), most)):
            source = script(function, arguments)
            print(source, file=sys.stderr, flush=True)
            calls += 1
            scope = {name: value for name, value in VARIABLES.items() if name in source}  # to convert all takes longest
            start = time.process_time()  # of this process: the machine may have other work
            try:
                engine.eval(source, scope=scope, print=str, debug=lambda *_: None)
            except RhaiPanic as error:
                print(f"{source}: {error}")
            except (RhaiError, TypeError, ValueError, OverflowError):
                pass
            if (took := time.process_time() - start) > LATE:
                print(f"{source}: took {took:.1f} s")
    print(calls, peak_memory() // MIB)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
