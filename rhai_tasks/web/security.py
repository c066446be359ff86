"""Who may do what: headers, sessions, the login, and the guard before every action."""

import hmac
import ipaddress
import re
import secrets
import time
from collections.abc import Mapping
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SESSION_SECONDS = 12 * 3600
MOST_BYTES = 8 * 1024 * 1024  # of a form
MOST_FIELDS = 1000
MOST_STREAMS = 100
PATIENCE_SECONDS = 60.0  # for which failed logins are remembered
MOST_FAILURES = 5  # of an address in that time

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",  # `no-referrer` would take the Origin off the forms
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_OPEN = ("/login", "/static/")  # without a login
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Headers:
    """Adds the headers that keep a browser from making more of a page than it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the headers."""

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                if not scope["path"].startswith("/static/"):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        await self._app(scope, receive, send_more)


class Sessions:
    """Signed cookies, `Secure` where the page came by TLS; their key lives as long as the process."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        key = secrets.token_hex(32)
        self._plain, self._secure = (
            SessionMiddleware(
                app,
                secret_key=key,
                session_cookie=f"rhai_tasks_{port}",  # cookies know no ports
                max_age=SESSION_SECONDS,
                same_site="strict",
                https_only=https_only,
            )
            for https_only in (False, True)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the session in `scope`."""
        await (self._secure if scope.get("scheme") == "https" else self._plain)(scope, receive, send)


class Gate:
    """Lets nobody in without a login, if a token is set."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or ask for the login."""
        if (
            scope["type"] != "http"
            or self._token is None
            or scope["session"].get("user")
            or scope["path"].startswith(_OPEN)
        ):
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        if request.method != "GET" or request.url.path.startswith("/live/"):
            await PlainTextResponse("Log in first.", status_code=401)(scope, receive, send)
            return
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        address = request.url_for("login").include_query_params(next=wanted)
        await RedirectResponse(f"{address.path}?{address.query}", status_code=303)(scope, receive, send)


class Streams:
    """Lets only so many pages be live at a time: each asks the server again and again."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say that there are too many."""
        if self._open >= MOST_STREAMS:
            answer = PlainTextResponse(f"{MOST_STREAMS} pages are live already. Close some, or try again later.", 503)
            await answer(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1


class Logins:
    """Compares tokens, and slows down who guesses."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._failures: dict[str, list[float]] = {}  # by address: time.monotonic()

    def try_(self, address: str, token: str) -> bool:
        """Say whether the token is right.

        Raises:
            HTTPException: There were too many failures from there.
        """
        now = time.monotonic()
        self._failures = {
            known: recent
            for known, failures in self._failures.items()
            if (recent := [at for at in failures if at > now - PATIENCE_SECONDS])
        }
        if len(self._failures.get(address, ())) >= MOST_FAILURES:
            raise HTTPException(429, f"Too many failed logins. Try again in {PATIENCE_SECONDS:.0f} s.")
        if hmac.compare_digest(token.encode(), self._token):
            return True
        self._failures.setdefault(address, []).append(now)
        return False


def own_path(text: str) -> str:
    """Return a path of this site, `/` if it is none: a login leads nowhere else."""
    return text if _OWN_PATH.fullmatch(text) else "/"


def csrf_token(request: Request) -> str:
    """Return what the forms of this session carry."""
    if "csrf" not in request.session:
        request.session["csrf"] = secrets.token_urlsafe(24)
    return str(request.session["csrf"])


async def read_form(request: Request) -> Mapping[str, list[str]]:
    """Read a form of ours. Ids in it are references (`render.reference`), so that all of it is text.

    Raises:
        HTTPException: It comes from another site, is too large, or is none.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, "This form was not sent by this page.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"That is more than {MOST_BYTES // 1024 // 1024} MiB.")
    try:
        form = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(400, "That is no form.") from error
    sent = form.get("csrf", [""])[0].encode()
    if not hmac.compare_digest(sent, csrf_token(request).encode()):
        raise HTTPException(403, "This form is of another session. Load the page again, and repeat what you did.")
    return form
