"""The files of examples/deploy are right, as far as can be told without systemd, registries and clusters."""

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import redis
import yaml

from bridge.cli import bridge, worker
from docs.reference import known_variables
from rhai_tasks.cli import main
from rhai_tasks.observe.metrics import OLDEST
from rhai_tasks.queue.life import INTERRUPT_SECONDS
from rhai_tasks.settings import Settings

DEPLOY = Path(__file__).parents[3] / "examples/deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
COMPOSE = yaml.safe_load((DEPLOY / "container/compose.yaml").read_text())
CONTAINERFILE = (DEPLOY / "container/Containerfile").read_text()
WORKER, BUDGET = yaml.safe_load_all((DEPLOY / "kubernetes/worker.yaml").read_text())
SCALED, AUTHENTICATION = yaml.safe_load_all((DEPLOY / "kubernetes/keda.yaml").read_text())
POD = WORKER["spec"]["template"]["spec"]
COMMANDS = {"rhai-worker": worker, "rhai-bridge": bridge, "rhai-tasks": main}


def commands() -> Iterator[list[str]]:
    for unit in UNITS:
        yield from (shlex.split(line) for line in re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE))
    yield from (yaml.safe_load(words) for words in re.findall(r"CMD (\[.+\])$", CONTAINERFILE, re.MULTILINE))
    yield COMPOSE["services"]["worker"]["command"]
    yield COMPOSE["services"]["web"]["command"]
    yield POD["containers"][0]["args"]


def option(words: list[str], name: str) -> float:
    found = re.search(rf"{name}[= ](\S+)", " ".join(words))
    assert found
    return float(found[1])


def run(*command: str | Path) -> str:
    ended = subprocess.run(
        [Path(sys.executable).parent / command[0], *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_takes_its_options(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHAI_TASKS_CIRCLE_PUBLIC_KEY", "02abc")
    for variable, value in re.findall(r"^ENV (\w+)=(\S+)$", CONTAINERFILE, re.MULTILINE):
        monkeypatch.setenv(variable, value)
    name = Path(words[0]).name

    context = COMMANDS[name].make_context(name, words[1:])

    if isinstance(context.command, click.Group):
        below, command, rest = context.command.resolve_command(context, [*context._protected_args, *context.args])
        assert command
        command.make_context(below, rest, parent=context)


@pytest.mark.parametrize(
    "file", [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()], ids=lambda path: path.name
)
def test_every_variable_is_one_that_is_read(file: Path) -> None:
    assert set(re.findall(r"RHAI_TASKS_[A-Z_]+", file.read_text())) <= known_variables()


def test_whoever_stops_a_worker_gives_it_the_time_it_takes() -> None:
    needed = 2 * INTERRUPT_SECONDS + 5
    unit = (DEPLOY / "systemd/rhai-worker@.service").read_text()
    start = shlex.split(re.findall(r"ExecStart=(.+)", unit)[0])
    service = COMPOSE["services"]["worker"]

    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) >= option(start, "--shutdown-timeout") + needed
    grace = int(service["stop_grace_period"].removesuffix("s"))
    assert grace >= option(service["command"], "--shutdown-timeout") + needed
    grace = POD["terminationGracePeriodSeconds"]
    assert grace >= option(POD["containers"][0]["args"], "--shutdown-timeout") + needed


def test_a_greedy_task_meets_our_limit_before_the_containers() -> None:
    service, container = COMPOSE["services"]["worker"], POD["containers"][0]

    assert service["mem_limit"] == "1g"
    assert container["resources"]["limits"]["memory"] == "1Gi"
    for words in (service["command"], container["args"]):
        assert option(words, "--processes") * option(words, "--memory-limit") < 1024


# --- systemd


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A root directory with the units where systemd looks for them, and our commands where the units do."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    shutil.copytree(DEPLOY / "systemd", tmp_path / "etc/systemd/system")
    commands = tmp_path / "opt/rhai-tasks/bin"
    commands.mkdir(parents=True)
    for command in COMMANDS:
        (commands / command).symlink_to("/bin/true")
    shutil.copy("/bin/true", commands)
    return tmp_path


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_reads_the_units_without_a_warning(installed: Path, unit: Path) -> None:
    folder = installed / "etc/systemd/system"
    name = unit.name.replace("@", "@02abc")
    for path in folder.glob("*.service"):  # where our commands are is all that differs
        path.write_text(path.read_text().replace("/opt/", f"{installed}/opt/"))
    if name != unit.name:
        (folder / name).symlink_to(unit.name)

    ended = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", folder / name],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_the_units_are_hardened(installed: Path, unit: Path) -> None:
    """Out of 10 points of exposure, less than 2 are left: the network, above all."""
    path = installed / "etc/systemd/system" / unit.name

    ended = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=20", path],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert ended.returncode == 0, ended.stdout + ended.stderr


# --- containers


def test_hadolint_finds_nothing_in_the_containerfile() -> None:
    run("hadolint", DEPLOY / "container/Containerfile")


def test_the_image_contains_what_the_build_needs() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", CONTAINERFILE, re.MULTILINE)

    for word in " ".join(copied).split():
        assert (DEPLOY.parents[1] / word).exists(), word


def test_compose_accepts_the_file() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "container/compose.yaml")


# --- Kubernetes


def test_kubernetes_accepts_the_manifest() -> None:
    run("kubernetes-validate", "--strict", DEPLOY / "kubernetes/worker.yaml")


def test_keda_scales_the_deployment_by_the_list_that_its_worker_empties() -> None:
    trigger, of_age = SCALED["spec"]["triggers"]
    (circle,) = (word.partition("=")[2] for word in POD["containers"][0]["args"] if "circle" in word)

    assert SCALED["spec"]["scaleTargetRef"]["name"] == WORKER["metadata"]["name"]
    assert "replicas" not in WORKER["spec"], "it would fight with the autoscaler"
    assert trigger["metadata"]["listName"] == Settings().prefixes.queue + circle
    assert of_age["metadata"]["query"] == f'max({OLDEST.name}{{circle="{circle}"}})'
    assert trigger["authenticationRef"]["name"] == AUTHENTICATION["metadata"]["name"]
    assert BUDGET["spec"]["selector"] == WORKER["spec"]["selector"]


def test_kedas_user_may_count_the_list_and_no_more(client: Any, server_url: str) -> None:
    line = re.search(r"ACL SETUSER keda (.+)", (DEPLOY / "kubernetes/keda.yaml").read_text())
    assert line
    client.execute_command("ACL", "SETUSER", "keda", *line[1].split())
    client.lpush("rhai_tasks:02abc", "1", "2")
    count = "local kind = redis.call('type', KEYS[1]).ok if kind == 'list' then return redis.call('llen', KEYS[1]) end"
    try:
        with redis.Redis.from_url(server_url.replace("redis://", "redis://keda:PASSWORD@")) as keda:
            assert keda.eval(count, 1, "rhai_tasks:02abc") == 2
            with pytest.raises(redis.exceptions.NoPermissionError):
                keda.lpop("rhai_tasks:02abc")
    finally:
        client.acl_deluser("keda")
