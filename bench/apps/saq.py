"""SAQ: two worker processes; scripts are plain functions, which run in threads, 16 at a time in each."""

from typing import Any, Self

from saq import Queue

from .contender import URL, Contender
from .engine import run

queue = Queue.from_url(URL)


def run_script(_: dict[str, Any], *, script: str) -> str:
    """Run a script."""
    return run(script)


settings = {"queue": queue, "functions": [run_script], "concurrency": 16}


class Application(Contender):
    """Jobs of the default queue; there is no call for many that does not wait for them."""

    async def __aenter__(self) -> Self:
        await queue.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await queue.disconnect()

    async def submit(self, script: str) -> Any:
        return await queue.enqueue("run_script", script=script, timeout=600)

    def key(self, handle: Any) -> str:
        return str(handle.id)

    def look(self, pipeline: Any, handle: Any) -> None:
        pipeline.get(self.key(handle))  # a job and its result are one text

    def is_final(self, reply: bytes | None) -> bool:
        return b'"completed":' in (reply or b"") and b'"completed":0' not in (reply or b"").replace(b" ", b"")

    async def result(self, handle: Any) -> str:
        await handle.refresh()
        return str(handle.result)
