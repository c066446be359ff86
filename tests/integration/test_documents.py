"""What the documents show runs as it stands."""

import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

import rhai_tasks
from tests.conftest import BIN, Worker, wait_until

ROOT = Path(__file__).parents[2]


def snippets(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


@pytest.mark.usefixtures("rhai_worker")
@pytest.mark.parametrize("page", ["quickstart", "client", "async", "cancel", "delay", "operations/traces"])
def test_snippets_run(page: str, rhai_server: str, rhai_circle: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}

    for snippet in snippets(f"docs/{page}.md"):
        code = snippet.replace("redis://127.0.0.1/", rhai_server).replace("02abc", rhai_circle)
        exec(compile(code, page, "exec"), names)

    if page == "quickstart":
        printed = capsys.readouterr().out
        assert re.search(r" 42\nArray index 5 out of bounds.* 1 \d+\n332833500\n$", printed), printed


def test_the_readmes_client_runs(
    rhai_server: str, rhai_circle: str, rhai_worker: object, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = (text for text in snippets("README.md") if "def ask" in text)
    names: dict[str, Any] = {}
    exec(compile(snippet, "README.md", "exec"), names)

    names["ask"](rhai_server, rhai_circle)

    assert capsys.readouterr().out == "42\n999000\nRuntime error: no (line 1, position 1) 1\n"


@pytest.mark.parametrize("page", ["metrics", "health"])
def test_a_port_answers_as_documented(page: str, spawn: Callable[..., Worker], rhai_server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    console = "".join(re.findall(r"```console\n(.*?)```", (ROOT / f"docs/operations/{page}.md").read_text(), re.DOTALL))
    asked = [command.replace("9187", port).split("\n", 1) for command in console.split("$ ")[1:]]
    environment = {"RHAI_TASKS_REDIS_URL": rhai_server, "RUST_LOG": "warn"}
    worker = f"rhai-worker --circle-public-key 02abc --metrics-address 127.0.0.1:{port}"
    if page == "metrics":
        assert [worker, ""] in asked
    spawn(*worker.split(), env=environment)
    health = ["rhai-tasks", "health", "--address", f"127.0.0.1:{port}"]
    wait_until(lambda: subprocess.run([BIN / health[0], *health[1:]], check=False, capture_output=True).returncode == 0)

    for command, answer in asked:
        program, *arguments = command.split()
        if program == "curl":
            with urlopen(arguments[0]) as response:
                assert b"rhai_tasks_ready" in response.read()
        elif program == "rhai-tasks":
            ended = subprocess.run([BIN / program, *arguments], check=True, capture_output=True, text=True)
            assert ended.stdout == answer


def test_an_application_tests_with_the_plugin_as_documented(tmp_path: Path) -> None:
    conftest, tests = snippets("docs/testing.md")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_app.py").write_text(tests)

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), "--rootdir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=tmp_path,
    )

    assert re.search(r"^3 passed", ended.stdout, re.MULTILINE), ended.stdout


def test_users_code_passes_strict_types(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("\n".join(snippets("docs/quickstart.md")))
    (tmp_path / "test_program.py").write_text(snippets("docs/testing.md")[1])
    (tmp_path / "service.py").write_text((ROOT / "examples/web_service.py").read_text())

    ended = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "."],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=tmp_path,
    )

    assert ended.returncode == 0, ended.stdout


def test_the_reference_is_made_of_docstrings_and_names_everything_public(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        cwd=ROOT,
    )
    assert ended.returncode == 0, ended.stderr

    page = (tmp_path / "api/index.html").read_text()
    errors = {name for name in rhai_tasks.__all__ if f'id="rhai_tasks.errors.{name}"' in page}
    assert {name for name in rhai_tasks.__all__ if f'id="rhai_tasks.{name}"' not in page} == errors
    assert "a call whose reply got lost is repeated, and done once" in page
