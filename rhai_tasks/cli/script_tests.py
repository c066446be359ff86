"""The command that runs tests in Rhai."""

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from rhai_tasks.engine import CancelToken, Engine
from rhai_tasks.errors import RhaiError
from rhai_tasks.factory import load_engine
from rhai_tasks.script_tests import SUFFIX, ScriptTest, add_assertions, find_files, find_tests
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import Failure, echo

from .group import FAILED, main
from .shell import describe_error, interruptible

_POLL_SECONDS = 0.3


@main.command("test")
@click.argument("path", type=click.Path(exists=True, path_type=Path), default=".")
@click.option("--engine", metavar="MODULE:FACTORY", help="Function that returns the engine, as for rhai-worker.")
@click.option("--watch", is_flag=True, help="Run them again whenever a script changes, until Ctrl-C.")
def run_tests(path: Path, engine: str | None, *, watch: bool) -> None:
    """Run the tests in Rhai of PATH, a file or folder.

    Tests are the functions test_... of files *.test.rhai. Status 1 if one fails, or if there is none.
    """
    if watch:
        _watch(path, [] if engine is None else ["--engine", engine])
        return
    failed = passed = 0
    for file in find_files(path):
        tester = add_assertions(load_engine(Settings(engine=engine))())
        for name, problem in _outcomes(tester, file):
            failed, passed = failed + bool(problem), passed + (not problem)
            lines = [f"{'FAILED' if problem else 'ok'} {file}{name}", *problem.splitlines()]
            echo("\n  ".join(lines))
    if not failed + passed:
        raise Failure(f"{path}: there is no test; tests are the functions test_... of files *{SUFFIX}", FAILED)
    echo(f"{passed:,} passed, {failed:,} failed.")
    if failed:
        sys.exit(FAILED)


def _outcomes(engine: Engine, file: Path) -> Iterator[tuple[str, str]]:
    """Yield a name for each test of a file, and why it failed; empty: it passed."""
    source = ""
    try:
        source = file.read_text(encoding="utf-8")
        tests = list(find_tests(engine, file))
    except RhaiError as error:
        yield "", str(error)
        return
    except (OSError, UnicodeDecodeError) as error:
        yield "", f"it cannot be read: {error}"
        return
    for test in tests:
        try:
            interruptible(partial(_run, test))
        except RhaiError as error:
            yield f"::{test.name}", describe_error(error, source, engine)
        else:
            yield f"::{test.name}", ""


def _run(test: ScriptTest, cancel: CancelToken) -> None:
    test.run(cancel=cancel, print=lambda text: echo(text, err=True))


def _watch(path: Path, options: list[str]) -> None:
    """Run the tests in a process of their own, so that the engine's modules are read again, too."""
    seen: dict[Path, int] = {}
    while True:
        scripts = path.parent if path.is_file() else path
        changed = {file: file.stat().st_mtime_ns for file in scripts.rglob("*.rhai") if file.exists()}
        if changed != seen:
            seen = changed
            subprocess.run([sys.executable, "-m", "rhai_tasks", "test", str(path), *options], check=False)  # noqa: S603
        time.sleep(_POLL_SECONDS)
