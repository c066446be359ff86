"""Call two functions of Rhai's library, the second with what the first has made of a large value.

python -m tests.attacks.pairs SEED PAIRS [MEBIBYTES]: prints the pairs that took too much memory or processor time, or
that made the engine panic, and last how many pairs ran. What runs when the process dies is the last line of stderr.
"""

import random
import re
import resource
import sys

from rhai_tasks.engine import Engine, Limits
from rhai_tasks.errors import RhaiError

from .largest import FORMS, LARGEST, MIB, Attack, calls

SHARES = (7 / 8, 1 / 2, 1 / 4, 1 / 16)  # of the memory limit that the large value takes
MOST = 8 * 1024**3  # bytes of addresses
KINDS = {"string": "text", "Fn": "function", "array": "array", "blob": "blob", "map": "map", "()": ""}
MORE = [
    *("v.map(|x| x)", "v.filter(|x| true)", "v.to_json()", "parse_json(`[${v}]`)", "v += v", "v in [v]", "eval(v)"),
    *("switch v { 1 => 2 }", "[v].map(|x| switch x { [1] => 2 })", "switch #{a: v} { 'a' => 3 }"),
    *(
        "[v, v] + [v]",
        "v.curry(v)",
        "v.call(v)",
        "Fn(v).call()",
        "[1].map(Fn(v))",
        "throw v",
        "try { throw v } catch {}",
    ),
]


class Pairs:
    """Makes pairs of calls."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        # Without a clock: the same seed makes the same pairs on any machine.
        self.small = Engine(limits=Limits(max_operations=20_000), disable={"sleep"})
        self.calls: dict[str, list[str]] = {kind: [*FORMS, *MORE] for kind in (*LARGEST, "function", "other")}
        for function in Engine().functions():
            for kind, call in calls(function, every=True):
                self.calls[kind].append(call)

    def one(self) -> tuple[str, str]:
        """Make a script that sets `v`, and one of two calls: the second takes `v`, or a result of the first."""
        setting = self.chance.choice(LARGEST[kind := self.chance.choice(list(LARGEST))])
        call = self.chance.choice(self.calls[kind])
        changed = re.match(r"let w = (.*?); ", call)
        first = f"let w = {changed[1] if changed else '()'}; let r = {{ {call[changed.end() if changed else 0 :]} }};"
        subjects = {name: self.kind(setting, first, name) for name in "rwv"}
        subject = self.chance.choice([name for name, kind in subjects.items() if kind] or ["v"])
        second = self.chance.choice(self.calls[subjects[subject] or "other"])
        return setting, first + " " + re.sub(r"\bv\b", subject, re.sub(r"\bw\b", "u", second))

    def kind(self, setting: str, first: str, name: str) -> str:
        """Return the kind of the value that a variable has after the first call, by a run with a small one."""
        try:
            found = self.small.eval(f"let n = 960; {setting} {first} type_of({name})", print=len, debug=lambda *_: None)
        except (RhaiError, TypeError, ValueError, OverflowError):
            return ""
        return KINDS.get(str(found), "other")


def main(seed: int, pairs: int, mebibytes: int = 8) -> None:
    """Run that many."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))  # one that no limit holds ends here, not the machine's others
    made = Pairs(seed)
    attacks = [Attack(mebibytes * MIB, share) for share in SHARES]
    for number in range(pairs):
        setting, source = made.one()
        attack = attacks[number % len(attacks)]
        print(attack.large, setting, source, file=sys.stderr, flush=True)
        if excess := attack.run(setting, source):
            print(excess, flush=True)
    print(pairs)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
