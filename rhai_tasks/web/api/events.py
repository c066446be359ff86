"""The states, prints and outcome of a task as server-sent events."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from fastapi.sse import ServerSentEvent

from rhai_tasks.client import AsyncTask
from rhai_tasks.errors import NotAsked, RhaiTasksError, ScriptError, TaskCancelled, TaskTimeout
from rhai_tasks.protocol import Field, Status

from .guard import Waiting
from .models import RESULT_FIELDS, result_of
from .problems import Problem, clean, problem_of

logger = logging.getLogger(__name__)

STREAM_SECONDS = 600.0
"""Longest time for which one request follows a task."""

_POLL_SECONDS = 0.5  # between two polls of a status


async def follow(
    waiting: Waiting, task: AsyncTask, check: Callable[[], Coroutine[Any, Any, None]]
) -> AsyncIterator[ServerSentEvent]:
    """Yield the events of a task, `state` and `print`, and at last `end` or `problem`; after `STREAM_SECONDS`, none.

    `check` fails once the client may not follow the task any more.
    """
    following = _Following(task, check)
    running = asyncio.create_task(following.run(waiting))
    try:
        while event := await following.events.get():
            yield event
    finally:
        running.cancel()


@dataclass(slots=True)
class _Following:
    """Puts events into a queue that holds one: a slow reader slows the polls. `None` is the last."""

    task: AsyncTask
    check: Callable[[], Coroutine[Any, Any, None]]
    events: asyncio.Queue[ServerSentEvent | None] = field(default_factory=lambda: asyncio.Queue(maxsize=1))

    async def run(self, waiting: Waiting) -> None:
        """Follow the task."""
        try:
            async with waiting.one(), asyncio.timeout(STREAM_SECONDS):
                async with asyncio.TaskGroup() as both:
                    checking = both.create_task(self.check())
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._put_states())
                        group.create_task(self._put_prints())
                    checking.cancel()
                outcome = result_of(self.task.id, await self.task.details(*RESULT_FIELDS))
                await self._put("end", outcome.model_dump(mode="json", by_alias=True, exclude_unset=True))
        except* TimeoutError:
            pass  # the client may ask again
        except* (Problem, RhaiTasksError) as errors:
            problem = problem_of(_first(errors))
            await self._put("problem", {"code": problem.code, "detail": problem.detail})
        except* Exception:
            logger.exception("Following a task failed")
        await self.events.put(None)

    async def _put(self, event: str, data: object) -> None:
        await self.events.put(ServerSentEvent(event=event, data=data))

    async def _put_states(self) -> None:
        known: Status | None = None
        while known is None or not known.is_final:
            if (now := await self.task.status()) is not known:
                await self._put("state", {Field.STATUS: now.value})
            known = now
            if not known.is_final:
                with suppress(TaskTimeout, ScriptError, TaskCancelled):
                    await self.task.result(_POLL_SECONDS)

    async def _put_prints(self) -> None:
        with suppress(NotAsked):
            async for line in self.task.prints():
                await self._put("print", {"text": clean(line)})


def _first(errors: BaseExceptionGroup[Exception]) -> Exception:
    error: Exception | BaseExceptionGroup[Exception] = errors
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
