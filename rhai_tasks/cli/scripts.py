"""Commands that run scripts without a server."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import click

from rhai_tasks.engine import RHAI_VERSION, Engine, Limits
from rhai_tasks.engine.check import Finding
from rhai_tasks.engine.limits import MIB
from rhai_tasks.errors import RhaiError
from rhai_tasks.factory import load_engine
from rhai_tasks.options import (
    FileName,
    Folder,
    Seconds,
    TextFile,
    limits_from,
    mebibytes,
    operations,
    utf8,
)
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import Failure, echo

from .arguments import args_options, read_args
from .group import FAILED, Command, json_option, main
from .output import print_json
from .shell import Session, describe_error, interruptible, repl


def engine_options(command: Command) -> Command:
    """Add the options of an engine, and of the constants that its scripts see."""
    limits = Limits()
    for option in (
        click.option(
            "--engine", metavar="MODULE:FACTORY", help="Function that returns the engine; its own limits hold."
        ),
        click.option("--modules", type=Folder(), help="Folder of the modules that scripts import."),
        click.option("--max-memory", type=mebibytes, default=limits.max_memory // MIB, metavar="MIB"),
        click.option("--max-operations", type=operations, default=limits.max_operations),
        click.option("--timeout", type=Seconds(), metavar="SECONDS", help="Longest run of a script."),
        click.option("--caller-id", callback=utf8, default="", help="CALLER_ID in scripts."),
        click.option("--context-id", callback=utf8, default="", help="CONTEXT_ID in scripts."),
    ):
        command = option(command)
    return command


def make_engine(
    engine: str | None, modules: Path | None, max_memory: int, max_operations: int, timeout: float | None
) -> Engine:
    """Make the engine of `engine_options`."""
    if engine is not None:
        return load_engine(Settings(engine=engine))()
    limits = limits_from(
        timeout_option="--timeout", timeout=timeout or None, max_operations=max_operations, max_memory=max_memory * MIB
    )
    try:
        return Engine(limits=limits, modules=modules)
    except NotADirectoryError as error:  # a device: click refuses files alone
        raise click.UsageError(f"--{error}.") from error


@main.command()
@click.argument("file", type=TextFile())
@engine_options
@args_options
def run(file: TextIO, context_id: str, caller_id: str, arg: tuple[str, ...], args: str | None, **options: Any) -> None:
    """Run the script in FILE as a worker would.

    Prints its output. FILE may be -, for stdin.
    """
    given = read_args(arg, args)
    engine, source = make_engine(**options), file.read()
    constants = {"CONTEXT_ID": context_id, "CALLER_ID": caller_id}
    try:
        output = interruptible(
            lambda cancel: engine.run(source, constants=constants, cancel=cancel, print=echo, args=given)
        )
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    except RhaiError as error:
        raise Failure(describe_error(error, source, engine), FAILED) from error
    if output:
        echo(output)


@main.command()
@click.argument("files", type=FileName(exists=True), nargs=-1, required=True, metavar="FILE...")
@click.option("--engine", metavar="MODULE:FACTORY", help="Function that returns the engine, as for rhai-worker.")
@click.option("--github", is_flag=True, help="Print annotations for GitHub Actions.")
@json_option
def check(files: tuple[Path, ...], engine: str | None, *, github: bool, as_json: bool) -> None:
    """Find mistakes in scripts without running them.

    Reports syntax errors, unknown functions and variables, and code that never runs. Status 1 if there are any.
    """
    checker = load_engine(Settings(engine=engine))()
    found = [(file, finding) for file in files for finding in _check(checker, file)]
    if as_json:
        print_json([{"file": str(file), **asdict(finding)} for file, finding in found])
    for file, finding in () if as_json else found:
        echo(
            _annotation(file, finding)
            if github
            else f"{file}:{finding.line or 1}:{finding.column or 1}: {finding.text}"
        )
    if found:
        sys.exit(FAILED)


def _check(engine: Engine, file: Path) -> list[Finding]:
    try:
        return engine.check(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        return [Finding(None, None, "syntax", f"the file is not UTF-8: {error.reason} at byte {error.start}")]
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", FAILED) from error
    except RhaiError as error:
        return [Finding(error.line, error.column, "syntax", str(error))]


def _annotation(file: Path, finding: Finding) -> str:
    """Return a command of GitHub Actions, with its own signs escaped as the runner reads them."""
    name, text = (_escaped(text, signs) for text, signs in ((str(file), "%\r\n:,"), (finding.text, "%\r\n")))
    return f"::error file={name},line={finding.line or 1},col={finding.column or 1}::{text}"


def _escaped(text: str, signs: str) -> str:
    return "".join(f"%{ord(char):02X}" if char in signs else char for char in text)


@main.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--engine", metavar="MODULE:FACTORY", required=True, help="Function that returns the engine.")
def definitions(directory: Path, engine: str) -> None:
    """Write definitions of what scripts can call.

    DIRECTORY gets files for editors (.d.rhai), and a page of Markdown.
    """
    files = load_engine(Settings(engine=engine))().definitions()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise Failure(f"{directory}: {error.strerror}", FAILED) from error
    for name in files:
        echo(directory / name)


@main.command("repl")
@engine_options
@args_options
def start_repl(context_id: str, caller_id: str, arg: tuple[str, ...], args: str | None, **options: Any) -> None:
    """Run scripts line by line; variables and functions stay. :help tells more."""
    given = read_args(arg, args)
    engine = make_engine(**options)
    try:
        engine.run("", args=given)
    except ValueError as error:
        raise click.UsageError(f"{error}.") from error
    except RhaiError as error:
        raise Failure(str(error), FAILED) from error
    if sys.stdin.isatty():
        echo(f"Rhai {RHAI_VERSION}. :help lists the commands, Ctrl-D ends.")
    repl(Session(engine, {"CONTEXT_ID": context_id, "CALLER_ID": caller_id}, given), engine)
