"""The requests of a client: each is a command or a Lua script with arguments, and a function that reads the reply.

Pure: no connection, no thread. `sender.py` sends them.
"""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any, Generic, TypeVar
from uuid import uuid4

from rhai_tasks.errors import (
    RhaiTasksError,
    ScriptError,
    ScriptNotFound,
    TaskCancelled,
    TaskExists,
    TaskMalformed,
    TaskNotFound,
)
from rhai_tasks.protocol import (
    CANCELLED,
    Dialect,
    Outcome,
    Prefixes,
    QueueKeys,
    Status,
    cancel_channel,
    check_names,
    queue_full,
    queue_name,
    scripts_key,
    state_channel,
    timestamp,
    to_bytes,
    to_text,
)
from rhai_tasks.settings import Settings

from .answers import STATS_FIELDS, VALUE_FIELDS, Stats, read_stats, read_value
from .details import REFERENCES, DetailsWriter
from .spec import WAYS, Submitted, TaskSpec, Via, to_spec

T = TypeVar("T")

Destination = tuple[str, Via, float, bool, float | None, bool]
"""What the tasks of one request have in common: circle, `via`, `delay`, `unique`, `start_within`, and whether the
server looks stored scripts up for them."""

Ending = Outcome | RhaiTasksError
"""How a task ended, or why that cannot be known."""

POLLED_AT_ONCE = 500  # tasks in one request
_BATCH_TASKS = 500  # submitted in one request: some milliseconds of the server's time
_BATCH_BYTES = 1024 * 1024  # of scripts and arguments
_DEFAULT = Settings()


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """A request to the server: one round trip."""

    script: str | None  # name of the Lua script; `None`: `args` are a command
    keys: Sequence[str | bytes]
    args: Sequence[Any]
    read: Callable[[Any], T]


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that are submitted by one request: all of them or none."""

    task_ids: list[str]
    request: Request[None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """Builds the requests of a client.

    Raises:
        ConfigurationError: A prefix or the namespace cannot be used.
    """

    details_writer: DetailsWriter = field(default_factory=DetailsWriter)
    """Writes the fields of submitted tasks."""
    prefixes: Prefixes = field(default_factory=Prefixes)
    namespace: str = _DEFAULT.namespace

    def __post_init__(self) -> None:
        object.__setattr__(self, "prefixes", self.table.complete(self.prefixes))
        check_names(self.prefixes, self.namespace)

    @property
    def table(self) -> Dialect:
        """The dialect of workers and tasks."""
        return self.details_writer.table

    def submit(self, specs: Iterable[Submitted]) -> Iterator[Batch]:
        """Build the requests that submit tasks, in the order of the tasks.

        Raises:
            TypeError: A script is not a string.
            ValueError: No circle is named, a field is one that the client writes itself, or a limit is out of range.
        """
        now = timestamp(time.time())
        write, is_signed = self.details_writer.write, self.details_writer.signing_key is not None
        given = map(_with_start, map(to_spec, specs)) if is_signed else map(to_spec, specs)
        for destination, group in itertools.groupby(given, key=self._destination):
            task_ids: list[str] = []
            args: list[Any] = []
            size = 0
            for spec in group:
                task_id = spec.task_id or str(uuid4())
                details = write(spec, task_id, now)
                task_ids.append(task_id)
                args += (to_bytes(task_id), len(details), *details)
                size += len(str(spec.script)) if spec.args is None else sum(map(len, details))
                if len(task_ids) >= _BATCH_TASKS or size >= _BATCH_BYTES:
                    yield self._batch(destination, task_ids, args)
                    task_ids, args, size = [], [], 0
            if task_ids:
                yield self._batch(destination, task_ids, args)

    def _destination(self, spec: TaskSpec) -> Destination:
        circle = spec.circle if spec.circle is not None else self.details_writer.circle
        if circle is None:
            raise ValueError(
                "no circle: name one for the client or for the task; neither reads an environment variable"
            )
        if spec.via not in WAYS:
            raise ValueError(f"via={spec.via!r}: expected one of {', '.join(WAYS)}")
        reference = "" if spec.script.__class__ is str and spec.script[:1] not in REFERENCES else spec.reference
        if spec.materialize and not reference:
            raise ValueError("materialize=True: the script is not a reference to a stored script")
        is_looked_up = spec.materialize or reference.startswith("@")
        if is_looked_up and self.details_writer.signing_key is not None:
            raise ValueError(
                f"script={reference!a}: sign the hash, as in client.submit(client.scripts.find({reference!a}))"
            )
        return circle, spec.via, spec.delay, spec.unique, spec.start_within, is_looked_up

    def _batch(self, destination: Destination, task_ids: list[str], args: list[Any]) -> Batch:
        circle, via, delay, unique, start_within, is_looked_up = destination
        queue, keys = _places(self.namespace, self.prefixes.queue, circle)
        common: list[Any] = [int(unique), round(delay * 1000), via, queue, self.prefixes.details]
        common += (state_channel(self.namespace), to_bytes(circle), self.prefixes.queue, self.namespace)
        common.append("" if start_within is None else round(start_within * 1000))
        common.append(scripts_key(self.namespace) if is_looked_up else "")
        return Batch(task_ids, Request("submit", keys, [*common, *args], _check_submitted))

    def cancel(self, task_id: str) -> Request[bool]:
        """Build the request that cancels a task; the reply is `False` if the task had ended."""

        def read(reply: bytes | None) -> bool:
            if reply is None:
                raise TaskNotFound(task_id)
            return reply == CANCELLED.encode()

        return Request(
            "cancel",
            [self.key(task_id)],
            [
                to_bytes(task_id),
                timestamp(time.time()),
                cancel_channel(self.namespace),
                state_channel(self.namespace),
                self.namespace,
            ],
            read,
        )

    def status(self, task_id: str) -> Request[Status]:
        """Build the request for a task's status."""

        def read(replies: list[list[bytes] | None]) -> Status:
            if replies[0] is None:
                raise TaskNotFound(task_id)
            status = self.table.status(to_text(replies[0][0]))
            try:
                return Status(status)
            except ValueError as error:
                raise TaskMalformed(f"task {task_id!r} has an unknown status: {status!r}") from error

        return Request("states", [], [self.prefixes.details, 0, to_bytes(task_id)], read)

    def details(self, task_id: str, names: Sequence[str] = ()) -> Request[dict[str, str]]:
        """Build the request for all fields of a task, or for those of these names that it has.

        Names and the status are those of `Field` and `Status`.
        """
        fields = list(map(to_bytes, self.table.stored_names(names)))

        def read(reply: Mapping[bytes, bytes] | Sequence[bytes | None]) -> dict[str, str]:
            flat = [*itertools.chain(*reply.items())] if isinstance(reply, Mapping) else reply
            pairs = zip(fields, flat, strict=True) if fields else zip(flat[::2], flat[1::2], strict=True)
            found = {to_text(name): to_text(value) for name, value in pairs if name is not None and value is not None}
            if not found:
                raise TaskNotFound(task_id)
            return self.table.read(found) if self.table.renames else found

        return Request(None, [], ["HMGET" if fields else "HGETALL", self.key(task_id), *fields], read)

    def value(self, task_id: str) -> Request[Any]:
        """Build the request for the value of a task that has completed."""
        return Request(
            None, [], ["HMGET", self.key(task_id), *self.table.stored_names(VALUE_FIELDS)], partial(read_value, task_id)
        )

    def stats(self, task_id: str) -> Request[Stats]:
        """Build the request for the stats of a task that has ended."""
        return Request(
            None, [], ["HMGET", self.key(task_id), *self.table.stored_names(STATS_FIELDS)], partial(read_stats, task_id)
        )

    def outcomes(self, task_ids: Sequence[str]) -> Request[dict[str, Ending]]:
        """Build the request for the endings of those of at most `POLLED_AT_ONCE` tasks that have ended."""

        def read(replies: list[list[bytes] | None]) -> dict[str, Ending]:
            endings: dict[str, Ending] = {}
            for task_id, reply in zip(task_ids, replies, strict=True):
                if reply is None:
                    endings[task_id] = TaskNotFound(task_id)
                elif len(reply) > 1:
                    status, text, *rest = reply
                    kind = to_text(rest[0] or b"") if rest else ""
                    endings[task_id] = Outcome(Status(self.table.status(status.decode())), to_text(text), kind)
            return endings

        return Request("states", [], [self.prefixes.details, 1, *map(to_bytes, task_ids)], read)

    def channel(self, task_id: str) -> bytes:
        """Return the name of the channel on which a task's states are published."""
        return to_bytes(self._channels + task_id)

    def task_of(self, channel: bytes) -> str:
        """Return the id of the task whose states are published on a channel."""
        return to_text(channel).removeprefix(self._channels)

    def parse_state(self, channel: bytes, data: bytes) -> tuple[str, Outcome | Status] | None:
        """Parse a message of such a channel into the task's id and its outcome, or its status alone.

        `None` if this version does not know the status: newer versions and other programs may publish, too.
        """
        word, has_text, text = data.partition(b" ")
        word, _, kind = word.partition(b"/")
        try:
            status = Status(word.decode())
        except ValueError:
            return None
        state = Outcome(status, to_text(text), to_text(kind)) if has_text and status.is_final else status
        return self.task_of(channel), state

    @property
    def _channels(self) -> str:
        return state_channel(self.namespace) + self.prefixes.details

    def key(self, task_id: str) -> bytes:
        """Return the key of a task's details."""
        return to_bytes(self.prefixes.details + task_id)


def _with_start(spec: TaskSpec) -> TaskSpec:
    """Put the time before which a task must begin in place of seconds: the server's sum could not be signed."""
    if spec.start_within is None:
        return spec
    return replace(spec, start_within=None, start_before=round(time.time() + spec.start_within, 3))


@lru_cache(maxsize=1024)  # called for every submission
def _places(namespace: str, prefix: str, circle: str) -> tuple[str, tuple[str | bytes, ...]]:
    """Return a circle's queue name, and the keys of `submit.lua` except the first."""
    queue = queue_name(circle)
    keys = QueueKeys(namespace, queue)
    registry = keys.registry(namespace)
    return queue, (to_bytes(prefix + circle), keys.messages, registry, keys.delayed, keys.delayed_messages, keys.wake)


def _check_submitted(refused: list[Any]) -> None:
    if refused and isinstance(refused[0], list):
        raise queue_full(refused[0])
    if len(refused) == 2 and refused[0] == b"":
        raise ScriptNotFound(to_text(refused[1]))
    if refused:
        raise TaskExists(to_text(refused[0]))


def batched(task_ids: Iterable[str], size: int) -> Iterator[list[str]]:
    """Yield lists of at most `size` ids."""  # itertools.batched does so from Python 3.12 on
    iterator = iter(task_ids)
    while some := list(itertools.islice(iterator, size)):
        yield some


def unwrap(task_id: str, ending: Ending) -> str:
    """Return the output of a task that completed.

    Raises:
        ScriptError: The task ended as an error.
        TaskCancelled: The task was cancelled.
        RhaiTasksError: The ending is this error.
    """
    if isinstance(ending, RhaiTasksError):
        raise ending
    if ending.status is Status.COMPLETED:
        return ending.text
    if ending.text == CANCELLED:
        raise TaskCancelled(task_id)
    raise ScriptError(task_id, ending.text, ending.kind)
