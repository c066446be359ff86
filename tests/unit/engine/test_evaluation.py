"""Scripts kept, called and measured: AST, scopes, details, limits of the engine's own."""

import math
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks import errors
from rhai_tasks.engine import AST, Engine, FnPtr, Limits, Scope, last_use

SCRIPT = """
/// The area of a rectangle.
fn area(width, height) { width * height }
private fn hidden() { 1 }
fn area(side) { area(side, side) }
let started = 1;
started + 1
"""

# ---- AST ----


def test_an_ast_knows_its_functions() -> None:
    ast = Engine().compile(SCRIPT, name="job.rhai")

    assert [str(function) for function in ast.functions] == ["area(side)", "area(width, height)", "hidden()"]
    assert ast.functions[1].doc == "The area of a rectangle."
    assert ast.name == "job.rhai"


def test_a_script_that_does_not_compile_is_known_at_once() -> None:
    with pytest.raises(errors.RhaiSyntaxError) as caught:
        Engine().compile("let x = ;")

    assert (caught.value.line, caught.value.column) == (1, 9)


def test_an_ast_pickles_and_runs_in_another_engine() -> None:
    ast = pickle.loads(pickle.dumps(Engine().compile(SCRIPT)))

    assert isinstance(ast, AST)
    assert Engine().eval(ast) == 2
    assert Engine().run(ast) == "2"


def test_an_ast_runs_on_many_threads() -> None:
    engine = Engine()
    ast = engine.compile("let sum = 0; for i in 0..n { sum += i } sum")

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda n: engine.eval(ast, scope={"n": n}), range(100)))

    assert results == [sum(range(n)) for n in range(100)]


def test_the_name_of_a_script_stands_in_what_it_debugs() -> None:
    engine = Engine()
    seen: list[tuple[Any, ...]] = []

    engine.run(engine.compile("debug(1)", name="job.rhai"), debug=lambda *what: seen.append(what))

    assert seen == [("1", "job.rhai", 1, 1)]


def test_a_script_has_the_functions_of_another_but_not_its_statements() -> None:
    engine = Engine()
    tools = engine.compile('fn double(x) { x * 2 } fn who() { "tools" } fn label() { who() } throw "not run"')

    ast = engine.compile('fn who() { "script" } `${double(4)} ${label()}`').with_functions_of(tools)

    assert engine.run(pickle.loads(pickle.dumps(ast))) == "8 script"
    assert engine.call(ast, "double", 3) == 6


def test_of_several_libraries_the_one_added_first_wins() -> None:
    engine = Engine()
    one, two, three = (engine.compile(f"fn f() {{ {n} }} fn f{n}() {{ f() }}") for n in (1, 2, 3))

    ast = engine.compile("[f(), f1(), f2(), f3()]").with_functions_of(one.with_functions_of(two))

    assert engine.eval(ast.with_functions_of(three)) == [1, 1, 1, 1]


def test_functions_of_another_script_see_constants_and_heed_limits() -> None:
    engine = Engine()
    tools = engine.compile("fn who() { CALLER_ID } fn spin() { loop {} }")

    assert engine.eval(engine.compile("who()").with_functions_of(tools), constants={"CALLER_ID": "me"}) == "me"
    with pytest.raises(errors.RhaiTimeout):
        engine.eval(engine.compile("spin()").with_functions_of(tools), timeout=0.05)


# ---- call ----


def test_a_function_of_a_script_is_called_with_python_values() -> None:
    engine = Engine()
    ast = engine.compile(SCRIPT)

    assert engine.call(ast, "area", 3, 4) == 12
    assert engine.call(ast, "area", 3) == 9


def test_a_call_sees_constants_and_heeds_limits() -> None:
    engine = Engine()

    assert engine.call("fn who() { CALLER_ID }", "who", constants={"CALLER_ID": "me"}) == "me"
    with pytest.raises(errors.RhaiTimeout):
        engine.call("fn spin() { loop {} }", "spin", timeout=0.05)


def test_a_function_that_is_not_there_is_a_name_error() -> None:
    with pytest.raises(NameError, match="Function not found: nosuch"):
        Engine().call(SCRIPT, "nosuch", 1)


def test_a_closure_is_called_after_its_script_has_ended() -> None:
    engine = Engine()
    source = "let k = 10; |x| x * k"

    closure = engine.eval(source)

    assert isinstance(closure, FnPtr)
    assert engine.call(source, closure, 5) == 50


# ---- scope ----


def test_a_scope_keeps_what_scripts_do() -> None:
    engine = Engine()
    scope = Scope(x=1)
    scope.set_constant("K", 2)

    engine.eval("x += K; let y = [x];", scope=scope)

    assert dict(scope) == {"x": 3, "K": 2, "y": [3]}
    assert scope.constants() == {"K": 2}
    assert engine.eval("y += x; y", scope=scope) == [3, 3]


def test_a_mapping_as_scope_is_left_as_it_was() -> None:
    scope = {"x": 1}

    assert Engine().eval("x += 1; x", scope=scope) == 2
    assert scope == {"x": 1}


def test_a_constant_of_a_scope_can_be_changed_by_nobody() -> None:
    scope = Scope()
    scope.set_constant("K", 1)

    with pytest.raises(errors.RhaiConstantError):
        Engine().eval("K = 2", scope=scope)
    with pytest.raises(TypeError, match="K is a constant"):
        scope["K"] = 2
    assert scope.is_constant("K")
    assert scope["K"] == 1


def test_functions_of_a_script_see_the_constants_of_a_scope() -> None:
    scope = Scope()
    scope.set_constant("K", 1)

    assert Engine().eval("fn f() { K } f()", scope=scope) == 1


def test_a_variable_that_shadows_a_constant_of_the_scope_is_the_one_that_counts() -> None:
    engine, scope = Engine(), Scope()
    engine.eval("const K = 1;", scope=scope)
    engine.eval("let K = 2;", scope=scope)

    assert (engine.eval("K", scope=scope), engine.eval('eval("K")', scope=scope), scope["K"]) == (2, 2, 2)


def test_constants_of_one_evaluation_do_not_stay_in_the_scope() -> None:
    scope = Scope(x=1)

    assert Engine().eval("x += C; let y = 1; x", scope=scope, constants={"C": 5}) == 6
    assert dict(scope) == {"x": 6, "y": 1}


def test_a_scope_keeps_what_was_done_before_an_error() -> None:
    scope = Scope(x=1)

    with pytest.raises(errors.RhaiThrow):
        Engine().eval("x = 2; throw 1", scope=scope)

    assert scope["x"] == 2


def test_a_scope_is_a_mapping() -> None:
    scope = Scope(x=1)
    scope["y"] = 2
    del scope["x"]

    assert list(scope) == ["y"]
    assert "x" not in scope
    with pytest.raises(KeyError):
        scope["x"]
    with pytest.raises(KeyError):
        del scope["x"]
    assert repr(scope) == "Scope(y=2)"


def test_a_variable_may_have_any_name() -> None:
    assert dict(Scope(self=1)) == {"self": 1}


def test_a_scope_in_use_says_so() -> None:
    engine = Engine()
    scope = Scope()
    running, seen = threading.Event(), threading.Event()

    @engine.function
    def wait() -> None:
        running.set()
        seen.wait(10)

    thread = threading.Thread(target=engine.eval, args=("wait()",), kwargs={"scope": scope})
    thread.start()
    running.wait(10)
    try:
        with pytest.raises(RuntimeError, match="the scope is in use"):
            engine.eval("1", scope=scope)
        with pytest.raises(RuntimeError, match="the scope is in use"):
            scope["x"] = 1
    finally:
        seen.set()
        thread.join()
    scope["x"] = 1


# ---- details ----


def test_details_say_what_an_evaluation_took() -> None:
    printed: list[str] = []

    result = Engine().eval(
        'print("a"); print("b"); let s = blob(5000000, 1); sleep(0.02); #{len: s.len}',
        details=True,
        print=printed.append,
    )

    assert result.value == {"len": 5000000}
    assert result.text == '#{"len": 5000000}'
    assert result.printed == ("a", "b") == tuple(printed)
    assert 5_000_000 <= result.peak_memory < 6_000_000
    assert result.operations > 5
    assert 0.02 <= result.elapsed < 60


@pytest.mark.parametrize("length", [0, 100_000])
def test_what_is_kept_of_a_scripts_prints_is_bounded_by_the_memory_limit(length: int) -> None:
    engine = Engine(limits=Limits(max_memory=4 * 1024 * 1024))

    with pytest.raises(errors.RhaiMemoryLimit, match="printed more than its memory limit"):
        engine.eval(f'let s = ""; s.pad({length}, "x"); loop {{ print(s) }}', details=True, print=len, timeout=60)
    assert engine.eval("40 + 2") == 42


# ---- limits of Rhai's own ----


@pytest.mark.parametrize(
    ("limits", "script", "kind"),
    [
        (Limits(max_variables=2), "let a = 1; let b = 2; let c = 3;", errors.RhaiLimitError),
        (Limits(max_functions=1), "fn a() {} fn b() {}", errors.RhaiSyntaxError),
        (Limits(max_string_size=10), '"0123456789" + "0"', errors.RhaiDataTooLarge),
        (Limits(max_array_size=2), "let a = [1]; a.push(2); a.push(3); a", errors.RhaiDataTooLarge),
        (Limits(max_map_size=1), "let m = #{a: 1}; m.b = 2; m", errors.RhaiDataTooLarge),
        (Limits(max_call_levels=5), "fn f(n) { if n > 0 { f(n - 1) } } f(9)", errors.RhaiCallDepth),
        (Limits(max_expr_depth=5), "((((((((1))))))))", errors.RhaiSyntaxError),
    ],
)
def test_rhais_own_limits_hold(limits: Limits, script: str, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        Engine(limits=limits).eval(script)


@pytest.mark.parametrize(
    ("bound", "value", "why"),
    [
        ("timeout", 0, "above 0"),
        ("timeout", float("nan"), "finite"),
        ("timeout", float("inf"), "finite"),
        ("max_memory", 2**40 + 1, "1 TiB: four times as much is reserved as stack"),
        ("max_call_levels", 10_001, "at most 10000, since each level takes stack"),
        ("max_expr_depth", 10_001, "at most 10000, since each level takes stack"),
        ("max_function_expr_depth", 10_001, "at most 10000, since each level takes stack"),
    ],
)
def test_a_limit_that_would_bound_nothing_is_refused(bound: str, value: float, why: str) -> None:
    with pytest.raises(ValueError, match=f"{bound} .*{why}"):
        Limits(**{bound: value})  # type: ignore[arg-type]


def test_the_number_of_modules_is_bounded() -> None:
    engine = Engine(limits=Limits(max_modules=1), modules={"a": "", "b": ""})

    with pytest.raises(errors.RhaiLimitError):
        engine.run('import "a" as a; import "b" as b;')


# ---- values, both ways ----

INTEGERS = st.integers(-(2**63), 2**63 - 1)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False) | st.text() | st.binary()
RANGES = st.builds(range, INTEGERS, INTEGERS)
OBJECTS = st.datetimes() | st.dates() | st.times() | st.timedeltas() | st.uuids()
VALUES = st.recursive(
    SCALARS
    | RANGES
    | OBJECTS
    | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=6),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=20,
)
ENGINE = Engine()
ENGINE.register("same", lambda value: value)


def same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return type(one) is type(other) and repr(one) == repr(other)  # tells -0.0 from 0.0, 1 from 1.0 and True


@given(VALUES)
def test_a_value_comes_back_as_it_went(value: object) -> None:
    assert same(ENGINE.eval("x", scope={"x": value}), value)
    assert same(ENGINE.eval("same(x)", scope={"x": value}), value)


@given(VALUES)
def test_a_scope_holds_any_value(value: object) -> None:
    scope = Scope(x=value)

    ENGINE.eval("let y = x;", scope=scope)

    assert same(scope["y"], value)


@given(OBJECTS)
def test_a_moment_or_an_id_is_the_same_object_afterwards(value: object) -> None:
    assert ENGINE.eval("let a = [x]; a[0]", scope={"x": value}) is value


@given(st.sets(INTEGERS | st.text() | st.uuids()))
def test_a_set_arrives_as_a_list_of_the_same_members(value: set[object]) -> None:
    for members in (value, frozenset(value)):
        back = ENGINE.eval("x", scope={"x": members})

        assert isinstance(back, list)
        assert len(back) == len(value)
        assert set(back) == value


@given(st.floats())
def test_every_float_passes_also_one_that_is_no_number(value: float) -> None:
    back = ENGINE.eval("x", scope={"x": value})

    assert math.isnan(back) if math.isnan(value) else same(back, value)


@given(st.lists(st.booleans(), min_size=90, max_size=110))
def test_a_value_of_a_hundred_levels_passes_and_a_deeper_one_is_refused(lists: list[bool]) -> None:
    value: object = 1
    for is_list in lists:
        value = [value] if is_list else {"a": value}

    if len(lists) <= 100:
        assert ENGINE.eval("x", scope={"x": value}) == value
    else:
        with pytest.raises(ValueError, match="nested deeper than 100 levels"):
            ENGINE.eval("x", scope={"x": value})


@given(VALUES)
def test_a_list_that_stands_in_a_value_twice_arrives_as_two(value: object) -> None:
    shared = [value]

    one, other = ENGINE.eval("x[0].push(1); x", scope={"x": [shared, shared]})

    assert same(one, [value, 1])
    assert same(other, [value])
    assert same(shared, [value])


def test_what_the_last_evaluation_used_is_known_however_it_ended() -> None:
    ENGINE.run("let x = []; for i in 0..1000 { x.push(i) }")
    operations, peak_memory = last_use()
    assert operations > 1000
    assert peak_memory > 1000

    with pytest.raises(errors.RhaiRuntimeError):
        ENGINE.run("throw 1")
    assert 0 < last_use()[0] < 10
    with pytest.raises(errors.RhaiSyntaxError):
        ENGINE.run("let")
    assert last_use() == (0, 0)


def test_what_an_evaluation_used_is_its_own_also_if_it_holds_another() -> None:
    outer = Engine()
    outer.register("inner", lambda: ENGINE.run("for i in 0..1000 {}"))

    outer.run("inner()")

    assert 0 < last_use()[0] < 100


def test_each_thread_knows_its_own_last_evaluation() -> None:
    ENGINE.run("1")
    here = last_use()

    with ThreadPoolExecutor(1) as other:
        other.submit(ENGINE.run, "for i in 0..1000 {}").result()

    assert last_use() == here


@given(st.integers())
def test_an_integer_passes_or_is_refused_never_changed(value: int) -> None:
    if -(2**63) <= value < 2**63:
        assert ENGINE.eval("x", scope={"x": value}) == value
    else:
        with pytest.raises(OverflowError, match="does not fit a script's 64 bits"):
            ENGINE.eval("x", scope={"x": value})


@given(st.text(max_size=200))
def test_any_text_is_a_script_that_ends_within_its_limits(source: str) -> None:
    # Any of these may be what the text deserves; a panic is not.
    with suppress(errors.RhaiSyntaxError, errors.RhaiRuntimeError, errors.RhaiLimitError, errors.RhaiTerminated):
        ENGINE.run(source, timeout=1)
