"""ChasquiMQ's Python bindings: two worker processes, started by this module; there is no command for it.

Handlers are coroutines, so scripts run in threads, 16 at a time in each process. It adds jobs with `XADD ... IDMP`,
which Redis has had since 8.6 and Valkey 9.1 has not. No such server could be had when this was written: it has not run
yet.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

from chasquimq import Job, Queue, Worker

from .contender import URL, Contender
from .engine import run

QUEUE = "bench"
_BATCH = 1000  # tasks of one call


async def run_script(job: Job) -> str:
    """Run a script in a thread."""
    return await asyncio.to_thread(run, job.data["script"])


class Application(Contender):
    """Jobs of one queue."""

    async def __aenter__(self) -> Self:
        self._queue = Queue(QUEUE, redis_url=URL)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._queue.close()

    async def submit(self, script: str) -> Job:
        return await self._queue.add("run", {"script": script})

    async def submit_many(self, scripts: Sequence[str]) -> list[Any]:
        jobs = [{"name": "run", "data": {"script": script}} for script in scripts]
        return [
            job
            for start in range(0, len(jobs), _BATCH)
            for job in await self._queue.add_bulk(jobs[start : start + _BATCH])
        ]

    def key(self, handle: Job) -> str:
        return f"{{chasqui:{QUEUE}}}:result:{handle.id}"

    async def result(self, handle: Job) -> str:
        return str(await self._queue.get_job_result(handle.id))


async def _work() -> None:
    await Worker(QUEUE, run_script, redis_url=URL, concurrency=16, store_results=True).run()


if __name__ == "__main__":
    asyncio.run(_work())
