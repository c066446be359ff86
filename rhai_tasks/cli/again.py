"""Commands that run tasks of the server once more, here, and change nothing there."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from typing import Any, NamedTuple
from zlib import crc32

import click

from rhai_tasks.client import Client
from rhai_tasks.current import CurrentTask, running
from rhai_tasks.engine import CancelToken, Engine, last_use
from rhai_tasks.errors import RhaiError, ScriptNotFound, TaskMalformed, TaskNotFound
from rhai_tasks.factory import load_engine
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.tasks import Tasks
from rhai_tasks.operate.where import Where
from rhai_tasks.options import WholeNumber
from rhai_tasks.protocol import (
    CANCELLED,
    DETAIL_FIELDS,
    EXPIRED,
    TERM_FIELDS,
    Field,
    Outcome,
    Status,
    Task,
    Terms,
    completed,
    failed,
    parse_task,
    parse_terms,
    to_bytes,
)
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo
from rhai_tasks.worker.own_limits import OwnLimits

from .group import FAILED, Command, circle_option, json_option, main, make_client
from .output import brief, print_json, print_table, stream
from .shell import interruptible
from .tail import changes

_NOT_OF_THE_SCRIPT = {CANCELLED, EXPIRED}
"""Errors that do not come from the script."""


class Percent(click.ParamType[float]):
    """The type of an option that is a percentage, such as `1%`."""

    name = "percent"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a percentage above 0 and up to 100."""
        try:
            percent = float(str(value).removesuffix("%"))
        except ValueError:
            percent = 0.0
        if not 0 < percent <= 100:
            text = f"{str(value)!a} is not a percentage: expected a number above 0, up to 100, such as 1%."
            self.fail(text, param, ctx)
        return percent


class Setup(NamedTuple):
    """How tasks are run."""

    engine: Engine
    error_format: str


class Repetition(NamedTuple):
    """A task that ran once more."""

    task_id: str
    then: Outcome | None  # `None`: it had not ended
    now: Outcome
    lacks_input: bool  # it is a pipeline's step that uses INPUT, which only the message had
    seconds: float
    operations: int
    peak_memory: int

    @property
    def is_same(self) -> bool:
        """Whether status and text agree to the letter."""
        return self.then is not None and (self.then.status, self.then.text) == (self.now.status, self.now.text)


def _options(command: Command) -> Command:
    for option in (
        click.option(
            "--engine", metavar="MODULE:FACTORY", help="Function that returns the engine, as for rhai-worker."
        ),
        click.option("--error-format", type=click.Choice(["display", "debug"]), default="display", show_default=True),
        circle_option(required=False),
        json_option,
    ):
        command = option(command)
    return command


@main.command()
@click.argument("task_id")
@_options
@click.pass_obj
def replay(
    settings: Settings, task_id: str, engine: str | None, error_format: str, circle: str | None, as_json: bool
) -> None:
    """Run a task once more here, as it was.

    It has its caller, arguments and limits. Prints the outcome, and on stderr the cost of the run and whether the
    outcome is the recorded one. The task on the server stays as it is; host functions of --engine have their effects
    again.
    """
    with make_client(settings) as client:
        details = client.task(task_id).details()
        try:
            again = _repeat(client, _make_setup(engine, error_format), task_id, details, circle)
        except TaskMalformed as error:
            raise click.UsageError(f"{error}.") from error
    if as_json:
        print_json(_as_json(again))
    else:
        echo(again.now.text, err=again.now.status is Status.ERROR)
        recorded = "not ended" if again.then is None else "the same" if again.is_same else again.then.text
        took = f"{again.seconds:.6f} s, {again.operations:,} operations, {again.peak_memory:,} bytes"
        echo(f"{took}; recorded outcome: {recorded}", err=True)
    if again.now.status is Status.ERROR:
        sys.exit(FAILED)


@main.command()
@_options
@click.option("-n", "--count", type=WholeNumber(1), default=1000, show_default=True, help="Most tasks to compare.")
@click.option(
    "--shadow",
    type=Percent(),
    metavar="PERCENT",
    help="Compare this share of the tasks that end from now on, such as 1%, until Ctrl-C or --count.",
)
@click.pass_obj
def compare(
    settings: Settings,
    engine: str | None,
    error_format: str,
    circle: str | None,
    count: int,
    shadow: float | None,
    as_json: bool,
) -> None:
    """Run ended tasks once more here, and compare the outcomes.

    For a new version of the engine, or before this project's workers replace the original one: texts must agree to the
    letter. Scripts that read a clock or draw random numbers differ. Steps of pipelines that use INPUT are left out.
    Status 1 if any outcome differs.
    """
    setup = _make_setup(engine, error_format)
    compared, different = 0, []
    with make_client(settings) as client, Queues(settings) as queues:
        tasks = Tasks(settings, queues)
        task_ids = _ended(tasks) if shadow is None else _ending(settings, shadow)
        usable = ((task_id, details) for task_id in task_ids if (details := _usable(client, task_id, circle or "")))
        with nullcontext() if shadow is None else stream():
            for task_id, details in islice(usable, count):
                again = _repeat(client, setup, task_id, details, circle)
                if again.lacks_input and not again.is_same:
                    continue
                compared += 1
                if again.is_same:
                    continue
                different.append(again)
                if shadow is not None:
                    _show_difference(again, as_json=as_json)
    if as_json:
        print_json({"compared": compared, "different": list(map(_as_json, different))})
    else:
        if different and shadow is None:
            rows = ((one.task_id, one.then.text if one.then else "", one.now.text) for one in different)
            print_table(rows, "task", "recorded", "here")
        echo(f"{compared:,} task(s) compared, {len(different):,} differ.")
    if different:
        sys.exit(FAILED)


def _show_difference(again: Repetition, *, as_json: bool) -> None:
    if as_json:
        print_json(_as_json(again))
    else:
        recorded = again.then.text if again.then else ""
        echo(f"{brief(again.task_id)}: recorded {brief(recorded)}, here {brief(again.now.text)}")
    sys.stdout.flush()


def _ended(tasks: Tasks) -> Iterator[str]:
    """Yield the ids of tasks that have ended."""
    for status in (Status.COMPLETED, Status.ERROR):
        cursor = ""
        while cursor != "0":
            found = tasks.search(cursor or "0", Where(status=status.value))
            cursor = found.cursor
            yield from (task.task_id for task in found.tasks)


def _ending(settings: Settings, percent: float) -> Iterator[str]:
    """Yield the ids of a part of the tasks that end, as workers of this project publish them. Ids choose the part."""
    with changes(settings) as found:
        for task_id, state in found:
            if isinstance(state, Outcome) and crc32(to_bytes(task_id)) < percent / 100 * 2**32:
                yield task_id


def _usable(client: Client, task_id: str, circle: str) -> dict[str, str] | None:
    """Return the details of a task whose script is known and has ended; `None` also if it names another circle."""
    try:
        details = client.task(task_id).details()
        parse_task(task_id, _values(details, DETAIL_FIELDS))
        parse_terms(_values(details, TERM_FIELDS))
    except (TaskNotFound, TaskMalformed):
        return None
    is_elsewhere = circle and (details.get(Field.CIRCLE) or details.get(Field.CONTEXT_ID) or circle) != circle
    return None if is_elsewhere or details.get(Field.ERROR) in _NOT_OF_THE_SCRIPT else details


def repetition(
    client: Client, setup: Setup, task_id: str, details: Mapping[str, str], circle: str | None
) -> tuple[str, Callable[[CancelToken], Repetition]]:
    """Return a task's script, and a function that runs it as a worker with this setup would.

    Raises:
        TaskMalformed: It has no script, or a field that cannot be read.
    """
    task = parse_task(task_id, _values(details, DETAIL_FIELDS))
    terms = parse_terms(_values(details, TERM_FIELDS))
    if task.script_ref is not None:
        try:
            task = task._replace(script=client.scripts.get(task.script_ref))
        except (ScriptNotFound, ValueError) as error:
            raise TaskMalformed(str(error)) from error
    context = circle or details.get(Field.CIRCLE) or task.context_id or ""
    return task.script, lambda cancel: _run(setup, task, terms, context, _recorded(details), cancel)


def _repeat(client: Client, setup: Setup, task_id: str, details: Mapping[str, str], circle: str | None) -> Repetition:
    _, run = repetition(client, setup, task_id, details, circle)
    return interruptible(run)


def _run(setup: Setup, task: Task, terms: Terms, context: str, then: Outcome | None, cancel: CancelToken) -> Repetition:
    engine, error_format = setup
    limits = OwnLimits.lower(terms, engine.limits, engine.limits.timeout)
    evaluate = engine.run_json if terms.json else engine.run
    token = running.set(CurrentTask(task.id, context, task.caller_id, task.context_id, 1))
    lacks_input = False
    began = time.perf_counter()
    try:
        ended = evaluate(
            task.script,
            constants={"CONTEXT_ID": context, "CALLER_ID": task.caller_id},
            timeout=limits.timeout,
            max_operations=limits.max_operations,
            max_memory=limits.max_memory,
            cancel=cancel,
            args=terms.args,
        )
        now = completed(ended) if isinstance(ended, str) else completed(*ended)
    except RhaiError as error:
        lacks_input = str(error).startswith("Variable not found: INPUT ")
        now = failed(limits.name_in(error, error.debug_text if error_format == "debug" else str(error)), error.kind)
    except ValueError as error:  # of the arguments
        now = failed(str(error), "Malformed")
    finally:
        running.reset(token)
    return Repetition(task.id, then, now, lacks_input, time.perf_counter() - began, *last_use())


def _recorded(details: Mapping[str, str]) -> Outcome | None:
    status = details.get(Field.STATUS)
    if status == Status.COMPLETED:
        return completed(details.get(Field.OUTPUT, ""))
    if status == Status.ERROR:
        return failed(details.get(Field.ERROR, ""), details.get(Field.ERROR_KIND, ""))
    return None


def _values(details: Mapping[str, str], names: tuple[str, ...]) -> list[bytes | None]:
    return [to_bytes(details[name]) if name in details else None for name in names]


def _make_setup(engine: str | None, error_format: str) -> Setup:
    return Setup(load_engine(Settings(engine=engine))(), error_format)


def _as_json(again: Repetition) -> dict[str, Any]:
    return {
        "taskId": again.task_id,
        Field.STATUS: again.now.status,
        again.now.field: again.now.text,
        "recorded": None if again.then is None else again.then.text,
        "same": again.is_same,
        Field.RUN_SECONDS: again.seconds,
        Field.OPERATIONS: again.operations,
        Field.PEAK_MEMORY: again.peak_memory,
    }
