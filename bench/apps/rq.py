"""RQ: a pool of two workers.

The contender `rq` has the default worker, which forks for each job, as its documents advise for production; in
`rq simple` the workers run jobs in their own process, which is faster and lets a crash end the worker.
"""

from collections.abc import Sequence
from typing import Any

import redis
from rq import Queue

from .contender import URL, Contender
from .engine import run as run_script


class Application(Contender):
    """Jobs of the queue that workers listen to by default."""

    def __init__(self) -> None:
        self._queue = Queue(connection=redis.Redis.from_url(URL))

    async def submit(self, script: str) -> Any:
        return self._queue.enqueue(run_script, script)

    async def submit_many(self, scripts: Sequence[str]) -> list[Any]:
        return list(self._queue.enqueue_many([Queue.prepare_data(run_script, (script,)) for script in scripts]))

    def key(self, handle: Any) -> str:
        return f"rq:results:{handle.id}"

    async def result(self, handle: Any) -> str:
        return str(handle.return_value())
