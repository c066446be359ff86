"""The HTTP API in tests: served by the command, and asked by a real client."""

from collections.abc import Callable
from typing import Any

import httpx2

from tests.conftest import PATIENCE, Worker

PROBLEM = "application/problem+json"
SUBMISSION = {"circle": "circle", "script": "40 + 2"}


class Api:
    """The command, and clients of what it serves."""

    def __init__(self, url: str, process: Worker) -> None:
        self.url, self.process = url, process
        self.clients: list[httpx2.Client] = []

    def client(self, key: str | None) -> httpx2.Client:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self.clients.append(httpx2.Client(base_url=f"{self.url}/v1", headers=headers, timeout=2 * PATIENCE))
        return self.clients[-1]

    def close(self) -> None:
        """Close the clients; nothing has failed in the command."""
        while self.clients:
            self.clients.pop().close()
        assert "Traceback" not in self.process.text()

    def operations(self) -> list[tuple[str, str]]:
        """List method and path of each operation that needs a key."""
        paths = self.client(None).get("/openapi.json").json()["paths"]
        return [
            (method, path)
            for path, methods in paths.items()
            for method, operation in methods.items()
            if "security" in operation
        ]


Serve = Callable[..., Api]


def body_for(path: str) -> Any:
    return {"tasks": [SUBMISSION]} if path == "/batches" else SUBMISSION


def ask(client: httpx2.Client, method: str, path: str, task_id: str = "none") -> httpx2.Response:
    """Send a request to an operation."""
    body = body_for(path) if path in {"/tasks", "/batches"} else None
    return client.request(method, path.replace("{task_id}", task_id), json=body)


def problem(answer: httpx2.Response) -> tuple[int, str]:
    """Return status and code of a problem, which is complete."""
    assert answer.headers["content-type"] == PROBLEM
    told = answer.json()
    assert told["status"] == answer.status_code
    assert {"type", "title", "detail"} <= told.keys()
    return answer.status_code, told["code"]
