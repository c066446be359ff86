"""The command that shows where a script spends its time."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from rhai_tasks.engine import CancelToken, Engine
from rhai_tasks.engine.profile import Profile, Spent, recording
from rhai_tasks.errors import RhaiError, TaskMalformed, TaskNotFound
from rhai_tasks.options import FileName, WholeNumber
from rhai_tasks.protocol import Status
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import Failure, echo

from .again import Setup, repetition
from .arguments import args_options, read_args
from .flame_graph import flame_graph, speedscope
from .group import FAILED, INTERRUPTED, NOT_FOUND, json_option, main, make_client
from .output import print_json, print_table
from .scripts import engine_options, make_engine
from .shell import describe_error, interruptible

K = TypeVar("K")
Run = Callable[[CancelToken], str | None]
"""Runs the script, and returns the text of its error, if it has one."""


@main.command()
@click.argument("script", metavar="FILE|TASK_ID")
@engine_options
@args_options
@click.option("--flamegraph", type=FileName(exists=False), help="Write a flame graph of the time: an SVG.")
@click.option("--speedscope", "viewed", type=FileName(exists=False), help="Write JSON for https://speedscope.app.")
@click.option("-n", "--count", type=WholeNumber(1), default=20, show_default=True, help="Lines to show.")
@json_option
@click.pass_obj
def profile(
    settings: Settings,
    /,
    script: str,
    flamegraph: Path | None,
    viewed: Path | None,
    count: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Show where a script spends its time, by function and line.

    Runs FILE, or a task once more here, as replay does. The time of host functions, and of Rhai's own, counts for the
    line that calls them. The profile adds some tenths of a microsecond to each statement, and no operations.
    """
    if script.endswith(".rhai") or Path(script).exists():
        source, run = _of_file(script, **options)
    else:
        source, run = _of_task(settings, script, **options)
    found, status, name = Profile(), 0, Path(script).name or script

    def record(cancel: CancelToken) -> str | None:
        with recording(found):
            return run(cancel)

    try:
        error = interruptible(record)
    except KeyboardInterrupt:
        error, status = "interrupted", INTERRUPTED
    if error is not None:
        echo(error, err=True)
        status = status or FAILED
    if as_json:
        print_json(_as_json(found))
    else:
        _show(found, source.split("\n"), count)
    for file, text in ((flamegraph, flame_graph(found, name)), (viewed, json.dumps(speedscope(found, name)))):
        if file is not None:
            _write(file, text)
    if status:
        sys.exit(status)


def _of_file(
    name: str, *, caller_id: str, context_id: str, arg: tuple[str, ...], args: str | None, **options: Any
) -> tuple[str, Run]:
    given, engine = read_args(arg, args), make_engine(**options)
    try:
        source = Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise click.UsageError(f"{name}: expected UTF-8, {error.reason} at byte {error.start}.") from error
    except OSError as error:
        raise click.UsageError(f"{name}: {error.strerror}.") from error
    constants = {"CONTEXT_ID": context_id, "CALLER_ID": caller_id}
    return source, lambda cancel: _run(engine, source, constants, given, cancel)


def _run(
    engine: Engine, source: str, constants: dict[str, str], args: dict[str, Any] | None, cancel: CancelToken
) -> str | None:
    try:
        engine.run(source, constants=constants, cancel=cancel, print=lambda text: echo(text, err=True), args=args)
    except ValueError as error:  # of the arguments
        return str(error)
    except RhaiError as error:
        return describe_error(error, source, engine)
    return None


def _of_task(
    settings: Settings,
    task_id: str,
    *,
    caller_id: str,
    context_id: str,
    arg: tuple[str, ...],
    args: str | None,
    **options: Any,
) -> tuple[str, Run]:
    if caller_id or arg or args is not None:
        raise click.UsageError(f"{task_id!a} is not a file; a task has its own caller and arguments.")
    setup = Setup(make_engine(**options), "display")
    with make_client(settings) as client:
        try:
            details = client.task(task_id).details()
        except TaskNotFound as error:
            raise Failure(f"there is no file {task_id!a}, and {error}", NOT_FOUND) from error
        try:
            source, run = repetition(client, setup, task_id, details, context_id or None)
        except TaskMalformed as error:
            raise click.UsageError(f"{error}.") from error

    def run_again(cancel: CancelToken) -> str | None:
        ended = run(cancel).now
        return ended.text if ended.status is Status.ERROR else None

    return source, run_again


def _show(found: Profile, lines: list[str], count: int) -> None:
    functions = (
        (
            f"{spent.calls:,}",
            *_columns(spent, found),
            _place(function.source, function.line),
            function.name or "(script)",
        )
        for function, spent in _costly(found.by_function(), count)
    )
    print_table(functions, "calls", *_COLUMNS, "line", "function")
    echo()
    statements = (
        (f"{spent.hits:,}", *_columns(spent, found), _place(source, line), _line_of(lines, source, line))
        for (source, line), spent in _costly(found.by_line(), count)
    )
    print_table(statements, "hits", *_COLUMNS, "line", "source")
    echo(f"{found.seconds:.6f} s, {found.operations:,} operations")
    if not found.is_complete:
        echo("The script has too many chains of calls: the time of some functions counts as their callers'.", err=True)


_COLUMNS = ("self ms", "self %", "total ms", "operations")


def _columns(spent: Spent, found: Profile) -> tuple[str, ...]:
    part = spent.seconds / (found.seconds or 1.0)
    return (
        f"{spent.seconds * 1e3:,.3f}",
        f"{part:.1%}",
        f"{spent.total_seconds * 1e3:,.3f}",
        f"{spent.operations:,}",
    )


def _costly(found: dict[K, Spent], count: int) -> list[tuple[K, Spent]]:
    """Return those that have spent most, the most costly first."""
    return sorted(found.items(), key=lambda item: item[1].seconds, reverse=True)[:count]


def _place(source: str | None, line: int) -> str:
    return str(line) if source is None else f"{source}:{line}"


def _line_of(lines: list[str], source: str | None, line: int) -> str:
    return lines[line - 1].strip() if source is None and line <= len(lines) else ""


def _as_json(found: Profile) -> dict[str, Any]:
    return {
        "seconds": found.seconds,
        "operations": found.operations,
        "complete": found.is_complete,
        "functions": [
            {**function._asdict(), **_spent(spent)} for function, spent in _costly(found.by_function(), sys.maxsize)
        ],
        "lines": [
            {"source": source, "line": line, **_spent(spent)}
            for (source, line), spent in _costly(found.by_line(), sys.maxsize)
        ],
    }


def _spent(spent: Spent) -> dict[str, Any]:
    return {
        "calls": spent.calls,
        "hits": spent.hits,
        "seconds": spent.seconds,
        "totalSeconds": spent.total_seconds,
        "operations": spent.operations,
        "totalOperations": spent.total_operations,
    }


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", FAILED) from error
