"""Evaluations in asyncio: their threads, their time limit, their end."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import CancelToken, Engine, Limits

THREADS = (os.cpu_count() or 1) + 4


@pytest.mark.parametrize("token", [CancelToken(), None])
def test_cancelling_the_task_stops_its_script_and_no_other_with_the_same_token(token: CancelToken | None) -> None:
    engine = Engine()

    async def main() -> None:
        tasks = [asyncio.create_task(engine.eval_async("loop {}", cancel=token)) for _ in range(2)]
        await asyncio.sleep(0.05)
        tasks[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await tasks[0]
        # The thread is free again: this would wait for ever behind scripts that go on.
        assert await asyncio.gather(*(engine.eval_async("1") for _ in range(50))) == [1] * 50
        assert not tasks[1].done()
        assert token is None or not token.cancelled
        if token is None:
            tasks[1].cancel()
        else:
            token.cancel()
        with pytest.raises((asyncio.CancelledError, errors.RhaiCancelled)):
            await tasks[1]

    asyncio.run(main())


def test_a_token_that_was_cancelled_before_stops_the_script() -> None:
    token = CancelToken()
    token.cancel()

    with pytest.raises(errors.RhaiCancelled):
        asyncio.run(Engine().eval_async("1", cancel=token))


@pytest.mark.parametrize("limits", [Limits(), Limits(timeout=0.1)])
def test_the_time_limit_counts_from_the_call_also_while_no_thread_is_free(limits: Limits) -> None:
    engine, free = Engine(limits=limits), threading.Event()
    engine.register("hold", lambda: free.wait(60))
    started: list[int] = []
    engine.register("start", lambda: started.append(1))

    async def main() -> None:
        held = [asyncio.create_task(engine.eval_async("hold()", timeout=60.0)) for _ in range(THREADS)]
        await asyncio.sleep(0)
        with pytest.raises(errors.RhaiTimeout, match=r"time limit of 0.1 s exceeded before a thread was free"):
            await engine.eval_async("start()", timeout=None if limits.timeout else 0.1)
        free.set()
        await asyncio.gather(*held)

    asyncio.run(main())
    assert not started


def test_a_script_that_begins_late_has_the_rest_of_its_time() -> None:
    engine = Engine()

    async def main() -> float:
        held = [asyncio.create_task(engine.eval_async("sleep(0.5)")) for _ in range(THREADS)]
        await asyncio.sleep(0)
        start = time.monotonic()
        with pytest.raises(errors.RhaiTimeout, match="time limit of 1 s exceeded"):
            await engine.eval_async("sleep(60)", timeout=1.0)
        took = time.monotonic() - start
        await asyncio.gather(*held)
        return took

    assert asyncio.run(main()) < 1.45, "0.5 s for a thread, and then the other 0.5"


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan"), float("inf"), "5"])
def test_a_timeout_that_is_none_is_refused(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout is"):
        asyncio.run(Engine().eval_async("1", timeout=timeout))


@pytest.mark.parametrize(("depth", "beside"), [(1, 3 * THREADS), (THREADS + 3, 1), (3, THREADS + 2)])
def test_scripts_whose_coroutines_evaluate_do_not_wait_for_each_others_threads(depth: int, beside: int) -> None:
    engine = Engine()

    @engine.function
    async def nested(left: int) -> int:
        return 1 + (await engine.eval_async(f"nested({left - 1})") if left else 0)

    async def main() -> list[Any]:
        return await asyncio.gather(*(engine.eval_async(f"nested({depth})", timeout=60.0) for _ in range(beside)))

    assert asyncio.run(main()) == [depth + 1] * beside


def test_scripts_that_nest_without_end_in_coroutines_are_an_error() -> None:
    engine = Engine()

    @engine.function
    async def nested() -> object:
        return await engine.eval_async("nested()")

    with pytest.raises(errors.RhaiHostError, match="64 scripts wait for this one, each for the next"):
        asyncio.run(engine.eval_async("nested()", timeout=60.0))


def test_a_fork_of_a_process_that_has_evaluated_has_threads_of_its_own() -> None:
    child = """
import asyncio, os
from rhai_tasks.engine import Engine

engine = Engine()

@engine.function
async def nested():
    return await engine.eval_async("41")

print(asyncio.run(engine.eval_async("nested() + 1")), flush=True)
if (child := os.fork()) == 0:
    print(asyncio.run(engine.eval_async("nested() + 2")), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", child]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.stdout.split(), done.stderr) == (["42", "43"], "")


def test_all_ways_to_evaluate_leave_the_loop_free() -> None:
    engine = Engine()
    ticks: list[int] = []

    @engine.function
    async def wait() -> int:
        await asyncio.sleep(0.01)
        ticks.append(1)
        return 1

    async def main() -> None:
        values: tuple[Any, ...] = await asyncio.gather(
            engine.eval_async("wait() + x", scope={"x": 1}),
            engine.run_async("wait() + 2", max_operations=100),
            engine.call_async("fn f(a) { wait() + a + this }", "f", 10, this=100, eval_ast=False),
        )
        assert list(values) == [2, "3", 111]

    asyncio.run(main())
    assert len(ticks) == 3


@pytest.mark.parametrize("method", ["eval_async", "run_async", "call_async"])
def test_cancelling_the_task_of_any_way_stops_its_script(method: str) -> None:
    engine = Engine(threads=1)

    async def main() -> None:
        arguments = ("fn f() { loop {} } f()", "f") if method == "call_async" else ("loop {}",)
        task = asyncio.create_task(getattr(engine, method)(*arguments))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await engine.eval_async("1") == 1  # the only thread is free

    asyncio.run(main())


def test_as_many_scripts_run_at_once_as_the_engine_has_threads() -> None:
    engine = Engine(threads=2)
    running, most = 0, 0
    lock = threading.Lock()

    @engine.function
    def hold() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def main() -> None:
        await asyncio.gather(*(engine.eval_async("hold()") for _ in range(8)))

    asyncio.run(main())
    assert most == 2


def test_a_closed_engine_ends_its_threads_and_evaluates_in_the_callers_only() -> None:
    before = set(threading.enumerate())
    engine = Engine(threads=1)
    started = threading.Event()
    engine.register("start", started.set)

    async def main() -> None:
        first = asyncio.create_task(engine.eval_async("start(); sleep(0.05); 7"))
        await asyncio.to_thread(started.wait, 10)
        waiting = asyncio.create_task(engine.eval_async("8"))
        await asyncio.sleep(0)
        await asyncio.to_thread(engine.close)
        assert await first == 7
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(RuntimeError, match="the engine is closed"):
            await engine.eval_async("1")

    asyncio.run(main())
    engine.close()
    assert engine.eval("1") == 1
    assert set(threading.enumerate()) <= before
