"""Call every function of Rhai's library with the largest arguments that the memory limit allows, under a deadline.

python -m tests.attacks.largest MEBIBYTES some|all|reported [TYPE]: prints the calls that took too much memory or
processor time, and last the number of calls. What runs when the process dies is the last line of stderr. `some` calls
each function with two of the large values of a type, `all` with each, and with more values of its other arguments.

python -m tests.attacks.largest list: writes the list of functions, for review.
"""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rhai_tasks.engine import Engine, Function, Limits, Scope, last_use
from rhai_tasks.errors import RhaiError, RhaiPanic

from .library import peak_memory, script

MIB = 1024 * 1024
TIMEOUT = 0.05  # seconds
LATE = 0.2 / (64 * MIB)  # seconds of processor time for each byte of the memory limit: the machine may have other work
LEAST_LATE = 0.3  # other processes in the same caches make a call take twice its time
MOST_MEMORY = 2  # times the limit
MOST_OF_OPERATORS = 3  # Rhai copies both operands, or a text that grows, between two checks
OPERATOR = re.compile(r" (==|!=|in|\+=?) |\beval\b|\[\$\{")
GROWING = 1  # times the limit: the system may copy a block that grows
ATTEMPTS = 3  # the system's count of memory, and the time, are also those of other work; the engine's count is exact
REVIEWED = Path(__file__).with_name("library.txt")

# Scripts that make `v` hold about `n` bytes, by type.
LARGEST = {
    "text": [
        "let v = blob(n, 97).as_string();",
        'let v = ""; v.pad(n, "a ");',
        'let v = ""; v.pad(n / 2, "\\u0390");',
        "let v = blob(n, 127).as_string();",
        'let v = ""; v.pad(n / 4, "🦀");',
    ],
    "array": [
        "let v = []; v.pad(n / 16, 7);",
        "let v = []; v.pad(n / 56, []);",
        "let v = []; for i in 0..n / 120 { v.push(`a text of some length, which is on the heap ${i}`); }",
        "let v = []; let s = blob(n / 2, 127).as_string(); v.pad(n / 32, s);",
        "let v = []; v.pad(4, blob(n / 4, 255));",
    ],
    "blob": ["let v = blob(n, 255);", "let v = blob(n, 97);"],
    "map": [
        "let v = #{}; for i in 0..n / 110 { v[`${i}`] = i; }",
        "let v = #{a: blob(n, 255)};",
        "let s = blob(n / 2, 127).as_string(); let v = #{}; for i in 0..n / 220 { v[`${i}`] = s; }",
    ],
    "none": ["let v = [];"],
}
SMALL = {
    "number": ["1", "0", "-1", "v.len() / 2", "0x7fffffffffffffff"],
    "text": ['"a"', '""', '" "'],
    "char": ["'a'", "' '"],
    "function": ["|x| x", "|x| true", "|x, y| true", "|x, y| x == y"],
    "range": ["1..v.len() - 1", "0..0x7fffffffffffffff"],
    "range=": ["1..=v.len() - 1", "0..=0x7fffffffffffffff"],
    "array": ["[]", "[1]"],
    "blob": ["blob(9, 255)", "blob(0)"],
    "map": ["#{a: 1}", "#{}"],
    "any": ["1", '"a"', "[]", "#{}", "blob(1)"],
    "bool": ["true"],
    "time": ["timestamp()"],
    "()": ["()"],
}
MOST = {"number": "n", "range": "0..n", "range=": "0..=n"}
# What else takes a value as a whole.
FORMS = ["for x in v {}", "`${v}`", "[v]", "#{a: v}", "v == v", "let f = || v; f.call()", "[1].map(|x| v)", "v in v"]
NAMES = {"Array": "array", "Blob": "blob", "Map": "map", "Dynamic": "any", "FnPtr": "function", "Instant": "time"}
NUMBER = re.compile("[iu](8|16|32|64|128)|f32|f64|FLOAT|Decimal")


# Calls that once took too much.
REPORTED = {
    'let v = ""; v.pad(28_000_000, "a ");': ["v.split().len"],
    "let v = blob(60_000_000, 255);": [
        *(
            "print(v)",
            "v.to_string()",
            "v.to_debug()",
            "`${v}`",
            "[v].to_string()",
            "v.as_string()",
            "v + ''",
            "'' + v",
        ),
    ],
    "let v = blob(50_000_000, 127).as_string();": [
        "debug(v)",
        "v.to_debug()",
        "[v].to_string()",
        "#{a: v}.to_string()",
    ],
    'let v = ""; v.pad(10_000_000, "\u0390");': ["v.to_upper()", "v.to_lower()", "v.make_upper()"],
    "let v = blob(60_000_000, 97).as_string();": [
        *("v.sub_string(1)", "v.sub_string(-9, 5)", "v.sub_string(1..9)", "v.crop(1)", "v.crop(1..=9)", "v.pop()"),
        *(
            "v.pop(1)",
            "v.index_of('b', 1)",
            "v.set(7, 'b')",
            "v.split(7)",
            "for c in v {}",
            "v.chars(3)",
            "v.remove('a')",
        ),
        *("v.replace('a', '')", "v.split('a')", "v.split_rev('a')"),
    ],
    # A name of a function, or a number, that the text of an error holds.
    "let v = blob(50_000_000, 97).as_string();": [
        *(
            f"let w = [1]; w.{name}(v)"
            for name in ("all", "drain", "filter", "map", "reduce", "retain", "some", "sort")
        ),
        *("[1, 2].dedup(v)", "[1].index_of(v)", "[1].reduce_rev(v, 1)", "v.trim()", "#{}.set(v, 1)"),
        *(
            "[1].map(Fn(v))",
            "Fn(v).call()",
            "let f = Fn(v); f.call(1)",
            "[2, 1].sort(Fn(v + ``))",
            "[1].index_of(Fn(v))",
        ),
        *("fn f(v) { Fn(v).call() } f(v)", "[v].map(|v| Fn(v).call())", "Fn(v).curry(1).call()"),
        *("parse_int(v)", "parse_int(v, 8)", "parse_float(v)", "parse_decimal(v)"),
    ],
    # Its text would have 2 TB. Rhai writes that without bounds, if the copy of `v` has stopped the script.
    "let s = blob(20_000_000, 127).as_string(); let v = #{}; for i in 0..100_000 { v[`${i}`] = s; }": [
        *(
            "' ' + v",
            "v + ' '",
            "let t = ' '; t += v; t",
            "let t = ' '; t.append(v)",
            "`${v}`",
            "`${take(v)}`",
            "`${[v].pop()}`",
            "`${[v].shift()}`",
            "`${[v].remove(0)}`",
            "`${#{v: v}.remove('v')}`",
            "print(v)",
            "[v] + ' '",
        ),
    ],
    "let v = [];": ["let s = ''; s.pad(30_000_000, 'a'); s.len", "let s = ''; s.pad(20_000_000, `aé`); s.len"],
}


def type_of(parameter: str) -> str:
    """Return the kind of a function's parameter."""
    type_ = parameter.rpartition(": ")[2].removeprefix("&mut ").removeprefix("&").removeprefix("std::ops::")
    if type_ in ("str", "ImmutableString"):
        return "text"
    if type_.startswith("Range"):
        return "range=" if type_.startswith("RangeInclusive") else "range"
    return "number" if NUMBER.fullmatch(type_) else NAMES.get(type_, type_)


def listed(functions: Sequence[Function]) -> str:
    """List the functions, a line for each name: what they take."""
    kinds: dict[str, set[str]] = {}
    for function in functions:
        parameters = " ".join(type_of(parameter) for parameter in function.parameters)
        kinds.setdefault(function.name, set()).add(parameters or "nothing")
    return "".join(f"{name}: {', '.join(sorted(kinds[name]))}\n" for name in sorted(kinds))


def call(function: Function, arguments: list[str]) -> str:
    """Write a call, as a method if the function may change its first argument."""
    if (
        re.fullmatch(r"\w+", function.name)
        and arguments
        and function.parameters[0].partition(": ")[2].startswith("&mut")
    ):
        first, *rest = arguments
        setting = "" if first == "v" else f"let w = {first}; "
        return f"{setting}{'w' if setting else 'v'}.{function.name}({', '.join(rest)})"
    source = script(function, tuple(arguments))
    if source.startswith("let v = v; "):
        return source.removeprefix("let v = v; ")
    return source.replace("let v =", "let w =").replace("; v", "; w")


def calls(function: Function, *, every: bool) -> Iterator[tuple[str, str]]:
    """Yield pairs: a type, and a call of the function whose argument `v` is a large value of that type."""
    types = [type_of(parameter) for parameter in function.parameters]
    yield "none", call(function, [MOST.get(type_, SMALL.get(type_, ["1"])[0]) for type_ in types])
    for place, type_ in enumerate(types):
        for large in LARGEST if type_ == "any" else LARGEST.keys() & {type_}:
            arguments = [SMALL.get(other, ["1"])[0] for other in types]
            arguments[place] = "v"
            yield large, call(function, arguments)
            yield large, call(function, [MOST.get(kind, value) for kind, value in zip(types, arguments, strict=True)])
            for other, kind in enumerate(types):
                values = SMALL.get(kind, [])[1:] if every else []
                if kind in (large, "any"):
                    values = [*values, "v"]
                for value in values if other != place else []:
                    yield large, call(function, [*arguments[:other], value, *arguments[other + 1 :]])


class Attack:
    """Calls under limits, and what they took too much of.

    Args:
        limit: The memory limit in bytes.
        share: The part of it that the large value takes.
    """

    def __init__(self, limit: int, share: float = 7 / 8) -> None:
        self.limit, self.large = limit, int(limit * share)
        self.late = max(LEAST_LATE, LATE * limit)
        self.builder = Engine(limits=Limits(max_memory=0))
        self.engine = Engine(limits=Limits(timeout=TIMEOUT, max_memory=limit))

    def run(self, setting: str, source: str) -> str | None:
        """Run a script with `v`; return what it took, if that is too much each time."""
        excess = None
        for _ in range(ATTEMPTS):
            excess, is_certain = self.attempt(setting, source)
            if excess is None or is_certain:
                break
        return excess

    def attempt(self, setting: str, source: str) -> tuple[str | None, bool]:
        """Run a script with `v` once; return what it took, if that is too much, and whether the measure is exact."""
        # Made anew: a text that an earlier call has changed may hold more memory than its length says.
        scope = Scope(n=self.large)
        self.builder.run(setting, scope=scope)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is that from now on
        held, start = peak_memory(), time.process_time()
        try:
            self.engine.run(source, scope=scope, print=len, debug=lambda *_: None)
            end = "ended"
        except (RhaiError, TypeError, ValueError, OverflowError) as error:
            end = type(error).__name__
        took = time.process_time() - start
        counted = last_use()[1] / self.limit
        resident = (peak_memory() - held + self.large) / self.limit
        most = MOST_OF_OPERATORS if OPERATOR.search(source) else MOST_MEMORY
        is_certain = counted > most or end == RhaiPanic.__name__
        if not is_certain and took <= TIMEOUT + self.late and resident <= most + GROWING:
            return None, False
        memory = f"{counted:.2f} times the memory ({resident:.2f} by the system's count)"
        return f"{end} after {took:.2f} s with {memory}: {self.large} {setting} {source}", is_certain


def work(functions: Sequence[Function], chosen: str, *, every: bool) -> dict[str, list[str]]:
    """Return calls with large values of a type, by the script that sets `v`."""
    sources = list(FORMS)
    for function in functions:
        sources += [source for type_, source in calls(function, every=every) if type_ == chosen]
    settings = LARGEST[chosen]
    found: dict[str, list[str]] = {setting: [] for setting in settings}
    for number, source in enumerate(dict.fromkeys(sources)):
        for place in range(len(settings) if every else min(len(settings), 2)):
            found[settings[(number + place) % len(settings)]].append(source)
    return found


def main(mebibytes: int, how: str, *chosen: str) -> None:
    """Make the calls."""
    attack = Attack(mebibytes * MIB)
    jobs = [REPORTED]
    if how != "reported":
        functions = attack.engine.functions()
        jobs = [work(functions, type_, every=how == "all") for type_ in chosen or LARGEST]
    made = 0
    for job in jobs:
        for setting, sources in job.items():
            for source in sources:
                print(setting, source, file=sys.stderr, flush=True)
                made += 1
                if excess := attack.run(setting, source):
                    print(excess, flush=True)
    print(made)


if __name__ == "__main__":
    if sys.argv[1:] == ["list"]:
        REVIEWED.write_text(listed(Engine().functions()))
    else:
        main(int(sys.argv[1]), *sys.argv[2:])
