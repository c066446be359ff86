"""The guard before the API: keys, and bounds of how much one key or address can ask for."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import redis
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rhai_tasks.web.security import PATIENCE_SECONDS, Failures

from .keys import ApiKey, ApiKeys, id_of
from .problems import Problem, problem_of, respond

MOST_WAITING = 500
"""Requests that wait for tasks, or follow them, at a time."""

OPEN_PATHS = frozenset({"/health", "/openapi.json"})
"""Paths that need no key."""

MOST_BYTES = 8 * 1024 * 1024
"""Of a body."""

_KEPT_SECONDS = 5.0  # for which a key is used before its record is read again
_BODY_SECONDS = 60.0  # that a body may take
_NOT_VALID = "This key is not valid: it was deleted, or never made."
_LOCKED = f"Too many wrong keys from this address. Try again in {PATIENCE_SECONDS:.0f} s."


@dataclass(slots=True)
class _Known:
    """A key that was right when it was last read, and its tokens: one a request."""

    text: str  # the key itself
    key: ApiKey
    read: float  # time.monotonic(), as the next
    counted: float
    tokens: float

    def take(self) -> float:
        """Take a token; return 0, or the seconds until there is one."""
        now, rate = time.monotonic(), max(self.key.rate, 1)
        self.tokens = min(self.tokens + (now - self.counted) * rate, rate)
        self.counted = now
        if self.tokens < 1:
            return (1 - self.tokens) / rate
        self.tokens -= 1
        return 0.0


class Guard:
    """Answers requests without a valid key, beyond a key's rate, or with a body that does not come.

    It stands before the application, so that a body of a stranger is never read.

    Args:
        app: The application; it finds the `ApiKey` of a request in `scope["state"]["key"]`, and
            in `scope["state"]["check"]` a coroutine that fails once the key is deleted.
        keys: The keys on the server; a mapping, since the server is connected later.
    """

    def __init__(self, app: ASGIApp, keys: Mapping[str, ApiKeys]) -> None:
        self._app, self._keys = app, keys
        self._known: dict[str, _Known] = {}  # by key
        self._failures = Failures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            if scope["path"].removeprefix(scope.get("root_path", "")) not in OPEN_PATHS:
                known = await self._admit(Request(scope))
                scope.setdefault("state", {}).update(key=known.key, check=partial(self._check, known))
        except (Problem, redis.RedisError) as error:
            await respond(problem_of(error))(scope, receive, send)
            return
        await self._app(scope, _bounded(receive), send)

    async def _admit(self, request: Request) -> _Known:
        scheme, _, text = request.headers.get("authorization", "").partition(" ")
        text = text.strip() if scheme.lower() == "bearer" else ""
        if not text:
            raise _unauthorized("Send a key: Authorization: Bearer KEY.")
        known = self._known.get(text)
        if known is None or known.read < time.monotonic() - _KEPT_SECONDS:
            known = await self._read(text, known, request.client.host if request.client else "")
        if wait := known.take():
            detail = f"This key may send {known.key.rate} requests a second."
            raise Problem(429, "too-many-requests", detail, {"Retry-After": f"{wait:.0f}" if wait > 1 else "1"})
        return known

    async def _read(self, text: str, known: _Known | None, address: str) -> _Known:
        if known is None and self._failures.are_too_many(address):  # its requests do not reach Redis
            raise Problem(429, "too-many-wrong-keys", _LOCKED, {"Retry-After": f"{PATIENCE_SECONDS:.0f}"})
        key = await run_in_threadpool(self._keys["keys"].find, text) if id_of(text) else None
        if key is None:
            self._known.pop(text, None)
            self._failures.note(address)
            raise _unauthorized(_NOT_VALID)
        now = time.monotonic()
        if known is None:
            known = _Known(text, key, now, now, max(key.rate, 1))
        known.key, known.read = key, now
        self._known[text] = known
        return known

    async def _check(self, known: _Known) -> None:
        """Wait until a key is deleted, which ends a long answer as it refuses the next request."""
        while True:
            await asyncio.sleep(_KEPT_SECONDS)
            with suppress(redis.RedisError):  # the answer itself meets the outage
                if await run_in_threadpool(self._keys["keys"].find, known.text) is None:
                    self._known.pop(known.text, None)
                    raise _unauthorized(_NOT_VALID)


def _unauthorized(detail: str) -> Problem:
    return Problem(401, "unauthorized", detail, {"WWW-Authenticate": "Bearer"})


def _bounded(receive: Receive) -> Receive:
    """Bound size and time of a body; once it is there, a request may last."""
    end = asyncio.get_running_loop().time() + _BODY_SECONDS
    size, is_complete = 0, False

    async def receive_bounded() -> Message:
        nonlocal size, is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(end):
                message = await receive()
        except TimeoutError:
            raise Problem(408, "body-too-slow", f"The body did not arrive within {_BODY_SECONDS:.0f} s.") from None
        size += len(message.get("body", b""))
        if size > MOST_BYTES:
            raise Problem(413, "body-too-large", f"The body has more than {MOST_BYTES // 1024} KiB.")
        is_complete = not message.get("more_body", False)
        return message

    return receive_bounded


class Waiting:
    """Bounds how many requests wait at a time."""

    def __init__(self) -> None:
        self._count = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Count one request.

        Raises:
            Problem: There are too many.
        """
        if self._count >= MOST_WAITING:
            detail = f"{MOST_WAITING} requests wait already. Ask for the status later, without waiting."
            raise Problem(503, "too-many-waiting", detail, {"Retry-After": "5"})
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1
