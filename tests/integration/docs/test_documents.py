"""What the documents show runs as it stands.

Python runs page by page, and so do commands: in one shell, with the test server's address, ports and circle in place of
the page's, and what stays (workers, bridges) beside what follows. Where a page shows output, that is what comes out. A
block that cannot run says why in a comment above it: <!-- not run: the reason -->. The pages about the engine, and the
README's other snippets, are run in tests/unit.
"""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from tests.commands import BIN
from tests.conftest import free_port

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench/README.md", *ROOT.glob("docs/**/*.md")]
)
STAYS = re.compile(
    r"(rhai-worker|rhai-bridge|dramatiq|rhai-tasks web|rhai-tasks queues --watch)\b(?!.*--(help|version))"
)
ASKS = re.compile(r"rhai-tasks health|curl")  # a process that stays, which may not be listening yet


@dataclass(frozen=True)
class Block:
    """A block of code in a page."""

    language: str
    text: str
    excuse: str  # why it is not run

    def commands(self) -> list[tuple[str, str]]:
        """Return each command with the output that is shown below it; nothing is installed."""
        parts = re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]
        pairs = (re.sub(r"\\\n\s*", "", part).partition("\n") for part in parts)
        return [(command, shown) for command, _, shown in pairs if not command.startswith("pip install ")]


def blocks(page: str, language: str = "") -> list[Block]:
    found = re.findall(
        r"(?:<!-- not run: ([^>]+) -->\n+)?^```(\w*)\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE
    )
    return [Block(kind, text, excuse) for excuse, kind, text in found if kind == language or not language]


def snippets(page: str) -> list[str]:
    return [block.text for block in blocks(page, "python") if not block.excuse]


def pages_with(language: str) -> list[str]:
    return [page for page in PAGES if any(not block.excuse for block in blocks(page, language))]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_run_or_says_why_not(page: str) -> None:
    for block in blocks(page):
        runs = block.language in {"python", "console"}
        shows = block.language in {"text", "json"} or block.text.startswith('--8<-- "')
        assert runs or shows or block.excuse, block.text


@pytest.mark.parametrize("page", PAGES)
def test_every_extra_that_a_page_installs_is_there(page: str) -> None:
    extras = metadata("rhai-tasks").get_all("Provides-Extra") or []

    for names in re.findall(r"pip install '(?:\.|rhai-tasks)\[([\w,]+)\]'", (ROOT / page).read_text()):
        assert set(names.split(",")) <= set(extras)


@pytest.mark.usefixtures("rhai_worker")
@pytest.mark.parametrize("page", pages_with("console"))
def test_commands_run(page: str, rhai_server: str, rhai_circle: str, tmp_path: Path) -> None:
    commands = [command for block in blocks(page, "console") if not block.excuse for command in block.commands()]
    for port in {port for command, _ in commands for port in re.findall(r"--port (\d+)", command)}:
        free = str(free_port())
        commands = [(command.replace(port, free), shown.replace(port, free)) for command, shown in commands]
    lines = ["stay=()"]
    for number, (command, shown) in enumerate(commands):
        if STAYS.match(command):
            patience = 20 if shown else 2
            lines += [
                f"{command.partition(' #')[0]} >out.{number} 2>&1 &",
                "stay+=($!); SECONDS=0",
                f"until [ -s out.{number} -o $SECONDS -ge {patience} ]; do kill -0 $! || exit; sleep 0.02; done",
            ]
        elif ASKS.match(command):
            lines += [
                f"SECONDS=0; until {{ {command}",
                f"}} >out.{number} 2>&1 || [ $SECONDS -ge 60 ]; do sleep 0.1; done; [ $SECONDS -lt 60 ]",
                f"echo $? >status.{number}",
            ]
        else:
            lines += [f"{{ {command}", f"}} >out.{number} 2>&1; echo $? >status.{number}"]
    lines += ['for pid in "${stay[@]}"; do kill $pid; wait $pid; echo $? >>stopped; done']
    script = "\n".join(lines).replace("redis://127.0.0.1/", rhai_server).replace("02abc", rhai_circle)
    for port in set(re.findall(r"(?<=\s)127\.0\.0\.1:(\d+)", script)):
        script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port()}")

    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )

    assert (ended.returncode, ended.stderr) == (0, ""), script
    for number, (command, shown) in enumerate(commands):
        out = (tmp_path / f"out.{number}").read_text()
        if not STAYS.match(command):
            failed = (
                not command.startswith("rhai-tasks doctor") and (tmp_path / f"status.{number}").read_text() != "0\n"
            )
            assert failed == shown.startswith("Error: "), f"{command}: {out}"
        if shown:
            pattern = ".*".join(re.escape(part) for part in re.split(r"…|\.\.\.", shown.strip()))
            assert re.fullmatch(pattern, out.strip()), f"{command}: {out}"
    if (tmp_path / "stopped").exists():
        assert set((tmp_path / "stopped").read_text().split()) <= {"0", "143"}


@pytest.mark.usefixtures("rhai_worker")
@pytest.mark.parametrize(
    "page",
    [page for page in pages_with("python") if re.fullmatch(r"docs/(?!testing|engine/).*", page)],
)
def test_snippets_run(page: str, rhai_server: str, rhai_circle: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}

    for snippet in snippets(page):
        code = snippet.replace("redis://127.0.0.1/", rhai_server).replace("02abc", rhai_circle)
        exec(compile(code, page, "exec"), names)

    if page == "docs/quickstart.md":
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


def test_an_application_tests_with_the_plugin_as_documented(tmp_path: Path) -> None:
    conftest, tests = snippets("docs/testing.md")
    (tmp_path / "conftest.py").write_text(conftest)
    (tmp_path / "test_app.py").write_text(tests)

    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path), "--rootdir", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
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
        timeout=200,
        cwd=tmp_path,
    )

    assert ended.returncode == 0, ended.stdout
