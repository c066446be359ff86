"""Where a script spends its time, at a terminal and for viewers."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from rhai_tasks import Client
from tests.conftest import Dispatcher, Worker, wait_until
from tests.integration.conftest import Run

SCRIPT = """\
fn costly(n) {
    let x = 0;
    for i in 0..n {
        x += i;
    }
    x
}
print("begins");
costly(2000) + costly(ARGS.n)
"""
EVIL = 'fn f() {\n    throw "\x1b[31m</title><script>alert(1)</script>" }\nf() // \x1b]0;x\x07<b>&'


def test_the_costly_line_and_function_come_first(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.rhai"
    file.write_text(SCRIPT)

    ended = run("profile", str(file), "--arg", "n=200000")

    functions, lines = (part.splitlines() for part in ended.stdout.split("\n\n"))
    assert ended.returncode == 0
    assert ended.stderr == "begins\n"
    assert functions[1].split()[0] == "2"
    assert functions[1].rstrip().endswith("costly(n)")
    assert lines[1].split()[0] == "202,000"
    assert lines[1].rstrip().endswith("x += i;")
    assert lines[-1].endswith(" operations")


def test_a_profile_for_programs_has_every_line(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "report.rhai"
    file.write_text(SCRIPT)

    found = json.loads(run("profile", str(file), "--arg", "n=1000", "-n", "1", "--json").stdout)

    lines = {entry["line"]: entry for entry in found["lines"]}
    assert found["complete"]
    assert sorted(lines) == [2, 3, 4, 6, 8, 9]
    assert (lines[4]["source"], lines[4]["hits"], lines[4]["operations"]) == (None, 3000, 9000)
    assert sum(entry["operations"] for entry in found["lines"]) == found["operations"]
    (costly,) = [entry for entry in found["functions"] if entry["name"] == "costly(n)"]
    assert (costly["line"], costly["calls"], costly["totalOperations"]) == (1, 2, costly["operations"])


def test_viewers_get_a_picture_and_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shop.rhai").write_text("fn price(n) {\n    let x = 0;\n    for i in 0..n { x += i; }\n    x\n}\n")
    file, picture, viewed = tmp_path / "report.rhai", tmp_path / "graph.svg", tmp_path / "graph.json"
    file.write_text('import "shop" as shop;\nshop::price(3000)')

    ended = run(
        "profile", str(file), "--modules", str(tmp_path), "--flamegraph", str(picture), "--speedscope", str(viewed)
    )

    assert ended.returncode == 0
    titles = [title.text or "" for title in ElementTree.parse(picture).iter("{http://www.w3.org/2000/svg}title")]
    assert any(title.startswith("price(n), shop:3\n") for title in titles)
    assert "http" not in picture.read_text().replace("http://www.w3.org/2000/svg", "")
    graph = json.loads(viewed.read_text())
    check_speedscope(graph)
    assert [profile["unit"] for profile in graph["profiles"]] == ["seconds", "none"]
    operations = graph["profiles"][1]
    costly = operations["samples"][operations["weights"].index(max(operations["weights"]))]
    assert [graph["shared"]["frames"][frame]["line"] for frame in costly] == [2, 3]
    assert graph["shared"]["frames"][costly[-1]] == {"name": "price(n), shop:3", "file": "shop", "line": 3}


def check_speedscope(graph: dict[str, Any]) -> None:
    """Check what speedscope's schema asks for."""
    assert graph["$schema"] == "https://www.speedscope.app/file-format-schema.json"
    frames = graph["shared"]["frames"]
    assert all(isinstance(frame["name"], str) for frame in frames)
    for profile in graph["profiles"]:
        assert profile["type"] == "sampled"
        assert profile["unit"] in {"none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"}
        assert len(profile["samples"]) == len(profile["weights"])
        assert all(0 <= frame < len(frames) for sample in profile["samples"] for frame in sample)
        assert sum(profile["weights"]) == pytest.approx(profile["endValue"] - profile["startValue"])


def test_a_task_is_profiled_as_it_was(
    run: Run, app: Client, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle")
    app.scripts.put(SCRIPT + ";if CALLER_ID != `me` || CONTEXT_ID != `circle` { throw 1 }", name="script")
    task = app.submit("@script", caller_id="me", args={"n": 10})
    task.result(60)

    found = json.loads(run("profile", task.id, "--json").stdout)
    refused = run("profile", task.id, "--arg", "n=1")

    assert next(entry["hits"] for entry in found["lines"] if entry["line"] == 4) == 2010
    assert refused.returncode == 2
    assert "a task has its own caller and arguments" in refused.stderr
    dispatcher.submit("circle", "slow", "loop { }", maxOperations="1000")
    dispatcher.result("slow")
    ended = run("profile", "slow")
    assert (ended.returncode, ended.stderr) == (
        1,
        "Too many operations for the task's limit of 1000 (line 1, position 6)\n",
    )
    assert "loop { }" in ended.stdout
    assert run("profile", "nobody's").returncode == 3


def test_a_script_that_fails_has_a_profile_and_status_1(run: Run, tmp_path: Path) -> None:
    file, picture = tmp_path / "evil.rhai", tmp_path / "graph.svg"
    file.write_text(EVIL)

    ended = run("profile", str(file), "--flamegraph", str(picture))

    assert ended.returncode == 1
    assert "Runtime error" in ended.stderr
    assert "\x1b" not in ended.stderr + ended.stdout
    assert "f()" in ended.stdout
    ElementTree.parse(picture)
    assert "<script" not in picture.read_text()


def test_ctrl_c_shows_the_profile_so_far(spawn: Callable[..., Worker], tmp_path: Path) -> None:
    file = tmp_path / "endless.rhai"
    file.write_text('let x = 0;\nloop {\n    x += 1;\n    if x == 1000 { print("loops") }\n}')
    profile = spawn("rhai-tasks", "profile", str(file))
    wait_until(lambda: "loops" in profile.text())

    profile.process.send_signal(signal.SIGINT)

    assert profile.process.wait(60) == 130
    assert "x += 1;" in profile.text()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["no such.rhai"], 2, "Error: no such.rhai: No such file or directory.\n"),
        (["."], 2, "Is a directory"),
        (["report.rhai", "--flamegraph", "no/such/graph.svg"], 1, "no/such/graph.svg: No such file"),
        (["binary.rhai"], 2, "expected UTF-8"),
        (["wrong.rhai"], 1, "Syntax error"),
    ],
)
def test_what_cannot_be_profiled_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], status: int, words: str
) -> None:
    (tmp_path / "report.rhai").write_text("1")
    (tmp_path / "wrong.rhai").write_text("let x = ;")
    (tmp_path / "binary.rhai").write_bytes(b"\xff")
    monkeypatch.chdir(tmp_path)

    ended = run("profile", *arguments)

    assert ended.returncode == status
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
