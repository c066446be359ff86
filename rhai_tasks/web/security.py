"""Access control: headers, sessions, the login, and the checks before every action."""

import asyncio
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

logger = logging.getLogger(__name__)

SESSION_SECONDS = 12 * 3600
MOST_BYTES = 8 * 1024 * 1024  # of a form
MOST_LOGIN_BYTES = 16 * 1024  # of the login form, which anybody may send
FORM_SECONDS = 60.0  # that receiving a form may take
MOST_FIELDS = 1000
MOST_STREAMS = 100
PATIENCE_SECONDS = 60.0  # that failures to show a token or key are remembered
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
_OPEN = re.compile(r"/login|/static/.*", re.DOTALL)  # paths that need no login
_LONGEST_PATH = 8000  # characters: proxies take no longer headers
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


Form = Mapping[str, list[str]]


def form_text(form: Form, name: str) -> str:
    """Return a value of a form, empty where it is absent."""
    return form.get(name, [""])[0]


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Headers:
    """Adds the headers that restrict what browsers do with a page."""

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
    """Sessions in signed cookies, `Secure` if the page came by TLS. Each process has a key of its own."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        key = secrets.token_hex(32)
        self._plain, self._secure = (
            SessionMiddleware(
                app,
                secret_key=key,
                session_cookie=f"rhai_tasks_{port}",  # browsers send cookies to all ports of a host
                max_age=SESSION_SECONDS,
                same_site="strict",
                https_only=https_only,
            )
            for https_only in (False, True)
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with the session in `scope`."""
        await (self._secure if _is_tls(scope) else self._plain)(scope, receive, send)


def _is_tls(scope: Scope) -> bool:
    # A proxy sets this header. Another client may, too: then its own cookie is not sent over plain connections.
    return scope.get("scheme") == "https" or (
        scope["type"] == "http" and Request(scope).headers.get("x-forwarded-proto", "").strip() == "https"
    )


class Gate:
    """Requires a login, if a token is set."""

    def __init__(self, app: ASGIApp, logins: "Logins | None") -> None:
        self._app, self._logins = app, logins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or redirect to the login."""
        if (
            scope["type"] != "http"
            or self._logins is None
            or self._logins.is_open(scope["session"])
            or _OPEN.fullmatch(scope["path"])
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
    """Bounds how many pages are live at a time: each queries the server repeatedly."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse a page beyond the bound."""
        if self._open >= MOST_STREAMS:
            answer = PlainTextResponse(f"{MOST_STREAMS} pages are live already. Close some, or try again later.", 503)
            await answer(scope, receive, send)
            return
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._open -= 1


class Failures:
    """Counts the failures of each visitor: too many within a minute, and it is refused until they are old."""

    def __init__(self) -> None:
        self._at: dict[str, list[float]] = {}  # by visitor: time.monotonic()

    def are_too_many(self, address: str) -> bool:
        """Return whether this visitor is refused now."""
        now = time.monotonic()
        self._at = {
            known: recent
            for known, failures in self._at.items()
            if (recent := [at for at in failures if at > now - PATIENCE_SECONDS])
        }
        return len(self._at.get(_visitor(address), ())) >= MOST_FAILURES

    def note(self, address: str) -> None:
        """Note a failure of this visitor."""
        self._at.setdefault(_visitor(address), []).append(time.monotonic())


class Logins:
    """Compares tokens, limits failed logins, and knows the open sessions.

    Sessions belong to one process, like the key that signs cookies: another process of the page has neither.
    """

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._failures = Failures()
        self._open: dict[str, float] = {}  # by session: time.monotonic() of its end

    def open(self, session: dict[str, Any]) -> None:
        """Replace a session by one that has logged in."""
        now = time.monotonic()
        self._open = {known: end for known, end in self._open.items() if end > now}
        session.clear()
        session["user"] = secrets.token_urlsafe(24)
        self._open[session["user"]] = now + SESSION_SECONDS

    def is_open(self, session: Mapping[str, Any]) -> bool:
        """Return whether a session has logged in, and not out."""
        return self._open.get(session.get("user", ""), 0.0) > time.monotonic()

    def close(self, session: dict[str, Any]) -> None:
        """End a session, for all copies of its cookie."""
        self._open.pop(session.get("user", ""), None)
        session.clear()

    def try_(self, address: str, token: str) -> bool:
        """Return whether the token is right.

        Raises:
            HTTPException: There were too many failures from this address.
        """
        if self._failures.are_too_many(address):
            raise HTTPException(429, f"Too many failed logins. Try again in {PATIENCE_SECONDS:.0f} s.")
        if hmac.compare_digest(token.encode(), self._token):
            return True
        self._failures.note(address)
        return False


def _visitor(address: str) -> str:
    """Return the visitor of an address: an IPv6 network is one visitor, and an address has several spellings."""
    try:
        known = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""  # a proxy may pass on text that is not an address
    if known.version == 4:
        return str(known)
    return str(known.ipv4_mapped or ipaddress.ip_network((known, 64), strict=False))


def own_path(text: str) -> str:
    """Return a path of this site unchanged, any other text as `/`: a login leads to no other site."""
    return text if len(text) <= _LONGEST_PATH and _OWN_PATH.fullmatch(text) else "/"


def csrf_token(request: Request) -> str:
    """Return the token that the forms of this session carry."""
    if "csrf" not in request.session:
        request.session["csrf"] = secrets.token_urlsafe(24)
    return str(request.session["csrf"])


async def read_form(request: Request, most: int = MOST_BYTES) -> Form:
    """Read a form of at most `most` bytes. Ids in it are references (`render.reference`), so all of it is text.

    Raises:
        HTTPException: The form is from another site, too large, too slow, or malformed.
        ClientDisconnect: The client has disconnected before the end.
    """
    origin = request.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
        raise HTTPException(403, "This form was not sent by this page.")
    try:
        async with asyncio.timeout(FORM_SECONDS):
            body = await _read_body(request, most)
    except TimeoutError as error:
        raise HTTPException(408, f"The form did not arrive within {FORM_SECONDS:.0f} s.") from error
    try:
        form = parse_qs(body.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MOST_FIELDS)
    except ValueError as error:
        raise HTTPException(400, "The body is not a form.") from error
    sent = form.get("csrf", [""])[0].encode()
    if not hmac.compare_digest(sent, csrf_token(request).encode()):
        raise HTTPException(403, "This form is of another session. Load the page again, and repeat what you did.")
    return form


async def _read_body(request: Request, most: int) -> bytearray:
    too_large = HTTPException(413, f"That is more than {most // 1024} KiB.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 15 or int(length) > most):
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise too_large
    return body


async def answer_disconnected(request: Request, _: Exception) -> Response:
    """Answer a client that has disconnected while it sent a form; an error of the page would be logged."""
    logger.debug("%s of %s was broken off", request.method, request.url.path)
    return Response(status_code=400)
