"""Commands that list tasks and worker processes."""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click
from rich.text import Text

from rhai_tasks.observe.recorder import Report
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.tasks import Details, Tasks
from rhai_tasks.operate.where import Where
from rhai_tasks.operate.workers import read_workers
from rhai_tasks.options import WholeNumber, utf8
from rhai_tasks.protocol import Field, Status
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo

from .group import circle_option, json_option, main
from .output import coloured, print_json, print_table

_RUNNING = "running"


@main.command(name="tasks")
@click.option(
    "--status",
    type=click.Choice([_RUNNING, *(status.value for status in Status)]),
    default=_RUNNING,
    show_default=True,
    help="Running tasks are those of workers of this project; the others are searched in all details.",
)
@circle_option(required=False)
@click.option("--caller", callback=utf8, default="", help="Only this caller's; not of running tasks.")
@click.option("-n", "--count", type=WholeNumber(1), default=50, show_default=True, help="Most tasks to list.")
@json_option
@click.pass_obj
def list_tasks(settings: Settings, status: str, circle: str | None, caller: str, count: int, as_json: bool) -> None:
    """List tasks."""
    if status == _RUNNING and caller:
        raise click.UsageError("Workers do not report callers: give another --status with --caller.")
    with Queues(settings) as queues:
        rows = _running(queues, circle) if status == _RUNNING else _search(queues, status, caller, circle or "")
        _print(list(islice(rows, count)), "tasks", as_json=as_json)


@main.command()
@circle_option(required=False)
@json_option
@click.pass_obj
def workers(settings: Settings, circle: str | None, as_json: bool) -> None:
    """List worker processes, by heartbeats of the last seconds."""
    with Queues(settings) as queues:
        reports = read_workers(queues.client, settings.namespace)
        _print([_worker(report) for report in reports if circle in {None, *report.circles}], "workers", as_json=as_json)


def _running(queues: Queues, circle: str | None) -> Iterator[dict[str, Any]]:
    """Yield the tasks whose scripts run, those that run longest first."""
    reports = read_workers(queues.client, queues.settings.namespace)
    found = [(task, report) for report in reports for task in report.running if circle in {None, task.circle}]
    for task, report in sorted(found, key=lambda pair: pair[0].since):
        yield {
            "taskId": task.task_id,
            "status": _RUNNING,
            "circle": task.circle,
            "seconds": round(max(time.time() - task.since, 0.0), 3),
            "delivery": task.delivery,
            "worker": _name(report),
        }


def _search(queues: Queues, status: str, caller: str, circle: str) -> Iterator[dict[str, Any]]:
    """Yield tasks with this status, a part of the details after the other, the newest of each part first."""
    tasks, cursor, where = Tasks(queues.settings, queues), "", Where(status=status, caller=caller, circle=circle)
    while cursor != "0":
        found = tasks.search(cursor or "0", where)
        cursor = found.cursor
        yield from map(_row, found.tasks)


def _row(task: Details) -> dict[str, Any]:
    return {
        "taskId": task.task_id,
        "status": task.status,
        "circle": task.circle,
        Field.CALLER_ID: task.caller,
        Field.UPDATED_AT: task.text(Field.UPDATED_AT) or task.text(Field.CREATED_AT),
        "text": task.text(Field.ERROR) or task.text(Field.OUTPUT),
    }


def _worker(report: Report) -> dict[str, Any]:
    return {
        "worker": report.process,
        "process": _name(report),
        "circles": report.circle_count,
        "threads": report.threads,
        "running": sum(report.running_by_circle.values()),
        "memoryBytes": report.memory,
        "version": report.version,
        "seconds": round(max(time.time() - report.since, 0.0)),
    }


def _name(report: Report) -> str:
    return f"{report.host}:{report.pid}"


def _print(rows: list[dict[str, Any]], what: str, *, as_json: bool) -> None:
    if as_json:
        print_json(rows)
    elif not rows:
        echo(f"No {what}.")
    else:
        print_table(([_cell(name, value) for name, value in row.items()] for row in rows), *rows[0])


def _cell(name: str, value: Any) -> str | Text:
    if name == "status":
        return coloured(value)
    return f"{value:,}" if isinstance(value, int | float) else str(value)
