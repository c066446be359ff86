"""What scripts of an engine may say, and every way around that."""

import itertools
import re
from typing import Any

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import Engine, Limits, Scope
from tests.attacks.library import script as library_call
from tests.attacks.library import values

BYTE = "(|| { for byte in blob(1, 3) { return byte } }).call()"
"""Only a loop over a blob makes a `u8`."""
UNKNOWN = [BYTE, "1", "1.5", "'x'", '"x"', 'parse_decimal("1")', "true"]
"""For a parameter whose type the library does not tell."""


@pytest.mark.parametrize(
    "script",
    [
        'eval("1")',
        '"1".eval()',
        'Fn("eval").call("1")',
        'let name = "ev"; name += "al"; Fn(name).call("1")',
        'let name = "ev"; name += "al"; ["1"].map(name)',
        'fn f() { eval("1") } f()',
        '[1].map(|x| eval("1"))',
        '`${eval("1")}`',
        'import "m" as m;',
    ],
)
def test_no_way_leads_to_a_disabled_keyword(script: str) -> None:
    engine = Engine(disable=["eval"], modules={"m": 'eval("1")'})

    with pytest.raises(errors.RhaiError):
        engine.run(script)
    assert Engine().run('eval("1")') == "1"


@pytest.mark.parametrize(
    "script",
    [
        "to_upper(text)",
        "text.to_upper()",
        'Fn("to_upper").call(text)',
        'let name = "to_"; name += "upper"; let f = Fn(name); f.call(text)',
        'let f = "to_upper"; [text].map(f)',
        '[text].map(Fn("to_upper"))',
        "[text].map(|x| x.to_upper())",
        "text.len",
        "text.len()",
        "[1].len",
        "len([1])",
        "#{a: 1}.len()",
        "blob(3).len",
        'import "m" as m; m::f(text)',
    ],
)
def test_no_way_leads_to_a_disabled_function_or_property(script: str) -> None:
    engine = Engine(disable={"to_upper", "len"}, modules={"m": "fn f(text) { text.to_upper() }"})

    with pytest.raises((errors.RhaiHostError, errors.RhaiNameError)):
        engine.run(script, scope={"text": "abc"})
    Engine(modules={"m": "fn f(text) { text.to_upper() }"}).run(script, scope={"text": "abc"})


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("while", "while false {}"),
        ("loop", "loop { break }"),
        ("fn", "fn f() { 1 }"),
        ("import", 'import "m" as m;'),
        ("+", "1 + 1"),
        ("+=", "let x = 1; x += 1"),
        ("&&", "true && false"),
        ("print", 'print("x")'),
        ("type_of", "type_of(1)"),
        ("curry", "|x| x"),
    ],
)
def test_a_disabled_keyword_or_operator_does_not_compile(name: str, script: str) -> None:
    if name == "curry":
        script = "let f = |x| x; f.curry(1)"
    with pytest.raises(errors.RhaiSyntaxError):
        Engine(disable={name}).run(script)


def test_all_of_the_library_can_be_disabled_by_name() -> None:
    engine = Engine()
    names = {function.name.removeprefix("get$").removeprefix("set$") for function in engine.functions()}

    quiet = Engine(disable={name for name in names if "$" not in name})
    with pytest.raises(errors.RhaiError):
        quiet.run("[1].push(2)")


def of_type(parameter: str) -> list[str]:
    """Return expressions of the type of a parameter; of several, if the library does not tell it."""
    match parameter.rpartition(": ")[2]:
        case "u8":
            return [BYTE]
        case "_" | "Dynamic" | "&mut Dynamic":
            return UNKNOWN
    return values(parameter)[:1]


def test_no_call_of_a_disabled_function_succeeds() -> None:
    """Each function of the library, called with values of each type that it takes."""
    succeeded = []
    functions = [function for function in Engine().functions() if re.fullmatch(r"(?:[gs]et\$)?\w+", function.name)]
    for function in functions:
        name = function.name.removeprefix("get$").removeprefix("set$")
        engine = Engine(disable={name}, limits=Limits(timeout=5))
        kinds = [of_type(parameter) for parameter in function.parameters]
        for arguments in itertools.product(*kinds):
            source = f"{library_call(function, arguments)}; ()"
            try:
                engine.run(source, print=str, debug=lambda *_: None)
            except errors.RhaiError:
                continue
            succeeded.append(source)

    assert len(functions) > 300
    assert succeeded == []


def test_the_host_can_put_its_own_function_in_place_of_a_disabled_one() -> None:
    engine = Engine(disable={"sleep"})

    @engine.function
    def sleep(seconds: int) -> str:
        return f"not {seconds}"

    assert engine.eval("sleep(1)") == "not 1"
    with pytest.raises(errors.RhaiHostError, match="sleep is disabled") as error:
        engine.eval("sleep(1.5)")
    assert isinstance(error.value.__cause__, PermissionError)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({"slep"}, "disable has 'slep': no keyword, operator or function"),
        ([5], "disable has 5"),
        ([""], "disable has ''"),
    ],
)
def test_a_name_that_rhai_does_not_have_is_refused(names: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Engine(disable=names)


@pytest.mark.parametrize(
    "script",
    [
        "x",
        "x = 1;",
        "if false { x }",
        "fn f() { x } 1",
        "fn f(y) { y + x } f(1)",
        "let y = [1, #{a: x}];",
        "`${x}`",
        "{ let x = 1; } x",
        "for x in 0..1 {} x",
        "x.y.z",
        "m::f()",
        "m::X",
        'import "n" as n; n::y + x',
    ],
)
def test_a_strict_script_with_an_unknown_name_does_not_compile(script: str) -> None:
    engine = Engine(strict=True, modules={"n": "export const y = 1;"})

    with pytest.raises(errors.RhaiSyntaxError):
        engine.compile(script)
    with pytest.raises(errors.RhaiSyntaxError):
        engine.eval(script)
    assert engine.compile("x + y", variables=["x", "y"])


def test_a_strict_script_knows_all_that_an_evaluation_gives_it() -> None:
    engine = Engine(strict=True, modules={"n": "export const y = 1; fn f(a) { a + 1 }"})
    engine.register_module("host", {"twice": lambda n: 2 * n, "ONE": 1})
    engine.register_module("host::inner", {"TWO": 2})
    scope = Scope(x=1)

    assert engine.eval("x + y", scope={"x": 1, "y": 2}) == 3
    assert engine.eval("x += 1; let z = x;", scope=scope) is None
    assert engine.eval("x + z", scope=scope) == 4
    assert engine.eval("fn f() { S.len + T } f()", constants={"S": "abc", "T": 1}) == 4
    assert engine.eval("fn f() { ARGS.n } f()", args={"n": 5}) == 5
    assert engine.eval("host::twice(host::ONE) + host::inner::TWO") == 4
    assert engine.eval('import "n" as n; n::f(n::y)') == 2
    assert engine.eval("let y = 2; let f = |a| a + y; try { throw 1 } catch (e) { y = f.call(e); } y") == 3
    assert engine.call("fn f(a) { this + a }", "f", 1, this=2) == 3
    assert engine.eval(engine.compile("x", variables=["x"]), scope={"x": 1}) == 1


def test_a_strict_script_compiled_with_a_variable_does_not_pass_without_it() -> None:
    engine = Engine(strict=True)

    assert engine.eval("x", scope={"x": 1}) == 1
    with pytest.raises(errors.RhaiSyntaxError):
        engine.eval("x", scope={"y": 1})


@pytest.mark.parametrize("script", ["m.b", 'm["b"]', "m.b.c", "m.a.b", 'm["b"] += 1', "[m].map(|v| v.b)", "m?.b?.c"])
def test_a_strict_script_fails_where_it_reads_a_property_that_is_not_there(script: str) -> None:
    with pytest.raises(errors.RhaiError):
        Engine(strict=True).eval(script, scope={"m": {"a": {}}})


def test_a_strict_script_may_add_properties_and_ask_for_them() -> None:
    engine = Engine(strict=True)

    assert engine.eval('m.b = 1; m["c"] = 2; [m.b, m.c]', scope={"m": {}}) == [1, 2]
    assert engine.eval('["a" in m, "d" in m]', scope={"m": {"a": 1}}) == [True, False]
    assert Engine().eval("m.b", scope={"m": {}}) is None


@pytest.mark.parametrize(
    "script",
    [
        "let x = 1; x",
        "x = 2",
        "m.a += 1",
        "fn f() { 1 } f()",
        "1; 2",
        "while true {}",
        "if true { let y = 1; y } else { 2 }",
        "switch x { 1 => { m.a = 2; 1 }, _ => 2 }",
        "[1].map(|y| { x = y; x })",
        'import "n" as n; 1',
        "throw 1",
        "return 1",
        'eval("x = 2")',
        'Fn("eval").call("x = 2")',
    ],
)
def test_an_engine_of_expressions_takes_nothing_else(script: str) -> None:
    with pytest.raises(errors.RhaiError):
        Engine(expressions=True, modules={"n": ""}).eval(script, scope={"x": 1, "m": {"a": 1}})


def test_an_engine_of_expressions_evaluates_expressions() -> None:
    engine = Engine(expressions=True)
    engine.register("twice", lambda n: 2 * n)

    assert engine.eval("twice(x) + S.len > 3 && x in [1, 2]", scope={"x": 1}, constants={"S": "abc"}) is True
    assert engine.eval("#{a: `${x}`, b: [x]}", scope={"x": 1}) == {"a": "1", "b": [1]}
    assert engine.eval("if x > 1 { [x].map(|y| y + x) } else { x }", scope={"x": 2}) == [4]
    assert engine.run(engine.compile("1 + 1")) == "2"
