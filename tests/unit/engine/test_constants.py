"""Constants from outside: where a script sees them, and that one compiled script serves all their values."""

from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks.engine import Engine, Scope
from rhai_tasks.errors import RhaiConstantError, RhaiError, RhaiMemoryLimit, RhaiNameError

CONSTANTS: dict[str, Any] = {
    "S": "text",
    "N": 7,
    "L": [3, 1, 2],
    "M": {
        "a": 1,
        "b": {"c": [5, 6], "a b": "x"},
        "l": ["q"],
        "rows": [0, {"k": {"l": [7, 8]}}],
        "text": "word",
    },
    "F": lambda number: number + 1,
}

FORMS: dict[str, Any] = {
    "S": "text",
    "S.len": 4,
    "S.len()": 4,
    "S[0]": "t",
    "S + 1": "text1",
    "`${S}!`": "text!",
    "[S, #{k: S}]": ["text", {"k": "text"}],
    'S == "text" && N > 6': True,
    "switch N { 7 => S, _ => 0 }": "text",
    "if N == 7 { S.to_upper() } else { () }": "TEXT",
    '"tex".contains(S)': False,
    "S.contains(S)": True,
    "L": [3, 1, 2],
    "L[1]": 1,
    "L[L[1]]": 1,
    "L.len() + L.len": 6,
    "L.map(|x| x * L.len() + N)": [16, 10, 13],
    "L.filter(|x| x > L[1]).map(|x| x + M.a)": [4, 3],
    "len(L)": 3,
    "M.a": 1,
    "M.b.c": [5, 6],
    "M.b.c[1]": 6,
    "M.l[0]": "q",
    "M.l[-1] + M.l[0][0]": "qq",
    "let i = 1; [L[i], M.b.c[i], M.rows[i].k, M.rows[i][`k`], M.rows[i].k.l[i], M.text[i], M.b[`c`][i]]": [
        *(1, 6, {"l": [7, 8]}, {"l": [7, 8]}, 8, "o", 6)
    ],
    "M.rows[M.a].k.l[M.b.c.len() - 1]": 8,
    "M.text[1..3]": "or",
    "M.nothing?[0]": None,
    "M.b.nothing": None,
    'M["b"]["c"][0]': 5,
    'M.b["a b"]': "x",
    "M.nothing": None,
    "M?.nothing?.at.all": None,
    "M.b.c.len()": 2,
    "M.keys().len()": 5,
    "M.b.c.map(|x| x + M.b.c[0] + M.a)": [11, 12],
    "M.b.c.reduce(|sum, x| sum + x, M.a)": 12,
    "let copy = M; copy.b.c.push(1); [copy.b.c.len(), M.b.c.len()]": [3, 2],
    "let items = L; items.sort(); [items, L]": [[1, 2, 3], [3, 1, 2]],
    "let sum = 0; for x in L { sum += x } sum": 6,
    "let text = ``; for k in M.l { text += k } text": "q",
    "F.call(1)": 2,
    "call(F, 1)": 2,
    "let g = F; g.call(1)": 2,
    "[1].map(F)": [2],
    "[F][0].call(1)": 2,
    "(|f| f.call(1)).call(F)": 2,
    "type_of(S) + type_of(M) + N.type_of()": "stringmapi64",
    "global::S": "text",
    "global::S.len": 4,
    "global::M.b.c": [5, 6],
    "global::M.b.c.len()": 2,
    'eval("S.len + N")': 11,
    'eval("L.map(|x| x)".sub_string(0, 1) + ".len()")': 3,
    'let x = 1; eval("let x = x + N + S.len;"); [x, S, M.a]': [12, "text", 1],
}

PLACES: dict[str, str] = {
    "the script": "{}",
    "a function": "fn f() {{ {} }} f()",
    "a function with parameters": "fn f(p, q) {{ let r = p; {} }} f(1, 2)",
    "a function of a function": "fn f() {{ {} }} fn g(p) {{ let q = f(); q }} g(1)",
    "a method": "fn f(p) {{ {} }} let this_one = 5; this_one.f(1)",
    "a closure": "(|p| {{ {} }}).call(1)",
    "a closure with what it captures": "let v = 1; (|p| {{ v += p; {} }}).call(1)",
    "a closure in a closure": "(|p| (|q| {{ p; {} }}).call(2)).call(1)",
    "a closure in a function": "fn f(p) {{ let v = p; (|| {{ v; {} }}).call() }} f(1)",
    "a function given to another": "fn f() {{ {} }} fn g(h) {{ h.call() }} g(f)",
    "a block in a function": "fn f() {{ if true {{ let z = 1; while true {{ return {{ {} }}; }} }} }} f()",
    "what is caught in a function": "fn f() {{ try {{ throw 1 }} catch (e) {{ return {{ {} }}; }} }} f()",
    "a loop's value in a function": "fn f() {{ let v = loop {{ break {{ {} }}; }}; v }} f()",
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", FORMS)
def test_a_script_sees_constants_in_each_form_and_place(form: str, place: str) -> None:
    assert Engine().eval(PLACES[place].format(form), constants=CONSTANTS) == FORMS[form]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "change",
    [
        *("S = 1", 'S += "x"', "N += 1", "L = []", "L[0] = 9", "L.push(4)", "L.sort()", "M = 1", "M.a = 9"),
        *("M.b.c[0] = 9", 'M["a"] = 9', "M.b.c = 9", "M.b.c.push(7)", "M.l += 1", "M.clear()", "M.remove(`a`)"),
    ],
)
def test_no_script_changes_a_constant(change: str, place: str) -> None:
    engine, constants = Engine(), {**CONSTANTS, "M": {"a": 1, "b": {"c": [5, 6]}, "l": ["q"]}}
    script = PLACES[place].format(f"try {{ {change}; }} catch {{}} [S, N, L, M]")

    seen = engine.eval(script, constants=constants)

    # A closure may change what it has captured, as any copy.
    if not place.startswith("a closure"):
        assert seen == [constants[name] for name in "SNLM"]
    assert engine.eval("[S, N, L, M]", constants=constants) == [constants[name] for name in "SNLM"]


def test_an_assignment_in_the_script_is_rhais_error() -> None:
    with pytest.raises(RhaiConstantError) as caught:
        Engine().eval("let x = 1;\n  M.a = x;", constants=CONSTANTS)

    assert str(caught.value) == "Cannot modify constant M (line 2, position 3)"


def test_one_compiled_script_serves_all_values() -> None:
    """To compile it again would take more memory than the second evaluation has."""
    engine = Engine()
    script = "let x = 1;\n" + "x += 1;\n" * 5_000 + "fn who() { CALLER_ID } [who(), CALLER_ID, ARGS.n, ARGS.n + 1, x]"

    def run(script: str, caller: str, number: float, max_memory: int | None = None) -> str:
        constants = {"CALLER_ID": caller, "ARGS": {"n": number}}
        return engine.run(script, constants=constants, max_memory=max_memory)

    assert run(script, "a", 1) == '["a", "a", 1, 2, 5001]'
    assert run(script, "b", 2.5, 200_000) == '["b", "b", 2.5, 3.5, 5001]'
    with pytest.raises(RhaiMemoryLimit):
        run(script + " ", "b", 2.5, 200_000)


def test_constants_of_one_kind_share_a_script_and_those_of_another_do_not_mislead_it() -> None:
    engine, script = Engine(), "fn f() { [type_of(V), V.len] } f()"

    for value, kind, length in (("ab", "string", 2), ([1], "array", 1), ("c", "string", 1), ({"len": 9}, "map", 9)):
        assert engine.eval(script, constants={"V": value}) == [kind, length]


def test_a_name_without_a_constant_is_not_found() -> None:
    engine, script = Engine(), "fn f() { S.len } f()"

    assert engine.eval(script, constants={"S": "text"}) == 4
    with pytest.raises(RhaiNameError, match="Variable not found: S"):
        engine.eval(script)


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("fn f(M) { [M, M.a] } f(#{a: 9})", [{"a": 9}, 9]),
        ("fn f(L) { L.map(|x| x + N) } f([1, 1])", [8, 8]),
        ("let M = #{a: 9}; fn f() { M.a } [M.a, f(), (|| M.a).call()]", [9, 1, 9]),
        ("let s = []; for M in [5] { s.push(M) } s.push(L.len()); s", [5, 3]),
        ("let seen; try { throw 5 } catch (L) { seen = L } seen", 5),
        ("(|M| M.a).call(#{a: 9})", 9),
        ("{ let M = #{a: 9}; } M.a", 1),
        ("fn f() { let M = 5; { let L = 6; M + L } } f() + L.len()", 14),
        ("fn f(M) { eval(`M + L.len()`) } f(5)", 8),
    ],
)
def test_maps_and_arrays_follow_the_scopes_of_the_script(script: str, value: object) -> None:
    assert Engine().eval(script, constants=CONSTANTS) == value


def test_a_closure_does_not_copy_a_map_for_each_call() -> None:
    """Copies of all of it would take a thousand times the memory that the script uses."""
    table = {"items": list(range(2_000)), "factor": 3, "names": {str(n): n for n in range(2_000)}}

    script = "ARGS.items.map(|n| n * ARGS.factor + ARGS.items[n]).len()"
    result = Engine().eval(script, constants={"ARGS": table}, details=True)
    one_copy = Engine().eval("let copy = ARGS; 1", constants={"ARGS": table}, details=True)

    assert result.value == 2_000
    assert result.peak_memory < one_copy.peak_memory


def test_nested_evaluations_have_constants_of_their_own() -> None:
    engine = Engine()
    script = "fn who() { CALLER_ID } "

    def inner(caller: str) -> Any:
        return engine.eval(script + "who()", constants={"CALLER_ID": caller})

    engine.register("inner", inner)

    assert engine.eval(script + "[who(), inner(`b`), who()]", constants={"CALLER_ID": "a"}) == ["a", "b", "a"]


def test_modules_do_not_see_the_constants_of_the_script_that_imports_them() -> None:
    engine = Engine(modules={"m": "fn who() { CALLER_ID }"})

    with pytest.raises(RhaiError, match="Variable not found: CALLER_ID"):
        engine.eval("import 'm' as m; m::who() + CALLER_ID".replace("'", '"'), constants={"CALLER_ID": "a"})


def test_a_function_cannot_name_the_look_up() -> None:
    for script in ('$constant("S")', 'Fn("$constant").call("S")', 'call("$constant", "S")'):
        with pytest.raises(RhaiError):
            Engine().eval(script, constants=CONSTANTS)


@pytest.mark.parametrize("make", [dict, Scope])
def test_constants_may_come_in_any_order(make: Callable[..., Any]) -> None:
    engine, script = Engine(), "fn f() { A + B } f() + x"

    assert engine.eval(script, constants={"A": 1, "B": 2}, scope=make(x=1)) == 4
    assert engine.eval(script, constants={"B": 1, "A": 5}, scope=make(x=1)) == 7


def test_a_closure_keeps_the_constants_of_the_evaluation_that_made_it() -> None:
    engine = Engine()
    ast = engine.compile("let g = |x| x + K + M.a; g")
    closure = engine.eval(ast, constants={"K": 1, "M": {"a": 2}})

    assert engine.call(ast, closure, 10) == 13
    assert engine.call(ast, closure, 10, constants={"K": 5, "M": {"a": 5}}) == 13
    several = engine.compile("[|x| x + K]")
    assert [engine.call(several, one, 1) for one in engine.eval(several, constants={"K": 1})] == [2]


@pytest.mark.parametrize("item", ["M.l[1]", "M.l[-2]", "M.a[`x`]", "M.l[`x`]", "M.nothing[0]", "M.text[9]"])
def test_an_item_that_is_not_there_is_the_same_error_in_functions(item: str) -> None:
    texts = []
    for place in ("{}", "fn f() {{ {} }} f()"):
        with pytest.raises(RhaiError) as raised:
            Engine().eval(place.format(item), constants=CONSTANTS)
        texts.append(str(raised.value).partition(" (line")[0])
        assert raised.value.line == 1

    assert texts[0] == texts[1]
