"""The command `rhai-tasks`, as the tests of several files run it."""

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import BIN

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(server_url: str, client: Any) -> Run:
    """Run the command to its end."""
    assert client.dbsize() == 0

    def run(*arguments: str, stdin: str | None = None, url: str = server_url) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [str(BIN / "rhai-tasks"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            env={**os.environ, "RHAI_TASKS_REDIS_URL": url, "RHAI_TASKS_CIRCLE": "circle"},
        )

    return run
