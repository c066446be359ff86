"""Commands about tasks that wait: why one does, and how long until none does."""

import sys
import time
from dataclasses import asdict, replace

import click

from rhai_tasks.client.progress import Progress
from rhai_tasks.operate.queues import Queue, Queues
from rhai_tasks.operate.why import ended_a_second, explain
from rhai_tasks.operate.workers import read_workers
from rhai_tasks.options import CIRCLE_VARIABLES, order_option
from rhai_tasks.protocol import check_circle
from rhai_tasks.settings import Order, Settings
from rhai_tasks.terminal import Failure, echo

from .group import TIMED_OUT, circle_option, json_option, main, timeout_option
from .output import brief, print_json

_POLL_SECONDS = 0.2


@main.command()
@click.argument("task_id")
@circle_option(required=False)
@order_option
@json_option
@click.pass_obj
def why(settings: Settings, task_id: str, circle: str | None, order: Order, as_json: bool) -> None:
    """Say why a task has not begun.

    Prints its place, everything that delays it, and an estimate.
    """
    with Queues(replace(settings, order=order)) as queues:
        found = explain(queues, task_id, circle)
    if as_json:
        values = asdict(found)
        print_json({"taskId": values.pop("task_id"), **values})
        return
    echo(f"{found.status}: {found.place}{f', circle {brief(found.circle)}' if found.circle else ''}")
    for hold in found.holds:
        echo(f"- {brief(hold)}")
    if found.seconds is not None:
        echo(f"It begins in about {found.seconds:.0f} s, at the rate of the last minutes.")


@main.command()
@click.argument("circle", envvar=CIRCLE_VARIABLES, callback=lambda _, __, circle: check_circle(circle, "CIRCLE"))
@timeout_option
@click.pass_obj
def drain(settings: Settings, circle: str, timeout: float | None) -> None:
    """Wait until a circle has no task left.

    Then no task waits or runs, and no delayed task is due. If the circle is paused, or no worker serves it, the command
    says so at once.
    """
    end = None if timeout is None else time.monotonic() + timeout
    with Queues(settings) as queues:
        (queue,) = queues.count([circle])
        while queue.left:
            obstacle = _obstacle(queue)
            if obstacle:
                echo(f"{queue.left} task(s) of circle {circle} wait: {obstacle}.", err=True)
            with Progress("draining", range(queue.left), shown=sys.stderr.isatty()) as bar:
                while queue.left and _obstacle(queue) == obstacle:
                    if end is not None and time.monotonic() >= end:
                        raise Failure(_left(queues, queue), TIMED_OUT)
                    time.sleep(_POLL_SECONDS)
                    before = queue.left
                    (queue,) = queues.count([circle])
                    bar.advance(before - queue.left)


def _obstacle(queue: Queue) -> str:
    """Say why no task of the circle begins."""
    if queue.paused:
        return "the circle is paused"
    return "" if queue.workers else "no worker serves the circle"


def _left(queues: Queues, queue: Queue) -> str:
    """Describe the tasks that are left, and the time that they take."""
    rate = ended_a_second(queue.circle, read_workers(queues.client, queues.settings.namespace))
    estimate = f", about {queue.left / rate:.0f} s at the rate of the last minutes" if rate else ""
    rules = "rules may hold them up: rhai-tasks why ID" if queue.parked and queue.rules else ""
    why = _obstacle(queue) or rules
    return f"{queue.left} task(s) of circle {queue.circle} are left{estimate}{'; ' if why else ''}{why}"
