"""Functions that outlive their evaluation: in a scope, and as pointers that Python calls."""

import copy
import functools
import gc
import pickle
import threading
import weakref
from decimal import Decimal
from typing import Any

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import AST, Engine, FnPtr, Limits, Scope
from rhai_tasks.engine.limits import MIB


@pytest.fixture
def engine() -> Engine:
    return Engine(limits=Limits(timeout=10))


DEFINING = """
    fn double(x) { x * 2 }
    fn both(x) { double(x) + helper(x) }
    fn helper(x) { 1 }
    let k = 10;
    let f = |x| double(x) + k;
    let p = Fn("double");
    let list = [|x| x + 1, #{deep: |x| helper(x)}];
    const C = |x| x - 1;
"""


@pytest.mark.parametrize(
    ("later", "value"),
    [
        ("double(4)", 8),
        ("both(4)", 9),
        ("f.call(4)", 18),
        ("[1, 2].map(f)", [12, 14]),
        ("p.call(4)", 8),
        ("list[0].call(4)", 5),
        ("list[1].deep.call(4)", 1),
        ("C.call(4)", 3),
        ("let g = f; fn other(h) { h.call(1) } other(g)", 12),
        ("fn helper(x) { 100 } both(4)", 108),
        ("k = 20; f.call(4)", 28),
        ('eval("double(3)")', 6),
        ("double(1, 2)", errors.RhaiNameError),
    ],
)
def test_functions_and_closures_of_a_scope_are_those_of_later_scripts(engine: Engine, later: str, value: Any) -> None:
    scope = Scope()
    engine.eval(DEFINING, scope=scope)

    if isinstance(value, type):
        with pytest.raises(value):
            engine.eval(later, scope=scope)
    else:
        assert engine.eval(later, scope=scope) == value
        assert Engine().eval("double(4)", scope=scope) == 8


def test_functions_stay_also_if_their_script_fails(engine: Engine) -> None:
    scope = Scope()
    with pytest.raises(errors.RhaiThrow):
        engine.eval("fn f() { 1 } let g = || f(); throw 1", scope=scope)

    assert engine.eval("g.call() + f()", scope=scope) == 2


def test_functions_of_one_scope_are_not_those_of_another(engine: Engine) -> None:
    engine.eval("fn f() { 1 }", scope=Scope())

    with pytest.raises(errors.RhaiNameError):
        engine.eval("f()", scope=Scope())
    with pytest.raises(errors.RhaiNameError):
        engine.eval("f()")


def test_functions_of_a_scope_can_be_called_by_name(engine: Engine) -> None:
    scope = Scope()
    engine.eval(DEFINING, scope=scope)

    assert engine.call("", "both", 4, scope=scope) == 9


def test_a_script_that_runs_often_in_a_scope_adds_nothing(engine: Engine) -> None:
    scope = Scope()
    script = "fn f(x) { x + 1 } let g = |x| f(x); g.call(1)"
    peaks = [engine.eval(script, scope=scope, details=True).peak_memory for _ in range(30)]

    assert max(peaks[5:]) <= min(peaks[5:]) + 4096


def test_functions_that_a_scope_keeps_count_as_memory() -> None:
    engine = Engine(limits=Limits(max_memory=2 * MIB, max_expr_depth=100))
    scope = Scope()
    body = "; ".join(f"x += {number}" for number in range(2000))

    for number in range(4):
        engine.eval("let x = blob(1000)", scope=scope)
        engine.eval(f"fn f{number}() {{ let x = 0; {body}; x }}", scope=scope)
    with pytest.raises(errors.RhaiMemoryLimit):
        engine.eval("let x = blob(1000)", scope=scope)


# ---- pointers ----


def test_python_calls_a_closure_after_its_evaluation(engine: Engine) -> None:
    count, add = engine.eval("let n = 0; fn one() { 1 } [|| { n += one(); n }, |a, b| a + b]")

    assert [count(), count(), count()] == [1, 2, 3]
    assert add("a", "b") == "ab"
    assert engine.eval("let f = x; f.call(2, 3)", scope={"x": add}) == 5


def test_a_kept_closure_sees_the_constants_of_its_evaluation(engine: Engine) -> None:
    closure = engine.eval("fn f() { K + 1 } |x| x + K + f()", constants={"K": 10})

    assert closure(1) == 22


def test_python_calls_a_closure_of_a_scope(engine: Engine) -> None:
    scope = Scope()
    engine.eval(DEFINING, scope=scope)

    assert scope["f"](4) == 18
    assert scope["list"][1]["deep"](1) == 1


def test_a_kept_closure_sees_the_engines_functions_and_limits() -> None:
    engine = Engine(limits=Limits(timeout=0.2, max_memory=8 * MIB))
    seen: list[Any] = []
    kept: list[FnPtr] = []
    engine.register("keep", kept.append)
    engine.register("note", seen.append)
    engine.eval("keep(|x| note(x)); keep(|| { loop {} }); keep(|| throw 7); keep(|x| missing(x))")

    kept[0]([1])
    assert seen == [[1]]
    with pytest.raises(errors.RhaiTimeout):
        kept[1]()
    with pytest.raises(errors.RhaiThrow) as thrown:
        kept[2]()
    assert thrown.value.thrown == 7
    with pytest.raises(errors.RhaiNameError):
        kept[3](1)
    with pytest.raises(errors.RhaiNameError):
        kept[0]()
    with pytest.raises(TypeError, match=r"arguments\[0\]: an object of object"):
        kept[0](object())


def test_a_kept_closure_runs_on_any_thread_and_within_other_evaluations(engine: Engine) -> None:
    add = engine.eval("let k = 1; |x| x + k")
    results: list[int] = []
    threads = [threading.Thread(target=lambda: results.append(add(1))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other = Engine()
    for each in (engine, other):
        each.register("by_python", add)

    assert results == [2, 2, 2, 2]
    assert engine.eval("by_python(5)") == other.eval("by_python(5)") == 6


def test_a_closure_called_while_its_evaluation_runs_belongs_to_it(engine: Engine) -> None:
    @engine.function
    def twice(function: FnPtr) -> list[Any]:
        return [function(), function()]

    assert engine.eval("let n = 0; twice(|| { n += 1; n })") == [1, 2]
    with pytest.raises(errors.RhaiOperationLimit):
        engine.run("twice(|| { let n = 0; for i in 0..1000 { n += i } })", max_operations=500)


def test_a_pointer_of_a_scope_that_no_engine_has_used_says_so(engine: Engine) -> None:
    scope = Scope(f=lambda: 1)

    with pytest.raises(RuntimeError, match="no engine has used the scope"):
        scope["f"]()
    assert engine.eval("f.call()", scope=scope) == 1
    assert scope["f"]() == 1


def test_an_engine_that_a_kept_closure_refers_to_is_freed_with_it() -> None:
    class Held:
        pass

    held = Held()
    freed = weakref.ref(held)
    engine = Engine()
    kept: list[FnPtr] = []
    engine.register("keep", kept.append)
    engine.register("held", functools.partial(isinstance, held))
    engine.eval("keep(|| 1)")
    del engine, held
    assert kept[0]() == 1
    assert freed() is not None
    kept.clear()
    gc.collect()
    assert freed() is None


# ---- call ----


def test_a_call_binds_this(engine: Engine) -> None:
    ast = engine.compile("fn area(n) { this.width * this.height * n } fn name() { this }")

    assert engine.call(ast, "area", 2, this={"width": 2, "height": 3}) == 12
    assert engine.call(ast, "name", this="me") == "me"
    with pytest.raises(errors.RhaiError, match="'this' not bound"):
        engine.call(ast, "name")
    pointer = engine.eval(engine.compile("|n| this + n"))
    assert engine.call(engine.compile("|n| this + n"), pointer, 2, this=40) == 42


def test_a_call_leaves_the_value_of_this_as_it_was(engine: Engine) -> None:
    given = {"n": 1}

    assert engine.call("fn f() { this.n += 1; this.n }", "f", this=given) == 2
    assert given == {"n": 1}


@pytest.mark.parametrize(("eval_ast", "runs"), [(True, 1), (False, 0)])
def test_a_call_runs_the_script_first_only_if_asked(engine: Engine, eval_ast: bool, runs: int) -> None:
    seen: list[str] = []
    ast: AST = engine.compile('print("ran"); fn f() { 1 }')

    assert engine.call(ast, "f", eval_ast=eval_ast, print=seen.append) == 1
    assert len(seen) == runs


# ---- copies of scopes ----


def test_a_copy_of_a_scope_shares_nothing_with_it(engine: Engine) -> None:
    scope = Scope(x=[1], host={"a": 1})
    scope.set_constant("K", 5)
    engine.eval("let n = 1; let inc = || { n += 1; n }; fn f() { 7 }", scope=scope)
    snapshot = scope.copy()

    engine.eval("x.push(2); inc.call(); inc.call(); let y = 3; fn f() { 8 }", scope=scope)
    assert dict(snapshot.items()).keys() == {"x", "host", "K", "n", "inc"}
    assert engine.eval("[x, n, inc.call(), n, f(), K]", scope=snapshot) == [[1], 1, 2, 2, 7, 5]
    assert engine.eval("[x, n, f()]", scope=scope) == [[1, 2], 3, 8]
    assert snapshot.is_constant("K")


def test_a_scope_rewinds_to_a_copy_any_number_of_times(engine: Engine) -> None:
    scope = Scope(n=1)
    snapshot = copy.copy(scope)
    for _ in range(3):
        engine.eval("n += 1; let more = 1", scope=scope)
        assert engine.eval("n", scope=scope) == 2
        scope.rewind(snapshot)
        assert dict(scope) == {"n": 1}
    scope.rewind(scope)
    assert dict(copy.deepcopy(scope)) == {"n": 1}


def test_a_scope_pickles_as_its_variables_and_constants(engine: Engine) -> None:
    scope = Scope(n=1, values=[1, {"a": Decimal("1.5")}, None])
    scope.set_constant("LIMIT", 3)
    engine.run("n += 1; let more = blob(2, 7);", scope=scope)

    made = pickle.loads(pickle.dumps(scope))

    assert type(made) is Scope
    assert (dict(made), made.constants()) == (dict(scope), {"LIMIT": 3})
    assert engine.eval("n += LIMIT; n", scope=made) == 5
    assert scope["n"] == 2


@pytest.mark.parametrize("script", ["fn f() { 1 }", "let f = || 1;", "let now = timestamp();", "let f = Fn(`abs`);"])
def test_a_scope_with_what_belongs_to_an_engine_does_not_pickle(engine: Engine, script: str) -> None:
    scope = Scope()
    engine.run(script, scope=scope)

    with pytest.raises(TypeError, match="cannot (be )?pickle"):
        pickle.dumps(scope)
    assert dict(scope.copy()).keys() == dict(scope).keys()


def test_a_scope_with_a_value_that_contains_itself_is_copied(engine: Engine) -> None:
    scope = Scope()
    engine.eval("let m = #{n: 1}; let f = || m.n; m.f = f;", scope=scope)
    snapshot = scope.copy()
    engine.eval("m.n = 5", scope=scope)

    assert [engine.eval("let g = m.f; g.call()", scope=each) for each in (scope, snapshot)] == [5, 1]


def test_a_scope_in_use_cannot_be_copied(engine: Engine) -> None:
    scope = Scope()
    refused: list[str] = []

    @engine.function
    def copied() -> None:
        for use in (scope.copy, lambda: scope.rewind(Scope()), lambda: Scope().rewind(scope)):
            with pytest.raises(RuntimeError, match="the scope is in use") as error:
                use()
            refused.append(str(error.value))

    engine.eval("copied()", scope=scope)
    assert len(refused) == 3
