"""Parts of the language that an engine takes away, and every way around that."""

from typing import Any

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import Engine


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
