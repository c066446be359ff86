"""apalis: one worker process in Rust, whose tasks run on a thread a core (`rivals`).

It has no client in Python, so this one writes what its `push` writes. Scripts run in Rhai itself and compile once, as
in the engine that Python contenders use. They block the runtime's threads, so scripts that wait are left out.
"""

import json
from collections.abc import Sequence
from typing import Any

import redis

from .contender import URL, Contender

QUEUE = "bench"
_BATCH = 1000  # tasks of one pipeline
_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # of an ULID


class Application(Contender):
    """Tasks of one queue."""

    def __init__(self) -> None:
        self._client: Any = redis.Redis.from_url(URL, decode_responses=True)
        self._count = 0

    async def submit(self, script: str) -> str:
        return (await self.submit_many([script]))[0]

    async def submit_many(self, scripts: Sequence[str]) -> list[str]:
        names = []
        for start in range(0, len(scripts), _BATCH):
            with self._client.pipeline(transaction=True) as pipeline:
                for script in scripts[start : start + _BATCH]:
                    names.append(self._name())
                    self._write(pipeline, names[-1], script)
                pipeline.delete(f"{QUEUE}:signal")
                pipeline.lpush(f"{QUEUE}:signal", 1)
                pipeline.execute()
        return names

    def _name(self) -> str:
        self._count += 1
        digits, rest = "", self._count
        while rest:
            rest, digit = divmod(rest, len(_DIGITS))
            digits = _DIGITS[digit] + digits
        return digits.zfill(26)

    @staticmethod
    def _write(pipeline: Any, name: str, script: str) -> None:
        pipeline.hsetnx(f"{QUEUE}:data", name, json.dumps(script))
        meta = {"attempts": 0, "max_attempts": 5, "status": "Pending", "idempotency_key": ""}
        pipeline.hset(f"{QUEUE}:meta:{name}", mapping=meta)
        pipeline.rpush(f"{QUEUE}:active", name)
        pipeline.publish(f"tasks:{QUEUE}:active:available", name)

    def key(self, handle: str) -> str:
        return f"{QUEUE}:meta:{handle}"

    def look(self, pipeline: Any, handle: str) -> None:
        pipeline.hget(self.key(handle), "done_at")

    async def result(self, handle: str) -> str:
        return str(json.loads(self._client.hget(self.key(handle), "result"))["Ok"])
