"""What is published: the sdist here, wheels by the same code where they are built (tests/contents.py)."""

import gc
import importlib
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

import rhai_tasks
from engine.licenses import LICENSES, TARGETS, licenses
from rhai_tasks import launch
from tests.contents import ENGINE, LARGEST_WHEEL, complaints

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    maturin = Path(sys.executable).parent / "maturin"
    subprocess.run([maturin, "sdist", "--out", folder], cwd=ROOT, check=True, capture_output=True, timeout=200)
    (package,) = folder.glob("*.tar.gz")
    return package


def test_the_sdist_contains_what_it_should_and_nothing_else(sdist: Path) -> None:
    assert complaints(sdist) == []


def test_a_missing_script_and_a_stray_file_are_told(sdist: Path, tmp_path: Path) -> None:
    broken = tmp_path / sdist.name
    with tarfile.open(sdist) as whole, tarfile.open(broken, "w:gz") as archive:
        for member in whole:
            if member.name.endswith("take.lua"):
                member.name = member.name.replace("take.lua", "stray.so")
            archive.addfile(member, whole.extractfile(member))

    assert complaints(broken) == [
        f"{sdist.name} lacks bridge/lua/take.lua",
        f"{sdist.name} contains bridge/lua/stray.so",
    ]


def test_a_wheel_without_engine_and_licences_is_told(tmp_path: Path) -> None:
    wheel = tmp_path / "rhai_tasks-1.0.0-cp311-abi3-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("rhai_tasks/__init__.py", "")

    told = complaints(wheel)

    assert f"{wheel.name} lacks {ENGINE}" in told
    assert f"{wheel.name} lacks rhai_tasks-1.0.0.dist-info/licenses/engine/LICENSES.txt" in told


@pytest.mark.parametrize(
    "name", ["rhai_tasks", *(f"rhai_tasks.{part}" for part in ("protocol", "engine", "client", "worker")), "bridge"]
)
def test_what_a_package_hands_out_is_what_it_names(name: str) -> None:
    package = importlib.import_module(name)
    handed_out = {
        name for name in dir(package) if not name.startswith("_") and not isinstance(getattr(package, name), ModuleType)
    }

    assert handed_out == set(package.__all__)


def test_the_engine_is_imported_without_the_client() -> None:
    """redis-py takes twice as long to import as the engine."""
    child = (
        "import sys, rhai_tasks.engine; print('redis' in sys.modules); rhai_tasks.Client; print('redis' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == "False\nTrue\n"


@pytest.mark.parametrize("command", ["worker", "bridge"])
def test_a_command_that_starts_often_imports_only_what_it_needs(command: str) -> None:
    program = (
        f"import bridge.cli, sys; bridge.cli.{command}.main(['--help'], standalone_mode=False); print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    modules = ended.stdout.splitlines()[-1].split()

    ours = {name for name in modules if name.startswith(("rhai_tasks", "bridge"))}
    packages = {".".join(name.split(".")[:2]) for name in ours}
    assert packages.isdisjoint(f"rhai_tasks.{part}" for part in ("cli", "client", "operate", "testing", "web"))
    foreign = ("fastapi", "pika", "prometheus_client", "pydantic", "pygments", "rich", "uvicorn", "websockets")
    assert {name.partition(".")[0] for name in modules}.isdisjoint(foreign)
    # 118 when this was written.
    assert len(ours) < 130


def test_garbage_is_not_looked_for_while_a_command_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_a_command.py").write_text("import gc\nlooked_for = gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert not launch._load("imported_by_a_command").looked_for
    assert gc.isenabled()

    with pytest.raises(ModuleNotFoundError):
        launch._load("there_is_no_such_module")
    assert gc.isenabled()


MOVED = {
    "rhai_tasks.engine": "RHAI_VERSION Function Timestamp",
    "rhai_tasks.errors": "ClientClosed ConfigurationError NoCurrentTask RhaiError RhaiLimitError RhaiRuntimeError "
    "RhaiSyntaxError RhaiTasksError RhaiTerminated ScriptError ServerError ServerUnavailable TaskCancelled TaskError "
    "TaskExists TaskMalformed TaskNotFound TaskTimeout",
}


@pytest.mark.parametrize(("place", "name"), [(place, name) for place in MOVED for name in MOVED[place].split()])
def test_a_name_that_moved_is_still_importable_and_says_where_it_is(place: str, name: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"import {name} from {place}, not from rhai_tasks") as warned:
        exec(f"from rhai_tasks import {name}", found := {"__name__": "application"})

    assert found[name] is getattr(importlib.import_module(place), name)
    assert {warning.filename for warning in warned} == {"<string>"}, "the application's line is to be told"


def test_a_name_that_never_was_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="module 'rhai_tasks' has no attribute 'Cleint'"):
        rhai_tasks.Cleint  # noqa: B018


def test_the_version_stands_in_one_place() -> None:
    cargo = tomllib.loads((ROOT / "engine/Cargo.toml").read_text())["package"]["version"]
    lock = tomllib.loads((ROOT / "engine/Cargo.lock").read_text())["package"]

    assert rhai_tasks.__version__ == version("rhai-tasks") == cargo
    assert [package["version"] for package in lock if package["name"] == "rhai-tasks-engine"] == [cargo]
    elsewhere = subprocess.run(
        ["git", "grep", "--files-with-matches", "--fixed-strings", f'"{cargo}"'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    assert {path for path in elsewhere if "Cargo" not in path} <= {"pyproject.toml"}


def test_the_licences_are_those_of_the_locked_crates() -> None:
    assert LICENSES.read_text() == licenses(), "run: python engine/licenses.py"


def test_wheels_are_built_for_the_targets_whose_licences_they_carry() -> None:
    workflow = (ROOT / ".github/workflows/release.yml").read_text()

    assert sorted(re.findall(r"target: ([\w-]+),", workflow)) == sorted(TARGETS)


def test_wheels_are_built_for_the_systems_that_the_package_names() -> None:
    named = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    built = {"POSIX :: Linux" if "-linux-" in target else "MacOS" for target in TARGETS}

    assert {name.partition(" :: ")[2] for name in named if name.startswith("Operating System")} == built


def test_the_workflow_files_are_well_formed() -> None:
    files = [str(path) for path in (ROOT / ".github/workflows").glob("*.yml")]
    for command in (["check-jsonschema", "--builtin-schema", "vendor.github-workflows"], ["zizmor", "--offline"]):
        ended = subprocess.run(
            [Path(sys.executable).parent / command[0], *command[1:], *files],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_a_wheel_that_is_too_large_is_told(tmp_path: Path) -> None:
    wheel = tmp_path / "rhai_tasks-1.0.0-cp311-abi3-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("rhai_tasks/__init__.py", bytes(LARGEST_WHEEL))

    assert f"{wheel.name} has {wheel.stat().st_size} bytes" in complaints(wheel)


def test_the_demo_installs_no_development_tools() -> None:
    def commands(target: str) -> str:
        command = ["make", "--dry-run", "--always-make", target]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout

    assert "--group dev" in commands("setup")
    assert "--group" not in commands("demo")
