"""What the system refuses, and what another greenlet does, ends an evaluation with an error and nothing else."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits")


def run(child: str, *arguments: str) -> tuple[list[str], int]:
    """Run Python code in a process of its own; return its lines, of errors too, and its exit code."""
    command = [sys.executable, "-c", child, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    return (done.stdout + done.stderr).splitlines(), done.returncode


GREENLETS = """
import greenlet
from rhai_tasks.engine import Engine

engine = Engine()
engine.register("hop", lambda: (second if greenlet.getcurrent() is first else first).switch())

def begin():
    print(engine.eval("hop(); let s = `a`; s += `b`; s"))

def evaluate():
    try:
        print(USE)
    except RuntimeError as error:
        print(error)
    first.switch()
    print(engine.eval("6 * 7"))

first, second = greenlet.greenlet(begin), greenlet.greenlet(evaluate)
first.switch()
second.switch()
print(engine.eval("40 + 2"))
"""


@pytest.mark.parametrize(
    "use",
    [
        "engine.eval('hop(); let a = []; for i in 0..1000 { a.push(`${i}`) } a.len()')",
        "engine.eval('1')",
        "Engine().compile('fn f() { 1 }')",
    ],
)
def test_a_greenlet_cannot_evaluate_while_another_one_of_its_thread_does(use: str) -> None:
    refusal = "another greenlet of this thread is in the midst of a script: a thread runs one at a time"

    assert run(GREENLETS.replace("USE", use)) == ([refusal, "ab", "42", "42"], 0)


def test_a_greenlet_cannot_call_a_scripts_function_that_another_one_was_given() -> None:
    child = """
import greenlet
from rhai_tasks.engine import Engine

engine = Engine()

@engine.function
def lend(function):
    def borrow():
        try:
            function()
        except RuntimeError as error:
            print(error)
    greenlet.greenlet(borrow).switch()
    return function()

print(greenlet.greenlet(engine.eval).switch("lend(|| 42)"))
"""

    assert run(child) == (
        ["another greenlet of this thread is in the midst of a script: a thread runs one at a time", "42"],
        0,
    )


@pytest.mark.parametrize("where", ["main", "another"])
def test_evaluations_of_one_greenlet_nest(where: str) -> None:
    child = """
import sys
from rhai_tasks.engine import Engine

engine = Engine()

@engine.function
def nested(depth):
    import greenlet
    return 0 if depth == 0 else engine.eval(f"1 + nested({depth - 1})")

def evaluate():
    print(engine.eval("nested(3) + nested(2)"))

if sys.argv[1] == "main":
    evaluate()
else:
    import greenlet
    greenlet.greenlet(evaluate).switch()
"""

    assert run(child, where) == (["5"], 0)


def test_a_process_ends_before_a_script_runs_over_another_one_of_its_stack() -> None:
    """As the last resort, where the switch is not greenlet's own: here its package is hidden."""
    child = "import greenlet, sys; del sys.modules['greenlet']\n" + GREENLETS.replace("import greenlet\n", "").replace(
        "USE", "engine.eval('hop(); 1')"
    )

    lines, code = run(child)

    assert lines == ["rhai_tasks: a thread came back to a script while another one on its stack had not ended"]
    assert code == -6


def test_a_stack_without_a_guard_is_not_used() -> None:
    """The system refuses to split a mapping when a process has as many as it may have."""
    if int(Path("/proc/sys/vm/max_map_count").read_text()) > 1_000_000:
        pytest.skip("the system allows too many mappings to have them all")
    child = """
import ctypes, mmap, pathlib, re
from rhai_tasks.engine import Engine
from rhai_tasks.errors import RhaiSystemMemoryError

most = int(pathlib.Path("/proc/sys/vm/max_map_count").read_text())
page = mmap.PAGESIZE
pages = mmap.mmap(-1, (most + 16) * page)
protect = ctypes.CDLL(None).mprotect
low = ctypes.addressof(ctypes.c_char.from_buffer(pages))
protected = []

def set_protection(index, protection):
    return protect(ctypes.c_void_p(low + index * page), ctypes.c_size_t(page), protection) == 0

def evaluate():
    try:
        return Engine().eval("6 * 7")
    except RhaiSystemMemoryError as error:
        return str(error)

def is_guarded():
    maps = pathlib.Path("/proc/self/maps").read_text()
    found = re.findall(r"^(\\w+)-(\\w+) (\\S+)", maps, re.MULTILINE)
    ranges = [(int(low, 16), int(high, 16), access) for low, high, access in found]
    sizes = {low: (high - low, access) for low, high, access in ranges}
    return any(
        access == "---p" and high - low == 64 * 1024 and sizes.get(high, (0, ""))[0] > 256 * 1024 * 1024
        for low, high, access in ranges
    )

for index in range(1, most + 16, 2):  # each one parts the mapping
    if not set_protection(index, 0):
        break
    protected.append(index)
refused = []
while (found := evaluate()) != 42:
    refused.append(found)
    set_protection(protected.pop(), 3)
while protected:
    set_protection(protected.pop(), 3)
print(len(refused) > 0, {re.sub("[0-9]+ MiB", "... MiB", text) for text in refused}, is_guarded())
"""

    lines, code = run(child)

    refusal = (
        "The system has no memory for the stack of ... MiB that a script runs on: Cannot allocate memory (os error 12)"
    )
    assert (lines, code) == ([f"True {{{refusal!r}}} True"], 0)


def test_a_limit_of_addresses_is_no_error_of_the_script() -> None:
    child = """
import resource
from rhai_tasks.engine import Engine, Limits
from rhai_tasks.errors import RhaiMemoryLimit, RhaiSystemMemoryError

resource.setrlimit(resource.RLIMIT_AS, (1024 * 2**20, resource.RLIM_INFINITY))
engine = Engine(limits=Limits(max_memory=512 * 2**20))
for evaluate in (engine.eval, engine.run, engine.compile):
    try:
        evaluate("1")
    except RhaiSystemMemoryError as error:
        print(isinstance(error, MemoryError), isinstance(error, RhaiMemoryLimit), error.kind)
print(Engine().eval("6 * 7"))
"""

    assert run(child) == (["True False NoStack"] * 3 + ["42"], 0)


def test_memory_that_the_system_refuses_is_not_counted(tmp_path: Path) -> None:
    size = 40 * 2**20
    (tmp_path / "large.rhai").write_bytes(b" " * size)
    child = """
import pathlib, resource, sys
from rhai_tasks.engine import Engine, Limits

engine = Engine(modules=pathlib.Path(sys.argv[1]), limits=Limits(max_memory=128 * 2**20))
engine.eval("1")  # has a stack
taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 30 * 2**20, resource.RLIM_INFINITY))
script = 'let e = (); for i in 0..8 { try { import "large" as l; l::f() } catch (error) { e = error } } e.to_string()'
print(engine.eval(script))
"""
    refusal = f"the system has no memory for module 'large' of {size} bytes"

    assert run(child, str(tmp_path)) == ([refusal], 0)


def test_memory_goes_back_to_the_system_without_pythons_lock() -> None:
    """Another thread waits for the lock, and gets it between the conversion of the value and the return."""
    child = """
import decimal, sys, threading, time

class Decimal(decimal.Decimal):
    def __new__(cls, text):
        global converted
        converted = True
        return super().__new__(cls, text)

decimal.Decimal, converted, seen, ended = Decimal, False, 0, False
from rhai_tasks.engine import Engine

def watch():
    global seen
    while not ended:
        seen += converted
        time.sleep(0)

engine = Engine()
engine.eval("parse_decimal(`1`)")
threading.Thread(target=watch).start()
time.sleep(0.05)
sys.setswitchinterval(1000)  # the lock passes on only where it is let go
for _ in range(100):
    converted, seen = False, 0
    engine.eval("let a = []; for i in 0..5000 { a.push(blob(5000, 1)) } a = []; parse_decimal(`1`)")
    if seen:
        break
print(seen > 0)
ended = True
"""

    assert run(child) == (["True"], 0)
