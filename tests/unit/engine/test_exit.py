"""The end of an interpreter whose daemon threads run scripts."""

import subprocess
import sys

import pytest

STARTS = """
import os, threading, time
from rhai_tasks.engine import Engine

engine = Engine()
engine.register("wait", time.sleep)
engine.register("plus", lambda one, other: one + other)
engine.register("call_back", lambda function: function())
begun = threading.Semaphore(0)
engine.register("begin", begun.release)

def start(script):
    threading.Thread(target=engine.run, args=("begin(); " + script,), kwargs={"print": len}, daemon=True).start()
    assert begun.acquire(timeout=20)
"""
SCRIPTS = [
    "loop {}",
    "loop { wait(0.001) }",
    "loop { plus(1, 2) }",
    "loop { try { plus(1, `2`) } catch {} }",
    "loop { print(1) }",
    "loop { [3, 1, 2].map(|x| plus(x, 1)) }",
    "loop { call_back(|| plus(1, 2)) }",
    "loop { call_back(|| wait(0.001)) }",
]


def run(source: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


# Python ends such a thread where it wants Python's lock: a frame of the engine on its stack would abort the process.
@pytest.mark.parametrize("script", SCRIPTS)
def test_an_interpreter_ends_while_daemon_threads_run_scripts(script: str) -> None:
    ended = run(f"{STARTS}\nfor _ in range(4):\n    start({script!r})\nprint('end')")

    assert ended == (0, "end\n", "")


def test_the_main_thread_runs_scripts_until_the_interpreter_has_ended() -> None:
    last = "import atexit\natexit.register(lambda: print(engine.eval('plus(40, 2)')))"  # callbacks run in reverse order

    assert run(f"{last}\n{STARTS}\nstart('loop {{ plus(1, 2) }}')") == (0, "42\n", "")


def test_a_forked_process_ends_without_waiting_for_threads_that_it_does_not_have() -> None:
    parent = "print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)\n    os._exit(0)"
    fork = f"start('wait(60)')\nif os.fork():\n    {parent}"

    assert run(f"{STARTS}\n{fork}") == (0, "0\n", "")


def test_a_second_interpreter_of_the_process_is_refused() -> None:
    source = """
import _xxsubinterpreters as interpreters
import rhai_tasks.engine

code = "try:\\n import rhai_tasks.engine\\nexcept ImportError as error: print(error, flush=True)"
interpreters.run_string(interpreters.create(), code)
"""
    if sys.version_info >= (3, 13):
        source = source.replace("_xxsubinterpreters", "_interpreters").replace("run_string", "exec")

    status, output, _ = run(source)

    assert (status, output.partition(":")[0]) == (0, "rhai_tasks.engine runs in one interpreter of a process")
