"""A dispatcher of the native protocol, for the reference worker and for ours: two writes a task, HSET and LPUSH."""

import os
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import redis

from .contender import URL, Contender
from .engine import CALLER, CONTEXT

_BATCH = 1000  # tasks of one pipeline
CIRCLES = int(os.environ.get("BENCH_CIRCLES", "1"))  # over which tasks are spread; the first is CONTEXT
CALLERS = int(os.environ.get("BENCH_CALLERS", "1"))  # whose tasks they are in turn; the first is CALLER


def numbered(name: str, number: int) -> str:
    """Name one of several; number 0 has the bare name."""
    return f"{name}{number}" if number else name


class Application(Contender):
    """Writes what docs/protocol.md says."""

    def __init__(self) -> None:
        self._client: Any = redis.Redis.from_url(URL, decode_responses=True)

    async def submit(self, script: str) -> str:
        name = str(uuid4())
        self._write(self._client, name, script, CONTEXT, CALLER)
        return name

    async def submit_many(self, scripts: Sequence[str]) -> list[str]:
        names = [str(uuid4()) for _ in scripts]
        for start in range(0, len(scripts), _BATCH):
            with self._client.pipeline(transaction=False) as pipeline:
                for number in range(start, min(start + _BATCH, len(scripts))):
                    circle, caller = numbered(CONTEXT, number % CIRCLES), numbered(CALLER, number % CALLERS)
                    self._write(pipeline, names[number], scripts[number], circle, caller)
                pipeline.execute()
        return names

    @staticmethod
    def _write(client: Any, name: str, script: str, circle: str, caller: str) -> None:
        details = {"script": script, "status": "pending", "callerId": caller}
        client.hset(f"rhai_task_details:{name}", mapping=details)
        client.lpush(f"rhai_tasks:{circle}", name)

    def key(self, handle: str) -> str:
        return f"rhai_task_details:{handle}"

    def look(self, pipeline: Any, handle: str) -> None:
        pipeline.hget(self.key(handle), "status")

    def is_final(self, reply: str | bytes | None) -> bool:
        return reply in {"completed", "error", b"completed", b"error"}

    async def result(self, handle: str) -> str:
        return str(self._client.hget(self.key(handle), "output"))
