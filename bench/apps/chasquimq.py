"""ChasquiMQ's Python bindings: two worker processes, started by this module; there is no command for it.

Handlers are coroutines, so scripts run in threads, 16 at a time in each process. It adds jobs with `XADD ... IDMP`,
which Redis has had since 8.6 and Valkey 9.1 has not. No such server could be had when this was written: it has not run
yet.
"""

import asyncio
from typing import Any, Self

from chasquimq import Job, Queue, Worker

from .contender import URL, JobContender
from .engine import run

QUEUE = "bench"


async def run_script(job: Job) -> str:
    """Run a script in a thread."""
    return await asyncio.to_thread(run, job.data["script"])


class Application(JobContender):
    """Jobs of one queue."""

    async def __aenter__(self) -> Self:
        self._queue = Queue(QUEUE, redis_url=URL)
        return self

    async def add_many(self, jobs: list[dict[str, Any]]) -> list[Any]:
        return list(await self._queue.add_bulk(jobs))

    def key(self, handle: Job) -> str:
        return f"{{chasqui:{QUEUE}}}:result:{handle.id}"

    async def result(self, handle: Job) -> str:
        return str(await self._queue.get_job_result(handle.id))


async def _work() -> None:
    await Worker(QUEUE, run_script, redis_url=URL, concurrency=16, store_results=True).run()


if __name__ == "__main__":
    asyncio.run(_work())
