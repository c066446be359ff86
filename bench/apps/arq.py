"""arq: two worker processes.

Scripts run in threads, as its documents have it for blocking code. By default it looks for jobs each half second and
starts at most 100 of them then, so both are set: else it would run no more than 200 a second and process. Jobs are
acknowledged by their results: they stay in the queue until then.
"""

import asyncio
from typing import Any, Self

from arq.connections import RedisSettings, create_pool
from arq.jobs import Job
from arq.worker import func

from .contender import URL, Contender
from .engine import run

SETTINGS = RedisSettings.from_dsn(URL)


async def run_script(_: dict[str, Any], script: str) -> str:
    """Run a script in a thread."""
    return await asyncio.to_thread(run, script)


class WorkerSettings:
    """What `arq apps.arq.WorkerSettings` reads."""

    functions = (func(run_script, name="run_script"),)
    redis_settings = SETTINGS
    poll_delay = 0.01
    queue_read_limit = 500
    max_jobs = 16
    log_results = False


class Application(Contender):
    """Jobs of the default queue; there is no call for many."""

    async def __aenter__(self) -> Self:
        self._pool = await create_pool(SETTINGS)
        return self

    async def submit(self, script: str) -> Job:
        job = await self._pool.enqueue_job("run_script", script)
        assert job
        return job

    def key(self, handle: Job) -> str:
        return f"arq:result:{handle.job_id}"

    async def result(self, handle: Job) -> str:
        return str(await handle.result(timeout=10))
