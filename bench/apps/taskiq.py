"""taskiq: the stream broker, the one that acknowledges, and the Redis result backend.

Two worker processes, on uvloop, its documented extra; scripts are plain functions, which run in threads. A task is
acknowledged once its result is saved, the default.
"""

from typing import Any, Self

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from .contender import URL, Contender
from .engine import run

broker = RedisStreamBroker(URL).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=600))


@broker.task
def run_script(script: str) -> str:
    """Run a script."""
    return run(script)


class Application(Contender):
    """Messages of one task; there is no call for many."""

    async def __aenter__(self) -> Self:
        await broker.startup()
        return self

    async def __aexit__(self, *_: object) -> None:
        await broker.shutdown()

    async def submit(self, script: str) -> Any:
        return await run_script.kiq(script)

    def key(self, handle: Any) -> str:
        return str(handle.task_id)

    async def result(self, handle: Any) -> str:
        return str((await handle.wait_result(timeout=10)).return_value)
