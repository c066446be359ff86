"""The application: addresses, what stands before them, and what is answered when something fails."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import redis
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from rhai_tasks.connection import explain
from rhai_tasks.errors import RhaiTasksError
from rhai_tasks.settings import Settings

from . import actions, pages
from .sampler import SECONDS
from .security import Gate, Headers, Logins, Sessions, Streams, own_path, read_form
from .site import Query, Site, site_of

_QUICK_SECONDS = 0.5  # between two looks at a single task
_STREAM_SECONDS = 600.0  # a browser connects anew then, and is asked for its login again

_PAGES: dict[str, Callable[[Site, Query], pages.Page]] = {
    "/": pages.overview,
    "/tasks": pages.tasks,
    "/delayed": pages.delayed,
    "/dead": pages.dead,
    "/task": pages.task,
    "/doctor": pages.doctor,
}
_ACTIONS = {
    "/cancel": actions.cancel,
    "/submit": actions.submit,
    "/dead/retry": actions.retry_dead,
    "/dead/delete": actions.delete_dead,
    "/delayed/run": actions.run_now,
    "/delayed/cancel": actions.cancel_delayed,
    "/doctor/repair": actions.repair,
}


def make_app(settings: Settings, *, token: str | None, read_only: bool, host: str, port: int) -> Starlette:
    """Make the application.

    Args:
        settings: The server and its names.
        token: What a login asks for; `None`: there is none, and only requests to this very machine are answered.
        read_only: Leave all actions out.
        host: Address that it listens on.
        port: Likewise.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.site = Site(settings, read_only=read_only, has_login=token is not None)
        yield
        app.state.site.close()

    routes: list[Route | Mount] = [Route(path, _page(make)) for path, make in _PAGES.items()]
    routes += [
        Mount(
            "/live",
            routes=[Route(path, _live(make)) for path, make in _PAGES.items()],
            middleware=[Middleware(Streams)],
        ),
        Route("/task/field", _download),
        Route("/doctor/examine", actions.endpoint(actions.examine), methods=["POST"]),
        Mount("/static", StaticFiles(packages=[("rhai_tasks.web", "static")])),
    ]
    if not read_only:
        routes.append(Route("/submit", _page(pages.submit)))
        routes += [Route(path, actions.endpoint(action), methods=["POST"]) for path, action in _ACTIONS.items()]
    if token is not None:
        logins = Logins(token)
        routes += [
            Route("/login", _login(logins), methods=["GET", "POST"], name="login"),
            Route("/logout", _log_out, methods=["POST"]),
        ]
    # Without a login, a name that leads here but is not ours would make a stranger's page one of our origin.
    own_names = ["localhost", "127.0.0.1", "[::1]", "::1", host] if token is None else ["*"]
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=own_names, www_redirect=False),
            Middleware(Sessions, port=port),
            Middleware(Gate, token=token),
        ],
        exception_handlers={
            HTTPException: _failed,
            RhaiTasksError: _server_failed,
            redis.RedisError: _server_failed,
        },
        lifespan=lifespan,
    )
    app.state.is_stopping = lambda: False
    return app


def _page(make: Callable[[Site, Query], pages.Page]) -> Callable[[Request], Response]:
    def answer(request: Request) -> Response:
        site = site_of(request)
        name, context = make(site, Query.of(request))
        return site.render(request, name, **context)

    return answer


def _live(make: Callable[[Site, Query], pages.Page]) -> Callable[[Request], object]:
    """Make what sends the changing part of a page, again whenever it has changed, until the page is final."""

    async def answer(request: Request) -> Response:
        site, query = site_of(request), Query.of(request)
        pause = _QUICK_SECONDS if make in {pages.task, pages.doctor} else SECONDS

        def look() -> tuple[str, bool]:
            try:
                name, context = make(site, query)
            except (redis.RedisError, RhaiTasksError) as error:
                return site.render_live(request, "unavailable.html", problem=_explain(error, site)), False
            return site.render_live(request, name, **context), context.get("has_ended", False)

        async def events() -> AsyncIterator[str]:
            sent = ""
            for _ in range(int(_STREAM_SECONDS / pause)):
                part, has_ended = await run_in_threadpool(look)
                if part != sent:
                    yield "".join(f"data: {line}\n" for line in part.split("\n")) + "\n"
                    sent = part
                if request.app.state.is_stopping():
                    return
                if has_ended:
                    yield "event: end\ndata:\n\n"
                    return
                await asyncio.sleep(pause)

        return StreamingResponse(events(), media_type="text/event-stream")

    return answer


def _download(request: Request) -> Response:
    """Send a field whole, as a file of text: no browser shows it as anything else."""
    query = Query.of(request)
    value = site_of(request).tasks.field(query.text("id"), query.text("name"))
    if value is None:
        raise HTTPException(404, "There is no such field.")
    headers = {"Content-Disposition": 'attachment; filename="field.txt"'}
    return Response(value, media_type="text/plain; charset=utf-8", headers=headers)


def _login(logins: Logins) -> Callable[[Request], object]:
    async def answer(request: Request) -> Response:
        site = site_of(request)
        wanted = own_path(Query.of(request).text("next", "/"))
        if request.method == "GET":
            return site.render(request, "login.html", wrong=False)
        form = await read_form(request)
        address = request.client.host if request.client else ""
        if not logins.try_(address, form.get("token", [""])[0]):
            return site.render(request, "login.html", status_code=403, wrong=True)
        request.session.clear()
        request.session["user"] = True
        return RedirectResponse(wanted, status_code=303)

    return answer


async def _log_out(request: Request) -> Response:
    await read_form(request)
    request.session.clear()
    return RedirectResponse("/login", status_code=303)


def _explain(error: Exception, site: Site) -> str:
    return str(explain(error, site.settings.redis_url) if isinstance(error, redis.RedisError) else error)


def _server_failed(request: Request, error: Exception) -> Response:
    site = site_of(request)
    return site.render(request, "unavailable.html", status_code=503, problem=_explain(error, site))


def _failed(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101  (what it is registered for)
    site = site_of(request)
    return site.render(request, "failed.html", status_code=error.status_code, problem=error.detail)
