"""The command `rhai-tasks`: submit and follow tasks, see and mend queues.

A command is a function below, added to the group `main`; what it raises ends as one line and an exit status.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click
import redis
from rich.box import HEAVY_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text
from setproctitle import getproctitle, setproctitle

from bridge.doctor import Finding, examine
from bridge.queues import DeadLetter, Queues

from .calls import Calls
from .client import Client, Task
from .connection import connect, explain
from .engine import MIB, RHAI_VERSION, Engine, Limits
from .errors import (
    ConfigurationError,
    RhaiError,
    RhaiTasksError,
    ScriptError,
    ServerUnavailable,
    TaskCancelled,
    TaskNotFound,
    TaskTimeout,
)
from .options import ENVIRONMENT_PREFIX, hide_passwords, limits_from, load_engine, server_options, settings_from
from .protocol import CANCELLED, Outcome, key_pattern, state_channel
from .settings import Settings
from .shell import Session, describe_error, interruptible, repl

FAILED, WRONG, NOT_FOUND, TIMED_OUT, UNAVAILABLE = 1, 2, 3, 4, 5
_STATUS = {
    ScriptError: FAILED,
    TaskCancelled: FAILED,
    TaskNotFound: NOT_FOUND,
    TaskTimeout: TIMED_OUT,
    ServerUnavailable: UNAVAILABLE,
    ConfigurationError: WRONG,
}
_COLOURS = {"pending": "yellow", "processing": "cyan", "completed": "green", "error": "red"}
_SHOWN = 200  # characters of a text in a table or line
_EPILOG = (
    "Exit status: 0 done; 1 a task failed or was cancelled, or doctor found something; 2 wrong use; 3 no such task; "
    "4 not ended in time; 5 the server does not answer."
)
Command = TypeVar("Command", bound=Callable[..., Any])


class _Failure(click.ClickException):
    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code  # type: ignore[misc]  # click reads it from either


class _Commands(click.Group):
    """Turns what commands raise into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (RhaiTasksError, redis.RedisError) as error:
            own = explain(error, ctx.params["redis_url"]) if isinstance(error, redis.RedisError) else error
            raise _Failure(
                str(own), next((code for kind, code in _STATUS.items() if isinstance(own, kind)), FAILED)
            ) from error


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX, "max_content_width": 110},
)
@server_options
@click.version_option(package_name="rhai-tasks")
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Submit Rhai scripts, follow tasks, see and mend queues."""
    context.obj = settings_from(options)
    hide_passwords(context.obj)


# --- parts that commands share

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
_timeout = click.option(
    "--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Longest wait; without it there is no end."
)
_task_ids = click.argument("task_ids", nargs=-1, required=True, metavar="TASK_ID...")


def _circle(*, required: bool) -> Callable[[Command], Command]:
    return click.option(
        "--circle",
        envvar="RHAI_TASKS_CIRCLE",
        show_envvar=True,
        required=required,
        metavar="KEY",
        help="Public key of the circle." if required else "Only this circle; by default all.",
    )


def _client(settings: Settings, **options: Any) -> Client:
    return Client(
        settings.redis_url,
        prefixes=settings.prefixes,
        namespace=settings.namespace,
        retry_timeout=5.0,
        **options,
    )


def _console() -> Console:
    """Make a console: colours and the terminal's width for people, whole lines for a pipe."""
    return Console(width=None if sys.stdout.isatty() else 1000, highlight=False)


def _print_json(value: object) -> None:
    click.echo(json.dumps(value))


def _brief(text: str) -> str:
    """Write a text on one line, without anything that a terminal would obey."""
    line = " ".join(text.split())
    line = line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in line)


def _print_table(rows: Iterable[Iterable[object]], *columns: str) -> None:
    table = _table(*columns)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_brief(str(cell))) for cell in row))
    _console().print(table)


def _table(*columns: str) -> Table:
    """Make a table: with lines for people, without for a pipe."""
    return Table(*columns, box=HEAVY_HEAD if sys.stdout.isatty() else None)


def _coloured(status: str) -> Text:
    return Text(_brief(status), style=_COLOURS.get(status, ""))


# --- tasks


@main.command()
@click.argument("script", required=False)
@click.option("--file", type=click.File(encoding="utf-8"), help="Read the script from here; - is stdin.")
@_circle(required=True)
@click.option("--caller-id", default="", help="Public key of whoever asks: CALLER_ID in the script.")
@click.option("--context-id", help="Field contextId of the details.")
@click.option("--task-id", help="By default a new UUID.")
@click.option("--unique", is_flag=True, help="Refuse an id that was used before.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Hand it over later.")
@click.option("--via", type=click.Choice(["native", "dramatiq", "urgent"]), default="native", show_default=True)
@click.option("--wait", is_flag=True, help="Wait for the result and print it instead of the id.")
@_timeout
@_json
@click.pass_obj
def submit(
    settings: Settings,
    /,
    script: str | None,
    file: TextIO | None,
    circle: str,
    wait: bool,
    timeout: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Submit SCRIPT, or one from a file or from stdin, and print the task's id."""
    if script is not None and file is not None:
        raise click.UsageError("Give a SCRIPT or a --file, not both.")
    if script is None:
        if file is None and sys.stdin.isatty():
            raise click.UsageError("Give a SCRIPT, a --file, or a script on stdin.")
        script = (file or click.open_file("-", encoding="utf-8")).read()
    with _client(settings, circle=circle) as client:
        task = client.submit(script, **options)
        if wait:
            _print_outcomes(client, [task], timeout, as_json=as_json)
        elif as_json:
            _print_json({"taskId": task.id})
        else:
            click.echo(task.id)


@main.command()
@_task_ids
@_json
@click.pass_obj
def status(settings: Settings, /, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Show where tasks are, with output or error if they have ended."""
    with _client(settings) as client:
        found = [{"taskId": task_id, **client.task(task_id).details()} for task_id in task_ids]
    if as_json:
        _print_json(found)
        return
    _print_table(
        (
            (
                details["taskId"],
                _coloured(details.get("status", "pending")),
                details.get("updatedAt", details.get("createdAt", "")),
                details.get("output", details.get("error", "")),
            )
            for details in found
        ),
        "task",
        "status",
        "updated",
        "output or error",
    )


@main.command()
@_task_ids
@_timeout
@_json
@click.pass_obj
def wait(settings: Settings, task_ids: tuple[str, ...], timeout: float | None, as_json: bool) -> None:
    """Wait until tasks have ended, and print their outputs in the order given."""
    with _client(settings) as client:
        _print_outcomes(client, [client.task(task_id) for task_id in task_ids], timeout, as_json=as_json)


@main.command()
@click.argument("task_id")
@_json
@click.pass_obj
def result(settings: Settings, task_id: str, as_json: bool) -> None:
    """Print the output of a task that has ended; status 4 if it has not."""
    with _client(settings) as client:
        _print_outcomes(client, [client.task(task_id)], 0.0, as_json=as_json)


def _print_outcomes(client: Client, tasks: list[Task], timeout: float | None, *, as_json: bool) -> None:
    for _ in client.as_completed(tasks, timeout=timeout, progress=len(tasks) > 1):
        pass
    if as_json:
        _print_json([_outcome(task) for task in tasks])
    failures = []
    for task in tasks:
        try:
            output = task.result()
        except (ScriptError, TaskCancelled) as error:
            failures.append(error)
            if not as_json:
                click.echo(f"{task.id}: {error}" if len(tasks) > 1 else str(error), err=True)
        else:
            if not as_json:
                click.echo(output)
    if failures:
        sys.exit(FAILED)


def _outcome(task: Task) -> dict[str, str]:
    try:
        return {"taskId": task.id, "status": "completed", "output": task.result()}
    except (ScriptError, TaskCancelled) as error:
        text = CANCELLED if isinstance(error, TaskCancelled) else str(error)
        return {"taskId": task.id, "status": "error", "error": text}


@main.command()
@_task_ids
@_json
@click.pass_obj
def cancel(settings: Settings, task_ids: tuple[str, ...], as_json: bool) -> None:
    """Cancel tasks, whether they wait or run; status 1 if one had ended already."""
    with _client(settings) as client:
        cancelled = {task_id: client.cancel(task_id) for task_id in task_ids}
    if as_json:
        _print_json(cancelled)
    else:
        for task_id, done in cancelled.items():
            click.echo(f"{task_id}: {'cancelled' if done else 'had ended already'}")
    if not all(cancelled.values()):
        sys.exit(FAILED)


@main.command()
@click.option("--count", type=click.IntRange(1), help="End after so many lines.")
@_json
@click.pass_obj
def tail(settings: Settings, count: int | None, as_json: bool) -> None:
    """Show tasks as they change state, as clients and workers of this project tell it; Ctrl-C ends."""
    console, calls = _console(), Calls(prefixes=settings.prefixes, namespace=settings.namespace)
    channels = state_channel(settings.namespace) + settings.prefixes.details
    with connect(settings.redis_url) as database, database.pubsub(ignore_subscribe_messages=True) as channel:
        channel.psubscribe(key_pattern(channels))
        shown = 0
        while count is None or shown < count:
            message = channel.get_message(timeout=1.0)
            if message is None:
                continue
            task_id, state = calls.heard(message["channel"], message["data"])
            now = time.strftime("%H:%M:%S")
            value = state.status if isinstance(state, Outcome) else state
            text = state.text if isinstance(state, Outcome) else ""
            if as_json:
                _print_json({"taskId": task_id, "status": value, "text": text})
            else:
                line = Text.assemble(now, "  ", _brief(task_id), "  ", _coloured(value), "  ", _brief(text))
                console.print(line, soft_wrap=True)
            shown += 1


# --- queues


@main.command()
@_circle(required=False)
@click.option("--watch", type=click.FloatRange(0.1), is_flag=False, flag_value=1.0, metavar="[SECONDS]", help="Live.")
@_json
@click.pass_obj
def queues(settings: Settings, circle: str | None, watch: float | None, as_json: bool) -> None:
    """Show how many tasks are where in each circle."""
    found = Queues(settings)

    def count() -> list[Mapping[str, Any]]:
        return [asdict(queue) for queue in found.count([circle] if circle else found.circles())]

    def table() -> Table:
        columns = ("circle", "waiting", "buffered", "running", "delayed", "dead", "workers")
        table = _table(columns[0])
        for column in columns[1:]:
            table.add_column(column, justify="right")
        for row in count():
            table.add_row(*(Text(_brief(str(row[column]))) for column in columns))
        return table

    try:
        if as_json:
            _print_json(count())
        elif watch is None:
            _console().print(table())
        else:
            with Live(table(), console=_console(), auto_refresh=False) as live:
                while True:
                    time.sleep(watch)
                    live.update(table(), refresh=True)
    except KeyboardInterrupt:
        if watch is None:
            raise
    finally:
        found.close()


@main.command()
@click.option(
    "--address",
    envvar=f"{ENVIRONMENT_PREFIX}_METRICS_ADDRESS",
    show_envvar=True,
    required=True,
    metavar="HOST:PORT",
    help="The --metrics-address of the worker or bridge.",
)
@click.option("--live", is_flag=True, help="Ask only whether its processes live, not whether they can work now.")
def health(address: str, live: bool) -> None:
    """Ask a worker or bridge whether it is ready; status 1, and what is missing, if it is not."""
    from .monitor import ask  # noqa: PLC0415  (no other command needs it)

    well, answer = ask(address, "/livez" if live else "/readyz")
    click.echo("; ".join(answer.splitlines()), err=not well)
    if not well:
        sys.exit(FAILED)


@main.command(name="return")
@_circle(required=True)
@click.pass_obj
def return_(settings: Settings, circle: str) -> None:
    """Give a circle's buffered tasks back to its native list, for other workers; a bridge takes them again."""
    found = Queues(settings)
    try:
        click.echo(f"{found.give_back(circle)} task(s) given back")
    finally:
        found.close()


@main.command()
@_circle(required=True)
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(settings: Settings, circle: str, yes: bool) -> None:
    """Remove all that waits in a circle, delayed tasks too; each ends as cancelled. What runs goes on."""
    found = Queues(settings)
    try:
        (queue,) = found.count([circle])
        total = queue.waiting + queue.buffered + queue.delayed
        if total and not yes:
            click.confirm(f"Cancel and remove {total} waiting task(s) of circle {circle}?", abort=True)
        click.echo(f"{found.purge(circle)} task(s) removed")
    finally:
        found.close()


@main.group()
def dead() -> None:
    """See, retry and delete dead letters: messages that had no hash to take an outcome."""


_message_ids = click.argument("message_ids", nargs=-1, metavar="MESSAGE_ID...")
_all = click.option("--all", "every", is_flag=True, help="All of them.")


@dead.command(name="list")
@_circle(required=False)
@_json
@click.pass_obj
def dead_list(settings: Settings, circle: str | None, as_json: bool) -> None:
    """List dead letters and say what is wrong with each."""
    found = Queues(settings)
    try:
        letters = _letters(found, circle)
    finally:
        found.close()
    if as_json:
        _print_json([asdict(letter) for letter in letters])
    else:
        rows = ((letter.circle, letter.message_id, letter.task_id, letter.at, letter.reason) for letter in letters)
        _print_table(rows, "circle", "message", "task", "since", "why")


@dead.command(name="retry")
@_message_ids
@_circle(required=False)
@_all
@click.pass_obj
def dead_retry(settings: Settings, message_ids: tuple[str, ...], circle: str | None, every: bool) -> None:
    """Put dead letters back at the end of their queue, once what was wrong is mended."""
    _on_letters(settings, message_ids, circle, Queues.revive, "put back", every=every)


@dead.command(name="delete")
@_message_ids
@_circle(required=False)
@_all
@click.pass_obj
def dead_delete(settings: Settings, message_ids: tuple[str, ...], circle: str | None, every: bool) -> None:
    """Delete dead letters."""
    _on_letters(settings, message_ids, circle, Queues.delete, "deleted", every=every)


def _letters(found: Queues, circle: str | None) -> list[DeadLetter]:
    return [letter for name in ([circle] if circle else found.circles()) for letter in found.dead_letters(name)]


def _on_letters(
    settings: Settings,
    message_ids: tuple[str, ...],
    circle: str | None,
    action: Callable[[Queues, list[DeadLetter]], int],
    done: str,
    *,
    every: bool,
) -> None:
    if bool(message_ids) == every:
        raise click.UsageError("Name messages, or give --all.")
    found = Queues(settings)
    try:
        letters = [letter for letter in _letters(found, circle) if every or letter.message_id in message_ids]
        unknown = set(message_ids) - {letter.message_id for letter in letters}
        if unknown:
            raise click.UsageError(f"No such dead letter: {', '.join(sorted(unknown))}")
        click.echo(f"{action(found, letters)} dead letter(s) {done}")
    finally:
        found.close()


@main.command()
@click.option("--repair", is_flag=True, help="Mend what can be mended without losing anything.")
@click.option(
    "--stale",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="A task that is processing and held by nobody counts as orphaned after so long.",
)
@_json
@click.pass_obj
def doctor(settings: Settings, repair: bool, stale: float, as_json: bool) -> None:
    """Say what is wrong with server, queues and workers, and what to do; status 1 if something is left."""
    findings = examine(settings, stale_seconds=stale)
    repaired: list[Finding] = []
    if repair:
        for finding in findings:
            if finding.repair:
                finding.repair()
                repaired.append(finding)
    if as_json:
        _print_json(
            [
                {
                    "where": finding.where,
                    "what": finding.what,
                    "remedy": finding.remedy,
                    "repairable": finding.repair is not None,
                    "repaired": finding in repaired,
                }
                for finding in findings
            ]
        )
    elif findings:
        _print_table(
            (
                (
                    finding.where,
                    finding.what,
                    Text("repaired", style="green")
                    if finding in repaired
                    else f"{finding.remedy}{'; or --repair' if finding.repair else ''}",
                )
                for finding in findings
            ),
            "where",
            "what is wrong",
            "what to do",
        )
    else:
        click.echo("Nothing is wrong.")
    if len(repaired) < len(findings):
        sys.exit(FAILED)


# --- scripts without a server


def _engine_options(command: Command) -> Command:
    """Give a command what an engine is made of, and what its scripts see."""
    limits = Limits()
    for option in (
        click.option(
            "--engine", metavar="MODULE:FACTORY", help="Function that returns the engine; its own limits hold."
        ),
        click.option("--modules", type=click.Path(exists=True, file_okay=False, path_type=Path), help="For import."),
        click.option("--max-memory", type=click.IntRange(0), default=limits.max_memory // MIB, metavar="MIB"),
        click.option("--max-operations", type=click.IntRange(0), default=limits.max_operations),
        click.option("--timeout", type=click.FloatRange(0), metavar="SECONDS", help="Longest run of a script."),
        click.option("--caller-id", default="", help="CALLER_ID in scripts."),
        click.option("--context-id", default="", help="CONTEXT_ID in scripts."),
    ):
        command = option(command)
    return command


def _engine(
    engine: str | None, modules: Path | None, max_memory: int, max_operations: int, timeout: float | None
) -> Engine:
    if engine is not None:
        return load_engine(Settings(engine=engine))()
    limits = limits_from(timeout=timeout or None, max_operations=max_operations, max_memory=max_memory * MIB)
    return Engine(limits=limits, modules=modules)


@main.command()
@click.argument("file", type=click.File(encoding="utf-8"))
@_engine_options
def run(file: TextIO, context_id: str, caller_id: str, **options: Any) -> None:
    """Run the script in FILE (- is stdin) in the engine, as a worker would, and print its output."""
    engine, source = _engine(**options), file.read()
    constants = {"CONTEXT_ID": context_id, "CALLER_ID": caller_id}
    try:
        output = interruptible(lambda cancel: engine.run(source, constants=constants, cancel=cancel, print=click.echo))
    except RhaiError as error:
        raise _Failure(describe_error(error, source), FAILED) from error
    if output:
        click.echo(output)


@main.command("repl")
@_engine_options
def start_repl(context_id: str, caller_id: str, **options: Any) -> None:
    """Run scripts line by line; variables and functions stay. :help tells more."""
    engine = _engine(**options)
    if sys.stdin.isatty():
        click.echo(f"Rhai {RHAI_VERSION}. :help tells what there is, Ctrl-D leaves.")
    repl(Session(engine, {"CONTEXT_ID": context_id, "CALLER_ID": caller_id}), engine)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, show_envvar=True, help="Address to listen on.")
@click.option(
    "--port", default=8020, show_default=True, show_envvar=True, type=click.IntRange(1, 65535), help="TCP port."
)
@click.option(
    "--token",
    show_envvar=True,
    metavar="TEXT",
    help="What a login asks for; needed where other machines reach the page.",
)
@click.option("--read-only", is_flag=True, show_envvar=True, help="Show everything, and change nothing.")
@click.pass_obj
def web(settings: Settings, /, host: str, port: int, token: str | None, read_only: bool) -> None:
    """Serve a page that shows queues, workers and tasks as they change, and lets you act on them."""
    try:
        from .web.server import serve  # noqa: PLC0415  (needs more than the other commands)
    except ImportError as error:
        raise click.UsageError(f"{error.name} is not installed: pip install 'rhai-tasks[web]'") from error
    if token:
        setproctitle(getproctitle().replace(token, "***"))  # everyone on the machine can read it
    serve(settings, host=host, port=port, token=token or None, read_only=read_only)


@main.command()
def demo() -> None:
    """Start a server and a worker of their own, submit scripts, and watch them end."""
    try:
        from .demo import main as run  # noqa: PLC0415  (needs more than the other commands)
    except ImportError as error:
        raise click.UsageError(f"{error.name} is not installed: pip install 'rhai-tasks[demo]'") from error
    sys.exit(run())


if __name__ == "__main__":
    main()
