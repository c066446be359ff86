"""Tests in Rhai, by the command and by pytest."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import BIN
from tests.conftest import wait_until

ENGINE = """
from rhai_tasks import Engine


def make_engine() -> Engine:
    engine = Engine()
    engine.register("price", lambda item: {"tea": 3}[item])
    return engine
"""
SCRIPT = 'fn total(item, count) { if count < 0 { throw "no count" } price(item) * count }\nthrow "it never runs";\n'
TESTS = """
fn test_host() { assert_eq(total("tea", 2), 6); }
fn test_values() { assert_eq([1, #{a: "x"}], [1, #{a: "x"}]); assert_ne(1, true); assert_ne([1], [true]); }
fn test_throws() { assert(assert_throws(|| total("tea", -1)).contains("no count")); }
fn test_prints() { print("printed \\x1b[31m"); assert_eq(CALLER_ID + CONTEXT_ID, "callercircle"); }
fn helper() { throw 1 }
fn test_with_parameter(a) { throw 1 }
"""
FAILING = {
    "fn test_it() { assert_eq(1, 2); }": "assert_eq: expected 2, not 1",
    "fn test_it() { assert_ne(1, 1); }": "assert_ne: expected another value than 1",
    "fn test_it() { assert(1 > 2); }": "assert: the value is false",
    "fn test_it() { assert_throws(|| 1); }": "assert_throws: the function did not fail",
    'fn test_it() { total("coffee", 1); }': "'coffee'",
    "fn test_it() { nope() }": "Function not found: nope",
    'fn test_it() { throw "\\x1b[31m" }': "31m",
    "fn test_it( {": "test.rhai",
    '"\xff': "cannot be read",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "engine_of_shop.py").write_text(ENGINE)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/shop.rhai").write_text(SCRIPT)
    (tmp_path / "sub/shop.test.rhai").write_text(TESTS)
    return tmp_path


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(BIN / "rhai-tasks"), "test", *arguments, "--engine", "engine_of_shop:make_engine"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


def test_tests_of_a_folder_run(folder: Path) -> None:
    ended = run(folder)

    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (0, "4 passed, 0 failed.")
    assert ended.stdout.count("ok sub/shop.test.rhai::test_") == 4
    assert "printed" in ended.stderr


def test_a_function_of_the_tests_takes_the_place_of_the_hosts(folder: Path) -> None:
    file = folder / "sub/shop.test.rhai"
    file.write_text('fn price(item) { 100 }\nfn test_it() { assert_eq(total("coffee", 2), 200); }')

    assert run(folder, str(file)).returncode == 0


@pytest.mark.parametrize("source", FAILING)
def test_a_failure_says_why_and_the_others_run(folder: Path, source: str) -> None:
    (folder / "sub/shop.test.rhai").write_bytes(source.encode("latin-1"))
    (folder / "other.test.rhai").write_text("fn test_right() { }")

    ended = run(folder)

    assert (ended.returncode, ended.stdout.splitlines()[-1]) == (1, "1 passed, 1 failed.")
    assert FAILING[source] in ended.stdout
    assert "Traceback" not in ended.stderr


def test_without_a_test_nothing_has_passed(folder: Path) -> None:
    (folder / "sub/shop.test.rhai").unlink()

    ended = run(folder)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert "there is no test" in ended.stderr


def test_watch_runs_them_again_after_a_change(folder: Path) -> None:
    log = folder / "log"
    with log.open("w") as out:
        process: Any = subprocess.Popen(
            [str(BIN / "rhai-tasks"), "test", "--watch", "--engine", "engine_of_shop:make_engine"],
            cwd=folder,
            stdout=out,
            stderr=out,
        )
    try:
        wait_until(lambda: "4 passed, 0 failed." in log.read_text())
        (folder / "sub/shop.rhai").write_text(SCRIPT.replace("* count", "* count + 1"))
        wait_until(lambda: "3 passed, 1 failed." in log.read_text())
    finally:
        process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_pytest_collects_them(folder: Path) -> None:
    (folder / "conftest.py").write_text('pytest_plugins = ["rhai_tasks.testing"]\n')
    (folder / "pytest.ini").write_text("[pytest]\nrhai_engine = engine_of_shop:make_engine\n")
    (folder / "wrong.test.rhai").write_text("fn test_wrong() { assert_eq(1, 2); }\nfn test_right() { }")

    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rootdir", str(folder)]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)

    assert "5 passed" in ended.stdout, ended.stdout
    assert "1 failed" in ended.stdout
    assert "assert_eq: expected 2, not 1 (line 1, position 19)" in ended.stdout
    assert "_pytest" not in ended.stdout.partition("FAILURES")[2]
