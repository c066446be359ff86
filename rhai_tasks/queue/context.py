"""The record that the parts of one broker share: consumers, leases, cancels, status writer."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis

from rhai_tasks.connection.outage import Outage
from rhai_tasks.observe.readiness import Readiness
from rhai_tasks.observe.recorder import Recorder
from rhai_tasks.protocol import READ_FIELDS, SIMPLE_FIELDS, QueueKeys
from rhai_tasks.settings import Settings

from .delivery import DETAILS
from .pace import Pace
from .run import Run
from .work_queue import WorkQueue

if TYPE_CHECKING:  # an extra
    from rhai_tasks.observe.tracing import Tracer


class HeldMessages:
    """The messages that this broker holds, by queue and id. Threads: any."""

    def __init__(self) -> None:
        self._by_queue: dict[str, dict[str, Run]] = {}

    def __contains__(self, queue: str) -> bool:
        """Whether a consumer has asked for this queue's messages before."""
        return queue in self._by_queue

    def __len__(self) -> int:
        """How many queues there are."""
        return len(self._by_queue)

    def by_id(self, queue: str) -> dict[str, Run]:
        """Return a queue's messages by id: the mapping itself, which the consumer fills and empties."""
        return self._by_queue.setdefault(queue, {})

    def queues(self) -> list[str]:
        """List the queues with a consumer: this process leases and reports these, whatever else is declared."""
        return list(self._by_queue)

    def of(self, queue: str) -> list[Run]:
        """Return a queue's messages as they are now."""
        return list(self._by_queue.get(queue, {}).values())

    def all(self) -> list[Run]:
        """Return the messages of all queues as they are now."""
        return [run for queue in self.queues() for run in self.of(queue)]

    def interrupt(self) -> None:
        """Stop running scripts; messages that have not ended are released."""
        for run in self.all():
            run.interrupt()


@dataclass(frozen=True)
class QueueContext:
    """What the parts of one broker share."""

    settings: Settings
    broker_id: str
    client: redis.Redis
    outage: Outage
    recorder: Recorder
    tracer: "Tracer | None"
    pace: Pace
    work_queue: WorkQueue[Any]
    draining: threading.Event = field(default_factory=threading.Event)  # nothing more is fetched
    stopping: threading.Event = field(default_factory=threading.Event)
    quiet: threading.Event = field(default_factory=threading.Event)  # nothing more is fetched, by an operator's order
    held: HeldMessages = field(default_factory=HeldMessages)
    recalls: dict[str, Callable[[], None]] = field(default_factory=dict)
    """By queue: releases the messages that no thread has got."""
    queues_with_turns: set[str] = field(default_factory=set)
    """Queues whose callers take turns: the server is told how long scripts ran."""
    held_up: dict[str, Callable[[], None]] = field(default_factory=dict)
    """By queue whose tasks wait for a running task to end: called after each end, it makes the consumer fetch again."""
    process_id: str = field(default_factory=lambda: str(uuid4()))  # never used again, as a broker's name may be

    @cached_property
    def read_fields(self) -> tuple[str, ...]:
        """The fields of a task's details that this worker reads."""
        fields = self.settings.table.read_fields
        return fields[: self.terms_end] if self.settings.signatures == "off" else fields

    @cached_property
    def stored_fields(self) -> tuple[str, ...]:
        """Their names in the hash."""
        return self.settings.table.stored_names(self.read_fields)

    @cached_property
    def terms_end(self) -> int:
        """How many of them come before those of a signature."""
        return len(READ_FIELDS) + len(self.settings.table.further)

    @cached_property
    def plain_fields(self) -> int:
        """How many of these a task has at most that begins without a check, so that the fetch can mark it."""
        return DETAILS if self.settings.signatures == "off" else 0

    @cached_property
    def simple_fields(self) -> int:
        """How many of these a simple task has at most; 0: this worker treats none as simple."""
        return SIMPLE_FIELDS if self.plain_fields and not self.tracer else 0

    def keys(self, queue: str) -> QueueKeys:
        """Return the keys of a queue."""
        return QueueKeys(self.settings.namespace, queue)

    @cached_property
    def readiness(self) -> Readiness:
        """The part of the recorder that notes reads and renewals."""
        return self.recorder.readiness
