"""Says why a task has not begun: its place, and everything that holds it up."""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rhai_tasks.errors import TaskNotFound
from rhai_tasks.observe.recorder import Report
from rhai_tasks.protocol import Field, QueueKeys, Rule, Status, blocked_by, timestamp, to_bytes, to_text
from rhai_tasks.protocol.rules import write_rate

from .messages import tasks_of
from .queues import Queue, Queues
from .workers import read_workers

_HELD = "a worker holds it"
_DELAYED = 10_000  # delayed tasks that are searched
_FIELDS = (Field.STATUS, Field.CALLER_ID, Field.PUBLIC_KEY, Field.CIRCLE, Field.CONTEXT_ID)
_LONGEST_WINDOW = 300.0  # seconds of ended tasks that an estimate uses


@dataclass(frozen=True, slots=True)
class Why:
    """Where a task is, and why it does not run."""

    task_id: str
    status: str
    circle: str  # empty: not known
    caller: str
    place: str
    ahead: int | None  # tasks that are next before it; `None`: it is in no list
    holds: tuple[str, ...]  # all that keeps it from beginning
    seconds: float | None  # until it begins, by the last minutes; `None`: no estimate


def explain(queues: Queues, task_id: str, circle: str | None = None) -> Why:
    """Explain why a task waits.

    Args:
        queues: Queues of the server; their settings name the order of native lists.
        task_id: The task's id.
        circle: Where it was submitted to; by default its details say so, or all circles are searched.

    Raises:
        TaskNotFound: It has no details.
    """
    names = (*_FIELDS, *queues.settings.table.further)
    key = to_bytes(queues.settings.prefixes.details + task_id)
    table = queues.settings.table
    values = queues.client.hmget(key, *table.stored_names(names))
    if not queues.client.exists(key):
        raise TaskNotFound(task_id)
    texts = (None if value is None else to_text(value) for value in values)
    status, caller, public_key, own_circle, context, *further = texts
    caller = caller if caller is not None else public_key or ""
    status = table.status(status) if status else Status.PENDING
    if status in {Status.COMPLETED, Status.ERROR}:
        return Why(task_id, status, circle or own_circle or "", caller, "it has ended", None, (), None)
    candidates = [circle] if circle else list(dict.fromkeys(filter(None, (own_circle, context)))) + queues.circles()
    workers = read_workers(queues.client, queues.settings.namespace)
    for name in candidates:
        search = _Search(queues, name, task_id, caller)
        found = search.place()
        if found:
            place, ahead, holds = found
            holds += tuple(search.rules()) if status == Status.PENDING else ()
            holds += tuple(f"it waits for its prerequisites: {ids}" for ids in further if ids and place == "delayed")
            (queue,) = queues.count([name])
            if not queue.workers:
                holds += ("no worker of this project serves the circle",)
            serving = [report for report in workers if name in report.circles]
            if serving and all(report.quiet for report in serving):
                holds += ("the circle's workers are quiet: they take no tasks",)
            seconds = None if holds or ahead is None else _estimate(queue, workers, ahead)
            if status == Status.PENDING and not holds and seconds is None:
                holds += tuple(_busy(serving))
            place = "a worker runs it" if place == _HELD and status == Status.PROCESSING else place
            return Why(task_id, status, name, caller, place, ahead, holds, seconds)
    what = "an original worker has it, or its worker died" if status == Status.PROCESSING else "it is in no list"
    return Why(
        task_id, status, circle or own_circle or "", caller, what, None, ("rhai-tasks doctor may know more",), None
    )


class _Search:
    """Searches one circle for a task."""

    def __init__(self, queues: Queues, circle: str, task_id: str, caller: str) -> None:
        self._queues, self._client, self._circle = queues, queues.client, circle
        self._keys: QueueKeys = queues.keys(circle)
        self._task_id, self._caller = task_id, caller
        self._whose = Rule("limit", "caller", caller).subject
        self._held: list[str] | None = None

    def place(self) -> tuple[str, int | None, tuple[str, ...]] | None:
        """Return the task's place, how many tasks come before it, and what that place says of its wait."""
        keys, client, name = self._keys, self._client, to_bytes(self._task_id)
        native = self._queues.native_key(self._circle)
        buffered = self._tasks(self._queues.buffered(self._circle))
        if (position := client.lpos(native, name)) is not None:
            length = client.llen(native)
            before = length - 1 - position if self._queues.settings.order == "oldest" else position
            return f"{before + 1} of {length} in the native list", before + len(buffered), ()
        if self._task_id in buffered:
            before = buffered.index(self._task_id)
            return f"{before + 1} of {len(buffered)} in the queue", before, ()
        line = [parked.split(b" ", 1)[-1] for parked in client.lrange(keys.line(self._caller), 0, -1)]
        parked = self._tasks(line)
        if self._task_id in parked:
            before = parked.index(self._task_id)
            return f"{before + 1} of {len(parked)} in the line of {self._whose}", before, ()
        for task in self._queues.delayed.read(self._circle, 0, _DELAYED):
            if task.task_id == self._task_id:
                return "delayed", None, (f"delayed until {timestamp(task.due)}",)
        if self._task_id in self.held():
            return _HELD, None, ()
        return None

    def held(self) -> list[str]:
        """Return the ids of the tasks that workers hold."""
        if self._held is None:
            self._held = self._tasks(self._queues.held(self._circle))
        return self._held

    def _tasks(self, elements: Sequence[bytes]) -> list[str]:
        return tasks_of(self._client, self._keys, elements)

    def rules(self) -> Iterator[str]:
        """Yield what the circle's rules say of the task."""
        rules = {rule.field: rule for rule in self._queues.rules.read(self._circle)}
        for pause in (Rule("pause", "circle"), Rule("pause", "caller", self._caller)):
            if rule := rules.get(pause.field):
                yield f"pause of {rule.subject} since {timestamp(rule.at)} by {rule.by}: {rule.reason}".rstrip(": ")
        if rule := self._block({field: to_bytes(rule.note) for field, rule in rules.items() if rule.verb == "block"}):
            yield f"block of {rule.subject} by {rule.by}: it ends as an error once a worker fetches it"
        circle = rules.get(Rule("limit", "circle").field)
        own, each = rules.get(Rule("limit", "caller", self._caller).field), rules.get(Rule("limit", "callers").field)
        figures = [rule.quota for rule in (own, each) if rule and rule.quota]
        concurrency = next((quota.concurrency for quota in figures if quota.concurrency), None)
        rate = next((quota.rate for quota in figures if quota.rate), None)
        if circle and circle.quota:
            yield from self._reached("the circle", len(self.held()), circle.quota.concurrency)
            yield from self._slow("the circle", "circle", circle.quota.rate)
        if concurrency:
            yield from self._reached(self._whose, self._count_held(), concurrency)
        yield from self._slow(self._whose, f"caller {self._caller}", rate)

    def _block(self, blocks: dict[bytes, bytes]) -> Rule | None:
        if not blocks:
            return None
        names = self._queues.settings.table.stored_names((Field.SCRIPT, Field.SCRIPT_REF))
        texts = self._client.hmget(to_bytes(self._queues.settings.prefixes.details + self._task_id), *names)
        return blocked_by(blocks, to_bytes(self._caller), *texts)

    def _reached(self, whose: str, held: int, concurrency: int | None) -> Iterator[str]:
        if concurrency and held >= concurrency:
            yield f"limit of {whose} reached: {held} of {concurrency} run"

    def _slow(self, whose: str, bucket: str, rate: float | None) -> Iterator[str]:
        if not rate:
            return
        tokens = (self._client.hget(self._keys.buckets, to_bytes(bucket)) or b"")[:8]  # the first of its doubles
        if len(tokens) == 8 and struct.unpack(">d", tokens)[0] < 1:
            yield f"limit of {whose} reached: at most {write_rate(rate)} begin"

    def _count_held(self) -> int:
        """Count the caller's tasks that workers hold."""
        settings = self._queues.settings
        prefix, fields = settings.prefixes.details, settings.table.stored_names((Field.CALLER_ID, Field.PUBLIC_KEY))
        with self._client.pipeline(transaction=False) as pipeline:
            for task_id in self.held():
                pipeline.hmget(to_bytes(prefix + task_id), *fields)
            callers = pipeline.execute(raise_on_error=False)
        own = to_bytes(self._caller)
        return sum(
            isinstance(pair, list) and (pair[1] or b"" if pair[0] is None else pair[0]) == own for pair in callers
        )


def _busy(serving: Sequence[Report]) -> Iterator[str]:
    """Say whether no thread of a circle's workers is free."""
    threads = sum(report.threads for report in serving)
    if serving and sum(sum(report.running_by_circle.values()) for report in serving) >= threads:
        yield f"all threads of the circle's workers are busy: {threads}"


def _estimate(queue: Queue, workers: Sequence[Report], ahead: int) -> float | None:
    """Return in how many seconds a task begins before which `ahead` others do, at the rate of the last minutes."""
    rate = ended_a_second(queue.circle, workers)
    return ahead / rate if rate else None


def ended_a_second(circle: str, workers: Sequence[Report]) -> float:
    """Return how many tasks of a circle end a second, by the last ones that each worker reports."""
    total = 0.0
    for report in workers:
        ended = [task.at for task in report.recent if report.at - _LONGEST_WINDOW < task.at <= report.at]
        mine = sum(task.circle == circle and task.at in ended for task in report.recent)
        if mine:
            total += mine / max(report.at - min(ended), 1.0)
    return total
