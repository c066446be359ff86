"""The application: routes, middleware, and the answers to errors."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import redis
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from rhai_tasks.connection.outage import to_our_error
from rhai_tasks.errors import RhaiTasksError
from rhai_tasks.protocol import timestamp
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import visible

from . import actions, forms, pages, single
from .sampler import SECONDS
from .security import (
    MOST_LOGIN_BYTES,
    Gate,
    Headers,
    Logins,
    Sessions,
    Streams,
    answer_disconnected,
    own_path,
    read_form,
)
from .site import Query, Site, site_of

_QUICK_SECONDS = 0.5  # between two updates of a single task
_EXPORTED = 100_000  # tasks
_STREAM_SECONDS = 600.0  # then the browser reconnects, and the login is checked again

_PAGES: dict[str, Callable[[Site, Query], pages.Rendering]] = {
    "/": pages.overview,
    "/tasks": pages.tasks,
    "/delayed": pages.delayed,
    "/dead": pages.dead,
    "/errors": pages.errors,
    "/circle": single.circle,
    "/worker": single.worker,
    "/bulk": single.bulk,
    "/history": single.history,
    "/task": pages.task,
    "/doctor": pages.doctor,
}
_ACTIONS = {
    "/cancel": actions.cancel,
    "/dead/retry": actions.retry_dead,
    "/dead/delete": actions.delete_dead,
    "/delayed/run": actions.run_now,
    "/delayed/cancel": actions.cancel_delayed,
    "/bulk/find": actions.find_many,
    "/bulk/act": actions.act_on_many,
    "/bulk/stop": actions.stop_many,
    "/circle/return": actions.return_buffered,
    "/circle/purge": actions.purge,
    "/circle/pause": actions.pause,
    "/circle/resume": actions.resume,
    "/circle/limit": actions.limit,
    "/worker/quiet": actions.quiet,
    "/worker/resume": actions.resume_worker,
    "/doctor/repair": actions.repair,
}


def make_app(
    settings: Settings, *, token: str | None, read_only: bool, host: str, port: int, has_api: bool = False
) -> Starlette:
    """Make the application.

    Args:
        settings: The server and its names.
        token: Token of the login; `None`: there is no login, and only requests by a name of this machine are answered.
        read_only: Offer no actions.
        host: Address of the listener.
        port: TCP port of the listener.
        has_api: Serve the HTTP API, too.
    """
    api = None
    if has_api:
        from .api.app import Fork, connect_api, make_api  # noqa: PLC0415  (takes a quarter of a second)

        api = make_api(settings, read_only=read_only)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.site = Site(settings, read_only=read_only, has_login=token is not None)
        async with AsyncExitStack() as stack:
            stack.callback(app.state.site.close)
            if api is not None:
                await stack.enter_async_context(connect_api(api, app.state.site))
            yield

    routes: list[Route | Mount] = [Route(path, _page(make)) for path, make in _PAGES.items()]
    routes += [
        Mount(
            "/live",
            routes=[Route(path, _live(make)) for path, make in _PAGES.items()],
            middleware=[Middleware(Streams)],
        ),
        Route("/task/field", _download),
        Route("/errors/export", _export),
        Route("/errors/read", actions.endpoint(actions.read_errors), methods=["POST"]),
        Route("/doctor/examine", actions.endpoint(actions.examine), methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("rhai_tasks.web", "static")])),
    ]
    if not read_only:
        routes.append(Route("/submit", _page(forms.page)))
        routes.append(Route("/submit", forms.submit, methods=["POST"]))
        routes.append(Route("/try", forms.try_, methods=["POST"]))
        routes += [Route(path, actions.endpoint(action), methods=["POST"]) for path, action in _ACTIONS.items()]
    logins = None if token is None else Logins(token)
    if logins is not None:
        routes += [
            Route("/login", _login(logins), methods=["GET", "POST"], name="login"),
            Route("/logout", _log_out(logins), methods=["POST"]),
        ]
    # Without a login, a foreign name that resolves to this machine would give a stranger's page our origin.
    own_names = ["localhost", "127.0.0.1", "[::1]", "::1", host] if token is None else ["*"]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=own_names, www_redirect=False),
            *([] if api is None else [Middleware(Fork, api=api)]),
            Middleware(Sessions, port=port),
            Middleware(Gate, logins=logins),
        ],
        exception_handlers={
            HTTPException: _failed,
            RhaiTasksError: _server_failed,
            redis.RedisError: _server_failed,
            ClientDisconnect: answer_disconnected,
        },
        lifespan=lifespan,
    )
    app.state.is_stopping = lambda: False
    app.state.logins = logins
    return app


def _page(make: Callable[[Site, Query], pages.Rendering]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        site = site_of(request)
        name, context = make(site, Query.of(request))
        return site.render(request, name, **context)

    return answer


def _live(make: Callable[[Site, Query], pages.Rendering]) -> Callable[[Request], object]:
    """Make an endpoint that streams the live part of a page with each change, until the page is final.

    While the server does not answer, it sends the problem: the page keeps its last figures.
    """

    async def answer(request: Request) -> Response:
        if request.method == "HEAD":
            return Response(media_type="text/event-stream")
        site, query = site_of(request), Query.of(request)
        logins: Logins | None = request.app.state.logins
        pause = _QUICK_SECONDS if make in {pages.task, pages.doctor, pages.errors, single.bulk} else SECONDS

        def render() -> tuple[str, str, bool]:
            try:
                name, context = make(site, query)
            except (redis.RedisError, RhaiTasksError, HTTPException) as error:
                return "problem", visible(_problem(error, site)), False
            return "message", site.render_live(request, name, **context), context.get("has_ended", False)

        async def events() -> AsyncIterator[str]:
            sent = ""
            for _ in range(int(_STREAM_SECONDS / pause)):
                event, text, has_ended = await run_in_threadpool(render)
                if event == "message" and text == sent:
                    yield "event: same\ndata:\n\n"  # so that a browser can tell a quiet page from a stale one
                else:
                    head = "" if event == "message" else f"event: {event}\n"
                    yield head + "".join(f"data: {line}\n" for line in text.split("\n")) + "\n"
                    sent = text
                if request.app.state.is_stopping() or not (logins is None or logins.is_open(request.session)):
                    return
                if has_ended:
                    yield "event: end\ndata:\n\n"
                    return
                await asyncio.sleep(pause)

        return StreamingResponse(events(), media_type="text/event-stream")

    return answer


def _download(request: Request) -> Response:
    """Send a whole field as a text file, so that no browser renders it."""
    query = Query.of(request)
    value = site_of(request).tasks.field(query.text("id"), query.text("name"))
    if value is None:
        raise HTTPException(404, "There is no such field.")
    headers = {"Content-Disposition": 'attachment; filename="field.txt"'}
    return Response(value, media_type="text/plain; charset=utf-8", headers=headers)


def _export(request: Request) -> Response:
    """Send the tasks of a filter as lines of JSON."""
    site, where = site_of(request), pages.where_of(Query.of(request))

    def lines() -> Iterator[str]:
        left = _EXPORTED
        for step in site.tasks.walk(where):
            for found in step.found[:left]:
                at = None if found.at is None else timestamp(found.at)
                yield json.dumps({**found._asdict(), "at": at}) + "\n"
            left -= len(step.found)
            if left <= 0:
                return

    headers = {"Content-Disposition": 'attachment; filename="tasks.jsonl"'}
    return StreamingResponse(lines(), media_type="application/x-ndjson", headers=headers)


def _login(logins: Logins) -> Callable[[Request], object]:
    async def answer(request: Request) -> Response:
        site = site_of(request)
        wanted = own_path(Query.of(request).text("next", "/"))
        if request.method == "GET":
            return site.render(request, "login.html", wrong=False)
        form = await read_form(request, MOST_LOGIN_BYTES)
        address = request.client.host if request.client else ""
        if not logins.try_(address, form.get("token", [""])[0]):
            return site.render(request, "login.html", status_code=403, wrong=True)
        logins.open(request.session)
        return RedirectResponse(wanted, status_code=303)

    return answer


def _log_out(logins: Logins) -> Callable[[Request], object]:
    async def answer(request: Request) -> Response:
        await read_form(request)
        logins.close(request.session)
        return RedirectResponse("/login", status_code=303)

    return answer


def _problem(error: Exception, site: Site) -> str:
    return str(to_our_error(error, site.settings.redis_url) if isinstance(error, redis.RedisError) else error)


def _server_failed(request: Request, error: Exception) -> Response:
    site = site_of(request)
    return site.render(request, "unavailable.html", status_code=503, problem=_problem(error, site))


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (it is registered for this exception only)
    site = site_of(request)
    return site.render(request, "failed.html", status_code=error.status_code, problem=error.detail)
