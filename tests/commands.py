"""Runs commands of the project to their end, each in a process that is forked from one which has imported them.

To import them takes ten times as long as most of them run. A test of how a process starts, of its terminal, of signals
or of variables that Python itself reads starts a process of its own.
"""

import atexit
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

BIN = Path(sys.executable).parent
OURS = {"rhai-tasks", "rhai-worker", "rhai-bridge"}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["bridge.cli", "rhai_tasks.cli", __name__])


def run_command(
    program: str,
    *arguments: str | bytes,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    within: float = 120.0,
) -> "subprocess.CompletedProcess[str]":
    """Run a command; one of another package, as `dramatiq`, starts on its own.

    Args:
        program: Its name.
        arguments: Of the command.
        stdin: What it may read.
        env: Variables besides those of this process.
        cwd: Its folder; by default that of this process.
        within: Seconds.

    Raises:
        subprocess.TimeoutExpired: It has not ended in time, and was killed.
    """
    words, variables = [str(BIN / program), *map(os.fsdecode, arguments)], {**os.environ, **(env or {})}
    if program not in OURS:
        return subprocess.run(
            words, input=stdin, env=variables, cwd=cwd, timeout=within, capture_output=True, text=True, check=False
        )
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "stdin").write_text(stdin)
        process = _processes.Process(target=_run, args=(words, variables, cwd or Path.cwd(), folder), daemon=False)
        process.start()
        process.join(within)
        ended = process.exitcode
        if ended is None:
            process.kill()
            process.join()
        stdout, stderr = ((folder / stream).read_text() for stream in ("stdout", "stderr"))
    if ended is None:
        raise subprocess.TimeoutExpired(words, within, stdout, stderr)
    return subprocess.CompletedProcess(words, ended, stdout, stderr)


def _run(words: list[str], env: dict[str, str], cwd: Path, folder: Path) -> None:
    from rhai_tasks import launch
    from rhai_tasks.cli import main

    for number, (name, mode, errors) in enumerate(
        [("stdin", "r", "strict"), ("stdout", "w", "strict"), ("stderr", "w", "backslashreplace")]
    ):
        with (folder / name).open(mode) as file:
            os.dup2(file.fileno(), number)
        setattr(sys, name, open(number, mode, buffering=1 if number == 2 else -1, errors=errors, closefd=False))  # noqa: SIM115  (stays open)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = words
    commands: dict[str, Callable[[], Any]] = {
        "rhai-tasks": main,
        "rhai-worker": launch.worker,
        "rhai-bridge": launch.bridge,
    }
    try:
        sys.exit(commands[Path(words[0]).name]())
    finally:
        atexit._run_exitfuncs()  # else they do not run: multiprocessing ends its processes with os._exit
