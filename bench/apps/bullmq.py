"""BullMQ: two worker processes on Node, one a core as its documents advise for work that computes, of 50 jobs each.

Its own Python package submits, in the same format. Scripts run in Rhai itself, which an addon for Node binds
(`rivals/node`), and compile once, as in the engine that Python contenders use. They block the worker's thread, so
scripts that wait are left out.
"""

from collections.abc import Sequence
from typing import Any, Self

from bullmq import Job, Queue

from .contender import URL, Contender

QUEUE = "bench"
_BATCH = 1000  # jobs of one call


class Application(Contender):
    """Jobs of one queue."""

    async def __aenter__(self) -> Self:
        self._queue = Queue(QUEUE, {"connection": URL})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._queue.close()

    async def submit(self, script: str) -> Any:
        return await self._queue.add("run", {"script": script})

    async def submit_many(self, scripts: Sequence[str]) -> list[Any]:
        jobs = [{"name": "run", "data": {"script": script}} for script in scripts]
        return [
            job
            for start in range(0, len(jobs), _BATCH)
            for job in await self._queue.addBulk(jobs[start : start + _BATCH])
        ]

    def key(self, handle: Any) -> str:
        return f"bull:{QUEUE}:{handle.id}"

    def look(self, pipeline: Any, handle: Any) -> None:
        pipeline.hget(self.key(handle), "finishedOn")

    async def result(self, handle: Any) -> str:
        job = await Job.fromId(self._queue, handle.id)
        return str(job.returnvalue)
