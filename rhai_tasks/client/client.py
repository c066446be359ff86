"""The client for threads."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, Unpack

from rhai_tasks.errors import ScriptError, TaskCancelled
from rhai_tasks.protocol import ScriptRef, Status
from rhai_tasks.settings import Settings

from .answers import Stats
from .base import ClientOptions, Handle, ResultTimeout, batch_for_poll, check_scripts, group_by_id, make_requests
from .listener import Waiter
from .prints import PrintsReader
from .progress import Progress
from .requests import Ending, unwrap
from .scripts import Scripts
from .sender import Sender
from .spec import Submitted, TaskOptions, TaskSpec

_DEFAULT = Settings()


class Task(Handle["Client", Sender]):
    """A handle for a task, which any client may have submitted. `id` is the task's id."""

    def status(self) -> Status:
        """Return the task's status, as the server has it now.

        Raises:
            TaskNotFound: The task has no details.
            TaskMalformed: Another program gave the task a status that docs/protocol.md does not have.
            ServerUnavailable: The server has not answered for the client's `retry_timeout`.
        """
        return self._sender.send(self._sender.requests.status(self.id))

    def details(self, *names: str) -> dict[str, str]:
        """Return the fields of the task's details, as the server has them now; docs/protocol.md lists the fields.

        Args:
            names: Names of the fields; by default all. A field that the task does not have is omitted.

        Raises:
            TaskNotFound: The task has no details, or none of the fields.
            ServerUnavailable: The server has not answered for the client's `retry_timeout`.
        """
        return self._sender.send(self._sender.requests.details(self.id, names))

    def result(self, timeout: float | None = None) -> str:
        """Wait until the task has ended, and return its output.

        Args:
            timeout: Seconds; `None` waits without end, 0 asks the server once. The server gets a second to answer in
                any case.

        Raises:
            ScriptError: The task ended as an error.
            TaskCancelled: The task was cancelled.
            TaskTimeout: The task has not ended in time; it goes on. If the server did not answer, `__cause__` is that
                error.
            TaskNotFound: The task has no details.
            ServerUnavailable: The server has not answered for the client's `retry_timeout`, if `timeout` is as long.
            ClientClosed: The client was closed.
            ValueError: `timeout` is not a number of seconds.
        """
        if self.ending is None:
            for _ in self._client.as_completed([self], timeout=timeout):
                pass
        assert self.ending is not None  # noqa: S101  (as_completed has set it, or raised)
        return unwrap(self.id, self.ending)

    def value(self, timeout: float | None = None) -> Any:
        """Wait until the task has ended, and return its value as Python reads JSON.

        Args:
            timeout: As of `result`.

        Raises:
            NotAsked: The task was submitted without `json=True`, or an original worker ran it.
            RhaiTasksError, ValueError: As for `result`.
        """
        self.result(timeout)
        return self._sender.send(self._sender.requests.value(self.id))

    def stats(self, timeout: float | None = None) -> Stats:
        """Wait until the task has ended, however it ends, and return what its run took.

        Args:
            timeout: As of `result`.

        Raises:
            NotAsked: The task was submitted without `stats=True`, or an original worker ran it.
            TaskTimeout, TaskNotFound, ServerUnavailable, ClientClosed, ValueError: As for `result`.
        """
        with suppress(ScriptError, TaskCancelled):
            self.result(timeout)
        return self._sender.send(self._sender.requests.stats(self.id))

    def prints(self, timeout: float | None = None) -> Iterator[str]:
        """Yield the lines that the script prints, those printed before first, until the task has ended.

        Lines come within a second. If a worker process dies with the task, the lines of the next run follow.

        Args:
            timeout: Seconds for all of them; `None` waits without end.

        Raises:
            NotAsked: The task was submitted without `keep_prints`.
            TaskTimeout: The task has not ended in time; it goes on.
            TaskNotFound, ServerUnavailable, ServerError, ClientClosed, ValueError: As for `result`.
        """
        reader, end = PrintsReader(self.id, self._sender.requests.key(self.id)), ResultTimeout(timeout, 0.0)
        while True:
            yield from self._sender.send(reader.poll(), end.seconds_left())
            if reader.has_ended:
                return
            if end.is_over():
                raise end.make_error([self.id])
            time.sleep(min(reader.pause, end.seconds_left()))

    def cancel(self) -> bool:
        """Cancel the task; see `Client.cancel`."""
        return self._client.cancel(self.id)


class Client:
    """Submits tasks and gets their results. Any number of threads may use one client, and forks of the process too.

    Args:
        url (str): `redis://`, `rediss://` (TLS), `unix://`, or `redis+sentinel://host:port,host:port/service/db`.
        retry_timeout (float): Seconds for which a request is repeated while the server is away, 30 by default. A single
            try gets at least a second to be answered.
        circle (str | None): Public key of the circle whose workers run the tasks, where a task does not name one.
        caller_id (str): Public key of the caller: `CALLER_ID` in scripts. Empty by default.
        context_id (str | None): Field `contextId` of the details. Scripts see the worker's own circle instead.
        expire_finished (float | None): Seconds after its end at which a task's details expire, from a millisecond to a
            hundred years; 0 keeps them. `None`, the default, leaves it to the worker, which keeps them by default.
        dialect (DialectName): Protocol of the workers, `rhai` by default; see docs/hero.md.
        prefixes (Prefixes | None): Prefixes of the native keys, the same as the worker's.
        namespace (str): Prefix of the dramatiq keys, the same as the worker's.
        traces (bool): Write the current OpenTelemetry span into each task; a worker with `--traces` joins its trace.
        signing_key (SigningKey | None): Signs each task (`rhai_tasks.signatures`); the key's public half is the caller.
            The signature of a delayed task counts from the moment when it is due.

    Raises:
        ConfigurationError: The URL cannot be read, or `traces`, and OpenTelemetry is not installed. The client connects
            to nothing before its first request.
        ValueError: `expire_finished` or `retry_timeout` is not such a number of seconds; or `caller_id` is not the
            key's.
    """

    def __init__(
        self, url: str = _DEFAULT.redis_url, *, retry_timeout: float = 30.0, **options: Unpack[ClientOptions]
    ) -> None:
        self._requests = make_requests(**options)
        self._sender = Sender(url, self._requests, retry_timeout)
        self.scripts = Scripts(self._sender, self._requests.namespace)
        """The stored scripts of the server."""
        self._waiter = Waiter(url, self._requests, self._sender.retry_timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Disconnect. Threads that wait for results get `ClientClosed`."""
        self._sender.close()
        self._waiter.close()

    def submit(self, script: str | ScriptRef, **options: Unpack[TaskOptions]) -> Task:
        """Submit a script; a request whose reply got lost is repeated, and has its effect once.

        Args:
            script (str | ScriptRef): Rhai source; or a stored script, as its reference or the text `@name` or
                `sha256:...`.
            circle (str | None): Circle whose workers run the task; by default the client's, as the next two.
            caller_id (str | None): Public key of the caller.
            context_id (str | None): Field `contextId` of the details.
            task_id (str | None): Any text; by default a new UUID. A task with an id that was used before runs again. If
                the earlier task still waits, the new one replaces it; if it runs, its outcome is dropped.
            fields (Mapping[str, str] | None): Further fields of the details, such as `replyToQueue`.
            unique (bool): Refuse an id that was used before.
            delay (float): Seconds until `rhai-bridge` or `rhai-worker` hands the task over, at most a hundred years.
                The server keeps the task meanwhile, so that it survives restarts of both.
            via (Via): `native`, the default: by the circle's list, which any worker may serve. `dramatiq`: as a message
                in dramatiq's queue for workers of this project, so that it overtakes the tasks in the list. `urgent`:
                as such a message, at the head of dramatiq's queue.
            timeout (float | None): Seconds for which the script may run, from a millisecond; a lower limit of the
                worker holds, as for the next two. `None`: the worker's. How long to wait is an argument of `result`.
            max_operations (int | None): Operations of the engine.
            max_memory (int | None): Bytes that the script may hold at once.
            start_before (datetime | float | None): A time with its zone, or seconds since the epoch. A task that has
                not begun by then, on the server's clock, does not run: it ends as an error, `expired before it began`.
            start_within (float | None): The same as seconds from the submission on, from a millisecond.
            json (bool): Keep the value as JSON as well, for `Task.value`.
            stats (bool): Keep what the run took, for `Task.stats`.
            materialize (bool): Write the source of a stored script into the task as well, for an original worker.
            keep_prints (int | None): Bytes of what the script prints that are kept, for `Task.prints`; at most 16 MiB.
            args (Mapping[str, Any] | None): The constant `ARGS`, a map: values by name, as docs/args.md lists them.

        Raises:
            TaskExists: `unique`, and the id is taken; or a message in the queue has the same id, and the task waits
                already or is to be a delayed message.
            QueueFull: As many tasks wait as an operator's limit allows.
            ScriptNotFound: No script is stored under the name.
            ValueError: No circle is named, a field is one that the client writes itself, `via` is none of the three, or
                `delay` or a limit is not such a number. Or no script can hold a number in `args`.
            TypeError: A value in `args` has no JSON form.
            ServerUnavailable: The server has not answered for `retry_timeout`; the task may have been submitted.
            ClientClosed: The client was closed.
        """
        (batch,) = self._requests.submit([TaskSpec(script, **options)])
        self._sender.submit(batch)
        return Task(self, self._sender, batch.task_ids[0], time.monotonic())

    def submit_many(self, scripts: Iterable[Submitted], *, progress: bool = False) -> list[Task]:
        """Submit scripts in few round trips, up to 500 tasks in each; all tasks of a round trip are submitted, or none.

        Args:
            scripts: Scripts, or a `TaskSpec` for each that has options of its own. An iterator is read as it goes.
            progress: Show a progress bar, if stderr is a terminal.

        Raises:
            TaskExists, QueueFull, ValueError, ServerUnavailable: As for `submit`; tasks of earlier round trips are
                submitted.
            TypeError: A script is not a string.
        """
        tasks: list[Task] = []
        with Progress("submitted", scripts, shown=progress) as bar:
            for batch in self._requests.submit(check_scripts(scripts)):
                self._sender.submit(batch)
                now = time.monotonic()
                tasks += [Task(self, self._sender, task_id, now) for task_id in batch.task_ids]
                bar.advance(len(batch.task_ids))
        return tasks

    def as_completed(
        self, tasks: Iterable[Task], *, timeout: float | None = None, progress: bool = False
    ) -> Iterator[Task]:
        """Yield tasks as they end; `result` of a task that was yielded returns or raises at once.

        Args:
            tasks: Handles of this client.
            timeout: Seconds for all tasks; `None` waits without end, 0 asks the server once about each.
            progress: Show a progress bar, if stderr is a terminal.

        Raises:
            TaskTimeout: Some tasks have not ended in time; they go on.
            ServerUnavailable, ClientClosed, ValueError: As for `Task.result`.
        """
        handles = group_by_id(tasks)
        with Progress("ended", handles, shown=progress) as bar:
            for task_id, ending in self._endings(handles, ResultTimeout(timeout, self._sender.retry_timeout)):
                for task in handles[task_id]:
                    task.ending = ending
                    yield task
                bar.advance(1)

    def cancel(self, task_id: str) -> bool:
        """Cancel a task: it ends as an error, `cancelled`, and `result` raises `TaskCancelled`.

        A waiting task is never run, and a running script is stopped inside the engine. Only workers of this project do
        so; the original worker knows no cancels.

        Returns:
            `False` if the task had ended already.

        Raises:
            TaskNotFound: The task has no details.
            ServerUnavailable: The server has not answered for `retry_timeout`.
        """
        return self._sender.send(self._requests.cancel(task_id))

    def task(self, task_id: str) -> Task:
        """Return a handle for any task, also for one that another client submitted."""
        return Task(self, self._sender, task_id)

    def _endings(self, handles: dict[str, list[Task]], timeout: ResultTimeout) -> Iterator[tuple[str, Ending]]:
        left = set(handles)
        for some in batch_for_poll(handles, every=timeout.is_over()):
            with timeout.limit_outage(left):
                endings = self._sender.send(self._requests.outcomes(some), timeout.seconds_left())
            left -= endings.keys()
            yield from endings.items()
        if left and timeout.is_over():
            raise timeout.make_error(left)
        if left:
            yield from self._waiter.wait_for(left, timeout)
