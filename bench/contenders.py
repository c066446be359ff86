"""Who is measured: their environments, their commands, and what they are expected to do."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
VENVS = HERE / ".venvs"
LOCKS = HERE / "locks"
WHEELS = VENVS / "wheels"
REFERENCE = HERE / "reference"
RIVALS = HERE / "rivals"
PROGRAMS = {
    "reference-worker": REFERENCE / "target/release/reference-worker",
    "apalis-worker": RIVALS / "target/release/apalis-worker",
    "node": Path(shutil.which("node") or "node"),
}
"""Programs of workers outside of environments of Python."""
CIRCLE = "02bench"
OURS = Path(sys.executable).parent
ENGINE = "apps.engine:make_engine"
ALL = ("W1", "W2", "W3", "W4", "W6", "W7")


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to run scripts from a queue. Why it is set up so stands in its module in apps/."""

    name: str
    application: str  # module in apps/
    environment: str = ""  # folder in .venvs, and lock file; empty: the project's own
    commands: tuple[str, ...]  # of its workers, all started; the program lies in the environment; {url} is the server's
    rate: int  # trivial tasks a second, roughly: only to choose how many a round has
    parallel: int = 2  # scripts that wait at a time
    workloads: tuple[str, ...] = ALL
    python: str = "python3"  # that its environment is made with
    packages: str = ""  # folder whose packages npm installs
    redis: tuple[int, ...] = ()  # version that `redis-server` must have; empty: Valkey, as for all others

    @property
    def folder(self) -> Path:
        """Where its programs are."""
        return VENVS / self.environment / "bin" if self.environment else OURS

    def worker_commands(self, url: str) -> list[list[str]]:
        """Spell the commands out."""
        found = []
        for command in self.commands:
            program, *arguments = command.format(url=url, circle=CIRCLE, engine=ENGINE).split()
            found.append([str(PROGRAMS.get(program, self.folder / program)), *arguments])
        return found

    def client_command(self, application: str = "") -> list[str]:
        """Spell the client's command out."""
        return [str(self.folder / "python"), "-m", "apps", application or self.application]

    def versions(self) -> str:
        """Name the versions that matter."""
        if self.application == "apalis":
            return f"apalis {_locked('apalis')}, apalis-redis {_locked('apalis-redis')}"
        if not self.environment:
            return f"dramatiq {version('dramatiq')}, redis-py {version('redis')}"
        lines = (LOCKS / f"{self.environment}.txt").read_text().splitlines()
        found = [line.replace("==", " ") for line in lines if line.startswith((self.environment, "redis="))]
        if self.packages:
            wanted = json.loads((HERE / self.packages / "package.json").read_text())["dependencies"]
            found += [f"{name} {one} of npm" for name, one in wanted.items()]
        return ", ".join(found)


def _locked(crate: str) -> str:
    """Return the version of a crate in the lock of the rivals."""
    return (RIVALS / "Cargo.lock").read_text().partition(f'name = "{crate}"\nversion = "')[2].partition('"')[0]


def _ours(processes: int, threads: int, workloads: tuple[str, ...] = ("W1", "W1d", "W2", "W3")) -> Contender:
    return Contender(
        name=f"ours {processes}x{threads}",
        application="native",
        commands=(
            "rhai-worker --redis-url {url} --circle-public-key {circle} --engine {engine}"
            f" --processes {processes} --threads {threads}",
        ),
        rate=14_000,
        parallel=processes * threads,
        workloads=workloads,
    )


CONTENDERS = (
    Contender(
        name="reference",
        application="native",
        commands=("reference-worker --redis-url {url} --circle-public-key {circle}",),
        rate=14_000,  # more than it has: it is given as many as ours
        parallel=1,
        workloads=(*ALL, "W1d", "W5"),
    ),
    _ours(1, 8, (*ALL, "W1d", "W5")),  # the default
    _ours(2, 8, (*ALL, "W1d", "W5")),
    _ours(1, 1),
    _ours(2, 1),
    Contender(
        name="ours bridge+dramatiq",
        application="native",
        commands=(
            "rhai-bridge --redis-url {url} --circle {circle}",
            "dramatiq rhai_tasks.worker:setup --processes 2 --threads 8",
        ),
        rate=14_000,
        parallel=16,
        workloads=("W1", "W2", "W3", "W4"),
    ),
    Contender(
        name="dramatiq",
        application="dramatiq",
        environment="dramatiq",
        commands=("dramatiq apps.dramatiq --processes 2 --threads 8",),
        rate=2_500,
        parallel=16,
        workloads=(*ALL, "W5"),
    ),
    Contender(
        name="celery",
        application="celery",
        environment="celery",
        commands=(
            "celery -A apps.celery worker --concurrency 2 --without-gossip --without-mingle --without-heartbeat"
            " --loglevel WARNING",
        ),
        rate=1_200,
    ),
    Contender(
        name="celery threads",
        application="celery",
        environment="celery",
        commands=(
            "celery -A apps.celery worker --pool threads --concurrency 16 --without-gossip --without-mingle"
            " --without-heartbeat --loglevel WARNING",
        ),
        rate=1_000,
        parallel=16,
        workloads=("W1", "W3"),
    ),
    Contender(
        name="rq",
        application="rq",
        environment="rq",
        commands=("rq worker-pool default --num-workers 2 --url {url} --quiet",),
        rate=100,
    ),
    Contender(
        name="rq simple",
        application="rq",
        environment="rq",
        commands=("rq worker-pool default --num-workers 2 --worker-class rq.worker.SimpleWorker --url {url} --quiet",),
        rate=500,
        workloads=("W1", "W2", "W3", "W4"),
    ),
    Contender(
        name="arq",
        application="arq",
        environment="arq",
        commands=("arq apps.arq.WorkerSettings",) * 2,
        rate=800,
        parallel=32,
    ),
    Contender(
        name="taskiq",
        application="taskiq",
        environment="taskiq",
        commands=("taskiq worker apps.taskiq:broker --workers 2 --max-threadpool-threads 16 --log-level WARNING",),
        rate=1_700,
        parallel=32,
    ),
    Contender(
        name="saq",
        application="saq",
        environment="saq",
        commands=("saq apps.saq.settings --workers 2 --quiet",),
        rate=1_600,
        parallel=32,
    ),
    Contender(
        name="streaq",
        application="streaq",
        environment="streaq",
        commands=("streaq run apps.streaq:worker --workers 2",),
        rate=1_200,
        parallel=32,
    ),
    Contender(
        name="ardiq",
        application="ardiq",
        environment="ardiq",
        commands=("ardiq run --quiet --workers 2 apps.ardiq:app",),
        rate=4_000,
        parallel=32,
        python="python3.12",
    ),
    Contender(
        name="apalis",
        application="apalis",
        commands=("apalis-worker {url}",),
        rate=14_000,
        workloads=("W1", "W1d", "W2", "W4"),  # its connection gives up on a fetch of many large scripts
    ),
    Contender(
        name="bullmq",
        application="bullmq",
        environment="bullmq",
        packages="rivals/node",
        commands=("node rivals/node/worker.mjs {url}",) * 2,
        rate=6_000,
        workloads=("W1", "W1d", "W2", "W4", "W6", "W7"),
    ),
    Contender(
        name="chasquimq",
        application="chasquimq",
        environment="chasquimq",
        commands=("python -m apps.chasquimq",) * 2,
        rate=2_000,
        parallel=32,
        redis=(8, 6),
    ),
)


def chosen(names: Sequence[str]) -> list[Contender]:
    """Pick contenders whose name begins with one of these; all without."""
    return [one for one in CONTENDERS if not names or one.name.startswith(tuple(names))]


def environment(url: str, **more: str) -> dict[str, str]:
    """Return the environment of workers and clients: they find apps/ and the server in it."""
    # An installed package has bytecode; without it, a start would compile what is installed as a checkout.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **inherited,
        "BENCH_URL": url,
        "PYTHONPATH": str(HERE),
        "RHAI_TASKS_REDIS_URL": url,
        "RHAI_TASKS_ENGINE": ENGINE,
        "RUST_LOG": "warn",
        **more,
    }


def _run(*command: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run([str(part) for part in command], cwd=cwd, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command[:6]))}: {(done.stderr or done.stdout).strip()[-600:]}")


def build() -> None:
    """Build the reference worker, the Rust program that uses Rhai, and a wheel of ours for every environment.

    Raises:
        RuntimeError: One does not build.
    """
    for folder in (REFERENCE, HERE / "native", RIVALS):
        _run("cargo", "build", "--release", "--locked", "--quiet", "--workspace", cwd=folder)
    shutil.rmtree(WHEELS, ignore_errors=True)
    _run(OURS / "maturin", "build", "--release", "--locked", "--quiet", "--out", WHEELS, cwd=HERE.parent)


def install(contender: Contender) -> None:
    """Install a contender with the versions of its lock, and our engine, into an environment of its own.

    Dependencies are all in the lock: some contenders want an older redis-py than our own client does, and use
    nothing of ours but the engine.

    Raises:
        RuntimeError: It cannot be had here.
    """
    folder = VENVS / contender.environment
    python = folder / "bin/python"
    lock = LOCKS / f"{contender.environment}.txt"
    done = folder / "installed.txt"
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
    if not done.exists() or done.read_text() != lock.read_text():
        _run(_find_python(contender.python), "-m", "venv", "--clear", folder)
        _run(*pip, "-r", lock)
        done.write_text(lock.read_text())
    _run(*pip, "--force-reinstall", *WHEELS.glob("*.whl"))
    if contender.packages:
        _run("npm", "ci", "--ignore-scripts", "--silent", cwd=HERE / contender.packages)


def _find_python(name: str) -> str:
    """Find an interpreter: this one, one on the path, or one of pyenv's.

    Raises:
        RuntimeError: There is none.
    """
    if name == "python3":
        return sys.executable
    pyenv = Path.home().glob(f".pyenv/versions/*/bin/{name}")
    for candidate in [*map(str, pyenv), shutil.which(name) or ""]:
        if candidate and subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode == 0:
            return candidate
    raise RuntimeError(f"it needs {name}, which is not on this machine")


def find_server(contender: Contender) -> str:
    """Find a server that is new enough for this contender.

    Raises:
        RuntimeError: There is none.
    """
    wanted = ".".join(map(str, contender.redis))
    program = shutil.which("redis-server")
    if not program:
        raise RuntimeError(f"it needs Redis {wanted} or newer, and there is no redis-server")
    text = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = next(word for word in text.split() if word.startswith("v=")).removeprefix("v=")
    if tuple(map(int, found.split("."))) < contender.redis:
        raise RuntimeError(f"it needs Redis {wanted} or newer, and redis-server here is {found}")
    return program
