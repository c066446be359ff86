"""The pytest plugin in an application's project, run as its developers run it."""

import os
import subprocess
import sys
from pathlib import Path

TEST = """
pytest_plugins = ["rhai_tasks.testing"]

import pytest

@pytest.fixture(scope="session")
def rhai_worker_options():
    return ["--threads", "1", "--engine", "shop.scripts:make_engine"]

def test_one(rhai_client):
    assert rhai_client.submit("price()").result(timeout=60) == "5"

def test_two(rhai_client):
    assert rhai_client.submit("price() + 1").result(timeout=60) == "6"
"""
ENGINE = """
from rhai_tasks import Engine

def make_engine():
    engine = Engine()
    engine.register("price", lambda: 5)
    return engine
"""


def run_tests(folder: Path, engine: str) -> "subprocess.CompletedProcess[str]":
    """Make a project with its modules in `src`, and a module `bridge` of its own; run its tests."""
    (folder / "src/shop").mkdir(parents=True)
    (folder / "src/shop/__init__.py").touch()
    (folder / "src/shop/scripts.py").write_text(engine)
    for place in (folder, folder / "src"):
        (place / "bridge.py").write_text("raise AssertionError('nobody imports this')")
    (folder / "test_shop.py").write_text(TEST)
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['src']\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("PYTEST")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_the_worker_imports_modules_from_where_the_tests_do(tmp_path: Path) -> None:
    ended = run_tests(tmp_path, ENGINE)

    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout


def test_a_worker_that_cannot_start_fails_every_test_at_once_and_its_log_says_why(tmp_path: Path) -> None:
    ended = run_tests(tmp_path, "import no_such_module")

    assert "2 errors" in ended.stdout
    assert "rhai-worker ended with status 2; its log says why" in ended.stdout
    assert "No module named 'no_such_module'" in ended.stdout
