"""Commands that submit tasks and follow them."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click
from redis.exceptions import NoPermissionError
from rich.text import Text

from rhai_tasks.client import Client, Stats, Task
from rhai_tasks.client.answers import STATS_FIELDS, VALUE_FIELDS
from rhai_tasks.client.spec import WAYS
from rhai_tasks.engine.limits import MIB
from rhai_tasks.errors import (
    RhaiTasksError,
    ScriptError,
    ServerError,
    ServerUnavailable,
    TaskCancelled,
    TaskNotFound,
    TaskTimeout,
)
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.where import Where
from rhai_tasks.options import FileName, Seconds, TextFile, mebibytes, operations, utf8
from rhai_tasks.protocol import (
    CANCELLED,
    TERM_FIELDS,
    Field,
    Status,
)
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo

from .arguments import args_options, read_args
from .bulk import act, really_option, where_option
from .group import FAILED, circle_option, json_option, main, make_client, status_of, task_ids_argument, timeout_option
from .output import coloured, print_json, print_table, stream

if TYPE_CHECKING:  # an extra
    from rhai_tasks.signatures import SigningKey


@main.command()
@click.argument("script", callback=utf8, required=False)
@click.option("-f", "--file", type=TextFile(), help="Read the script from here; - is stdin.")
@circle_option(required=True)
@click.option("--caller-id", callback=utf8, default="", help="Public key of the caller: CALLER_ID in the script.")
@click.option("--key", type=FileName(exists=True), metavar="FILE", help="Sign it with this key; see `keys new`.")
@click.option("--context-id", callback=utf8, help="Field contextId of the details.")
@args_options
@click.option("--task-id", help="By default a new UUID.")
@click.option("--unique", is_flag=True, help="Refuse an id that was used before.")
@click.option("--delay", type=Seconds(), default=0.0, metavar="SECONDS", help="Time until workers get the task.")
@click.option("--via", type=click.Choice(WAYS), default="native", show_default=True)
@click.option(
    "--timeout", type=Seconds(), metavar="SECONDS", help="Longest run of the script; the worker may allow less."
)
@click.option("--max-operations", type=operations, help="Engine operations; the worker may allow fewer.")
@click.option("--max-memory", type=mebibytes, metavar="MIB", help="Memory of the script; the worker may allow less.")
@click.option("--start-within", type=Seconds(0.001), metavar="SECONDS", help="End it as an error if it begins later.")
@click.option("--stats", is_flag=True, help="Keep the cost of the run; with --wait, print it to stderr.")
@click.option("--prints", is_flag=True, help="Keep 1 MiB of its prints; with --wait, show them on stderr at once.")
@click.option("-w", "--wait", is_flag=True, help="Wait for the result and print it instead of the id.")
@click.option("--wait-timeout", type=Seconds(), metavar="SECONDS", help="Longest wait; by default without end.")
@click.option("--json", "as_json", is_flag=True, help="Ask for the value as JSON too, and print JSON for programs.")
@click.pass_obj
def submit(  # noqa: PLR0917  (click names them)
    settings: Settings,
    /,
    script: str | None,
    file: TextIO | None,
    circle: str,
    wait: bool,
    wait_timeout: float | None,
    max_memory: int | None,
    as_json: bool,
    prints: bool,
    arg: tuple[str, ...],
    args: str | None,
    **options: Any,
) -> None:
    """Submit a script, and print the task's id.

    SCRIPT is the text; without it, the script comes from a file or from stdin.
    """
    if script is not None and file is not None:
        raise click.UsageError("Give a SCRIPT or a --file, not both.")
    if script is None:
        if file is None and sys.stdin.isatty():
            raise click.UsageError("Give a SCRIPT, a --file, or a script on stdin.")
        script = (file or click.open_file("-", encoding="utf-8")).read()
    if not script.strip():  # a shell's variable without a value, or a file
        raise click.UsageError("The script is empty.")
    if options["task_id"] == "":
        raise click.UsageError("--task-id is empty: leave it out for a new UUID.")
    options["args"] = read_args(arg, args)
    with make_client(settings, circle=circle, signing_key=_read_key(options.pop("key"))) as client:
        try:
            memory = None if max_memory is None else max_memory * MIB
            keep = MIB if prints else None
            options["caller_id"] = options["caller_id"] or None  # then it is the key's
            task = client.submit(script, max_memory=memory, json=as_json, keep_prints=keep, **options)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
        if wait:
            for line in task.prints(wait_timeout) if prints else ():
                echo(line, err=True)
            _print_outcomes(client, [task], wait_timeout, as_json=as_json, asked=as_json or options["stats"])
        elif as_json:
            print_json({"taskId": task.id})
        else:
            echo(task.id)


def _read_key(file: Path | None) -> "SigningKey | None":
    if file is None:
        return None
    from rhai_tasks.signatures import SigningKey  # noqa: PLC0415  (an extra)

    return SigningKey.read(file)


@main.command()
@task_ids_argument
@json_option
@click.pass_obj
def status(settings: Settings, /, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Show the status of tasks, their terms, and output or error."""
    failures: list[RhaiTasksError] = []
    with make_client(settings) as client:
        tasks = [_details(client, task_id, failures) for task_id in task_ids]
    if as_json:
        print_json(tasks)
    elif len(failures) < len(tasks):
        print_table(map(_status_row, tasks), "task", "status", "updated", "output or error")
        if rows := [row for details in tasks for row in _term_rows(details)]:
            echo()
            print_table(rows, "task", "term or answer", "value")
    if not as_json:
        _print_errors(failures)
    _exit_if_any(failures)


def _details(client: Client, task_id: str, failures: list[RhaiTasksError]) -> dict[str, str]:
    """Read a task's details; for a task without details return the reason, and add it to `failures`."""
    try:
        return {"taskId": task_id, **client.task(task_id).details()}
    except (TaskNotFound, ServerError) as error:
        failures.append(error)
        return {"taskId": task_id, "status": "unknown", "error": str(error)}


def _status_row(details: Mapping[str, str]) -> tuple[str | Text, ...]:
    return (
        details["taskId"],
        coloured(details.get(Field.STATUS, Status.PENDING)),
        details.get(Field.UPDATED_AT, details.get(Field.CREATED_AT, "")),
        details.get(Field.OUTPUT, details.get(Field.ERROR, "")),
    )


def _term_rows(details: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each term of a task, and for each answer but its prints, which `logs` shows."""
    for name in dict.fromkeys((Field.SCRIPT_REF, *TERM_FIELDS, *VALUE_FIELDS, *STATS_FIELDS)):
        if name in details and name != Field.STATUS:
            yield details["taskId"], name, details[name]


def _print_errors(failures: Iterable[RhaiTasksError]) -> None:
    for error in failures:
        echo(f"Error: {error}", err=True)


def _exit_if_any(failures: Iterable[RhaiTasksError]) -> None:
    """End the command with the highest exit status of these failures; return if there are none."""
    if statuses := [status_of(error) for error in failures]:
        sys.exit(max(statuses))


@main.command()
@task_ids_argument
@timeout_option
@json_option
@click.pass_obj
def wait(settings: Settings, task_ids: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Wait until tasks have ended; print their outputs in order."""
    with make_client(settings) as client:
        _print_outcomes(client, [client.task(task_id) for task_id in task_ids], timeout, as_json=as_json)


@main.command()
@click.argument("task_id")
@json_option
@click.pass_obj
def result(settings: Settings, task_id: str, as_json: bool) -> None:
    """Print the output of a task; status 4 if it has not ended."""
    with make_client(settings) as client:
        _print_outcomes(client, [client.task(task_id)], 0.0, as_json=as_json)


def _print_outcomes(
    client: Client, tasks: list[Task], timeout: float | None, *, as_json: bool, asked: bool = False
) -> None:
    """Wait for tasks, print how each ended in the order given, and end the command if any failed.

    `asked`: for the value or the stats, too.
    """
    late = _wait_for(client, tasks, timeout)
    outcomes = [(task.id, late.get(task.id) or _outcome(task)) for task in tasks]
    if as_json:
        print_json(
            [
                _outcome_as_json(task_id, outcome) | (_answers_as_json(task) if asked else {})
                for task, (task_id, outcome) in zip(tasks, outcomes, strict=True)
            ]
        )
    else:
        for task, (task_id, outcome) in zip(tasks, outcomes, strict=True):
            is_failure = isinstance(outcome, RhaiTasksError)
            echo(f"{task_id}: {outcome}" if is_failure and len(tasks) > 1 else outcome, err=is_failure)
            if asked:
                _print_stats(task)
    _exit_if_any(outcome for _, outcome in outcomes if isinstance(outcome, RhaiTasksError))


def _wait_for(client: Client, tasks: list[Task], timeout: float | None) -> dict[str, RhaiTasksError]:
    """Wait until tasks have ended; return the errors of those that have not, by id.

    Raises:
        TaskTimeout, ServerUnavailable: The one task of a list of one has not ended.
    """
    waiting = {task.id for task in tasks}
    try:
        for task in client.as_completed(tasks, timeout=timeout, progress=len(tasks) > 1):
            waiting.discard(task.id)
    except (TaskTimeout, ServerUnavailable) as error:
        if len(tasks) == 1:
            raise
        return dict.fromkeys(waiting, error)
    return {}


def _outcome(task: Task) -> str | RhaiTasksError:
    """Return the output of a task that has ended, or the error that tells why there is none."""
    try:
        return task.result()
    except RhaiTasksError as error:
        return error


def _answers_as_json(task: Task) -> dict[str, Any]:
    """Return the value and the stats of a task, if its submission asked for them."""
    answers: dict[str, Any] = {}
    if task.ending is None:
        return answers
    with suppress(RhaiTasksError):
        answers["result"] = task.value()
    with suppress(RhaiTasksError):
        answers["stats"] = _stats_as_json(task.stats())
    return answers


def _stats_as_json(stats: Stats) -> dict[str, Any]:
    return {
        Field.STARTED_AT: stats.started_at and str(stats.started_at),
        Field.RUN_SECONDS: stats.run_seconds,
        Field.OPERATIONS: stats.operations,
        Field.PEAK_MEMORY: stats.peak_memory,
        Field.DELIVERIES: stats.deliveries,
        Field.WORKER_ID: stats.worker_id,
    }


def _print_stats(task: Task) -> None:
    try:
        stats = _stats_as_json(task.stats())
    except RhaiTasksError as error:
        echo(f"no stats: {error}", err=True)
    else:
        echo(", ".join(f"{name} {value}" for name, value in stats.items() if value is not None), err=True)


def _outcome_as_json(task_id: str, outcome: str | RhaiTasksError) -> dict[str, str]:
    match outcome:
        case TaskCancelled():
            return {"taskId": task_id, "status": Status.ERROR, "error": CANCELLED}
        case ScriptError():
            kind = {Field.ERROR_KIND: outcome.kind} if outcome.kind else {}
            return {"taskId": task_id, "status": Status.ERROR, "error": str(outcome), **kind}
        case RhaiTasksError():
            return {"taskId": task_id, "status": "unknown", "error": str(outcome)}
        case output:
            return {"taskId": task_id, "status": Status.COMPLETED, "output": output}


@main.command()
@click.argument("task_id")
@click.option("-f", "--follow", is_flag=True, help="Go on until the task has ended.")
@click.pass_obj
def logs(settings: Settings, task_id: str, follow: bool) -> None:
    """Print the lines that a task's script has printed.

    It must have been submitted with --prints.
    """
    with make_client(settings) as client, suppress(*(() if follow else (TaskTimeout,))), stream():
        for line in client.task(task_id).prints(None if follow else 0.0):
            echo(line)


@main.command()
@click.argument("task_ids", nargs=-1, metavar="[TASK_ID]...")
@where_option(required=False)
@really_option
@json_option
@click.pass_obj
def cancel(settings: Settings, task_ids: tuple[str, ...], where: Where | None, yes: bool, as_json: bool) -> None:
    """Cancel tasks that wait or run.

    Cancels named tasks at once, those of --where with --yes. Status 1 if a named task had ended already.
    """
    if bool(task_ids) == (where is not None):
        raise click.UsageError("Name tasks, or choose them by --where.")
    if where is not None:
        act(settings, "cancel", where, yes=yes, as_json=as_json)
        return
    cancelled: dict[str, bool | None] = {}
    failures: list[RhaiTasksError] = []
    with make_client(settings) as client:
        for task_id in task_ids:
            try:
                cancelled[task_id] = client.cancel(task_id)
            except (TaskNotFound, ServerError) as error:
                cancelled[task_id] = None
                failures.append(error)
    _note_cancels(settings, [task_id for task_id, done in cancelled.items() if done])
    if as_json:
        print_json(cancelled)
    else:
        for task_id, done in cancelled.items():
            if done is not None:
                echo(f"{task_id}: {'cancelled' if done else 'had ended already'}")
        _print_errors(failures)
    _exit_if_any(failures)
    if not all(cancelled.values()):
        sys.exit(FAILED)


def _note_cancels(settings: Settings, task_ids: list[str]) -> None:
    if not task_ids:
        return
    with Queues(settings) as queues, suppress(NoPermissionError):  # a client may cancel, and not write the log
        queues.note_cancels(task_ids)
