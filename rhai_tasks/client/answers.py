"""The answers that a task's terms ask for, as an application gets them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rhai_tasks.errors import NotAsked, TaskMalformed, TaskNotFound
from rhai_tasks.protocol import UNREADABLE, Field, count_of, finite

VALUE_FIELDS = (Field.STATUS, Field.RESULT)
STATS_FIELDS = (
    Field.STATUS,
    Field.DELIVERIES,
    Field.WORKER_ID,
    Field.STARTED_AT,
    Field.RUN_SECONDS,
    Field.OPERATIONS,
    Field.PEAK_MEMORY,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """What the last run of a task took.

    Attributes:
        started_at: When the script began, on its worker's clock; `None`, as the next three, if no script ran.
        run_seconds: Seconds that the script ran.
        operations: Operations of the engine.
        peak_memory: The most bytes that the script had allocated at once.
        deliveries: How often the task was given to a worker process; more than once if a process died with it.
        worker_id: Name of the last worker process, as in its heartbeat.
    """

    started_at: datetime | None
    run_seconds: float | None
    operations: int | None
    peak_memory: int | None
    deliveries: int
    worker_id: str


def read_value(task_id: str, values: Sequence[bytes | None]) -> Any:
    """Read the value of a task that has completed from its `VALUE_FIELDS`.

    Raises:
        TaskNotFound: There are no details any more.
        NotAsked: There is no value.
        TaskMalformed: Another program wrote it, and it is not JSON.
    """
    status, result = values
    if status is None:
        raise TaskNotFound(task_id)
    if result is None:
        raise NotAsked(task_id, "json")
    try:
        return json.loads(result)
    except UNREADABLE as error:
        raise TaskMalformed(f"task {task_id!r} has a {Field.RESULT!r} that is not JSON: {error}") from error


def read_stats(task_id: str, values: Sequence[bytes | None]) -> Stats:
    """Read the stats of a task that has ended from its `STATS_FIELDS`.

    Raises:
        TaskNotFound: There are no details any more.
        NotAsked: There are no stats.
        TaskMalformed: Another program wrote them, and they cannot be read.
    """
    status, deliveries, worker_id, started_at, run_seconds, operations, peak_memory = values
    if status is None:
        raise TaskNotFound(task_id)
    if deliveries is None or worker_id is None:
        raise NotAsked(task_id, "stats")
    try:
        return Stats(
            started_at=None if started_at is None else datetime.fromisoformat(started_at.decode()),
            run_seconds=None if run_seconds is None else finite(run_seconds),
            operations=None if operations is None else count_of(operations),
            peak_memory=None if peak_memory is None else count_of(peak_memory),
            deliveries=count_of(deliveries),
            worker_id=worker_id.decode(),
        )
    except UNREADABLE as error:
        raise TaskMalformed(f"task {task_id!r} has stats that cannot be read: {error}") from error
