"""Every write of a task's state, by one writer for the whole process.

Worker threads hand over what happened and go on; whatever has gathered is written in one step, at once
when the worker is otherwise idle. Each write is fenced: it is done only while this broker still holds the
message, so a worker that was thought dead cannot overwrite what its successor wrote.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib.resources import files
from itertools import count, groupby
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import redis
from redis.commands.core import Script

from .activity import Activity, EndedTask, RunningTask, shorten
from .connection import Outage, connect, persist
from .engine import CancelToken
from .errors import TaskMalformed
from .log import about
from .metrics import WRITE_RETRIES, Counts, Use
from .protocol import (
    DETAIL_FIELDS,
    Outcome,
    QueueKeys,
    Task,
    circle_of,
    moment,
    parse_task,
    reply_json,
    state_channel,
    timestamp,
    to_bytes,
    to_text,
)
from .settings import Settings
from .threads import vital_thread

if TYPE_CHECKING:  # an extra
    from .tracing import TaskTrace

logger = logging.getLogger(__name__)

MARK_AFTER = 0.005
"""Seconds after which a running script is marked `processing`; one that ends sooner goes straight to its end.

Also the longest that an outcome waits for others to be written with it while the worker is busy.
"""

_FLUSH_BYTES = 4 * 1024 * 1024  # of outputs in one script call: the server does nothing else meanwhile
_CREATED_AT = DETAIL_FIELDS.index("createdAt")
_REPLY_TO = DETAIL_FIELDS.index("replyToQueue")
_CALLER = slice(DETAIL_FIELDS.index("callerId"), DETAIL_FIELDS.index("publicKey") + 1)
_CLOSE_SECONDS = 5.0  # a stopping worker waits so long for a server that is away; then leases bring its tasks back


def load_script(client: redis.Redis, package: str, *names: str) -> Script:
    """Register a Lua script, of one file or several, that lies beside the module that uses it."""
    return client.register_script(_source(package, names))


@cache
def _source(package: str, names: tuple[str, ...]) -> bytes:
    return b"".join(files(package).joinpath(f"{name}.lua").read_bytes() for name in names)


def _nothing() -> None:
    pass


@dataclass(slots=True, eq=False)
class Held:
    """A message that this broker holds, from fetch to ack."""

    keys: QueueKeys
    message_id: str
    task_id: str
    details: Sequence[bytes | None] | str | None
    """Values of `DETAIL_FIELDS`; the server's error text if the key is no hash; `None` if no task is named."""
    deaths: int  # how often a process has died with it
    cancel: CancelToken = field(default_factory=CancelToken)
    started: float | None = None  # time.monotonic() at which its script began
    marked: bool = False  # as `processing`
    counted: bool = False  # this delivery is in the count of deaths until it ends
    interrupted: bool = False  # by a stopping worker, or before it began because the lease lapsed: it goes back
    lost: bool = False  # to another worker, while we could not renew the lease: nothing more is written for it
    postponed: bool = False  # it could not begin yet, and goes back behind all others
    release: int = 0  # number of the release that gives it back
    outcome: Outcome | None = None
    following: tuple[bytes, str, bytes] | None = None
    """Of a pipeline, the next message's queue, id and body: gets enqueued with the outcome."""
    ended: float = 0.0  # seconds since the epoch
    ran: float | None = None  # seconds; `None`: it could not begin
    acknowledge: Callable[[], object] = _nothing  # where another server brought the message; after what is written
    use: Use | None = None  # what its script used, if that is counted
    fetched: float = 0.0  # seconds since the epoch, if it is traced, like the next two
    trace: "TaskTrace | None" = None
    script_ended: float = 0.0  # seconds since the epoch

    @property
    def ended_at(self) -> str:
        """When it ended, for `updatedAt`."""
        return timestamp(self.ended)

    @property
    def created_at(self) -> bytes | None:
        """The task's `createdAt`, if it can be read."""
        return self.details[_CREATED_AT] if isinstance(self.details, list) else None

    def about(self) -> dict[str, str]:
        """Name the task, for a line of the log."""
        named = self.details[_CALLER] if isinstance(self.details, list) else ()
        caller = next((value for value in named if value is not None), b"")
        return about(self.task_id, circle_of(self.keys.queue), to_text(caller))

    def task(self) -> Task:
        """Read the details.

        Raises:
            TaskMalformed: They cannot be run; see `parse_task`.
        """
        if isinstance(self.details, str) or self.details is None:
            raise TaskMalformed(f"Task details are not a hash: {self.details}")
        return parse_task(self.task_id, self.details)


class TaskStore:
    """Writes what became of tasks: `processing`, outcomes, and what goes back undone.

    Threads: any thread calls `started`, `finish`, `release`, `dead_letter`; one of them at a time writes.
    """

    def __init__(self, settings: Settings, outage: Outage, counts: Counts | None) -> None:
        self._settings = settings
        self._outage = outage
        self._counts = counts
        self._channel = state_channel(settings.namespace)
        self._client = connect(settings.redis_url, outage=outage)
        self._scripts = {
            name: load_script(self._client, "rhai_tasks", name)
            for name in ("deliver", "finish", "mark", "release", "dead_letter")
        }
        self._activity = Activity(settings.threads)
        self._running: dict[int, Held] = {}  # by thread
        self._ended: deque[tuple[Callable[[list[Held]], object], Held]] = deque()
        self.process_id = str(uuid4())  # never used again, as a broker's name may be
        self._releases = count(1)
        self._releasing: dict[str, Held] = {}  # by message id, whose release is not written yet
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._asleep = True
        self._closing = threading.Event()
        self._give_up = threading.Event()
        self._thread = vital_thread("status-writer", self._run)

    def open(self, broker_id: str) -> None:
        """Start writing for this broker."""
        self._broker_id = broker_id
        self._thread.start()

    def close(self) -> None:
        """Write what is left and stop; after some seconds without a server, leave it to the lease."""
        self._closing.set()
        self._wake.set()
        self._thread.join(_CLOSE_SECONDS)
        self._give_up.set()
        self._thread.join()
        self._client.close()

    # --- what worker threads say

    def running(self) -> int:
        """Count scripts that run now."""
        return len(self._running)

    def started(self, held: Held) -> None:
        """Note that this thread runs the task's script from now on."""
        held.started = time.monotonic()
        self._running[threading.get_ident()] = held
        if self._asleep and not held.marked:
            self._wake.set()

    def count_delivery(self, held: Held) -> bool:
        """Count this delivery before the script can end the process; waits for the server to have it.

        `False`: the message is another broker's by now.
        """
        call = partial(
            self._scripts["deliver"],
            keys=[held.keys.acks(self._broker_id), held.keys.deliveries],
            args=[held.message_id, held.deaths + 1],
        )
        held.counted = bool(persist(call, self._outage, self._give_up))
        return held.counted

    def finish(self, held: Held, outcome: Outcome, *, at_once: bool) -> None:
        """Record how the task ended. `at_once`: write now, in this thread, unless somebody is writing."""
        held.outcome = outcome
        held.ended = time.time()
        held.ran = None if held.started is None else time.monotonic() - held.started
        self._end(self._write_outcomes, held, at_once=at_once)

    def release(self, held: Held) -> None:
        """Give the message back undone: its task is `pending` again, first in its queue, or last if postponed."""
        self._releasing[held.message_id] = held
        self._end(self._write_released, held, at_once=False)

    def keep(self, message_id: str) -> None:
        """Do not give a message back that the server has just given us: it was back, or others had it meanwhile."""
        if self._releasing and (releasing := self._releasing.pop(message_id, None)):
            releasing.lost = True

    def dead_letter(self, held: Held) -> None:
        """Move the message to the dead letters: there is no hash that could take an outcome."""
        logger.error("Task goes to the dead letters: %s", held.details, extra=held.about())
        self._end(self._write_dead, held, at_once=False)

    def _end(self, write: Callable[[list[Held]], object], held: Held, *, at_once: bool) -> None:
        self._running.pop(threading.get_ident(), None)
        self._ended.append((write, held))
        if at_once and self._writing.acquire(blocking=False):
            try:
                self._flush()
            except redis.RedisError as error:
                self._outage.begin(error)
                self._count_retry()
            finally:
                self._writing.release()
        if self._ended and self._asleep:
            self._wake.set()

    def ending(self) -> set[str]:
        """Name the messages whose end is not written yet."""
        return {held.message_id for _, held in list(self._ended)}

    def heartbeat(self, queues: Iterable[str]) -> str:
        """Write what this process does and has done, for those who look."""
        now, clock = time.time(), time.monotonic()
        running = (
            RunningTask(
                shorten(held.task_id),
                circle_of(held.keys.queue),
                now - clock + (held.started or clock),
                held.deaths + 1,
            )
            for held in list(self._running.values())
        )
        return self._activity.heartbeat(queues, running)

    # --- the writer

    def _run(self) -> None:
        while True:
            self._asleep = True  # said before looking, so that nobody who comes later thinks us awake
            if not self._ended and all(held.marked for held in list(self._running.values())):
                if self._closing.is_set():
                    return
                self._wake.wait()
            self._wake.clear()
            self._asleep = False
            self._closing.wait(MARK_AFTER)
            try:
                persist(self._write, self._outage, self._give_up)
            except redis.RedisError:
                logger.warning(
                    "Stopped without a server: %d results not written, these tasks run again",
                    len(self._ended),
                )
                return

    def _write(self) -> None:
        with self._writing:
            try:
                self._flush()
                self._mark()
            except redis.RedisError:
                self._count_retry()
                raise

    def _count_retry(self) -> None:
        if self._counts:
            self._counts.add(WRITE_RETRIES)

    def _flush(self) -> None:
        """Write all that has ended, in order; what could not be written stays for the next try."""
        while self._ended:
            batch = list(_within(_FLUSH_BYTES, list(self._ended)))
            for (write, _), group in groupby(batch, key=lambda entry: (entry[0], entry[1].keys)):
                ended = [held for _, held in group]
                write(ended)
                for held in ended:
                    self._ended.popleft()
                    held.acknowledge()

    def _mark(self) -> None:
        due = time.monotonic() - MARK_AFTER
        slow = [held for held in list(self._running.values()) if not held.marked and (held.started or due) <= due]
        for keys, group in groupby(sorted(slow, key=lambda held: held.keys.queue), key=lambda held: held.keys):
            marked = list(group)
            arguments: list[str | bytes] = [timestamp(time.time()), self._channel]
            for held in marked:
                arguments += [held.message_id, self._details_key(held)]
            self._scripts["mark"](keys=[keys.acks(self._broker_id)], args=arguments)
            for held in marked:
                held.marked = True

    def _details_key(self, held: Held) -> bytes:
        return to_bytes(self._settings.prefixes.details + held.task_id)

    def _write_outcomes(self, ended: list[Held]) -> None:
        expiry = int(self._settings.reply_expiry * 1000) if self._settings.reply_lists else 0
        settings = self._settings
        arguments: list[Any] = [
            int(settings.delete_finished),
            expiry,
            settings.expire_finished,
            self._channel,
            settings.namespace,
        ]
        for held in ended:
            arguments += self._outcome_arguments(held)
        results = self._script_for_message_end("finish", ended[0].keys, arguments)
        for held, result in zip(ended, results, strict=True):
            if result == b"lost":
                logger.warning(
                    "Result dropped: the task was taken over by another worker, or it was written before",
                    extra=held.about(),
                )
            elif result != b"recorded":
                reason = result.decode(errors="replace")
                logger.error("Task goes to the dead letters: %s", reason, extra=held.about())
            else:
                self._activity.ended(held.keys.queue, _as_ended(held))

        if self._counts:
            recorded = [held for held, result in zip(ended, results, strict=True) if result == b"recorded"]
            self._counts.ended(circle_of(ended[0].keys.queue), recorded)
        self._end_traces(ended)

    def _end_traces(self, ended: list[Held]) -> None:
        if self._settings.traces:
            for held in ended:
                if held.trace:
                    held.trace.finish(held.outcome, held.script_ended, time.time())

    def _outcome_arguments(self, held: Held) -> list[Any]:
        outcome = held.outcome
        assert outcome is not None  # noqa: S101  (only `finish` queues for this)
        more: list[Any] = []
        reply_lists = self._reply_lists(held)
        if held.following or reply_lists:
            more += held.following or ("", "", "")
            more += (reply_json(_as_far_as_readable(held), outcome, held.ended_at), *reply_lists)
        return [
            held.message_id,
            self._details_key(held),
            outcome.status,
            to_bytes(outcome.text),
            held.ended_at,
            len(more),
            *more,
        ]

    def _reply_lists(self, held: Held) -> list[bytes]:
        named = held.details[_REPLY_TO] if isinstance(held.details, list) else None
        lists = [named] if named else []
        if self._settings.reply_lists:
            lists.append(to_bytes(self._settings.prefixes.reply + held.task_id))
        return lists

    def _write_released(self, released: list[Held]) -> None:
        keys = released[0].keys
        arguments: list[Any] = [timestamp(time.time()), self._channel, self.process_id]
        going = [held for held in released if not held.lost]
        for held in going:
            held.release = held.release or next(self._releases)
        for held in sorted(going, key=lambda held: (len(held.message_id), held.message_id)):
            arguments += [held.message_id, self._details_key(held)]
            arguments += [int(held.counted), int(held.postponed), held.release]
        if going:
            self._scripts["release"](
                keys=[keys.messages, keys.acks(self._broker_id), keys.deliveries, keys.released(self._broker_id)],
                args=arguments,
            )
        for held in going:
            if self._releasing.get(held.message_id) is held:
                self._releasing.pop(held.message_id, None)  # `keep` may have been faster
        self._end_traces(released)

    def _write_dead(self, dead: list[Held]) -> None:
        for held in dead:
            self._script_for_message_end("dead_letter", held.keys, [held.message_id, _reason(held)])

    def _script_for_message_end(self, name: str, keys: QueueKeys, arguments: list[Any]) -> Any:
        return self._scripts[name](
            keys=[
                keys.acks(self._broker_id),
                keys.bodies,
                keys.deliveries,
                keys.dead,
                keys.dead_bodies,
                keys.dead_reasons,
            ],
            args=arguments,
        )


def _as_ended(held: Held) -> EndedTask:
    assert held.outcome is not None  # noqa: S101  (it is recorded)
    submitted = moment(held.created_at) if held.created_at and held.ran is not None else None
    return EndedTask(
        shorten(held.task_id),
        circle_of(held.keys.queue),
        held.outcome.status,
        held.ended,
        held.ran,
        None if submitted is None or held.ran is None else max(held.ended - held.ran - submitted, 0.0),
        held.deaths + 1,
    )


def _reason(held: Held) -> str:
    """Say why a message goes to the dead letters."""
    if isinstance(held.details, str):
        return f"its details are not a hash: {held.details}" if held.task_id else held.details
    return "it names no task" if held.details is None else "its actor is unknown to this worker"


def _within(limit: int, ended: Iterable[tuple[Any, Held]]) -> Iterator[tuple[Any, Held]]:
    """Yield entries up to `limit` bytes of text, at least one."""
    size = 0
    for entry in ended:
        outcome = entry[1].outcome
        size += len(outcome.text) if outcome else 0
        yield entry
        if size > limit:
            return


def _as_far_as_readable(held: Held) -> Task:
    """Read the details for a reply; a malformed task is answered too."""
    try:
        return held.task()
    except TaskMalformed:
        values = held.details if isinstance(held.details, Sequence) and not isinstance(held.details, str) else ()
        readable = [value if value and _is_utf8(value) else None for value in values]
        return parse_task(held.task_id, [readable[0] or b"", *readable[1:]])


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
