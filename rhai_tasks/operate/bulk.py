"""Acts on all tasks that match a filter: finds them first, so that a person sees the number, then acts in steps."""

from collections.abc import Generator, Iterable
from typing import Any, Literal, get_args

from rhai_tasks.client import Client, TaskSpec
from rhai_tasks.client.requests import batched
from rhai_tasks.connection.scripts import load_script
from rhai_tasks.errors import ConfigurationError, ServerError, TaskNotFound
from rhai_tasks.protocol import REPEATED_TERMS, Field, Status, is_utf8, to_bytes, to_text

from .queues import Queues
from .tasks import Tasks
from .where import Found, Where

Verb = Literal["cancel", "resubmit", "delete"]
VERBS: tuple[Verb, ...] = get_args(Verb)

MOST = 1_000_000
"""How many tasks one action takes."""

_STEP = 100  # tasks
_SCRIPT = (Field.SCRIPT, Field.SCRIPT_REF)
_COPIED = (*_SCRIPT, Field.CALLER_ID, Field.PUBLIC_KEY, Field.CONTEXT_ID, Field.CIRCLE, Field.STATUS, *REPEATED_TERMS)


class Bulk:
    """One action on many tasks.

    `cancel` takes tasks that have not ended, the others take tasks that have. `resubmit` submits a copy of each under a
    new id, without its time to begin and without its signature. `delete` deletes the details.

    Args:
        verb: What is done.
        where: The filter, for `find`.
        queues: Queues of the server.
        client: Client of the same server.

    Raises:
        ConfigurationError: The filter means every task.
    """

    def __init__(self, verb: Verb, where: Where, queues: Queues, client: Client) -> None:
        if where.is_any:
            raise ConfigurationError(
                "the filter means every task: name a caller, a circle, a status or an age at least"
            )
        self.verb, self.where = verb, where
        self.task_ids: dict[str, None] = {}  # in the order in which they were found
        self.searched = 0  # keys
        self.done = 0
        self.skipped = 0  # ended, begun or deleted since, or without what is needed
        self._queues, self._client = queues, client
        self._prefix = queues.settings.prefixes.details
        self._forget = load_script(queues.client, __package__, "forget", queues.settings.table)

    @property
    def is_full(self) -> bool:
        """Whether there may be more tasks than it takes."""
        return len(self.task_ids) >= MOST

    def find(self) -> Generator[None, None, None]:
        """Find the tasks; yields after each step."""
        for step in Tasks(self._queues.settings, self._queues).walk(self.where):
            self.task_ids.update((one.task_id, None) for one in step.found if self._takes(one))
            self.searched += step.searched
            yield
            if self.is_full:
                return

    def _takes(self, found: Found) -> bool:
        has_ended = found.status in {Status.COMPLETED, Status.ERROR}
        return has_ended != (self.verb == "cancel")

    def act(self) -> Generator[None, None, None]:
        """Act on the tasks that were found, as far as they are still as they were; yields after each step.

        Raises:
            RhaiTasksError: A submission was refused, or the server does not answer; what is done stays done.
        """
        for task_ids in batched(self.task_ids, _STEP):
            done = {"cancel": self._cancel, "resubmit": self._resubmit, "delete": self._delete}[self.verb](task_ids)
            self.done += done
            self.skipped += len(task_ids) - done
            yield

    def note(self) -> None:
        """Note in the log what was done."""
        self._queues.note(self.where.circle, f"{self.verb} {self.done} task(s) where {self.where}")

    def _cancel(self, task_ids: Iterable[str]) -> int:
        done = 0
        for task_id in task_ids:
            try:
                done += self._client.cancel(task_id)
            except (TaskNotFound, ServerError):  # gone, or its details key is not a hash
                continue
        return done

    def _delete(self, task_ids: Iterable[str]) -> int:
        return int(self._forget(keys=list(map(self._key, task_ids))))

    def _resubmit(self, task_ids: Iterable[str]) -> int:
        with self._queues.client.pipeline(transaction=False) as pipeline:
            for task_id in task_ids:
                pipeline.hmget(self._key(task_id), *_COPIED)
            replies = pipeline.execute(raise_on_error=False)
        specs = [spec for reply in replies if isinstance(reply, list) and (spec := _copy(reply))]
        return len(self._client.submit_many(specs))

    def _key(self, task_id: str) -> bytes:
        return to_bytes(self._prefix + task_id)


def _copy(values: list[Any]) -> TaskSpec | None:
    """Make a new task of the fields `_COPIED`; `None` if one of them cannot be submitted, or the task runs again."""
    fields = {name: to_text(value) for name, value in zip(_COPIED, values, strict=True) if value is not None}
    script = fields.get(Field.SCRIPT) or fields.get(Field.SCRIPT_REF)
    circle = fields.get(Field.CIRCLE) or fields.get(Field.CONTEXT_ID)
    if not script or not circle or fields.get(Field.STATUS) not in {Status.COMPLETED, Status.ERROR}:
        return None
    if not all(map(is_utf8, fields.values())):
        return None
    return TaskSpec(
        script,
        circle=circle,
        caller_id=fields.get(Field.CALLER_ID, fields.get(Field.PUBLIC_KEY, "")),
        context_id=fields.get(Field.CONTEXT_ID),
        fields={name: fields[name] for name in REPEATED_TERMS if name in fields},
    )
