"""An assignment to a part of a constant is Rhai's error, where the optimizer would break the script, too."""

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import Engine

CONSTANT = "const M = #{a: 1, b: #{c: [1]}, l: [1, 2], s: `x`};"


@pytest.mark.parametrize(
    "assignment",
    [
        *("M.a = 5", "M.a += 5", 'M["a"] = 5', 'M["a"] -= 1', "M.b = 5", "M.l = 5", "M.s += `y`"),
        *("M.b.c = 5", "M.b.c[0] = 5", 'M["b"]["c"] = 5', "M.l[0] = 5", "M?.a = 5", 'M?["a"] = 5'),
    ],
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ("let x = 1; if x == 1 { ", " }"),
        ("try { ", " } catch (e) { throw `caught` }"),
        ("{ ", " }"),
        ("loop { break { ", " } }"),
        ("return { ", " }"),
        ("let f = || { const M = #{a: 1, b: #{c: [1]}, l: [1, 2], s: `x`}; ", " }; f.call()"),
        ("switch 1 { 1 => { ", " } }"),
        ("let v = [1, #{k: { ", "; 1 }}];"),
        ("do { ", "; } until true"),
    ],
)
def test_an_assignment_to_a_part_of_a_constant_is_an_error_with_its_position(
    assignment: str, before: str, after: str
) -> None:
    script = f"{CONSTANT}\n  {before}{assignment}{after}"

    with pytest.raises(errors.RhaiError) as raised:
        Engine().eval(script)

    caught = before.startswith("try")
    assert type(raised.value) is (errors.RhaiThrow if caught else errors.RhaiConstantError)
    assert raised.value.thrown == "caught" if caught else "M" in str(raised.value)
    assert raised.value.line == 2


@pytest.mark.parametrize("assignment", ["M.a = 5", 'M["a"] = 5', "M.a += 1"])
def test_such_an_assignment_that_does_not_run_harms_nothing(assignment: str) -> None:
    assert Engine().eval(f"{CONSTANT} if M.l.len == 3 {{ {assignment} }} M.a") == 1


def test_such_an_assignment_in_a_module_names_the_module() -> None:
    engine = Engine(modules={"m": f"{CONSTANT} fn f() {{ 5 }} M.a = 5;"})

    with pytest.raises(errors.RhaiError, match="M") as raised:
        engine.eval('import "m" as m; m::f()')
    assert not isinstance(raised.value, errors.RhaiPanic)


@pytest.mark.parametrize(
    "source", ["\ufefffn f() { 5 }", "#!rhai\nfn f() { 5 }", "\ufeff#!/usr/bin/env rhai\nfn f() { 5 }"]
)
def test_a_module_may_begin_as_files_do(source: str) -> None:
    assert Engine(modules={"m": source}).eval('import "m" as m; m::f()') == 5
