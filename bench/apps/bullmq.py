"""BullMQ: two worker processes on Node, one a core as its documents advise for work that computes, of 50 jobs each.

Its own Python package submits, in the same format. Scripts run in Rhai itself, which an addon for Node binds
(`rivals/node`), and compile once, as in the engine that Python contenders use. They block the worker's thread, so
scripts that wait are left out.
"""

from typing import Any, Self

from bullmq import Job, Queue

from .contender import URL, JobContender

QUEUE = "bench"


class Application(JobContender):
    """Jobs of one queue."""

    async def __aenter__(self) -> Self:
        self._queue = Queue(QUEUE, {"connection": URL})
        return self

    async def add_many(self, jobs: list[dict[str, Any]]) -> list[Any]:
        return list(await self._queue.addBulk(jobs))

    def key(self, handle: Any) -> str:
        return f"bull:{QUEUE}:{handle.id}"

    def look(self, pipeline: Any, handle: Any) -> None:
        pipeline.hget(self.key(handle), "finishedOn")

    async def result(self, handle: Any) -> str:
        job = await Job.fromId(self._queue, handle.id)
        return str(job.returnvalue)
