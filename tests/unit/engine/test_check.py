"""Mistakes are found before a script runs, and what runs is not a mistake."""

import pytest

from rhai_tasks import Engine
from rhai_tasks.errors import RhaiError, RhaiSyntaxError

MISTAKES = {
    "prnt(1)": (1, 1, "function", "there is no function 'prnt': 'print'?"),
    "let x = 1; x.foo(2)": (1, 14, "function", "there is no function 'foo'"),
    "let total = 1; totl + 1": (1, 16, "variable", "there is no variable 'totl'"),
    "fn f(a) { a }\nf(1, 2)": (2, 1, "function", "no function 'f' takes 2 argument(s)"),
    "let total = 1; fn f() { total }": (1, 25, "variable", "there is no variable 'total'"),
    "{ let inner = 1; } inner": (1, 20, "variable", "there is no variable 'inner'"),
    "for i in 0..3 { nope(i) }": (1, 17, "function", "there is no function 'nope'"),
    "loop { break nope(1) }": (1, 14, "function", "there is no function 'nope'"),
    "let f = |x| nope(x); f.call(1)": (1, 13, "function", "there is no function 'nope'"),
    "`a ${nope}`": (1, 6, "variable", "there is no variable 'nope'"),
    "#{a: nope}": (1, 6, "variable", "there is no variable 'nope'"),
    "switch 1 { 1 => nope() }": (1, 17, "function", "there is no function 'nope'"),
    "try { nope() } catch (e) { e }": (1, 7, "function", "there is no function 'nope'"),
    "CALER_ID": (1, 1, "variable", "there is no variable 'CALER_ID': 'CALLER_ID'?"),
    "shop::prise(1)": (1, 7, "function", "there is no function 'shop::prise': 'shop::price'?"),
    "return 1; 2": (1, 11, "unreachable", "this code never runs"),
    "fn f() { throw 1; 2 } f()": (1, 19, "unreachable", "this code never runs"),
    "loop { break; print(1) }": (1, 15, "unreachable", "this code never runs"),
    "if true { return 1; print(2) }": (1, 21, "unreachable", "this code never runs"),
    "let x = ": (1, 9, "syntax", "Syntax error: Script is incomplete (line 1, position 9)"),
}
"""Scripts, and the finding of each."""

RIGHT = [
    "let x = #{f: |a| a + 1}; x.f(1)",
    "fn double(a) { a * 2 } [1, 2].map(double)",
    'let f = Fn("double"); fn double(a) { a * 2 } f.call(1)',
    "fn f(this_is) { this_is.len() } f([1])",
    "fn f() { this.a } let m = #{a: 1}; m.f()",
    'eval("let later = 1"); later',
    "CALLER_ID + CONTEXT_ID + ARGS.a",
    "fn who() { CALLER_ID } who()",
    "const A = 1; fn f() { global::A } f()",
    "let a = 1; let add = |b| a + b; add.call(2)",
    "let x = 1; x += 2; x",
    "let x = [1]; x[0] = 2; x.push(3); x.len",
    "for (item, place) in [1, 2] { print(item + place) }",
    "try { throw 1 } catch (error) { error }",
    "let x; switch 1 { 1 => { x = 2; } _ => x = 3 }",
    "price(1) + shop::price(2) + shop::TAX",
    'if is_def_fn("f", 1) { f(1) } fn f(a) { a }',
    "let n = 0; while n < 3 { n += 1; if n == 2 { continue; } }",
    "fn f(a) { if a { return 1; } 2 } f(true)",
    'type_of(1) + `${2}` + "x".to_upper().len()',
    "print(timestamp().elapsed); debug(1); sleep(0.001)",
    "let x = 1; let x = x + 1; x",
    "do { break 5 } while true",
]


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.register("price", lambda of: of)
    engine.register_module("shop", {"price": lambda of: of, "TAX": 2})
    return engine


CONSTANTS = {"CALLER_ID": "me", "CONTEXT_ID": "circle"}


@pytest.mark.parametrize("script", MISTAKES)
def test_a_mistake_is_found_where_it_is(engine: Engine, script: str) -> None:
    (found,) = engine.check(script)

    assert (found.line, found.column, found.kind) == MISTAKES[script][:3]
    assert found.text.startswith(MISTAKES[script][3])


@pytest.mark.parametrize("script", [script for script, found in MISTAKES.items() if found[2] != "unreachable"])
def test_a_script_that_runs_over_a_mistake_fails(engine: Engine, script: str) -> None:
    run = script + ("; f()" if script.startswith("let total = 1; fn") else "")

    with pytest.raises(RhaiError):
        engine.run(run.replace("try {", "if true {").replace("catch (e) { e }", ""), constants=CONSTANTS)


@pytest.mark.parametrize("script", RIGHT)
def test_a_script_that_is_right_has_no_finding(engine: Engine, script: str) -> None:
    engine.run(script, constants=CONSTANTS, args={"a": "x"})

    assert engine.check(script) == []


def test_the_functions_of_classes_are_known(engine: Engine) -> None:
    @engine.register_type
    class Order:
        def __init__(self, total: int) -> None:
            self.total = total

        def double(self) -> int:
            return 2 * self.total

    assert engine.run("Order(21).double()") == "42"
    assert engine.check("Order(21).double()") == []
    assert [found.kind for found in engine.check("Ordr(21).treble()")] == ["function", "function"]


def test_a_script_beyond_the_limits_is_refused_as_by_compile() -> None:
    engine = Engine()

    for source in ("(" * 1000, "let x = " + "[" * 5000, '"' + "x" * 10):
        with pytest.raises(RhaiSyntaxError):
            engine.compile(source)
        assert [found.kind for found in engine.check(source)] == ["syntax"]
