"""What a client asks of the server: each call a command or a Lua script with its arguments, and what the reply means.

Pure: no connection, no thread. `Client` and `AsyncClient` carry the calls out.
"""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Generic, Literal, TypeVar, get_args
from uuid import uuid4

from .errors import RhaiTasksError, ScriptError, TaskCancelled, TaskExists, TaskMalformed, TaskNotFound
from .protocol import (
    CANCELLED,
    TRACEPARENT,
    Outcome,
    Prefixes,
    QueueKeys,
    Status,
    cancel_channel,
    queue_name,
    state_channel,
    submits_key,
    timestamp,
    to_bytes,
    to_text,
)

T = TypeVar("T")

Via = Literal["native", "dramatiq", "urgent"]
"""How a task gets to a worker: `native`, by its circle's list, which any worker may serve; `dramatiq`, as a message
of dramatiq's, past what waits in the native list; `urgent`, likewise, and before all that waits in dramatiq."""

_WAYS: tuple[str, ...] = get_args(Via)
_PENDING = Status.PENDING.value

Found = Outcome | RhaiTasksError
"""How a task ended, or why that cannot be known."""

LOOK_AT = 500  # tasks in one call
_CALL_TASKS = 500  # submitted in one call: some milliseconds of the server's time
_CALL_BYTES = 1024 * 1024  # of scripts


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """A task to submit. What is `None` is the client's own."""

    script: str
    circle: str | None = None
    caller_id: str | None = None
    context_id: str | None = None
    task_id: str | None = None  # a new UUID by default
    fields: Mapping[str, str] | None = None  # further fields of the details, such as `replyToQueue`
    unique: bool = False  # the id must be free
    delay: float = 0.0  # seconds
    via: Via = "native"


def traceparent_if(traces: bool) -> Callable[[], str | None] | None:
    """Return what tells the current span, if it is wanted.

    Raises:
        ConfigurationError: There is no OpenTelemetry.
    """
    if not traces:
        return None
    from .tracing import current_traceparent  # noqa: PLC0415  (an extra, and only for who asks)

    return current_traceparent


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One round trip."""

    script: str | None  # name of the Lua script; `None`: `args` are a plain command
    keys: Sequence[str | bytes]
    args: Sequence[Any]
    read: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that go to the server in one call."""

    task_ids: list[str]
    call: Call[None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Calls:
    """Builds calls; holds what all of a client's tasks have in common."""

    circle: str | None = None
    caller_id: str = ""
    context_id: str | None = None
    expire_finished: float | None = None  # seconds; `None` leaves it to the worker
    prefixes: Prefixes = field(default_factory=Prefixes)
    namespace: str = "rhai_dramatiq"
    traceparent: Callable[[], str | None] | None = None  # tells the current span, for workers to join its trace

    def submit(self, specs: Iterable[str | TaskSpec]) -> Iterator[Batch]:
        """Build the calls that submit tasks, in their order.

        Raises:
            TypeError: A script is no text.
            ValueError: No circle is named, or a field is one that the client writes itself.
        """
        now = timestamp(time.time())
        for destination, group in itertools.groupby(map(_spec, specs), key=self._destination):
            task_ids: list[str] = []
            args: list[Any] = []
            size = 0
            for spec in group:
                details = self.details_of(spec, now)
                task_id = spec.task_id or str(uuid4())
                task_ids.append(task_id)
                args += (to_bytes(task_id), len(details), *details)
                size += len(spec.script)
                if len(task_ids) >= _CALL_TASKS or size >= _CALL_BYTES:
                    yield self._batch(destination, task_ids, args)
                    task_ids, args, size = [], [], 0
            if task_ids:
                yield self._batch(destination, task_ids, args)

    def _destination(self, spec: TaskSpec) -> tuple[str, Via, float, bool]:
        circle = spec.circle if spec.circle is not None else self.circle
        if circle is None:
            raise ValueError("no circle: name one for the client or for the task")
        if spec.via not in _WAYS:
            raise ValueError(f"via={spec.via!r}: wanted is one of {', '.join(_WAYS)}")
        return circle, spec.via, spec.delay, spec.unique

    def details_of(self, spec: TaskSpec, now: str) -> list[str]:
        """List names and values of the fields of a task that is submitted `now`."""
        caller = spec.caller_id if spec.caller_id is not None else self.caller_id
        details: list[str] = ["script", spec.script, "status", _PENDING, "callerId", caller]
        details += ("createdAt", now, "updatedAt", now)
        context = spec.context_id if spec.context_id is not None else self.context_id
        if context is not None:
            details += ("contextId", context)
        if self.expire_finished is not None:
            details += ("expireFinished", f"{self.expire_finished:g}")
        if self.traceparent and (parent := self.traceparent()):
            details += (TRACEPARENT, parent)
        own = details[::2]
        for name, value in (spec.fields or {}).items():
            if name in own:
                raise ValueError(f"the field {name!r} is the client's own; it is set by an argument")
            details += (name, value)
        return details

    def _batch(self, destination: tuple[str, Via, float, bool], task_ids: list[str], args: list[Any]) -> Batch:
        circle, via, delay, unique = destination
        queue, keys = _places(self.namespace, self.prefixes.queue, circle)
        what = [int(unique), round(delay * 1000), via, queue, self.prefixes.details, state_channel(self.namespace)]
        return Batch(task_ids, Call("submit", keys, [*what, *args], _none_taken))

    def cancel(self, task_id: str) -> Call[bool]:
        """Build the call that cancels a task; `False`: it had ended."""

        def read(reply: bytes | None) -> bool:
            if reply is None:
                raise TaskNotFound(task_id)
            return reply == CANCELLED.encode()

        return Call(
            "cancel",
            [self._key(task_id)],
            [to_bytes(task_id), timestamp(time.time()), cancel_channel(self.namespace), state_channel(self.namespace)],
            read,
        )

    def status(self, task_id: str) -> Call[Status]:
        """Build the call that asks for a task's status."""

        def read(replies: list[list[bytes] | None]) -> Status:
            if replies[0] is None:
                raise TaskNotFound(task_id)
            status = to_text(replies[0][0])
            try:
                return Status(status)
            except ValueError as error:
                raise TaskMalformed(f"task {task_id!r} has a status that nobody knows: {status!r}") from error

        return Call("look", [], [self.prefixes.details, 0, to_bytes(task_id)], read)

    def details(self, task_id: str) -> Call[dict[str, str]]:
        """Build the call that asks for all fields of a task."""

        def read(reply: Mapping[bytes, bytes] | Sequence[bytes]) -> dict[str, str]:
            if not reply:
                raise TaskNotFound(task_id)
            pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
            return {to_text(name): to_text(value) for name, value in pairs}

        return Call(None, [], ["HGETALL", self._key(task_id)], read)

    def look(self, task_ids: Sequence[str]) -> Call[dict[str, Found]]:
        """Build the call that asks which of at most `LOOK_AT` tasks have ended, and how."""

        def read(replies: list[list[bytes] | None]) -> dict[str, Found]:
            found: dict[str, Found] = {}
            for task_id, reply in zip(task_ids, replies, strict=True):
                if reply is None:
                    found[task_id] = TaskNotFound(task_id)
                elif len(reply) == 2:
                    found[task_id] = Outcome(Status(reply[0].decode()), to_text(reply[1]))
            return found

        return Call("look", [], [self.prefixes.details, 1, *map(to_bytes, task_ids)], read)

    def channel(self, task_id: str) -> bytes:
        """Name the channel on which a task's states are told."""
        return to_bytes(self._channels + task_id)

    def heard(self, channel: bytes, data: bytes) -> tuple[str, Outcome | Status]:
        """Read a message of such a channel: the task, and its outcome, or its status alone."""
        status, has_text, text = data.partition(b" ")
        state: Outcome | Status = Status(status.decode())
        if has_text:
            state = Outcome(Status(status.decode()), to_text(text))
        return to_text(channel).removeprefix(self._channels), state

    @property
    def _channels(self) -> str:
        return state_channel(self.namespace) + self.prefixes.details

    def _key(self, task_id: str) -> bytes:
        return to_bytes(self.prefixes.details + task_id)


def _spec(spec: str | TaskSpec) -> TaskSpec:
    spec = TaskSpec(spec) if isinstance(spec, str) else spec
    if not isinstance(spec, TaskSpec) or not isinstance(spec.script, str):
        raise TypeError(f"a script or a TaskSpec is wanted, not {spec!r}")
    return spec


@lru_cache(maxsize=1024)  # asked for every task
def _places(namespace: str, prefix: str, circle: str) -> tuple[str, tuple[str | bytes, ...]]:
    """Name a circle's queue, and the keys of `submit.lua`, but for the first."""
    queue = queue_name(circle)
    keys = QueueKeys(namespace, queue)
    registry = keys.registry(namespace)
    return queue, (to_bytes(prefix + circle), keys.messages, registry, keys.delayed, keys.delayed_messages, keys.wake)


def _none_taken(taken: list[bytes]) -> None:
    if taken:
        raise TaskExists(to_text(taken[0]))


class CallNumbers:
    """Numbers the calls that submit, so that the server knows one that is repeated. Each fork starts anew."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._key = submits_key(self._namespace, str(uuid4()))
        self._last = 0
        self._open: set[int] = set()

    @contextmanager
    def numbered(self, call: Call[T]) -> Iterator[Call[T]]:
        """Give a call its number, until the caller knows whether it was done."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            self._last += 1
            number = self._last
            self._open.add(number)
            lowest = min(self._open)
        try:
            yield Call(call.script, [self._key, *call.keys], [number, lowest, *call.args], call.read)
        finally:
            with self._lock:
                self._open.discard(number)


def batched(task_ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield some at a time."""
    iterator = iter(task_ids)
    while some := list(itertools.islice(iterator, size)):
        yield some


def unwrap(task_id: str, found: Found) -> str:
    """Return the output of a task that completed.

    Raises:
        ScriptError: It ended as an error.
        TaskCancelled: It was cancelled.
        TaskNotFound: It is gone.
    """
    if isinstance(found, RhaiTasksError):
        raise found
    if found.status is Status.COMPLETED:
        return found.text
    if found.text == CANCELLED:
        raise TaskCancelled(task_id)
    raise ScriptError(task_id, found.text)
