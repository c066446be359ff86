"""The command `rhai-tasks`, as the tests of several files run it."""

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks.protocol import Dialect
from tests.commands import run_command

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(server_url: str, client: Any, dialect: Dialect) -> Run:
    """Run the command to its end, for the circle `circle` and in the test's dialect."""
    assert client.dbsize() == 0

    def run(*arguments: str, stdin: str = "", url: str = server_url) -> "subprocess.CompletedProcess[str]":
        env = {"RHAI_TASKS_REDIS_URL": url, "RHAI_TASKS_CIRCLE": "circle", "RHAI_TASKS_DIALECT": dialect.name}
        return run_command("rhai-tasks", *arguments, stdin=stdin, env=env)

    return run
