"""The examples do what they say, with the fixtures that applications use."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import pytest
from starlette.testclient import TestClient

from rhai_tasks import Client
from tests.commands import BIN
from tests.conftest import Dispatcher, Worker, free_port, wait_until


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, timeout=200, check=False)


def test_the_demo_ends_as_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RHAI_TASKS_DIALECT", "hero")  # of a worker of the user's
    ended = run("rhai_tasks.cli", "demo")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "Every result is the expected one." in ended.stdout.splitlines()
    _, _, steps = ended.stdout.partition("or:\n")
    commands = [line.split()[0] for line in steps.splitlines() if not line.startswith("      ")]
    assert [Path(command).name for command in commands] == ["rhai-tasks", "rhai-worker", "rhai-tasks", "rhai-tasks"]
    assert all(Path(command).exists() for command in commands)  # also where nothing is on the path


def test_the_demo_shows_the_web_page_under_load_until_ctrl_c(tmp_path: Path) -> None:
    port, output = free_port(), tmp_path / "output"
    command = [str(BIN / "rhai-tasks"), "demo", "--web", "--port", str(port)]
    with output.open("w") as file:
        demo = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True)
    address = f"http://127.0.0.1:{port}/"
    wait_until(lambda: address in output.read_text() or demo.poll())

    def page() -> str:
        with urlopen(f"{address}tasks?place=search&go=1&status=completed") as found:
            return str(found.read().decode())

    wait_until(lambda: "03caller-" in page())
    os.killpg(demo.pid, signal.SIGINT)  # as a terminal does: it ends the server, too

    assert demo.wait(60) == 0, output.read_text()
    assert "Next," in output.read_text()
    assert "Traceback" not in output.read_text()
    assert re.findall("ERROR|WARN", output.read_text()) == []


def test_the_engine_with_functions_prices_tea_and_cake() -> None:
    assert run("examples.engine_with_functions").stdout == "7.90\n"


def test_the_dispatcher_gets_a_result_from_the_embedded_worker(
    dispatcher: Dispatcher, spawn: Callable[..., Worker], server_url: str
) -> None:
    assert dispatcher.client.ping()
    spawn("python", "-m", "examples.embed_worker", server_url, "02abc")

    assert run("examples.submit_like_a_dispatcher", server_url, "02abc", "greet(CALLER_ID)").stdout == "Hello 03me!\n"
    assert "boom" in run("examples.submit_like_a_dispatcher", server_url, "02abc", 'throw "boom"').stdout


def test_the_web_service_answers_with_results(
    rhai_client: Client, rhai_server: str, rhai_circle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples import web_service

    monkeypatch.setenv("RHAI_TASKS_REDIS_URL", rhai_server)
    monkeypatch.setenv("RHAI_TASKS_CIRCLE", rhai_circle)
    rhai_client.submit("1").result(timeout=60)
    with TestClient(web_service.app) as browser:
        answer = browser.post("/run", content="`${40 + 2} for ${CALLER_ID}`", headers={"x-caller": "me"})
        assert (answer.status_code, answer.json()) == (200, {"output": "42 for me"})

        answer = browser.post("/run", content="throw `no`")
        assert (answer.status_code, answer.json()["line"]) == (422, 1)

        monkeypatch.setattr(web_service, "TIMEOUT", 0.2)
        assert browser.post("/run", content="loop {}").status_code == 504


@pytest.mark.usefixtures("rhai_worker")
def test_the_batch_counts_a_thousand_results(rhai_server: str, rhai_circle: str) -> None:
    ended = run("examples.batch", rhai_server, rhai_circle)

    total = sum(number * number for number in range(1000) if number % 100 != 99)
    assert ended.stdout == f"990 succeeded with a total of {total}, 10 failed\n", ended.stderr
    assert ended.stderr == ""


@pytest.mark.usefixtures("rhai_worker")
def test_the_pipeline_ends_in_a_bill(rhai_server: str, rhai_circle: str) -> None:
    ended = run("examples.pipeline", rhai_server, rhai_circle)

    assert ended.stdout == "to pay: 22.5\n", ended.stderr
