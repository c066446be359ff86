"""What scripts build is freed and written recursively: no depth of it ends the process, on any thread."""

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from rhai_tasks.engine import Engine, Limits, Scope

DEEP = "let f = || 1; for i in 0..200_000 { let g = f; f = || g; }"  # takes some 50 MiB of stack to free

ENDS = {
    "closures without end": ("let f = || 1; loop { let g = f; f = || g; }", "RhaiMemoryLimit"),
    "curried without end": ("let f = |x| 1; loop { f = f.curry(f); }", "RhaiMemoryLimit"),
    "maps of closures": ("let f = || 1; loop { let m = #{f: f}; f = || m; }", "RhaiMemoryLimit"),
    "freed at the end": (f"{DEEP} 1", "1"),
    "returned": (f"{DEEP} f", "FnPtr"),
    "thrown": (f"{DEEP} throw f", "RhaiThrow"),
    "thrown and caught": (f"{DEEP} try {{ throw f }} catch (e) {{ e = 1 }} 1", "1"),
    "given to a host function": (f"{DEEP} take(f)", "None"),
    "printed": (f"{DEEP} print([f]); 1", "1"),
    "nested arrays": ("let a = []; for i in 0..3000 { a = [a]; } a.to_string().len()", "6002"),
    "nested arrays, compared": ("let a = []; let b = []; for i in 0..3000 { a = [a]; b = [b]; } a == b", "True"),
    "nested arrays, thrown": ("let a = []; for i in 0..3000 { a = [a]; } throw a", "RhaiThrow"),
    "nested arrays, returned": ("let a = []; for i in 0..3000 { a = [a]; } a", "ValueError"),
    "calls as deep as allowed": ("fn f(n) { if n == 0 { 0 } else { 1 + (0 + (0 + f(n - 1))) } } f(60)", "60"),
    "calls in callbacks": ("fn f(n) { if n == 0 { [0] } else { [1].map(|x| f(n - 1)) } } f(20).len()", "1"),
    "a source of brackets": ("(" * 100_000, "RhaiSyntaxError"),
    "a source of operators": ("!" * 100_000 + "true", "RhaiSyntaxError"),
    "a source that nests blocks": ("{" * 20_000 + "}" * 20_000, "RhaiSyntaxError"),
    "an eval in an eval": ('fn f(n) { if n > 0 { eval("f(" + (n - 1) + ")") } else { 5 } } f(25)', "5"),
}

CHILD = """
import sys, threading
from rhai_tasks.engine import Engine, Limits

def attack():
    engine = Engine(limits=Limits(timeout=20.0))
    engine.register("take", lambda value: None)
    try:
        value = engine.eval(sys.argv[1])
        print("FnPtr" if "FnPtr" in repr(value) else value)
        del value
    except Exception as error:
        print(type(error).__name__)
        del error
    assert engine.eval("40 + 2") == 42

if sys.argv[2] == "main":
    attack()
else:
    threading.stack_size(256 * 1024)
    thread = threading.Thread(target=attack)
    thread.start()
    thread.join()
"""


def run(*child: str) -> tuple[str, int, str]:
    command = [sys.executable, "-c", *child]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    return done.stdout.strip(), done.returncode, done.stderr


@pytest.mark.parametrize("where", ["main", "thread of 256 KiB"])
@pytest.mark.parametrize("attack", ENDS)
def test_no_depth_ends_the_process(attack: str, where: str) -> None:
    script, end = ENDS[attack]

    assert run(CHILD, script, where) == (end, 0, "")


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


def test_an_inner_evaluation_may_have_a_larger_memory_limit() -> None:
    outer, inner = Engine(limits=Limits(max_memory=1024 * 1024)), Engine()
    outer.register("inner", lambda: inner.eval(f"{DEEP} 7"))

    assert outer.eval("inner()") == 7


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
