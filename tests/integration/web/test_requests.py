"""Requests that no browser sends: each is answered in one way or another, and leaves no traceback."""

import asyncio
import itertools
import json
import re
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from rhai_tasks.web import security
from tests.conftest import Worker, free_port, wait_until

TOKEN = "correct horse battery staple"
PATHS = [
    *("/", "/tasks", "/delayed", "/dead", "/task", "/doctor", "/submit", "/login", "/logout", "/task/field"),
    *("/errors", "/errors/read", "/errors/export", "/try", "/circle", "/worker"),
    *("/bulk", "/bulk/find", "/bulk/act", "/bulk/stop", "/live/bulk?job=1"),
    *("/circle/pause", "/circle/resume", "/circle/limit"),
    *("/circle/return", "/circle/purge", "/worker/quiet", "/worker/resume", "/live/circle?circle=c", "/live/worker"),
    *("/cancel", "/dead/retry", "/dead/delete", "/delayed/run", "/delayed/cancel", "/doctor/repair", "/doctor/examine"),
    *("/live/", "/live/tasks", "/static/style.css", "/static/", "/static", "/nowhere"),
]
FORM = "Content-Type: application/x-www-form-urlencoded"


class Visitor:
    """Speaks HTTP by hand, as somebody who has logged in, or has not."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.cookie = self.csrf = ""

    def send(self, head: str, body: bytes = b"", *, length: int | None = None, rest: bool = True) -> str:
        """Send a request, and return the start of the answer; with `rest=False` go away in the middle of the body."""
        size = len(body) if length is None else length
        lines = [head, f"Host: 127.0.0.1:{self.port}", "Connection: close", f"Content-Length: {size}"]
        if self.cookie:
            lines.append(f"Cookie: {self.cookie}")
        data = "\r\n".join([*lines, "", ""]).encode("latin-1") + body
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            with suppress(ConnectionError):  # an answer may come before all was sent
                connection.sendall(data)
            if not rest:
                return ""
            answer = b""
            with suppress(ConnectionError):
                while len(answer) < 100_000 and (some := connection.recv(65536)):
                    answer += some
                    if b"text/event-stream" in answer:
                        break
            return answer.decode("utf-8", "replace")

    def get(self, path: str) -> str:
        return self.send(f"GET {path} HTTP/1.1")

    def post(self, path: str, more: str = "", **fields: str) -> str:
        body = "&".join(f"{name}={value}" for name, value in {"csrf": self.csrf, **fields}.items())
        return self.send(f"POST {path} HTTP/1.1\r\n{FORM}{more}", body.encode())

    def keep(self, answer: str) -> str:
        """Keep what a browser keeps of an answer."""
        for cookie in re.findall(r"set-cookie: ([^;]*)", answer, re.IGNORECASE):
            self.cookie = cookie
        for csrf in re.findall(r'name="csrf" value="([^"]*)"', answer):
            self.csrf = csrf
        return answer

    def log_in(self, more: str = "", token: str = TOKEN) -> str:
        self.cookie = ""
        self.keep(self.get("/login"))
        return self.keep(self.post("/login", more, token=token.replace(" ", "+")))


def status(answer: str) -> int:
    return int(answer.split()[1])


Serve = Callable[..., tuple[Worker, Visitor]]


@pytest.fixture
def serve(spawn: Callable[..., Worker], client: Any) -> Serve:
    """Start the command."""

    def serve(*options: str) -> tuple[Worker, Visitor]:
        port = free_port()
        process = spawn("rhai-tasks", "web", "--port", str(port), *options, env={"RHAI_TASKS_WEB_TOKEN": TOKEN})
        visitor = Visitor(port)

        def answers() -> bool:
            with suppress(ConnectionRefusedError):
                return status(visitor.get("/login")) == 200
            return False

        wait_until(answers, what="the page to be served")
        return process, visitor

    return serve


BODIES = {
    "no body": b"",
    "NULs": b"\0" * 1000,
    "no text": bytes(range(256)),
    "UTF-16": "csrf=x&script=1".encode("utf-16"),
    "same field twice": b"csrf=a&csrf=b&id=a&id=b&script=1&script=2&circle=c&circle=d",
    "broken escapes": b"csrf=%&id=%G1&script=%00&circle=%FF",
    "many fields": b"a=1&" * 5000,
    "huge": b"script=" + b"x" * 9 * 1024 * 1024,
    "JSON": b'{"csrf": [[[[[]]]]]}',
    "multipart": b"--x\r\nContent-Disposition: form-data; name=csrf\r\n\r\na\r\n--x--\r\n",
}
HEADS = [
    FORM,
    "Content-Type: application/json",
    "Content-Type: multipart/form-data; boundary=x",
    "Content-Type: multipart/form-data",
    "Content-Type: application/x-www-form-urlencoded; charset=utf-16",
    "Content-Type: \x00\xff; charset=nonsense",
    "Origin: http://[\r\nReferer: http://[",
    "Cookie: rhai_tasks_8020=\xff\x00; a",
    "Content-Encoding: gzip",
    "Transfer-Encoding: chunked",
    "Expect: 100-continue",
    "X-Forwarded-Proto: \xff\r\nX-Forwarded-For: \xff, [::1, ,",
]
CONDITIONS = [
    'If-None-Match: "\xff", *, W/"',
    "If-Modified-Since: never\r\nIf-Unmodified-Since: -1",
    "If-Modified-Since: Thu, 99 Foo 99999 25:61:61 GMT",
    'If-Match: "x"\r\nIf-Range: "y"',
    "Range: bytes=0-0,-1,5-,9999999999999999999999-",
    "Range: bytes=" + ",".join(["0-"] * 500),
    "Range: lines=a-b",
    "Accept: \xff\r\nAccept-Language: ,,;q=x\r\nAccept-Encoding: ;",
]
TRICKS = [
    *("//evil.example/", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/static/../app.py", "/static/..%2fapp.py"),
    *("/static/%00", "/static/style.css%00", "/static/" + "x" * 5000, "/static//etc/passwd", "/static/\\..\\x"),
    *(
        "/task?id=%00",
        "/task?id=%ff%fe",
        "/task?" + "id=1&" * 500,
        "/task?id=" + "x" * 20_000,
        "/tasks?page=%00&circle=%ff",
    ),
    *("/task/field?id=%00&name=%ff", "/login?next=%00//evil", "/loginx", "/login/x", "/live/login", "/live/live/"),
    *("/%", "/%zz", "/\xff", "/?\x00", "*", "http://evil.example/", "/tasks;a=b", "/tasks/", "/TASKS", "/.", "/#x"),
    *("/tasks?place=search&cursor=%00&go=1", "/tasks?place=search&cursor=-1&go=1", "/delayed?circle=%00&page=%ff"),
]


def stays_well(process: Worker, visitor: Visitor) -> None:
    """Say that the command goes on, and that its log has no traceback and not a line for each request."""
    assert process.process.poll() is None
    assert status(visitor.get("/login")) == 200
    log = process.text()
    assert "Traceback" not in log, log[-5000:]
    assert log.count("\n") < 20, log[-5000:]


def test_every_route_answers_every_body(serve: Serve) -> None:
    process, stranger = serve()
    known = Visitor(stranger.port)
    known.log_in()
    for visitor, path, (name, body) in itertools.product((stranger, known), PATHS, BODIES.items()):
        if name == "huge" and path not in {"/login", "/submit", "/nowhere"}:
            continue
        found = status(visitor.send(f"POST {path} HTTP/1.1\r\n{FORM}", body) or "HTTP/1.1 413")
        assert found < 500, (path, name, found)
    stays_well(process, stranger)


def test_a_client_that_goes_away_leaves_no_traceback(serve: Serve) -> None:
    process, stranger = serve()
    known = Visitor(stranger.port)
    known.log_in()
    for visitor, path in itertools.product((stranger, known), PATHS):
        for body in (b"", b"csrf=", b"csrf=" + visitor.csrf.encode() + b"&script=1"):
            visitor.send(f"POST {path} HTTP/1.1\r\n{FORM}", body, length=1000, rest=False)
            visitor.send(f"POST {path} HTTP/1.1\r\n{FORM}\r\nExpect: 100-continue", body, length=1000, rest=False)
        visitor.send(f"GET {path} HTTP/1.1", rest=False)
    stays_well(process, stranger)


def test_every_route_answers_every_method_and_header(serve: Serve) -> None:
    process, stranger = serve()
    known = Visitor(stranger.port)
    known.log_in()
    for visitor, path in itertools.product((stranger, known), PATHS):
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW", "get"):
            answer = visitor.send(f"{method} {path} HTTP/1.1")
            assert status(answer) < 500, (method, path, answer)
            if method == "HEAD":
                assert answer.endswith("\r\n\r\n"), "it has no body, and ends"
        for head in HEADS:
            answer = visitor.send(f"POST {path} HTTP/1.1\r\n{head}", b"0\r\n\r\n")
            assert not answer or status(answer) < 500, (head, path, answer)
        for head in CONDITIONS:
            answer = visitor.send(f"GET {path} HTTP/1.1\r\n{head}")
            assert not answer or status(answer) < 500, (head, path, answer)
    assert process.process.poll() is None
    assert "Traceback" not in process.text()


def test_paths_that_play_tricks_lead_nowhere(serve: Serve) -> None:
    process, stranger = serve()
    known = Visitor(stranger.port)
    known.log_in()
    for visitor, path in itertools.product((stranger, known), TRICKS):
        answer = visitor.get(path)
        assert not answer or status(answer) < 500, (path, answer[:300])
        assert "root:" not in answer
        assert "import " not in answer
        assert "location: //" not in answer
    assert process.process.poll() is None
    assert "Traceback" not in process.text()


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    monkeypatch.setattr(security, "FORM_SECONDS", 0.1)
    request = Request({"type": "http", "headers": [], "method": "POST", "path": "/"}, receive)

    with pytest.raises(HTTPException) as caught:
        asyncio.run(security.read_form(request))
    assert caught.value.status_code == 408


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(serve: Serve) -> None:
    _, stranger = serve()
    stranger.keep(stranger.get("/login"))

    assert status(stranger.send(f"POST /login HTTP/1.1\r\n{FORM}", b"csrf=", length=10**12)) == 413
    assert status(stranger.send(f"POST /login HTTP/1.1\r\n{FORM}", b"token=" + b"x" * 100_000)) == 413


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP"])
def test_a_header_does_not_get_round_the_limit_of_logins(serve: Serve, header: str) -> None:
    _, visitor = serve()

    found = [status(visitor.log_in(f"\r\n{header}: 203.0.113.{number}", token="guess")) for number in range(6)]

    assert found == [403, 403, 403, 403, 403, 429]


def test_a_page_that_comes_by_a_proxys_tls_has_cookies_for_tls_alone(serve: Serve) -> None:
    _, visitor = serve()

    assert "; secure" in visitor.send("GET /login HTTP/1.1\r\nX-Forwarded-Proto: https").lower()
    assert "; secure" not in visitor.get("/login").lower()


@pytest.mark.parametrize(
    "forwarded",
    ["{n}.1.1.1, 203.0.113.7", "203.0.113.7, 127.0.0.1", "{n}.1.1.1\r\nX-Forwarded-For: 203.0.113.7"],
    ids=["appended", "through two proxies", "in a line of its own"],
)
def test_behind_a_proxy_the_address_counts_that_the_proxy_has_seen(serve: Serve, forwarded: str) -> None:
    _, visitor = serve("--proxy", "127.0.0.1")
    guesses = [f"\r\nX-Forwarded-For: {forwarded.format(n=number)}" for number in range(1, 7)]

    assert [status(visitor.log_in(guess, token="guess")) for guess in guesses] == [403] * 5 + [429]
    assert status(visitor.log_in("\r\nX-Forwarded-For: 1.1.1.1, 198.51.100.1")) == 303, "others may log in"


@pytest.mark.parametrize(
    "addresses",
    [
        [f"2001:db8:0:1::{number:x}" for number in range(6)],
        ["203.0.113.7", "::ffff:203.0.113.7", "203.0.113.7:1234", "[::ffff:203.0.113.7]:1", "::ffff:cb00:7107"] * 2,
        ["unknown", "_hidden", "\xff", "203.0.113.300", "x" * 1000, "::g"],
    ],
    ids=["one network", "one address", "no address"],
)
def test_one_visitor_has_one_limit_however_its_address_is_written(serve: Serve, addresses: list[str]) -> None:
    _, visitor = serve("--proxy", "127.0.0.1")
    found = [status(visitor.log_in(f"\r\nX-Forwarded-For: {address}", token="guess")) for address in addresses]

    assert found[:5] == [403] * 5
    assert found[5] == 429


@pytest.mark.parametrize("proxy", ["*", "0.0.0.0/0", "localhost", "", "127.0.0.1,::1", "\x1b[2J"])
def test_a_proxy_is_an_address(spawn: Callable[..., Worker], proxy: str) -> None:
    process = spawn("rhai-tasks", "web", "--port", str(free_port()), "--proxy", proxy)

    assert process.process.wait(60) == 2
    assert "is not an IPv4 or IPv6 address" in process.text()


def test_a_cookie_opens_nothing_after_the_logout(serve: Serve) -> None:
    _, visitor = serve()
    visitor.log_in()
    visitor.keep(visitor.get("/doctor"))
    thief = Visitor(visitor.port)
    thief.cookie, thief.csrf = visitor.cookie, visitor.csrf
    assert status(thief.get("/tasks")) == 200
    other = Visitor(visitor.port)
    other.log_in()

    with socket.create_connection(("127.0.0.1", visitor.port), timeout=60) as live:
        lines = ["GET /live/ HTTP/1.1", "Host: 127.0.0.1", f"Cookie: {thief.cookie}", "Connection: close", "", ""]
        live.sendall("\r\n".join(lines).encode())
        assert live.recv(65536).startswith(b"HTTP/1.1 200")
        assert status(visitor.post("/logout")) == 303
        while live.recv(65536):  # until the stream ends, as it does
            pass

    assert status(thief.get("/tasks")) == 303
    assert status(thief.get("/live/")) == 401
    assert status(thief.post("/cancel", id="t")) == 401
    assert status(other.get("/tasks")) == 200, "who has not logged out stays"


def test_a_restart_ends_all_sessions(serve: Serve) -> None:
    process, visitor = serve()
    visitor.log_in()
    process.kill()
    _, again = serve()
    again.cookie = visitor.cookie

    assert status(again.get("/tasks")) == 303


def test_who_has_not_logged_in_learns_nothing_of_the_server(serve: Serve) -> None:
    _, stranger = serve()

    for path in ("/login", "/login/x", "/loginx", "/static/nowhere"):
        assert "redis://" not in stranger.get(path)
    assert json.dumps(stranger.get("/loginx")).find("Doctor") == -1
