"""What the clients for threads and for asyncio share: their options, the handles of tasks, and how long they wait."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from rhai_tasks.errors import ServerUnavailable, TaskTimeout
from rhai_tasks.protocol import DialectName, Prefixes
from rhai_tasks.settings import Settings

from .details import DetailsWriter
from .requests import POLLED_AT_ONCE, Ending, Requests, batched
from .spec import Submitted, check_seconds

if TYPE_CHECKING:  # an extra
    from rhai_tasks.signatures import SigningKey

ClientType = TypeVar("ClientType")
SenderType = TypeVar("SenderType")

_DEFAULT = Settings()
_NEW_SECONDS = 0.05  # after its submission a task is unlikely to have ended


def traceparent_if(traces: bool) -> Callable[[], str | None] | None:
    """Return the function that gives the current span's `traceparent`, or `None` without `traces`.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    if not traces:
        return None
    from rhai_tasks.observe.tracing import current_traceparent  # noqa: PLC0415  (needs an extra)

    return current_traceparent


class ClientOptions(TypedDict, total=False):
    """The options of a client, as `Client` explains them."""

    circle: str | None
    caller_id: str
    context_id: str | None
    expire_finished: float | None
    dialect: DialectName
    prefixes: Prefixes | None
    namespace: str
    traces: bool
    signing_key: "SigningKey | None"


def make_requests(
    *, prefixes: Prefixes | None = None, namespace: str = _DEFAULT.namespace, traces: bool = False, **fields: Any
) -> Requests:
    """Make the builder of a client's requests from its `ClientOptions`.

    Raises:
        ConfigurationError, ValueError: As `Requests` and `DetailsWriter`; or OpenTelemetry is not installed,
            and `traces` asks for it.
        TypeError: There is no such option.
    """
    if unknown := fields.keys() - ClientOptions.__annotations__.keys():
        raise TypeError(f"a client has no option {min(unknown)!r}")
    writer = DetailsWriter(traceparent=traceparent_if(traces), **fields)
    return Requests(details_writer=writer, prefixes=prefixes or Prefixes(), namespace=namespace)


class Handle(Generic[ClientType, SenderType]):
    """A handle for a task.

    Attributes:
        id: The task's id.
        submitted: time.monotonic() when this handle's client submitted the task; 0 if it did not.
        ending: How the task ended, once the client has waited for it.
    """

    def __init__(self, client: ClientType, sender: SenderType, task_id: str, submitted: float = 0.0) -> None:
        self._client, self._sender = client, sender
        self.id = task_id
        self.submitted = submitted
        self.ending: Ending | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


HandleType = TypeVar("HandleType", bound=Handle[Any, Any])


def group_by_id(tasks: Iterable[HandleType]) -> dict[str, list[HandleType]]:
    """Group handles by the ids of their tasks, in their order."""
    grouped: dict[str, list[HandleType]] = {}
    for task in tasks:
        grouped.setdefault(task.id, []).append(task)
    return grouped


def batch_for_poll(tasks: Mapping[str, list[HandleType]], *, every: bool) -> Iterator[list[str]]:
    """Batch the ids of the tasks that are old enough to have ended, or of `every` task."""
    oldest = math.inf if every else time.monotonic() - _NEW_SECONDS
    return batched((task_id for task_id, handles in tasks.items() if handles[0].submitted < oldest), POLLED_AT_ONCE)


class ResultTimeout:
    """The time for which a caller waits for results; it begins now.

    Args:
        timeout: Seconds, or `None`, as the caller gave it.
        retry_timeout: The client's.

    Raises:
        ValueError: `timeout` is not a number.
    """

    def __init__(self, timeout: float | None, retry_timeout: float) -> None:
        self._seconds = math.inf
        if timeout is not None:
            self._seconds = max(check_seconds("timeout", timeout, least=-math.inf, most=math.inf), 0.0)
        self._end = time.monotonic() + self._seconds
        self._retry_timeout = retry_timeout

    def seconds_left(self) -> float:
        """Return how many seconds are left, 0 at least."""
        return max(self._end - time.monotonic(), 0.0)

    def is_over(self) -> bool:
        """Whether no time is left."""
        return self._end <= time.monotonic()

    def make_error(self, task_ids: Iterable[str]) -> TaskTimeout:
        """Make the error for tasks that have not ended in time."""
        task_id, *others = task_ids
        return TaskTimeout(task_id, self._seconds, len(others))

    @contextmanager
    def limit_outage(self, task_ids: Iterable[str]) -> Iterator[None]:
        """Raise `TaskTimeout` where a poll raises `ServerUnavailable` sooner than after `retry_timeout`."""
        try:
            yield
        except ServerUnavailable as error:
            if self._seconds >= self._retry_timeout:
                raise
            raise self.make_error(task_ids) from error


def check_scripts(scripts: Iterable[Submitted]) -> Iterable[Submitted]:
    """Return the scripts.

    Raises:
        TypeError: They are a single string, each character of which would be a script.
    """
    if isinstance(scripts, str):
        raise TypeError("expected an iterable of scripts, not a single text")
    return scripts
