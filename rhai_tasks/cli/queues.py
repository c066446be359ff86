"""Commands that show queues and repair them."""

import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, replace

import click
import redis
from rich.live import Live
from rich.table import Table
from rich.text import Text

from rhai_tasks.operate.doctor import examine
from rhai_tasks.operate.findings import Finding
from rhai_tasks.operate.letters import DeadLetter
from rhai_tasks.operate.queues import PLACES, Queue, Queues
from rhai_tasks.options import Seconds, order_option
from rhai_tasks.settings import Order, Settings
from rhai_tasks.terminal import echo, shown

from .group import FAILED, circle_option, json_option, main, yes_option
from .output import brief, make_console, make_table, print_json, print_table, stream


@main.command()
@circle_option(required=False)
@click.option(
    *("-w", "--watch"),
    type=Seconds(0.1),
    is_flag=False,
    flag_value=1.0,
    metavar="[SECONDS]",
    help="Update until Ctrl-C, the fullest circles first; in a pipe, print a table or a line of JSON each time.",
)
@json_option
@click.pass_obj
def queues(settings: Settings, circle: str | None, watch: float | None, as_json: bool) -> None:
    """Count the tasks in each place of each circle."""
    with Queues(settings) as queues:
        if watch is None:
            _print_counts(_count(queues, circle), as_json=as_json)
            return
        with stream():
            if sys.stdout.isatty() and not as_json:
                _watch(queues, circle, watch)
            answers = True
            while True:
                try:
                    _print_counts(_count(queues, circle), as_json=as_json)
                    sys.stdout.flush()
                    answers = True
                except (redis.ConnectionError, redis.TimeoutError) as error:
                    if answers:  # the next table tells that the server is back
                        echo(f"The server does not answer: {error}; trying again", err=True)
                    answers = False
                time.sleep(watch)


def _print_counts(counts: list[Queue], *, as_json: bool) -> None:
    if as_json:
        print_json([asdict(queue) for queue in counts])
    elif counts:
        make_console().print(_table(counts))
    else:
        echo("No circles.")


def _count(queues: Queues, circle: str | None) -> list[Queue]:
    return queues.count([circle] if circle else queues.circles())


def _watch(queues: Queues, circle: str | None, seconds: float) -> None:
    """Show the table on the whole terminal, and update it at each interval, through any outage."""
    counts, problem = _count(queues, circle), ""
    console = make_console()
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            try:
                counts, problem = _count(queues, circle), ""
            except (redis.ConnectionError, redis.TimeoutError) as error:
                problem = f"; the server does not answer: {error}"
            counts.sort(key=lambda queue: -sum(map(queue.count, PLACES)))
            room = max(console.height - 6, 1)  # beside head, totals and title
            table = _table(counts[:room], total=counts)
            table.title = Text(f"{len(counts)} circle(s), {time.strftime('%H:%M:%S')}{brief(problem)}")
            live.update(table, refresh=True)
            time.sleep(seconds)


def _table(counts: Iterable[Queue], total: Iterable[Queue] = ()) -> Table:
    """Make the table of these circles, with the sums of `total` below."""
    numbers = (*PLACES, "workers", "rules")
    table = make_table("circle")
    for column in (*numbers, "oldest"):
        table.add_column(column, justify="right", overflow="fold")
    for queue in counts:
        name = Text(brief(queue.circle))
        if queue.paused:
            name.append(" paused", style="yellow")
        if queue.is_unserved:
            name.append(" not served", style="red")
        oldest = "" if queue.oldest is None else f"{queue.oldest:.0f} s"
        table.add_row(name, *(Text(f"{getattr(queue, column):,}") for column in numbers), Text(oldest))
    if total:
        sums = (f"{sum(getattr(queue, column) for queue in total):,}" for column in numbers)
        table.add_section()
        table.add_row(Text("all"), *map(Text, sums))
    return table


@main.command(name="return")
@circle_option(required=True)
@order_option
@click.pass_obj
def return_(settings: Settings, circle: str, order: Order) -> None:
    """Give a circle's buffered tasks back to its native list.

    There other workers can take them; a bridge takes them again.
    """
    with Queues(replace(settings, order=order)) as queues:
        echo(f"{queues.give_back(circle)} task(s) given back")


@main.command()
@circle_option(required=True)
@yes_option
@click.pass_obj
def purge(settings: Settings, circle: str, yes: bool) -> None:
    """Cancel all tasks of a circle whose scripts have not begun.

    Delayed ones too. Running tasks go on.
    """
    with Queues(settings) as queues:
        (queue,) = queues.count([circle])
        total = queue.waiting + queue.buffered + queue.prefetched + queue.delayed
        if total and not yes:
            question = f"Cancel {total} task(s) of circle {circle} that have not begun?"
            click.confirm(shown(question), abort=True)
        echo(f"{queues.purge(circle)} task(s) cancelled")


@main.group()
def dead() -> None:
    """See, retry and delete dead letters.

    A dead letter is a message whose outcome cannot be stored, or that is for an actor which does not run here.
    """


_message_ids = click.argument("message_ids", nargs=-1, metavar="MESSAGE_ID...")
_all = click.option("--all", "every", is_flag=True, help="All dead letters.")


@dead.command(name="list")
@circle_option(required=False)
@json_option
@click.pass_obj
def dead_list(settings: Settings, circle: str | None, as_json: bool) -> None:
    """List dead letters and say what is wrong with each."""
    with Queues(settings) as queues:
        letters = _letters(queues, circle)
    if as_json:
        print_json([_letter_as_json(letter) for letter in letters])
    else:
        rows = ((letter.circle, letter.message_id, letter.task_id, letter.at, letter.reason) for letter in letters)
        print_table(rows, "circle", "message", "task", "since", "why", empty="No dead letters.")


def _letter_as_json(letter: DeadLetter) -> dict[str, str]:
    return {
        "circle": letter.circle,
        "messageId": letter.message_id,
        "taskId": letter.task_id,
        "at": letter.at,
        "reason": letter.reason,
    }


@dead.command(name="retry")
@_message_ids
@circle_option(required=False)
@_all
@click.pass_obj
def dead_retry(settings: Settings, message_ids: tuple[str, ...], circle: str | None, every: bool) -> None:
    """Put dead letters back at the end of their queue.

    Repair their cause first.
    """
    with Queues(settings) as queues:
        letters = _chosen_letters(queues, message_ids, circle, every=every)
        echo(f"{queues.dead_letters.retry(letters)} dead letter(s) put back")


@dead.command(name="delete")
@_message_ids
@circle_option(required=False)
@_all
@yes_option
@click.pass_obj
def dead_delete(settings: Settings, message_ids: tuple[str, ...], circle: str | None, every: bool, yes: bool) -> None:
    """Delete dead letters."""
    with Queues(settings) as queues:
        letters = _chosen_letters(queues, message_ids, circle, every=every)
        if letters and every and not yes:
            where = f"circle {circle}" if circle else "all circles"
            click.confirm(shown(f"Delete {len(letters):,} dead letter(s) of {where}?"), abort=True)
        echo(f"{queues.dead_letters.delete(letters)} dead letter(s) deleted")


def _letters(queues: Queues, circle: str | None) -> list[DeadLetter]:
    return [letter for name in ([circle] if circle else queues.circles()) for letter in queues.dead_letters.read(name)]


def _chosen_letters(
    queues: Queues, message_ids: tuple[str, ...], circle: str | None, *, every: bool
) -> list[DeadLetter]:
    """Read the dead letters with these ids, or every one.

    Raises:
        click.UsageError: There are ids and `every`, neither, or an id that no dead letter has.
    """
    if bool(message_ids) == every:
        raise click.UsageError("Name messages, or give --all.")
    letters = [letter for letter in _letters(queues, circle) if every or letter.message_id in message_ids]
    if unknown := set(message_ids) - {letter.message_id for letter in letters}:
        raise click.UsageError(f"No such dead letter: {', '.join(sorted(unknown))}")
    return letters


@main.command()
@click.option("--repair", is_flag=True, help="Repair faults whose repair loses nothing.")
@click.option(
    "--stale",
    type=Seconds(),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Age from which a task in processing that no worker holds counts as orphaned.",
)
@json_option
@click.pass_obj
def doctor(settings: Settings, repair: bool, stale: float, as_json: bool) -> None:
    """Report faults of server, queues and workers, and what to do.

    Status 1 if any fault is left.
    """
    findings = examine(settings, stale_seconds=stale)
    repaired = _repair(settings, findings) if repair else []
    if as_json:
        print_json([_finding_as_json(finding, is_repaired=finding in repaired) for finding in findings])
    else:
        rows = (_finding_row(finding, is_repaired=finding in repaired) for finding in findings)
        print_table(rows, "where", "what is wrong", "what to do", empty="Nothing is wrong.")
    if len(repaired) < len(findings):
        sys.exit(FAILED)


def _repair(settings: Settings, findings: list[Finding]) -> list[Finding]:
    """Repair findings that can be repaired; return those."""
    repaired = []
    with Queues(settings) as queues:
        for finding in findings:
            if finding.repair:
                finding.repair()
                queues.note("", finding.log_entry)
                repaired.append(finding)
    return repaired


def _finding_as_json(finding: Finding, *, is_repaired: bool) -> dict[str, str | bool]:
    return {
        "where": finding.where,
        "what": finding.what,
        "remedy": finding.remedy,
        "repairable": finding.repair is not None,
        "repaired": is_repaired,
    }


def _finding_row(finding: Finding, *, is_repaired: bool) -> tuple[str | Text, ...]:
    remedy = f"{finding.remedy}; or --repair" if finding.repair else finding.remedy
    return finding.where, finding.what, Text("repaired", style="green") if is_repaired else remedy
