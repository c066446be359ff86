"""What scripts build is freed and written recursively: no depth of it ends the process, on any thread."""

import gc
import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterable

import pytest

from rhai_tasks.engine import Engine, Limits, Scope

DEEP = "let f = || 1; for i in 0..200_000 { let g = f; f = || g; }"  # takes some 50 MiB of stack to free

ENDS = [
    ("let f = || 1; loop { let g = f; f = || g; }", "RhaiMemoryLimit"),  # closures without end
    ("let f = |x| 1; loop { f = f.curry(f); }", "RhaiMemoryLimit"),  # curried without end
    ("let f = || 1; loop { let m = #{f: f}; f = || m; }", "RhaiMemoryLimit"),  # maps of closures
    (f"{DEEP} 1", "1"),  # freed at the end
    (f"{DEEP} f", "FnPtr"),  # returned
    (f"{DEEP} throw f", "RhaiThrow"),  # thrown
    (f"{DEEP} try {{ throw f }} catch (e) {{ e = 1 }} 1", "1"),  # thrown and caught
    (f"{DEEP} take(f)", "None"),  # given to a host function
    (f"{DEEP} print([f]); 1", "1"),  # printed
    ("let a = []; for i in 0..3000 { a = [a]; } a.to_string().len()", "6002"),  # nested arrays
    ("let a = []; let b = []; for i in 0..3000 { a = [a]; b = [b]; } a == b", "True"),  # nested arrays, compared
    ("let a = []; for i in 0..3000 { a = [a]; } throw a", "RhaiThrow"),  # nested arrays, thrown
    ("let a = []; for i in 0..3000 { a = [a]; } a", "ValueError"),  # nested arrays, returned
    ("fn f(n) { if n == 0 { 0 } else { 1 + (0 + (0 + f(n - 1))) } } f(60)", "60"),  # calls as deep as allowed
    ("fn f(n) { if n == 0 { [0] } else { [1].map(|x| f(n - 1)) } } f(20).len()", "1"),  # calls in callbacks
    ("(" * 100_000, "RhaiSyntaxError"),  # a source of brackets
    ("!" * 100_000 + "true", "RhaiSyntaxError"),  # a source of operators
    ("{" * 20_000 + "}" * 20_000, "RhaiSyntaxError"),  # a source that nests blocks
    ('import "0" as m; m::N', "58"),  # modules that import at the bottom of calls
    ('fn f(n) { if n > 0 { eval("f(" + (n - 1) + ")") } else { 5 } } f(25)', "5"),  # an eval in an eval
]
"""Scripts, and how they end."""

ATTACK = """
import threading
from rhai_tasks.engine import Engine, Limits

def module(path):
    depth = int(path)
    deeper = f'import "{depth + 1}" as m;' if depth < 15 else ""
    return f"fn f(n) {{ if n == 0 {{ {deeper} 0 }} else {{ 1 + (0 + (0 + f(n - 1))) }} }} export const N = f(58);"

def attack(script):
    engine = Engine(limits=Limits(timeout=20.0), modules=module)
    engine.register("take", lambda value: None)
    try:
        value = engine.eval(script)
        print("FnPtr" if "FnPtr" in repr(value) else value)
        del value
    except Exception as error:
        print(type(error).__name__)
        del error
    assert engine.eval("40 + 2") == 42

def attack_on_a_small_stack(script):
    threading.stack_size(256 * 1024)
    thread = threading.Thread(target=attack, args=(script,))
    thread.start()
    thread.join()
"""

FORK = """
import json, os, sys

ends = {}
for case in json.load(sys.stdin):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(writing, 1)
        os.dup2(writing, 2)
        exec(case)
        sys.exit()
    os.close(writing)
    with open(reading) as output:
        ends[case] = [output.read().strip(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
print(json.dumps(ends))
"""


def run(child: str, given: str = "") -> tuple[str, int, str]:
    command = [sys.executable, "-c", child]
    done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=250, check=False)
    return done.stdout.strip(), done.returncode, done.stderr


def run_each(setup: str, cases: Iterable[str]) -> dict[str, list[str | int]]:
    """Run each case in a fork of a process that has run `setup`; return the output and the exit status of each."""
    text, status, errors = run(setup + FORK, json.dumps([*cases]))
    assert (status, errors) == (0, "")
    ends: dict[str, list[str | int]] = json.loads(text)
    return ends


@pytest.mark.parametrize("attack", ["attack", "attack_on_a_small_stack"])
def test_no_depth_ends_the_process(attack: str) -> None:
    ends = {f"{attack}({script!r})": [end, 0] for script, end in ENDS}

    assert run_each(ATTACK, ends) == ends


def test_a_scope_with_deep_values_is_freed_on_any_thread() -> None:
    child = f"""
import threading
from rhai_tasks.engine import Engine, Scope
scope = Scope()
Engine().run({DEEP!r}, scope=scope)
threading.stack_size(256 * 1024)
held = [scope]
del scope
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
print("freed")
"""

    assert run(child) == ("freed", 0, "")


SETUP = f"""
import threading
from rhai_tasks.engine import Engine, Limits, Scope
from rhai_tasks.errors import RhaiError
DEEP = {DEEP!r}
engine, scope = Engine(), Scope()

@engine.function
def fail():
    raise OSError("no")

@engine.function
def apply(function):
    return function()

def on_a_small_stack(work):
    threading.stack_size(256 * 1024)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
"""


USES_OF_DEEP_VALUES = [
    "engine.run(DEEP, scope=scope); scope['f'] = 1",
    "engine.run(DEEP, scope=scope); del scope['f']",
    "engine.run(DEEP, scope=scope); held = scope['f']; del held",
    "engine.eval('apply(|| { ' + DEEP + ' let a = [f]; f = 1; for i in 0..150 { a = [a] } a })')",
    "engine.run('try { fail() } catch {} ' + DEEP + ' throw [f]')",
    "kept = [engine.eval(DEEP + 'f')]; engine.run('1', constants={'p': kept.pop()})",
    "engine.run('let a = [1]; for i in 0..3000 { a = [a] } const B = a;', scope=scope);"
    " on_a_small_stack(lambda: engine.run('1', scope=scope))",
    "other = Engine(modules={'m': DEEP + 'export f;'}); other.run('import \"m\" as m;'); del other",
]


def test_deep_values_are_safe_wherever_python_holds_them() -> None:
    cases = [f"try:\n    {use}\nexcept (RhaiError, ValueError):\n    pass" for use in USES_OF_DEEP_VALUES]

    assert run_each(SETUP, cases) == {case: ["", 0] for case in cases}


CURRIED = 'fn g(a) { 1 } let a = [1]; for i in 0..3000 { a = [a] } Fn("g").curry(a)'
BIND = 'other = Scope(); engine.run("let a = [1]; for i in 0..3000 { a = [a] } const B = a;", scope=other)'


USES_OF_A_DEEP_POINTER = [
    "engine.call('fn g(a) { 1 }', pointer)",
    "engine.call('fn g(a) { 1 }', 'g', pointer)",
    "engine.call('fn g(a) { 1 }', pointer, timeout=-1)",
    "engine.call('fn g(a) {', pointer)",
    "engine.call('fn g(a) { 1 }', 'g', pointer, cancel=cancelled)",
    "engine.eval('x', scope={'x': pointer})",
    "engine.eval('x', scope={'x': [pointer, object()]})",
    "engine.eval('x', scope={'x': {'a': pointer, 'b': object()}})",
    "engine.eval('x', scope={'x': pointer, 'y': object()})",
    "engine.eval('1', constants={'p': pointer})",
    "engine.eval('fn f() { p } [p, f()].len()', constants={'p': pointer})",
    "engine.eval('fn f() { B } [B, f()].len()', scope=other)",
    "engine.eval('1', scope=scope, constants={'p': pointer})",
    "scope.set_constant('C', 1); scope['C'] = pointer",
    "engine.register('busy', lambda: scope.update(y=pointer)); engine.eval('busy()', scope=scope)",
    "engine.eval('1', scope={'m': Repeated()})",
    "modular.eval('1')",
    "pointer(pointer)",
]

USES = f"""
from collections.abc import Mapping
from rhai_tasks.engine import CancelToken

class Repeated(Mapping):
    def __getitem__(self, key): return pointer
    def __iter__(self): return iter("aa")
    def __len__(self): return 2

modular = Engine()
pointer, cancelled = engine.eval({CURRIED!r}), CancelToken()
{BIND}
cancelled.cancel()
modular.register_module("m", {{"p": [pointer]}})

def use(source):
    try:
        exec(source, globals())
    except (RhaiError, TypeError, ValueError, RuntimeError):
        pass
"""


def test_deep_values_are_safe_as_what_a_call_is_given() -> None:
    cases = [f"on_a_small_stack(lambda: use({use!r}))" for use in USES_OF_A_DEEP_POINTER]

    assert run_each(SETUP + USES, cases) == {case: ["", 0] for case in cases}


@pytest.mark.parametrize(
    ("limits", "script"),
    [
        (Limits(max_call_levels=5000), "fn f(n) { f(n + 1) } f(0)"),
        (
            Limits(max_memory=1024 * 1024, max_call_levels=4000),
            "fn f(n) { 1 + (1 + (1 + (1 + (1 + (1 + f(n + 1)))))) } f(0)",
        ),
        (Limits(max_expr_depth=5000), "(" * 10_000),
    ],
)
def test_higher_limits_of_depth_come_with_more_stack(limits: Limits, script: str) -> None:
    child = f"""
from rhai_tasks.engine import Engine, Limits
from rhai_tasks.errors import RhaiError
try:
    Engine(limits={limits!r}).run({script!r})
except RhaiError as error:
    print(type(error).__name__)
"""

    name, code, _ = run(child)

    assert code == 0
    assert name in {"RhaiCallDepth", "RhaiMemoryLimit", "RhaiSyntaxError"}


def test_evaluations_nest_through_host_functions() -> None:
    engine = Engine()

    @engine.function
    def inner(depth: int) -> int:
        return 0 if depth == 0 else int(engine.eval(f"1 + inner({depth - 1})"))

    assert engine.eval("inner(60)") == 60


def test_pythons_recursion_limit_ends_evaluations_that_nest_without_end() -> None:
    engine = Engine()

    @engine.function
    def endless() -> object:
        return engine.eval("endless()")

    with pytest.raises(Exception, match="maximum recursion depth exceeded"):
        engine.eval("endless()")
    assert engine.eval("1") == 1


def test_each_thread_has_a_stack_of_its_own() -> None:
    engine = Engine()
    results: list[object] = []
    threads = [
        threading.Thread(target=lambda: results.append(engine.eval(f"{DEEP} 1", scope=Scope()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert results == [1] * 4


def test_an_engine_that_its_own_function_holds_is_collected() -> None:
    class Marked(Engine): ...

    def use() -> weakref.ref[Engine]:
        engine = Marked()
        engine.register("again", lambda: engine.eval("1"))
        assert engine.eval("again()") == 1
        return weakref.ref(engine)

    gone = use()
    gc.collect()

    assert gone() is None
