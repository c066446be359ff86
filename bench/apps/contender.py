"""What the client of every contender can do."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Self

URL = os.environ.get("BENCH_URL", "redis://127.0.0.1:6379")


class Contender(ABC):
    """A contender as its users see it. What it returns for a submitted task, its handle, only it understands."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    @abstractmethod
    async def submit(self, script: str) -> Any:
        """Enqueue one task, and return its handle."""

    async def submit_many(self, scripts: Sequence[str]) -> list[Any]:
        """Enqueue many in the fastest way that its documents show; without a call for it, one by one."""
        return [await self.submit(script) for script in scripts]

    @abstractmethod
    def key(self, handle: Any) -> str:
        """Name the key in which the task's result appears."""

    def look(self, pipeline: Any, handle: Any) -> None:
        """Add the command to a pipeline that tells whether the task has ended."""
        pipeline.exists(self.key(handle))

    def is_final(self, reply: Any) -> bool:
        """Whether that command's reply says so."""
        return bool(reply)

    @abstractmethod
    async def result(self, handle: Any) -> str:
        """Read the output of a task that has ended, as its documents do it."""


class JobContender(Contender):
    """A contender of which a script is a job of one queue. BullMQ and its relatives have the same calls."""

    _BATCH = 1000  # jobs of one call

    _queue: Any

    async def __aexit__(self, *_: object) -> None:
        await self._queue.close()

    async def submit(self, script: str) -> Any:
        return await self._queue.add("run", {"script": script})

    async def submit_many(self, scripts: Sequence[str]) -> list[Any]:
        jobs = [{"name": "run", "data": {"script": script}} for script in scripts]
        return [
            job
            for start in range(0, len(jobs), self._BATCH)
            for job in await self.add_many(jobs[start : start + self._BATCH])
        ]

    @abstractmethod
    async def add_many(self, jobs: list[dict[str, Any]]) -> list[Any]:
        """Enqueue the jobs in one call."""
