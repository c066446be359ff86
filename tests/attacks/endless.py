"""Call every function of Rhai's library with values that have no end.

Some contain themselves; others are small, but contain the same value so often that nobody could read all of it.
python -m tests.attacks.endless: prints the calls that made the engine panic or took too long, and last the number of
calls. What runs when the process dies is the last line of stderr.
"""

import re
import sys
import time

from rhai_tasks.engine import Engine, Limits
from rhai_tasks.errors import RhaiError, RhaiPanic

from .largest import FORMS, MIB, calls

OPERATIONS = 20_000
LATE = 5.0  # seconds of processor time: what never ends takes longer on any machine
ENDLESS = {
    "map": [
        "let v = #{a: 1}; let f = || v; v.f = f; v.g = f;",
        "let v = #{}; for i in 0..60 { let w = v; let f = || w; v = #{f: f, g: f}; }",
    ],
    "array": [
        "let v = [1, 2, 3]; let f = || v; v[0] = f; v[1] = f;",
        "let v = []; for i in 0..60 { let w = v; let f = || w; v = [f, f]; }",
    ],
    "function": [
        "let v = (); let f = || v; v = f;",
        "let v = || 1; for i in 0..60 { let w = v; let f = || w; v = f.curry(f, f); }",
    ],
}
USES = [
    *("switch v { 1 => 2, _ => 3 }", "throw v", "try { throw v } catch (e) { e }", "v == v", "v + ''", "'' + v"),
    *("v.to_json()", "#{a: v}.to_json()", "exit(v)", "v ?? 1", "v.call(v)", "v.curry(v)", "v.pad(9, v)", "v += v"),
    *("let w = []; w.pad(9, v); w", "[v].map(|x| x)", "[v, v].sort(|x, y| x == y)", "give(v)", "call_with(|x| x, v)"),
    *("v.f = || v; v", "v.f.call()", "v.f()", "v[0].call()", "v.push(v)", "v.mixin(v)", "v.fill_with(v)"),
]


def main() -> None:
    """Make the calls: with the value itself, in a method of it, and with a copy there."""
    # A small memory limit has a small stack.
    engine = Engine(limits=Limits(max_memory=MIB, max_operations=OPERATIONS), disable={"sleep"})
    engine.register("give", lambda *values: len(values))
    engine.register("call_with", lambda function, value: function(value))
    functions = engine.functions()
    made = 0
    for type_, settings in ENDLESS.items():
        uses = [*FORMS, *USES, "v"]
        uses += [call for function in functions for kind, call in calls(function, every=True) if kind == type_]
        for use in dict.fromkeys(uses):
            in_method = re.sub(r"\bv\b", "this", use)
            copied = re.sub(r"\bv\b", "x", use)
            for setting in settings:
                for source in (
                    f"{setting} {use}",
                    f"fn m() {{ {in_method} }} {setting} v.m()",
                    f"fn m() {{ let x = this; {copied} }} {setting} v.m()",
                ):
                    print(source, file=sys.stderr, flush=True)
                    made += 1
                    start = time.process_time()
                    for evaluate in (engine.run, engine.eval):
                        try:
                            evaluate(source, print=len, debug=lambda *_: None)
                        except RhaiPanic as error:
                            print(f"{error}: {source}")
                        except (RhaiError, TypeError, ValueError, OverflowError):
                            pass
                    if time.process_time() - start > LATE:
                        print(f"took too long: {source}")
    print(made)


if __name__ == "__main__":
    main()
