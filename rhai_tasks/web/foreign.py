"""Infers that other workers, such as the original one, take tasks: from how the states of tasks change."""

import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.operate.queues import Queue, Queues
from rhai_tasks.protocol import Status, is_our_timestamp, to_bytes, to_text
from rhai_tasks.settings import Settings

_HEADS = 20  # circles whose next task is observed
_OBSERVED = 100  # tasks
_SECONDS = 60.0  # for which a task is observed, and a conclusion counts


@dataclass(frozen=True, slots=True)
class ForeignWorkers:
    """How many of a circle's observed tasks foreign workers have taken."""

    circle: str
    theirs: int  # of the observed tasks that were taken in the last minute
    observed: int


class HeadWatcher:
    """Observes the tasks at the heads of native lists, and infers from their next states who took them.

    Our workers write `updatedAt` with each status, in a form of their own. A worker that changes the status and not the
    time, or writes another form, is foreign.
    """

    def __init__(self, settings: Settings, queues: Queues) -> None:
        self._prefix, self._table, self._queues = settings.prefixes.details, settings.table, queues
        self._script = load_script(queues.client, __package__, "watch", settings.table)
        self._observed: dict[str, tuple[str, str, float]] = {}  # by task: circle, `updatedAt`, since when
        self._verdicts: deque[tuple[float, str, bool]] = deque()  # when, which circle, whether foreign

    def update(self, queues: Iterable[Queue]) -> tuple[ForeignWorkers, ...]:
        """Observe further tasks, and return the findings of the last minute."""
        circles = [queue.circle for queue in sorted(queues, key=lambda queue: -queue.waiting) if queue.waiting][:_HEADS]
        observed, now = list(self._observed), time.monotonic()
        if circles or observed:
            heads, states = self._script(
                keys=[self._queues.native_key(circle) for circle in circles],
                args=[self._prefix, *map(to_bytes, observed)],
            )
            for task_id, (status, updated) in zip(observed, states, strict=True):
                self._judge(task_id, self._table.status(to_text(status)), to_text(updated), now)
            for place, name, _, updated in heads:
                if len(self._observed) < _OBSERVED:
                    self._observed.setdefault(to_text(name), (circles[place], to_text(updated), now))
        while self._verdicts and self._verdicts[0][0] < now - _SECONDS:
            self._verdicts.popleft()
        by_circle: dict[str, list[bool]] = {}
        for _, circle, theirs in self._verdicts:
            by_circle.setdefault(circle, []).append(theirs)
        return tuple(
            ForeignWorkers(circle, sum(verdicts), len(verdicts))
            for circle, verdicts in sorted(by_circle.items())
            if any(verdicts)
        )

    def _judge(self, task_id: str, status: str, updated: str, now: float) -> None:
        circle, updated_before, since = self._observed[task_id]
        if status in {"", Status.PENDING} and now < since + _SECONDS:
            return
        del self._observed[task_id]
        if status not in {"", Status.PENDING}:
            self._verdicts.append((now, circle, is_foreign(updated, updated_before)))


def is_foreign(updated: str, before: str) -> bool:
    """Return whether none of our workers wrote a status, from `updatedAt` now and before."""
    return updated == before or not is_our_timestamp(updated)
