"""The client: does what it is told in lines of JSON, and answers each with one.

BENCH_URL=redis://... python -m apps NAME
"""

import asyncio
import importlib
import json
import random
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import redis

from .contender import URL, Contender

_LOOK_SECONDS = 0.01  # between two looks for the end of many tasks: too rare to show in the server's time
_BATCH = 200  # looks of one pipeline: about what the server reads at once
_LAST = 1000  # tasks of either end of a queue that are looked at for its end: more than workers hold at a time
_SAMPLE = 20  # results read back as users do
_TURN_SECONDS = 0.001  # of the client of open-loop arrivals


class Client:
    """Submits tasks, and sees them end: with the contender's own calls, and by looks at the keys of results."""

    def __init__(self, contender: Contender, database: Any) -> None:
        self._contender = contender
        self._database = database
        self._handles: list[Any] = []
        self._requests = self._commands = 0  # of ours, for looks

    def _ended(self, handles: list[Any]) -> list[bool]:
        found: list[Any] = []
        for start in range(0, len(handles), _BATCH):
            with self._database.pipeline(transaction=False) as pipeline:
                for handle in handles[start : start + _BATCH]:
                    self._contender.look(pipeline, handle)
                found += pipeline.execute()
            self._requests += 1
            self._commands += len(handles[start : start + _BATCH])
        return [self._contender.is_final(reply) for reply in found]

    async def fill(self, script: str, count: int, rare: str = "", share: float = 0.0) -> dict[str, Any]:
        """Submit tasks, a share of them with another script; NUMBER in a script is the task's own."""
        chance = random.Random(1)
        scripts = [
            (rare if rare and chance.random() < share else script).replace("NUMBER", str(number))
            for number in range(count)
        ]
        began = time.perf_counter()
        self._handles = await self._contender.submit_many(scripts)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "batched": type(self._contender).submit_many is not Contender.submit_many}

    async def fill_singly(self, script: str, count: int) -> dict[str, Any]:
        """Likewise, one call a task."""
        began = time.perf_counter()
        self._handles = [await self._contender.submit(script) for _ in range(count)]
        return {"seconds": time.perf_counter() - began}

    async def drain(self, patience: float) -> dict[str, Any]:
        """Wait until the tasks at both ends of the queue have ended: the order of some is newest first.

        All are looked at by `verify`, when the server's figures have been taken. Returns what looking cost it.
        """
        self._requests = self._commands = 0
        deadline = time.monotonic() + patience
        ends = [self._handles[0], self._handles[-1]]
        while not all(self._ended(ends)):
            self._check(deadline)
        left = self._handles if len(self._handles) < 2 * _LAST else self._handles[:_LAST] + self._handles[-_LAST:]
        while left := [handle for handle, ended in zip(left, self._ended(left), strict=True) if not ended]:
            self._check(deadline)
        return {"requests": self._requests, "commands": self._commands}

    async def verify(self) -> dict[str, Any]:
        """Raise an error if a task has not ended."""
        if left := self._ended(self._handles).count(False):
            raise TimeoutError(f"the last tasks have ended, but {left} of {len(self._handles)} in between have not")
        return {}

    def _check(self, deadline: float) -> None:
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"{self._ended(self._handles).count(False)} of {len(self._handles)} tasks have not ended"
            )
        time.sleep(_LOOK_SECONDS)

    async def results(self) -> dict[str, Any]:
        """Read results of some, as the contender's users do."""
        some = random.sample(self._handles, min(len(self._handles), _SAMPLE))
        return {"results": sorted({await self._contender.result(handle) for handle in some})}

    async def singles(self, script: str, count: int, pause: float, patience: float) -> dict[str, Any]:
        """Time single tasks on an idle worker, in seconds from before the submission to a visible result.

        It spins, to see the result as soon as it is there; `patience` bounds each.
        """
        latencies = []
        for _ in range(count):
            await asyncio.sleep(pause)
            began = time.perf_counter()
            handle = await self._contender.submit(script)
            while not self._ended([handle])[0]:
                if time.perf_counter() > began + patience:
                    raise TimeoutError(f"a single task has not ended within {patience} s")
            latencies.append(time.perf_counter() - began)
        self._handles = [handle]
        return {"latencies": latencies}

    async def first(self, script: str, patience: float) -> dict[str, Any]:
        """Submit one task, and wait for its end without taking a core from workers that start."""
        self._handles = [await self._contender.submit(script)]
        deadline = time.monotonic() + patience
        while not self._ended(self._handles)[0]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the first task has not ended within {patience} s")
            time.sleep(_TURN_SECONDS)
        return {}

    async def arrive(self, common: str, rare: str, share: float, rate: float, count: int, patience: float) -> Any:
        """Submit tasks at random moments, so many a second on average, whatever becomes of them.

        Latencies, in seconds, are those of the common ones, each from the moment at which it was due.
        """
        chance = random.Random(1)
        waiting: list[tuple[float, Any]] = []  # when it was due, handle
        due, latencies, submitted = 0.0, [], 0
        deadline = time.monotonic() + count / rate + patience
        began = time.perf_counter()
        while submitted < count or waiting:
            now = time.perf_counter() - began
            while submitted < count and due <= now:
                is_rare = chance.random() < share
                handle = await self._contender.submit(rare if is_rare else common)
                submitted += 1
                if not is_rare:
                    waiting.append((due, handle))
                due += chance.expovariate(rate)
            ended = self._ended([handle for _, handle in waiting])
            seen = time.perf_counter() - began
            latencies += [seen - at for (at, _), end in zip(waiting, ended, strict=True) if end]
            waiting = [entry for entry, end in zip(waiting, ended, strict=True) if not end]
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(waiting)} tasks have not ended")
            time.sleep(_TURN_SECONDS)
        return {"latencies": latencies}


async def serve(name: str) -> None:
    """Do what lines of stdin say: `{"do": a method of `Client`, its arguments}`."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a library that prints must not answer for us
    async with importlib.import_module(f".{name}", __package__).Application() as contender:
        with redis.Redis.from_url(URL) as database:
            client = Client(contender, database)
            print("{}", file=answers, flush=True)  # ready
            while line := sys.stdin.readline():
                arguments = json.loads(line)
                work: Callable[..., Awaitable[Any]] = getattr(client, arguments.pop("do"))
                try:
                    answer = await work(**arguments)
                except Exception as error:  # the contender's libraries may raise anything: it is reported
                    answer = {"error": f"{type(error).__name__}: {error}"}
                print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
