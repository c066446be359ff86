"""Time and operations of a script, by function and line."""

import time
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from rhai_tasks.engine import CancelToken, Engine, FnPtr, Limits, last_use
from rhai_tasks.engine.profile import Profile, recording
from rhai_tasks.errors import RhaiError

NAP = 0.02  # seconds; no test depends on how little the rest takes

SCRIPTS = {
    "loops": """
        let x = 0; for i in 0..9 { x += i; } while x < 50 { x += 1; if x == 40 { continue; } }
        do { x -= 1; } while x > 45;
        do { x += 1; if x < 47 { continue; } } until x > 48; loop { x += 1; if x > 60 { break x } }""",
    "empty loops": "for i in 0..9 { } let n = 3; while { n -= 1; n > 0 } { } n",
    "blocks in expressions": """
        let a = [1, { let z = 2; z }, if true { 3 } else { 4 }]; a[{ 0 }] = 7;
        #{a: { a }, b: `${ let x = 1; x + 2 }`}""",
    "switch": "let r = []; for n in 0..5 { r += switch n { 0 => 1, 1 => { n + 1 }, 2..4 => n * 2, _ => { } }; } r",
    "functions": """
        fn none() { } fn ends() { return; } fn early(x) { if x { return 1 } else { 2 } } fn chain(x) { this += x; }
        let y = 1; y.chain(3); [none(), ends(), early(true), early(false), y]""",
    "recursion": "fn fib(n) { if n < 2 { return n; } fib(n - 1) + fib(n - 2) } fib(9)",
    "closures": """
        let y = 1; let f = |x| { y += x; y };
        [f.call(3), f.call(4), [1, 2].map(|v| v * y), [2, 1].sort(|a, b| a - b)]""",
    "methods of maps": "let o = #{n: 1, add: |d| { this.n += d; this.n }}; o.add(4); o.n",
    "errors that are caught": """
        fn deep(n) { if n == 0 { throw #{a: 1} } deep(n - 1) }
        let c = 0; for i in 0..5 { try { deep(i); } catch(e) { c += e.a; } } c""",
    "an error": "fn deep(n) { if n == 0 { throw `x` } deep(n - 1) }\ndeep(3)",
    "an error of a condition": 'fn f() { "x" } while f() { }',
    "an error in an assignment": "fn f() { const a = 1; a += 1; } f()",
    "eval that declares": """
        fn f(x) { eval("let q = 3;"); q + x } if eval("let w = 2; w > 1") { w } while eval("let u = 2; u > 3") { }
        f(2) + eval("let z = 5; z") + z + u""",
    "exit": "fn f() { exit(6) } f(); 7",
    "constants": "const A = 5; fn f() { global::A + g() } fn g() { global::A } f() + N",
    "logic": "fn yes() { true } let n; [yes() && !yes(), yes() || { throw 1 }, n ?? { 5 }]",
}


def profiled(source: str, engine: Engine | None = None, **options: Any) -> tuple[Profile, str]:
    """Run a script; return its profile, and its text or that of its error."""
    profile = Profile()
    with recording(profile):
        text = run(source, engine or Engine(), **options)
    return profile, text


def run(source: str, engine: Engine, **options: Any) -> str:
    try:
        return engine.run(source, **options)
    except RhaiError as error:
        return str(error)


@pytest.mark.parametrize("source", SCRIPTS.values(), ids=SCRIPTS)
def test_a_profile_changes_neither_answer_nor_operations(source: str) -> None:
    text = run(source, Engine(), constants={"N": 1})
    operations, _ = last_use()

    profile, found = profiled(source, constants={"N": 1})

    assert (found, last_use()[0]) == (text, operations)
    assert profile.operations == operations
    assert profile.is_complete


def napping(**functions: Callable[..., Any]) -> Engine:
    """Make an engine whose scripts can nap, and wake as `true` some times."""
    engine = Engine()
    engine.register("nap", lambda times: time.sleep(times * NAP))
    for name, function in functions.items():
        engine.register(name, function)
    return engine


def seconds_of(source: str, make_engine: Callable[[], Engine]) -> dict[tuple[str | None, int], float]:
    """Return the time of each line, the least of three runs: other processes take the processor for a while, too."""
    runs = []
    for _ in range(3):
        profile, text = profiled(source, make_engine())
        assert "error" not in text
        runs.append({place: spent.seconds for place, spent in profile.by_line().items()})
    return {place: min(run[place] for run in runs) for place in runs[0]}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("nap(1);\nnap(3);\n1", {1: 1, 2: 3}),
        ("fn f() {\n nap(2);\n}\nf(); nap(1);\nf()", {2: 4, 4: 1}),
        ("fn f() { 1 }\nlet x = f() +\n f(); nap(2);\n1", {3: 2}),
        ("fn f() { 1 }\n[f(), nap(2)]", {2: 2}),
        ("fn f() {\n return [g(), nap(2)];\n}\nfn g() {\n nap(1)\n}\nf(); nap(1);", {2: 2, 5: 1, 7: 1}),
        ("fn f() { nap(1); throw 1 }\ntry {\n f()\n} catch {\n nap(2) }\nnap(1)", {1: 1, 5: 2, 6: 1}),
        ("[1, 2].map(|x| {\n nap(1)\n}).filter(|x| {\n nap(1); true }); nap(3);", {2: 2, 4: 5}),
        ("let n = 0;\nwhile is_less(n, 2) {\n n += 1;\n}", {2: 3}),
        ("let n = 0;\ndo {\n n += 1;\n} until is_less(2, n)", {4: 3}),
        ("for i in 0..3 {\n nap(1) }\nnap(2)", {2: 3, 3: 2}),
        ("let x = [switch 2 {\n 1 => 1,\n _ => nap(1) }, nap(2)];", {1: 2, 3: 1}),
        ("let x = [{\n let a = 1;\n nap(a)\n}, nap(2)]", {1: 2, 3: 1}),
        ("fn f(n) {\n nap(1);\n if n > 0 {\n f(n - 1)\n }\n}\nf(3)", {2: 4}),
        ('eval(\n"let a = 1; \\n nap(2)");', {1: 2}),
        ("fn f() {\n nap(1)\n}\nagain(|| {\n f(); nap(1)\n}); nap(3)", {2: 2, 5: 2, 6: 3}),
    ],
)
def test_time_counts_as_the_line_that_takes_it(source: str, expected: dict[int, int]) -> None:
    def is_less(one: int, other: int) -> bool:
        time.sleep(NAP)
        return one < other

    def again(function: FnPtr) -> None:
        function()
        function()

    spent = seconds_of(source, lambda: napping(is_less=is_less, again=again))

    found = {line: seconds / NAP for (_, line), seconds in spent.items() if seconds >= NAP}
    assert {line: found.get(line, 0) >= naps for line, naps in expected.items()} == dict.fromkeys(expected, True)
    others = sum(seconds for line, seconds in found.items() if line not in expected)
    assert others < min(expected.values()), found


def test_a_functions_total_includes_what_it_calls_once() -> None:
    profile, _ = profiled("fn f(n) {\n nap(1);\n if n > 0 { f(n - 1) }\n}\nf(3)", napping())

    spent = {function.name: spent for function, spent in profile.by_function().items()}
    assert spent["f(n)"].calls == 4
    assert spent["f(n)"].hits == 11
    assert 4 * NAP <= spent["f(n)"].total_seconds <= spent[""].total_seconds == pytest.approx(profile.seconds)
    assert spent["f(n)"].total_operations == spent["f(n)"].operations
    assert spent[""].total_operations == profile.operations


def test_places_are_chains_of_calls() -> None:
    profile, _ = profiled("fn g() {\n 1\n}\nfn f() {\n g()\n}\nf();\ng()")

    paths = {tuple((each.function.name, each.line) for each in place.path()) for place in profile.places}
    assert {(("", 7), ("f()", 5), ("g()", 2)), (("", 8), ("g()", 2))} <= paths


def test_lines_of_modules_have_the_modules_name(tmp_path: Path) -> None:
    (tmp_path / "shop.rhai").write_text("let x = 1;\nfn price(n) {\n nap(n)\n}\n")
    engine = Engine(modules=tmp_path)
    engine.register("nap", lambda times: time.sleep(times * NAP))

    profile, _ = profiled('import "shop" as shop;\nshop::price(1);\nshop::price(2);', engine)

    lines = profile.by_line()
    assert lines["shop", 3].seconds >= 3 * NAP
    assert lines["shop", 3].hits == 2
    assert lines["shop", 1].hits == 1
    assert lines[None, 3].total_seconds >= 2 * NAP
    assert lines[None, 3].total_seconds - lines[None, 3].seconds >= 2 * NAP


def test_scripts_that_host_functions_run_are_below_their_caller() -> None:
    inner = napping()

    profile, _ = profiled("let x = 1;\nother();\nnap(1)", napping(other=lambda: inner.run("fn h() {\n nap(2)\n}\nh()")))

    (place,) = [place for place in profile.places if place.function.name == "h()"]
    assert [each.line for each in place.path()] == [2, 4, 2]
    assert place.seconds >= 2 * NAP
    assert profile.operations == last_use()[0]


@pytest.mark.parametrize(
    ("source", "limits", "words"),
    [
        ("let x = 0;\nloop {\n x += 1;\n}", Limits(max_operations=9000), "Too many operations"),
        ("let s = 'x'.to_string();\nloop {\n s += s;\n}", Limits(max_memory=2**20), "memory limit"),
        ("let x = 0;\nloop {\n x += 1;\n}", Limits(timeout=0.1), "time limit"),
        ("fn f() {\n f()\n}\nf()", Limits(max_call_levels=9), "Stack overflow"),
    ],
)
def test_a_script_that_is_stopped_has_a_profile(source: str, limits: Limits, words: str) -> None:
    profile, text = profiled(source, Engine(limits=limits))

    assert words in text
    costly = max(profile.by_line().items(), key=lambda item: item[1].operations)
    assert costly[0] == (None, 2 if "f()" in source else 3)


def test_a_script_that_is_cancelled_has_a_profile() -> None:
    cancel = CancelToken()
    Timer(0.1, cancel.cancel).start()

    profile, text = profiled("let x = 0;\nloop {\n x += 1;\n}", cancel=cancel)

    assert "cancelled" in text
    assert profile.by_line()[None, 3].operations > profile.operations / 2


def test_a_script_that_does_not_compile_has_an_empty_profile() -> None:
    profile, text = profiled("let x = ;")

    assert "Syntax error" in text
    assert (profile.places, profile.operations) == ([], 0)


def test_a_profile_has_a_bounded_number_of_places() -> None:
    source = "fn f(n) {\n if n > 0 {\n f(n - 1);\n f(n - 1);\n }\n}\nf(15)"

    profile, text = profiled(source)

    assert text == ""
    assert not profile.is_complete
    assert len(profile.places) < 20_000
    assert profile.operations == last_use()[0]


def test_what_runs_behind_a_profile_is_in_none() -> None:
    engine = Engine()
    profiled("1", engine)
    assert engine.run("let x = 1; x + 1") == "2"

    profile, _ = profiled("let x = 1;\n2", engine)

    assert {place.line for place in profile.places} == {1, 2}
