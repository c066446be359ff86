"""Runs commands of the project, each in a process that is forked from one which has imported them.

Importing them takes ten times as long as most commands run. Some tests need a new process: those of its start, its
title, its terminal, and of variables that Python itself reads.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import distribution
from pathlib import Path
from tempfile import TemporaryDirectory

BIN = Path(sys.executable).parent
OURS = {command.name: command for command in distribution("rhai-tasks").entry_points.select(group="console_scripts")}

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(
    ["bridge.cli", "bridge.worker", "rhai_tasks.cli", "rhai_tasks.web.server", "rhai_tasks.worker", __name__]
)


class Forked:
    """A process that was forked, with the methods of `subprocess.Popen`.

    Args:
        words: The command: `rhai-tasks`, `rhai-worker` or `rhai-bridge`, and its arguments.
        streams: The files that are its stdin, stdout and stderr; the last two may be one.
        env: All of its variables.
        cwd: Its folder.
    """

    def __init__(
        self, words: Sequence[str], streams: tuple[Path, Path, Path], env: Mapping[str, str], cwd: Path
    ) -> None:
        self.args = [str(BIN / words[0]), *words[1:]]
        self._process = _processes.Process(target=_run, args=(self.args, streams, dict(env), cwd), daemon=False)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        """Return the exit status; `None`: it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, and return the exit status.

        Raises:
            subprocess.TimeoutExpired: It has not ended in so many seconds.
        """
        self._process.join(timeout)
        ended = self.poll()
        if ended is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        return ended

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it ends right now: the fork server, not this process, waits for it
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run_command(
    program: str,
    *arguments: str | bytes,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    within: float = 120.0,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end; one of another package, as `dramatiq`, starts on its own.

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
    words, variables = [program, *map(os.fsdecode, arguments)], {**os.environ, **(env or {})}
    if program in OURS:
        ended = run_bytes(*words, stdin=stdin.encode(), env=variables, cwd=cwd, within=within)
        return subprocess.CompletedProcess(ended.args, ended.returncode, ended.stdout.decode(), ended.stderr.decode())
    command = [str(BIN / program), *words[1:]]
    return subprocess.run(
        command, input=stdin, env=variables, cwd=cwd, timeout=within, capture_output=True, text=True, check=False
    )


def run_bytes(
    *words: str, stdin: bytes = b"", env: Mapping[str, str], cwd: Path | None = None, within: float = 120.0
) -> "subprocess.CompletedProcess[bytes]":
    """Run a command of ours to its end; `env` has all of its variables.

    Raises:
        subprocess.TimeoutExpired: It has not ended in time, and was killed.
    """
    with TemporaryDirectory() as folder:
        streams = (Path(folder, "stdin"), Path(folder, "stdout"), Path(folder, "stderr"))
        streams[0].write_bytes(stdin)
        process = Forked(words, streams, env, cwd or Path.cwd())
        try:
            ended = process.wait(within)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, ended, streams[1].read_bytes(), streams[2].read_bytes())


def _run(words: list[str], streams: tuple[Path, Path, Path], env: dict[str, str], cwd: Path) -> None:
    from setproctitle import setproctitle

    modes = [("stdin", "r", "strict"), ("stdout", "a", "strict"), ("stderr", "a", "backslashreplace")]
    for number, ((name, mode, errors), path) in enumerate(zip(modes, streams, strict=True)):
        with path.open(mode) as file:
            os.dup2(file.fileno(), number)
        buffering = 1 if name == "stderr" else -1
        setattr(sys, name, open(number, mode, buffering, errors=errors, closefd=False))  # noqa: SIM115  (stays open)
    sys.orig_argv = [sys.executable, *words]
    # Before the variables change: their place in memory is the title's.
    setproctitle(" ".join(sys.orig_argv).encode(errors="replace").decode())
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    sys.argv = words
    try:
        sys.exit(OURS[Path(words[0]).name].load()())
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends its processes with os._exit, and runs none
