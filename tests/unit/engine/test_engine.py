import asyncio
import functools
import inspect
import os
import signal
import statistics
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rhai_tasks import errors
from rhai_tasks.engine import RHAI_VERSION, CancelToken, Engine, FnPtr, Limits, Scope
from rhai_tasks.engine.evaluation import EvaluationOptions


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("40 + 2", "42"),
        ('"text"', "text"),
        ("'c'", "c"),
        ("()", ""),
        ("let x = 1;", ""),
        ("", ""),
        ("1.0", "1.0"),
        ("0.1 + 0.2", "0.30000000000000004"),
        ("1e16", "1e16"),
        ("true", "true"),
        ('[1, 2.0, "s", \'c\', true, (), [1], #{"a": 1}]', '[1, 2.0, "s", \'c\', true, (), [1], #{"a": 1}]'),
        ('#{"k y": \'c\', b: 1, a: "x", n: ()}', '#{"a": "x", "b": 1, "k y": \'c\', "n": ()}'),
        ("1..5", "1..5"),
        ('Fn("abc")', "Fn(abc)"),
        ("blob(3, 255)", "[ffffff]"),
        ('exit("early"); 1', "early"),
        ('"x";', "x"),
    ],
)
def test_the_text_of_a_value_is_rusts_own(script: str, text: str) -> None:
    assert Engine().run(script) == text


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ("1 +", errors.RhaiSyntaxError, "Syntax error: Script is incomplete (line 1, position 4)"),
        ('throw "boom"', errors.RhaiThrow, "Runtime error: boom (line 1, position 1)"),
        ("throw #{code: 5}", errors.RhaiThrow, 'Runtime error: #{"code": 5} (line 1, position 1)'),
        ("throw", errors.RhaiThrow, "Runtime error (line 1, position 1)"),
        ("nosuch(1)", errors.RhaiNameError, "Function not found: nosuch (i64) (line 1, position 1)"),
        ("\n xyz", errors.RhaiNameError, "Variable not found: xyz (line 2, position 2)"),
        ("1 / 0", errors.RhaiArithmeticError, "Division by zero: 1 / 0 (line 1, position 3)"),
        ("[1][5]", errors.RhaiIndexError, "Array index 5 out of bounds: only 1 element in array (line 1, position 5)"),
        ("CALLER_ID = 1", errors.RhaiConstantError, "Cannot modify constant CALLER_ID (line 1, position 1)"),
        ('import "/etc/passwd" as x;', errors.RhaiModuleError, "Module not found: /etc/passwd (line 1, position 8)"),
        ("fn f() { f() } f()", errors.RhaiCallDepth, None),
    ],
)
def test_an_error_is_of_its_class_and_has_rhais_text(script: str, kind: type[Exception], text: str | None) -> None:
    with pytest.raises(kind) as caught:
        Engine().run(script, constants={"CALLER_ID": "me"})

    assert text is None or str(caught.value) == text


def test_an_error_knows_where_and_through_which_calls_it_came() -> None:
    with pytest.raises(errors.RhaiThrow) as caught:
        Engine().run("fn inner() { throw #{code: 5} }\nfn outer() { inner() }\nouter()")

    error = caught.value
    assert (error.line, error.column) == (1, 14)
    assert error.frames == (("inner", 2, 14), ("outer", 3, 1))
    assert error.thrown == {"code": 5}


def test_constants_are_visible_everywhere_and_cannot_be_changed() -> None:
    engine = Engine()

    assert engine.run("fn f() { CALLER_ID } [1].map(|x| CALLER_ID)[0] + f()", constants={"CALLER_ID": "me"}) == "meme"


def test_a_host_function_is_called_with_python_values() -> None:
    engine = Engine()
    engine.register("describe", lambda value, *rest: f"{value!r} {len(rest)}")

    assert engine.run("describe([1, 2.5, #{a: ()}], 1, 2)") == "[1, 2.5, {'a': None}] 2"


def test_a_host_function_with_defaults_takes_fewer_arguments() -> None:
    engine = Engine()

    @engine.function(name="power")
    def raise_to(base: int, exponent: int = 2) -> int:
        return int(base**exponent)

    assert engine.eval("[power(3), power(3, 3)]") == [9, 27]


def test_a_host_functions_exception_is_the_cause_of_the_error() -> None:
    engine = Engine()

    @engine.function
    def fail() -> None:
        raise KeyError("lost")

    with pytest.raises(errors.RhaiHostError, match=r"^Runtime error: 'lost' \(line 1, position 1\)$") as caught:
        engine.run("fail()")

    assert isinstance(caught.value.__cause__, KeyError)
    assert caught.value.__cause__.__traceback__ is not None


def test_a_script_can_catch_a_host_functions_exception() -> None:
    engine = Engine()
    engine.register("fail", lambda: int("x"))

    assert engine.run('let r = ""; try { fail() } catch (e) { r = e } r') == (
        "invalid literal for int() with base 10: 'x'"
    )


def test_an_exit_of_the_process_is_not_for_the_script_to_catch() -> None:
    engine = Engine()

    @engine.function
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        engine.run("try { leave() } catch { } 1")


def test_a_function_registered_later_is_found() -> None:
    engine = Engine()
    engine.run("1")

    engine.register("late", lambda: 5)

    assert engine.eval("late()") == 5


def test_an_engine_runs_inside_its_own_host_function() -> None:
    engine = Engine(limits=Limits(max_operations=2000))
    engine.register("inner", lambda: engine.eval("let x = 0; while x < 100 { x += 1 } x"))

    assert engine.eval("inner() + inner() + inner()") == 300


def test_an_evaluation_inside_of_another_is_bounded_by_that_ones_limits_too() -> None:
    outer, inner = Engine(limits=Limits(max_memory=8 * 1024 * 1024)), Engine()
    cancel = CancelToken()
    outer.register("inner", inner.eval)
    outer.register("cancel", cancel.cancel)

    with pytest.raises(errors.RhaiTimeout, match="time limit of 0.2 s"):
        outer.run("inner(`loop {}`)", timeout=0.2)
    with pytest.raises(errors.RhaiHostError, match="memory limit of 8 MiB"):
        outer.run("inner(`blob(20_000_000)`)")
    inner.register("cancel", cancel.cancel)
    with pytest.raises(errors.RhaiCancelled):
        outer.run("inner(`cancel(); loop {}`)", cancel=cancel, timeout=20)
    assert inner.eval("40 + 2") == 42


@functools.cache
def panic_class() -> type[BaseException]:
    """Return the exception that PyO3 makes of a panic, and turns into one again; other extensions have their own."""
    engine = Engine()
    with suppress(OverflowError):
        engine.eval("x", scope={"x": 2**64})  # the first exception makes the class

    def panics(cls: type[BaseException]) -> bool:
        def fail() -> None:
            raise cls("a panic")

        engine.register("try_it", fail)
        try:
            engine.run("try_it()")
        except errors.RhaiPanic:
            return True
        except cls:
            return False
        return False

    return next(cls for cls in BaseException.__subclasses__() if cls.__name__ == "PanicException" and panics(cls))


def panic() -> object:
    raise panic_class()("a panic")


def test_a_panic_inside_of_a_host_function_leaves_nothing_behind() -> None:
    engine = Engine(modules={"m": "panic();", "good": "fn f() { 1 }"})
    engine.register("panic", panic)

    @engine.function
    def recover(function: FnPtr) -> object:
        with pytest.raises(errors.RhaiPanic):
            engine.run("panic()")
        return function(20)

    assert engine.eval("recover(|x| x * 2 + 2)") == 42
    for _ in range(2):
        with pytest.raises(errors.RhaiPanic):
            engine.run('import "m" as m;')
    assert engine.eval('import "good" as g; g::f()') == 1


def test_a_pointer_kept_from_a_call_that_panicked_can_be_called_later() -> None:
    engine = Engine()
    kept: list[FnPtr] = []

    @engine.function
    def keep(function: FnPtr) -> object:
        kept.append(function)
        return panic()

    with pytest.raises(errors.RhaiPanic):
        engine.run("keep(|x| x)")
    assert kept[0](5) == 5


def test_a_host_function_sees_that_its_closure_was_stopped() -> None:
    engine = Engine()
    seen: list[type[BaseException]] = []

    @engine.function
    def watch(function: FnPtr) -> None:
        try:
            function()
        except errors.RhaiError as error:
            seen.append(type(error))
            raise

    with pytest.raises(errors.RhaiTimeout):
        engine.run("watch(|| loop {})", timeout=0.1)
    assert seen == [errors.RhaiTimeout]


def test_scripts_are_kept_apart_by_the_values_of_the_constants_they_name() -> None:
    engine = Engine()
    script = "fn f() { 1.0 / Z } [1.0 / Z, f()]"

    assert engine.eval(script, constants={"Z": 0.0}) == [float("inf")] * 2
    assert engine.eval(script, constants={"Z": -0.0}) == [float("-inf")] * 2


def test_print_and_debug_go_where_the_caller_wants_them() -> None:
    printed: list[Any] = []

    Engine().run(
        'print("a"); debug([1]); print([1, "s"])',
        print=printed.append,
        debug=lambda text, source, line, column: printed.append((text, source, line, column)),
    )

    assert printed == ["a", ("[1]", None, 1, 13), '[1, "s"]']


STOPPED = "Script terminated: time limit of 0.05 s exceeded"


@pytest.mark.parametrize(
    "script",
    [
        "loop {}",
        "sleep(1000)",
        "sleep(1e300)",
        "loop { try { loop {} } catch { } }",
        "try { [1].map(|x| { loop {} }) } catch { } 42",
        "[2, 1].sort(|a, b| { loop {} }); 42",
        'eval("loop {}")',
    ],
)
def test_a_deadline_holds_whatever_the_script_does(script: str) -> None:
    with pytest.raises(errors.RhaiTimeout, match=f"^{STOPPED}"):
        Engine().run(script, timeout=0.05)


@pytest.mark.parametrize(
    "script",
    [
        "let a = []; a.pad(1_000_000, 1); loop { let b = a; }",
        "let b = blob(60_000_000); loop { b.contains(1) }",
        "let i = 0; while i < 100_000 { i += 1 } let a = []; a.pad(1_000_000, 1); loop { let b = a; }",
    ],
)
def test_a_deadline_holds_where_each_operation_takes_milliseconds(script: str) -> None:
    start = time.monotonic()
    with pytest.raises(errors.RhaiTimeout):
        Engine().run(script, timeout=0.3)

    # A look at the clock each thousand operations would find it after some ten seconds.
    assert time.monotonic() - start < 5


def test_a_signal_handler_can_cancel_the_script_that_runs_on_the_main_thread() -> None:
    cancel = CancelToken()
    before = signal.signal(signal.SIGUSR1, lambda *_: cancel.cancel())
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    try:
        with pytest.raises(errors.RhaiCancelled):
            Engine().run("loop {}", cancel=cancel, timeout=60)
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C interrupts, also where a shell started the tests in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("script", ["loop {}", "sleep(1000)", "loop { try { [1].map(|x| { loop {} }) } catch {} }"])
def test_ctrl_c_interrupts_a_script_that_runs_on_the_main_thread(script: str) -> None:
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        Engine().run(script, timeout=60)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_interrupts_a_compilation_and_nothing_after_it() -> None:
    engine = Engine()
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()

    with pytest.raises(KeyboardInterrupt):
        engine.compile("let x = 1; " + "x += 17 * x - (3 + x); " * 300_000)
    assert engine.eval("40 + 2") == 42


def test_a_signal_handler_can_evaluate_while_the_same_engine_compiles() -> None:
    engine, seen = Engine(), []
    before = signal.signal(signal.SIGUSR1, lambda *_: seen.append(engine.eval("40 + 2")))
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1)).start()

    try:
        engine.compile("let x = 1; " + "x += 17 * x - (3 + x); " * 300_000)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [42]


CALLBACKS = [
    "work(); work()",
    "let f = |x| work(); f.call(1); f.call(2)",
    'eval("work(); work()")',
    "a.map(|x| work())",
    "a.filter(|x| work())",
    "a.reduce(|sum, x| work())",
    "a.reduce_rev(|sum, x| work())",
    "a.find(|x| work())",
    "a.find_map(|x| { work(); () })",
    "a.some(|x| work())",
    "a.all(|x| !work())",
    "a.index_of(|x| work())",
    "a.for_each(|| work())",
    "a.dedup(|x, y| work())",
    "a.retain(|x| work())",
    "a.drain(|x| work())",
    "a.extract(0..99).map(|x| work())",
    "a.sort(|x, y| if work() { 1 } else { -1 })",
    "a.zip(a, |x, y| work())",
    "m.map(|k, v| work())",
    "m.filter(|k, v| work())",
    "m.retain(|k, v| work())",
    "m.drain(|k, v| work())",
]


@pytest.mark.parametrize("call", CALLBACKS)
def test_operations_are_counted_also_in_callbacks(call: str) -> None:
    """Each call of `work` stays within the limit, and all of them together do not."""
    script = f"""
        fn work() {{ let i = 0; while i < 1500 {{ i += 1 }} false }}
        let a = [1, 2, 3, 4, 5, 6, 7, 8, 9]; let m = #{{a: 1, b: 2, c: 3}};
        {call}
    """

    with pytest.raises(errors.RhaiOperationLimit, match="^Too many operations"):
        Engine(limits=Limits(max_operations=10_000)).run(script)
    assert Engine(limits=Limits(max_operations=10_000)).run(f"{script.partition('let a')[0]} work()") == "false"


@pytest.mark.parametrize(
    "script",
    [
        'let s = "x"; loop { s += s; }',
        "let a = []; loop { a.push([1, 2, 3]); }",
        "let m = #{}; let i = 0; loop { m[`k${i}`] = i; i += 1; }",
        'let a = [""]; a[0].pad(1000000, "x"); a.pad(1000, a[0]); print(a)',
        'let s = ""; s.pad(1000000000, "x")',
        "let s = \"\"; s.pad(9223372036854775807, 'x')",
        "[].pad(9223372036854775807, 1)",
        "blob(1000000000000)",
        "blob(1000000000000, 7)",
        "let b = blob(1); b.pad(9223372036854775807, 1)",
        'let s = ""; s.pad(100000, "y"); let t = s; s.replace("y", t)',
        'let s = ""; s.pad(3000000, "y"); s.split("")',
        'let s = ""; s.pad(3000000, "y"); s.split("", 9223372036854775807)',
        'let s = ""; s.pad(3000000, "y"); s.split_rev("")',
        'let s = ""; s.pad(3000000, "y"); s.to_chars()',
        "blob(3000000).to_array()",
        'let s = `{"a":{}},`; s.pad(500_000, s); parse_json(`[` + s + `1]`)',
        'let b = []; b.pad(1000, 1); let f = Fn("x").curry(b); [].pad(100000, f)',
        "[].pad(40000, #{a: 1})",
        'let s = ""; s.pad(1000000, "x"); let a = []; for i in 0..100 { a.push(s) } `${a}`',
        'let s = ""; s.pad(1000000, "x"); let a = []; for i in 0..100 { a.push(s) } "x" + a',
        'let s = ""; s.pad(1000000, "x"); let a = []; for i in 0..100 { a.push(s) } #{a: a} + "x"',
        'let s = ""; s.pad(1000000, "x"); let a = []; for i in 0..100 { a.push(s) } #{a: a}.to_json()',
        'let s = ""; s.pad(1000000, "x"); let a = []; for i in 0..100 { a.push(s) } throw a',
    ],
)
def test_memory_is_bounded_also_in_one_step(script: str) -> None:
    with pytest.raises(errors.RhaiMemoryLimit, match="^Script terminated: memory limit of 4 MiB exceeded"):
        Engine(limits=Limits(max_memory=4 * 1024 * 1024)).run(script, timeout=10)


@pytest.mark.parametrize(
    ("first", "doubled"),
    [
        ("'x' + 'x'", "{0} + {0}"),
        ('"xx"', "`${{{0}}}${{{0}}}`"),
        ("[1, 2]", "[{0}, {0}]"),
        ("#{a: 1}", "#{{a: {0}, b: {0}}}"),
        ("[1]", "{{ const B = [{0}, {0}]; [B, B] }}"),
    ],
)
def test_constants_of_constants_take_no_memory_while_the_script_compiles(first: str, doubled: str) -> None:
    """Rhai's optimizer puts their values wherever they are named."""
    script = [f"const A0 = {first};", *(f"const A{n + 1} = {doubled.format(f'A{n}')};" for n in range(40))]

    for attempt in (Engine().run, Engine().compile):
        with pytest.raises(errors.RhaiMemoryLimit, match="memory limit of 64 MiB exceeded"):
            attempt("\n".join(script))


def test_a_given_constant_counts_as_often_as_a_script_names_it() -> None:
    engine, large = Engine(), {"TABLE": list(range(100_000))}

    assert engine.run("TABLE[7] + TABLE[8]", constants=large) == "15"
    with pytest.raises(errors.RhaiMemoryLimit):
        engine.run("[" + "TABLE, " * 1000 + "]", constants=large)


def test_constants_that_are_numbers_may_be_combined_at_will() -> None:
    doublings = ["const A0 = 1;", *(f"const A{n + 1} = A{n} + A{n};" for n in range(40)), "A40"]

    assert Engine().run("\n".join(doublings)) == str(2**40)


@pytest.mark.parametrize("statement", ["a+b;", "f(x);", "x[y];"])
def test_compiling_much_source_takes_bounded_time_and_memory(statement: str) -> None:
    engine = Engine(limits=Limits(max_memory=1024 * 1024, timeout=30))
    much = statement * 150_000

    with pytest.raises(errors.RhaiMemoryLimit):
        engine.run("eval(much)", scope={"much": much})
    with pytest.raises(errors.RhaiMemoryLimit):
        engine.compile(much)


def test_compiling_heeds_the_deadline_and_a_cancellation() -> None:
    much = 'let a = #{b: "c"};\n' * 400_000

    with pytest.raises(errors.RhaiTimeout):
        Engine(limits=Limits(timeout=0.01)).compile(much)
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(errors.RhaiCancelled):
        Engine().run(much, cancel=cancel)


@pytest.mark.parametrize(
    ("call", "result"),
    [
        ("[1, 2, 3].map('double')", [2, 4, 6]),
        ("[1, 2, 3].filter('is_odd')", [1, 3]),
        ("let a = [1, 2, 3]; [a.drain('is_odd'), a]", [[1, 3], [2]]),
        ("let a = [1, 2, 3]; [a.retain('is_odd'), a]", [[2], [1, 3]]),
        ("[[1, 2].some('is_odd'), [1, 2].all('is_odd')]", [True, False]),
        ("[1, 2, 3].reduce('sum', 10)", 16),
        ("[1, 2, 3].reduce_rev('sum')", 6),
        ("let a = [3, 1, 2]; a.sort('is_less'); a", [1, 2, 3]),
        ("let a = [1, 1, 2]; a.dedup('is_same'); a", [1, 2]),
        ("const A = [1, 2, 3]; A.some('is_odd')", True),
        ("[2, 4, 5].index_of('is_odd')", 2),
        ("[5, 4, 5].index_of('is_odd', 1)", 2),
        ("[5, 4, 7].index_of('is_odd', -2)", 2),
        ('[\'a\', "b", \'c\', "b"].index_of("b")', 1),
        ('[\'a\', "b", \'c\', "b"].index_of("b", -2)', 3),
        ("['a', 'c'].index_of(\"no such\")", -1),
        ("[[].index_of('is_odd'), [1].index_of('is_odd', 9)]", [-1, -1]),
        ("[[1], 'x', [2]].contains([2])", True),
    ],
)
def test_a_function_of_an_array_takes_another_one_by_its_name(call: str, result: object) -> None:
    functions = """
        fn double(x) { 2 * x }
        fn is_odd(x) { x % 2 == 1 }
        fn sum(all, x) { (all ?? 0) + x }
        fn is_less(x, y) { x < y }
        fn is_same(x, y) { x == y }
    """

    assert Engine().eval(functions + call.replace("'", '"')) == result


@pytest.mark.parametrize(
    ("call", "error"),
    [
        ("[1].map('nosuch')", "Function not found: nosuch (i64, i64) (line 1, position 5)"),
        ("[1].map('no such')", "Function not found: no such (line 1, position 5)"),
        ("const A = [1]; A.map('f')", "Non-pure method 'map' cannot be called on constant (line 1, position 18)"),
        ("parse_int(' 12x')", "Error parsing integer number ' 12x': invalid digit found in string"),
        ("parse_int('1', 99)", "Invalid radix: '99'"),
        ("parse_float('1.x')", "Error parsing floating-point number '1.x': invalid float literal"),
        ("parse_decimal('1.x')", "Error parsing decimal number '1.x': Failed to parse"),
    ],
)
def test_an_error_names_the_function_or_the_number_that_there_is_not(call: str, error: str) -> None:
    with pytest.raises(errors.RhaiError) as raised:
        Engine().eval(call.replace("'", '"'))

    assert str(raised.value).startswith(error)


@pytest.mark.parametrize("call", ["sort()", "order()", "sort_desc()", "order_desc()", "contains([])", "dedup()"])
def test_an_operation_on_one_long_text_many_times_heeds_the_deadline(call: str) -> None:
    engine = Engine(limits=Limits(timeout=0.3))
    start = time.monotonic()

    with pytest.raises(errors.RhaiTimeout):
        engine.run(f"let all = []; all.pad(100_000, text); loop {{ all.{call} }}", scope={"text": "x" * 10_000_000})

    assert time.monotonic() - start < 10  # uninterrupted, one takes minutes


@pytest.mark.parametrize(
    ("items", "ordered"),
    [
        ("[3, 1, 2]", "[1, 2, 3]"),
        ("[2.5, -1.0, 0.0]", "[-1.0, 0.0, 2.5]"),
        ('["b", "a", ""]', '["", "a", "b"]'),
        ("['b', 'a']", "['a', 'b']"),
        ("[true, false]", "[false, true]"),
        ("[(), ()]", "[(), ()]"),
        ("[]", "[]"),
        ("[[1]]", "[[1]]"),
    ],
)
def test_arrays_are_ordered_as_rhai_orders_them(items: str, ordered: str) -> None:
    engine = Engine()

    assert engine.run(f"let a = {items}; a.sort(); a") == engine.run(f"{items}.order()") == engine.run(ordered)
    backwards = engine.eval(ordered)[::-1]
    assert engine.eval(f"let a = {items}; a.sort_desc(); a") == engine.eval(f"{items}.order_desc()") == backwards


@pytest.mark.parametrize(
    ("items", "why"),
    [
        ('[1, "a"]', "elements of different types cannot be sorted"),
        ("[[1], [2]]", "elements of array cannot be sorted"),
    ],
)
def test_what_has_no_order_is_not_sorted(items: str, why: str) -> None:
    with pytest.raises(errors.RhaiNameError, match=why):
        Engine().run(f"let a = {items}; a.sort()")


@pytest.mark.parametrize(
    "script",
    [
        "let m = #{f: 1}; let f = || m; m.f = f; #{a: f}.to_json()",
        "let m = #{}; let f = || m; m.f = f; m.to_json()",
    ],
)
def test_json_of_a_map_that_contains_itself_is_an_error(script: str) -> None:
    with pytest.raises(errors.RhaiRuntimeError, match="contains itself"):
        Engine().run(script, timeout=5)


@pytest.mark.parametrize(
    "script",
    [
        "switch a { 1 => 2, _ => 3 }",
        "switch #{a: a} { 1 => 2, _ => 3 }",
        "fn f() { switch this { 1 => 2, _ => 3 } } a.f()",
        "[a].map(|x| switch x { 1 => 2, _ => 3 })[0]",
        "let f = || 1; let g = f.curry(a); switch g { 1 => 2, _ => 3 }",
        'import "chosen" as chosen; chosen::of(a)',
    ],
)
def test_a_switch_does_not_hash_what_no_case_can_match(script: str) -> None:
    modules = {"chosen": "fn of(a) { switch a { 1 => 2, _ => 3 } }"}
    engine = Engine(limits=Limits(timeout=60), modules=modules.get)

    # Hashed, the array takes many minutes.
    assert engine.eval(f"let a = []; a.pad(1_000_000, text); {script}", scope={"text": "x" * 2_000_000}) == 3


@pytest.mark.parametrize(
    ("script", "result"),
    [
        ('let v = [1, #{b: "c"}]; switch v { [1, #{b: "c"}] => 1, _ => 2 }', 1),
        ("let v = 5; switch v { 0..3 => 1, 4..=5 if v > 4 => 2, _ => 3 }", 2),
        ("let v = 'c'; switch v { 'b' | 'c' => 1 }", 1),
        ("let v = (); switch v { () => 1, _ => 2 }", 1),
        ("let v = 1; let f = || v; v = 2; switch v { 2 => 1, _ => 0 }", 1),
        ("switch timestamp() { () => 1, _ => 2 }", 2),
        ("let v = 1.5; switch v { 1.5 => 1 }", 1),
        ('let v = [1, 2]; switch v.len() { 2 => switch v[1] { 2 => "two" } }', "two"),
    ],
)
def test_a_switch_finds_its_case(script: str, result: object) -> None:
    assert Engine().eval(script) == result


@pytest.mark.parametrize("call", ["a.sort(f)", "a.order_by(f)", "a.dedup(f)"])
def test_a_stopped_comparison_does_not_go_on(call: str) -> None:
    """What the pointer has curried is copied for each call, also where the call then ends at once."""
    curried = "let b = []; b.pad(50_000, 1); let f = (|c, x, y| x < y).curry(b);"
    start = time.monotonic()

    with pytest.raises(errors.RhaiTimeout):
        Engine().run(f"{curried} let a = []; for i in 0..50_000 {{ a.push(i * 7919 % 50_000) }} {call}", timeout=0.3)
    assert time.monotonic() - start < 8


def test_a_stop_is_heeded_at_once_where_operations_have_become_long() -> None:
    """After thirty thousand short ones the engine looks seldom."""
    engine, cancel, scope = Engine(), CancelToken(), Scope(copies=0)
    engine.register("cancel", cancel.cancel)
    short = "let a = []; a.pad(16_000, 1); let i = 0; while i < 30_000 { i += 1 }"

    with pytest.raises(errors.RhaiCancelled):
        engine.run(f"{short} cancel(); loop {{ copies += 1; let b = a; }}", scope=scope, cancel=cancel)
    assert scope["copies"] <= 2


@pytest.mark.parametrize("length", [64, 1_000_000])
def test_a_long_text_that_an_array_holds_many_times_is_one_in_python(length: int) -> None:
    texts = Engine().eval(f'let s = ""; s.pad({length}, "x"); let a = []; a.pad(10_000, s); a')

    assert len(texts) == 10_000
    assert all(text is texts[0] for text in texts)


def test_a_text_longer_than_the_memory_limit_is_not_built() -> None:
    script = 'let s = ""; s.pad(1000000, "x"); let a = []; for i in 0..1000 { a.push(s) } a'

    with pytest.raises(errors.RhaiMemoryLimit):
        Engine(limits=Limits(max_memory=8 * 1024 * 1024)).run(script)


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ('let s = "abc"; s.pad(6, "xy"); s', "abcxyx"),
        ("let s = \"abc\"; s.pad(6, '-'); s", "abc---"),
        ('let s = "abc"; s.pad(6, ""); s', "abc"),
        ("let a = [1]; a.pad(3, 0); a", [1, 0, 0]),
        ("let b = blob(1); b.pad(3, 1); b", b"\0\1\1"),
        ("blob(3, 258)", b"\2\2\2"),
        ('let s = "hello"; s.replace("l", "LL"); s', "heLLLLo"),
        ("let s = \"hello\"; s.replace('l', '1'); s", "he11o"),
        ('"a,b,,c".split(",")', ["a", "b", "", "c"]),
        ('"".split(",")', [""]),
        ('"ab".split("")', ["", "a", "b", ""]),
        ('"abc".split(",")', ["abc"]),
    ],
)
def test_guarded_functions_give_rhais_results(script: str, value: object) -> None:
    assert Engine().eval(script) == value


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout is .*: it must be finite and above 0"):
        Engine().run("1", timeout=timeout)


def test_a_script_is_cancelled_from_another_thread() -> None:
    cancel = CancelToken()
    threading.Timer(0.05, cancel.cancel).start()

    with pytest.raises(errors.RhaiCancelled, match="^Script terminated: cancelled"):
        Engine().run("loop {}", cancel=cancel, timeout=30)


def test_a_cancelled_script_does_not_begin() -> None:
    cancel = CancelToken()
    cancel.cancel()
    calls: list[int] = []
    engine = Engine()
    engine.register("note", lambda: calls.append(1))

    with pytest.raises(errors.RhaiCancelled):
        engine.run("note()", cancel=cancel)

    assert not calls


def test_other_python_threads_run_while_a_script_runs() -> None:
    cancel = CancelToken()

    def run() -> None:
        with pytest.raises(errors.RhaiCancelled):
            Engine().run("loop {}", cancel=cancel)

    script = threading.Thread(target=run)
    script.start()
    count = 0
    end = time.monotonic() + 5
    while count < 1000 and time.monotonic() < end:
        time.sleep(0)
        count += 1
    cancel.cancel()
    script.join()

    assert count == 1000


def test_a_bound_reached_once_does_not_hold_for_the_next_script() -> None:
    engine = Engine(limits=Limits(max_operations=1000))
    with pytest.raises(errors.RhaiOperationLimit):
        engine.run("loop {}")

    assert engine.run("1 + 1") == "2"


def test_more_scripts_than_the_cache_holds_all_run() -> None:
    engine = Engine()

    assert all(engine.run(f"{number} + 1") == str(number + 1) for number in range(2000))


JSON_LIKE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None)
@given(JSON_LIKE)
def test_values_come_back_as_they_went(value: object) -> None:
    assert Engine().eval("x", constants={"x": value}) == value


def test_a_decimal_stays_a_decimal() -> None:
    assert Engine().eval("x", constants={"x": Decimal("1.10")}) == Decimal("1.10")


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1])
def test_an_integer_that_does_not_fit_is_an_error(value: int) -> None:
    with pytest.raises(OverflowError, match="does not fit"):
        Engine().eval("x", constants={"x": value})


def test_a_value_that_contains_itself_is_an_error() -> None:
    endless: list[object] = []
    endless.append(endless)

    with pytest.raises(ValueError, match="contains itself"):
        Engine().eval("x", constants={"x": endless})


@pytest.mark.parametrize("value", [object(), {1: 2}, int, 1j])
def test_what_has_no_counterpart_is_an_error(value: object) -> None:
    with pytest.raises(TypeError):
        Engine().eval("x", constants={"x": value})


def test_a_panic_of_the_engine_is_an_error_and_the_engine_goes_on() -> None:
    engine = Engine()
    engine.register("panic", panic)

    with pytest.raises(errors.RhaiPanic, match="The engine failed: a panic"):
        engine.run("panic()")

    assert engine.run("40 + 2") == "42"


def seconds_to_stop(engine: Engine, script: str) -> float:
    """Cancel a script from another thread than its own, once it has called `ready`; return what it still took."""
    cancel, ready = CancelToken(), threading.Event()
    ended: list[float] = []
    engine.register("ready", ready.set)

    def run() -> None:
        with pytest.raises(errors.RhaiCancelled):
            engine.run(script, cancel=cancel, timeout=60)
        ended.append(time.perf_counter())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(30)
    time.sleep(0.02)  # until it looks at its limits as seldom as it ever does
    start = time.perf_counter()
    cancel.cancel()
    thread.join()
    return ended[0] - start


@pytest.mark.parametrize(
    "script",
    [
        "ready(); loop {}",
        "ready(); sleep(60)",
        "ready(); [1].map(|x| { loop {} })",
        "fn fib(n) { if n < 2 { n } else { fib(n - 1) + fib(n - 2) } } ready(); fib(60)",
    ],
    ids=["loop", "sleep", "closure in map", "recursion"],
)
def test_a_cancellation_from_another_thread_stops_the_script_promptly(script: str) -> None:
    # Mostly a few milliseconds; the bound is for machines that have much else to do.
    assert statistics.median(seconds_to_stop(Engine(), script) for _ in range(5)) < 0.1


def test_the_version_and_the_features_of_rhai_are_those_of_the_crate_and_of_the_documents() -> None:
    root = Path(__file__).parents[3]
    lock = tomllib.loads((root / "engine/Cargo.lock").read_text())["package"]
    features = tomllib.loads((root / "engine/Cargo.toml").read_text())["dependencies"]["rhai"]["features"]
    page = (root / "docs/engine/index.md").read_text().partition("## Versions and features")[2].partition("\n## ")[0]

    assert [package["version"] for package in lock if package["name"] == "rhai"] == [RHAI_VERSION]
    assert [feature for feature in features if f"`{feature}`" not in page] == []


@pytest.mark.parametrize("way", [Engine.run, Engine.eval, Engine.call])
def test_every_evaluation_has_the_same_options(way: Callable[..., Any]) -> None:
    parameters = inspect.signature(way).parameters

    options = {name: parameters[name].annotation for name in parameters if name in EvaluationOptions.__annotations__}

    assert options == EvaluationOptions.__annotations__
    assert all(parameters[name].default is None for name in options)


def test_run_explains_each_option_of_an_evaluation() -> None:
    explained = (inspect.getdoc(Engine.run) or "").partition("Args:")[2].partition("Raises:")[0]

    assert [name for name in EvaluationOptions.__annotations__ if f"\n    {name}: " not in explained] == []


def test_an_evaluation_in_asyncio_takes_the_same_options() -> None:
    result = asyncio.run(Engine().eval_async("print(x + K); x", scope={"x": 5}, constants={"K": 1}, details=True))

    assert (result.value, result.printed) == (5, ("6",))
    with pytest.raises(TypeError, match="unexpected keyword argument 'scoop'"):
        asyncio.run(Engine().eval_async("1", scoop={}))  # type: ignore[call-overload]
