"""The examples do what they say."""

import subprocess
import sys
from collections.abc import Callable

from tests.conftest import Dispatcher, Worker


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=60, check=False)


def test_the_demo_ends_as_expected() -> None:
    ended = run("examples.demo")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Every result is the expected one." in ended.stdout


def test_the_engine_with_functions_prices_tea_and_cake() -> None:
    assert run("examples.engine_with_functions").stdout == "7.90\n"


def test_the_dispatcher_gets_a_result_from_the_embedded_worker(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], server_url: str
) -> None:
    assert dispatcher.client.ping()
    spawn("python", "-m", "examples.embed_worker", server_url, "02abc")

    assert run("examples.submit_like_a_dispatcher", server_url, "02abc", "greet(CALLER_ID)").stdout == "Hello 03me!\n"
    assert "boom" in run("examples.submit_like_a_dispatcher", server_url, "02abc", 'throw "boom"').stdout
