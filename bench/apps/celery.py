"""Celery with the prefork pool.

As its documents advise: a process a core (the default), acknowledged late so that nothing is lost with a process; many
short tasks are fetched ahead; no gossip, mingle or heartbeat, which one worker has no use for. `celery threads` has a
pool of threads instead, for scripts that wait.
"""

from typing import Any

from celery import Celery
from celery.result import AsyncResult

from .contender import URL, Contender
from .engine import run

app = Celery("bench", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
)


@app.task
def run_script(script: str) -> str:
    """Run a script."""
    return run(script)


class Application(Contender):
    """Messages of one task; there is no call for many without a group."""

    async def submit(self, script: str) -> AsyncResult[str]:
        return run_script.delay(script)

    def key(self, handle: Any) -> str:
        return f"celery-task-meta-{handle.id}"

    async def result(self, handle: Any) -> str:
        return str(handle.get(timeout=10))
