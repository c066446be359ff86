"""ArdiQ: two worker processes; scripts are plain functions, which run in threads. It needs Python 3.12."""

from collections.abc import Sequence
from typing import Any

from ardiq import Ardiq

from .contender import URL, Contender
from .engine import run

_BATCH = 1000  # tasks of one call

app = Ardiq(redis_url=URL)


@app.task
def run_script(script: str) -> str:
    """Run a script."""
    return run(script)


class Application(Contender):
    """Tasks of the default queue."""

    async def submit(self, script: str) -> Any:
        return await run_script.enqueue(script)

    async def submit_many(self, scripts: Sequence[str]) -> list[Any]:
        return [
            job
            for start in range(0, len(scripts), _BATCH)
            for job in await app.enqueue_many(
                [run_script.prepare(script) for script in scripts[start : start + _BATCH]]
            )
        ]

    def key(self, handle: Any) -> str:
        return f"ardiq:{app.queue_name}:task:results:{handle.id}"

    async def result(self, handle: Any) -> str:
        return str((await handle.result(timeout=10)).value)
