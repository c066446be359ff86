"""streaQ: two worker processes of 16 tasks (the default); scripts are plain functions, which run in threads."""

from collections.abc import Sequence
from typing import Any, Self

from streaq import Worker

from .contender import URL, Contender
from .engine import run

_BATCH = 1000  # tasks of one pipeline

worker = Worker(redis_url=URL)


@worker.task
def run_script(script: str) -> str:
    """Run a script."""
    return run(script)


class Application(Contender):
    """Tasks of the default queue."""

    async def __aenter__(self) -> Self:
        await worker.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await worker.__aexit__(None, None, None)

    async def submit(self, script: str) -> Any:
        return await run_script.enqueue(script)

    async def submit_many(self, scripts: Sequence[str]) -> list[Any]:
        tasks = [run_script.enqueue(script) for script in scripts]
        for start in range(0, len(tasks), _BATCH):
            await worker.enqueue_many(tasks[start : start + _BATCH])
        return tasks

    def key(self, handle: Any) -> str:
        return f"{worker.results_key}{handle.id}"

    async def result(self, handle: Any) -> str:
        return str((await handle.result(timeout=10)).result)
