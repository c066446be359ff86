"""Reads and searches tasks for people, bounded in number and size."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.errors import ScriptError
from rhai_tasks.protocol import (
    CANCELLED,
    DETAIL_FIELDS,
    TERM_FIELDS,
    UNREADABLE,
    Dialect,
    Field,
    Status,
    count_of,
    finite,
    key_pattern,
    parse_time,
    to_bytes,
    to_text,
)
from rhai_tasks.settings import Settings

from .messages import tasks_of
from .queues import Queues
from .where import ERROR_BYTES, Found, Where

PAGE = 50  # tasks
SEARCHED = 5000  # keys that one request reads
SHOWN = 256 * 1024  # bytes of a value on a task's page
SHOWN_LINES = 1000  # of a script or an output

_STATE = (Field.CIRCLE, Field.STATUS, Field.UPDATED_AT, Field.OUTPUT, Field.ERROR, Field.STARTED_AT, Field.RUN_SECONDS)
_FIELDS = (*DETAIL_FIELDS, *_STATE)
_ANSWERS = (Field.OPERATIONS, Field.PEAK_MEMORY, Field.DELIVERIES, Field.WORKER_ID, Field.PRINTED, Field.RESULT)
_TASK_FIELDS = (*_FIELDS, *TERM_FIELDS, *_ANSWERS, Field.ERROR_KIND, Field.EXPIRE_FINISHED, Field.KEEP_FINISHED)
_ROW_BYTES = 400  # of a value in a list
_ROW_READ = 64 * 1024  # bytes of a value beyond which a list only shows its size
_PAGE_READ = 64 * 1024 * 1024
_OTHERS = 50  # further fields on a task's page
_STEP = 1000  # keys that one call reads


@dataclass(frozen=True, slots=True, order=True)
class Value:
    """The value of a field, or its start."""

    size: int  # bytes of the whole value
    text: str

    @property
    def is_cut(self) -> bool:
        """Whether there is more than `text`."""
        return self.size > len(to_bytes(self.text))


@dataclass(frozen=True, slots=True)
class Details:
    """The part of a task's details that pages show."""

    task_id: str
    fields: dict[str, Value] = field(default_factory=dict)
    others: tuple[tuple[str, Value], ...] = ()  # fields that docs/protocol.md does not name
    more: int = 0  # number of further fields
    expires: float | None = None  # seconds
    problem: str = ""  # why the details cannot be read

    def text(self, name: str) -> str:
        """Return a field, empty where it is absent."""
        return self.fields[name].text if name in self.fields else ""

    @property
    def status(self) -> str:
        """The status field; any text may stand in it."""
        return "no details" if self.problem else self.text(Field.STATUS) or Status.PENDING

    @property
    def is_final(self) -> bool:
        """Whether the task has ended."""
        return self.status in {Status.COMPLETED, Status.ERROR}

    @property
    def is_cancelled(self) -> bool:
        """Whether the task was cancelled."""
        return self.status == Status.ERROR and self.text(Field.ERROR) == CANCELLED

    @property
    def caller(self) -> str:
        """The public key of the caller."""
        return self.text(Field.CALLER_ID if Field.CALLER_ID in self.fields else Field.PUBLIC_KEY)

    @property
    def circle(self) -> str:
        """The circle that it was submitted to, as far as the details tell."""
        return self.text(Field.CIRCLE if Field.CIRCLE in self.fields else Field.CONTEXT_ID)

    @property
    def ran(self) -> float | None:
        """Seconds for which its script ran; `None`: the details do not tell."""
        with suppress(*UNREADABLE):
            return max(finite(self.text(Field.RUN_SECONDS)), 0.0)
        return None

    @property
    def deliveries(self) -> int | None:
        """How often a worker process has had it; `None`: the details do not tell."""
        with suppress(*UNREADABLE):
            return count_of(self.text(Field.DELIVERIES))
        return None

    @property
    def keeps(self) -> float | None:
        """Seconds for which its details stay after its end, 0: for ever; `None`: as the worker's options say."""
        with suppress(*UNREADABLE):
            return max(finite(self.text(Field.EXPIRE_FINISHED)), 0.0)
        return None

    @property
    def waited(self) -> float | None:
        """Seconds from its submission until its script began; `None`: the details do not tell."""
        created, began = (parse_time(self.text(name)) for name in (Field.CREATED_AT, Field.STARTED_AT))
        return None if created is None or began is None else max(began - created, 0.0)

    @property
    def error(self) -> ScriptError | None:
        """The error, with its position in the script."""
        return ScriptError(self.task_id, self.text(Field.ERROR)) if Field.ERROR in self.fields else None


@dataclass(frozen=True, slots=True)
class Search:
    """The findings of one step of a search."""

    tasks: list[Details]
    cursor: str  # where the next step starts; "0": there is none
    searched: int  # keys


@dataclass(frozen=True, slots=True)
class Step:
    """The findings of a part of a walk."""

    found: list[Found]
    cursor: str  # where the next step starts; "0": there is none
    searched: int  # keys


class Tasks:
    """Reads tasks."""

    def __init__(self, settings: Settings, queues: Queues) -> None:
        self._prefix = settings.prefixes.details
        self._reply_prefix = settings.prefixes.reply
        self._queues, self._client, self._table = queues, queues.client, settings.table
        self._details = load_script(self._client, __package__, "details")
        self._find = load_script(self._client, __package__, "find", settings.table)

    def details(self, task_id: str) -> Details:
        """Read one task, with long values cut."""
        (found,) = self._read([task_id], SHOWN, _PAGE_READ, _OTHERS, _TASK_FIELDS)
        return found

    def rows(self, task_ids: Sequence[str]) -> list[Details]:
        """Read tasks for a list, in one command."""
        return self._read(task_ids, _ROW_BYTES, _ROW_READ, 0, _FIELDS) if task_ids else []

    def _read(
        self, task_ids: Sequence[str], shown: int, read: int, others: int, fields: tuple[str, ...]
    ) -> list[Details]:
        replies = self._details(
            keys=list(map(self._key, task_ids)), args=[shown, read, others, *self._table.stored_names(fields)]
        )
        return [_details(task_id, reply, fields, self._table) for task_id, reply in zip(task_ids, replies, strict=True)]

    def field(self, task_id: str, name: str) -> bytes | None:
        """Read a whole field."""
        return cast("bytes | None", self._client.hget(self._key(task_id), to_bytes(self._table.stored(name))))

    def waiting(self, circle: str, start: int) -> list[Details]:
        """Read a page of a native list, the next task first."""
        ids = self._client.lrange(self._queues.native_key(circle), start, start + PAGE - 1)
        return self.rows([to_text(task_id) for task_id in ids])

    def buffered(self, circle: str, start: int) -> list[Details]:
        """Read a page of dramatiq's queue, the next task first."""
        keys = self._queues.keys(circle)
        names = self._queues.buffered(circle, start, PAGE)
        return self.rows(tasks_of(self._client, keys, names))

    def prefetched(self, circle: str, start: int) -> list[Details]:
        """Read a page of the tasks that workers hold and have not begun, the next task first."""
        held = self.rows(tasks_of(self._client, self._queues.keys(circle), self._queues.held(circle)))
        return [task for task in held if task.status == Status.PENDING][start : start + PAGE]

    def reply_lists(self, details: Details) -> list[tuple[str, int | None]]:
        """Return the reply lists of a task with their lengths; `None`: a length cannot be read."""
        names = [self._reply_prefix + details.task_id]
        if named := details.text(Field.REPLY_TO):
            names.insert(0, named)
        with self._client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.llen(to_bytes(name))
            lengths = pipeline.execute(raise_on_error=False)
        found = [
            (name, length if isinstance(length, int) else None) for name, length in zip(names, lengths, strict=True)
        ]
        return [(name, length) for name, length in found if length != 0 or name == named]

    def search(self, cursor: str, where: Where) -> Search:
        """Search some thousand keys for tasks; return at most a page of them, the last submitted first."""
        searched, ids = 0, list[str]()
        # Lua compares neither ages nor patterns: it returns what may match, so such a step must be small.
        is_whole = where.older is None and where.younger is None and not where.error
        for step in self.walk(
            where, cursor, keys=_STEP if is_whole else _STEP // 4, enough=PAGE if is_whole else _STEP
        ):
            cursor, searched, ids = step.cursor, searched + step.searched, ids + [one.task_id for one in step.found]
            if searched >= SEARCHED or len(ids) >= PAGE:
                break
        found = self.rows(ids)
        found.sort(key=lambda task: parse_time(task.text(Field.CREATED_AT)) or 0.0, reverse=True)
        return Search(found, cursor, searched)

    def walk(self, where: Where, cursor: str = "0", *, keys: int = _STEP, enough: int = _STEP) -> Iterator[Step]:
        """Yield the tasks that match a filter, some thousand keys at a time; a task may come twice, as with `SCAN`.

        Args:
            where: The filter.
            cursor: Where to go on.
            keys: How many keys are a step, about.
            enough: How many tasks end a step.
        """
        now, left = time.time(), enough
        status = where.status or (Status.ERROR.value if where.error else "")
        texts = (self._table.words.get(status, status), where.caller, where.circle, where.contains)
        while True:
            further, searched, rows = self._find(
                keys=[], args=[cursor, key_pattern(self._prefix), keys, left, *map(to_bytes, texts), ERROR_BYTES]
            )
            found = [one for one in map(self._found, rows) if where.matches(one, now)]
            cursor = further.decode()
            yield Step(found, cursor, searched)
            if cursor == "0":
                return
            left = max(left - len(found), 0) or enough

    def _found(self, row: Sequence[bytes]) -> Found:
        key, status, caller, circle, error, at = map(to_text, row)
        task_id = key.removeprefix(self._prefix)
        status = self._table.status(status) if status else Status.PENDING
        return Found(task_id, status, caller, circle, error, parse_time(at))

    def _key(self, task_id: str) -> bytes:
        return to_bytes(self._prefix + task_id)


def _details(task_id: str, reply: Any, names: tuple[str, ...], table: Dialect) -> Details:
    if reply is None:
        return Details(task_id, problem="it was never submitted, or its details were deleted or have expired")
    if isinstance(reply, bytes):
        return Details(task_id, problem=f"its details are not a hash: {to_text(reply)}")
    count, expiry, named, others = reply
    named += [None] * (len(names) - len(named))
    fields = {name: Value(row[0], to_text(row[1])) for name, row in zip(names, named, strict=True) if row}
    if status := fields.get(Field.STATUS):
        fields[Field.STATUS] = Value(status.size, table.status(status.text))
    return Details(
        task_id,
        fields,
        tuple(sorted((table.own_name(to_text(name)), Value(size, to_text(text))) for name, size, text in others)),
        count - len(fields) - len(others),
        expiry / 1000 if expiry > 0 else None,
    )
