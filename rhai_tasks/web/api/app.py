"""The application of the API, which the page's application serves at `/v1`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Query
from fastapi.security import HTTPBearer
from pydantic import StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from rhai_tasks.client import AsyncClient
from rhai_tasks.protocol import check_circle
from rhai_tasks.settings import Settings
from rhai_tasks.web.site import Site

from .guard import Guard, Waiting
from .keys import ApiKeys
from .models import CircleQueue, Health, Queues
from .problems import HANDLERS, ProblemDetails, documented
from .tasks import Reader, router

_PATH = "/v1"
_Circle = Annotated[str, StringConstraints(min_length=1)]
_RETRY_SECONDS = 2.0
_DESCRIPTION = "Submits scripts to workers of rhai-tasks, and follows the tasks. Send a key with each request."


class _Api(FastAPI):
    """Adds the schema of errors, to which each operation refers, to the OpenAPI document."""

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document."""
        if self.openapi_schema is None:
            document = super().openapi()
            schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
            document["components"]["schemas"] |= {**schema.pop("$defs"), ProblemDetails.__name__: schema}
        assert self.openapi_schema is not None  # noqa: S101  (the base class has set it)
        return self.openapi_schema


def make_api(settings: Settings, *, read_only: bool) -> FastAPI:
    """Make the application; `connect_api` connects it.

    Args:
        settings: The server and its names.
        read_only: Refuse submissions and cancels.
    """
    keys: dict[str, ApiKeys] = {}
    api = _Api(
        title="rhai-tasks",
        description=_DESCRIPTION,
        version=version("rhai-tasks"),
        docs_url=None,  # their scripts come from other sites
        redoc_url=None,
        redirect_slashes=False,
        middleware=[Middleware(Guard, keys=keys)],
        exception_handlers=HANDLERS,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        generate_unique_id_function=lambda route: route.name,
    )
    api.state.settings, api.state.read_only, api.state.keys, api.state.waiting = settings, read_only, keys, Waiting()
    bearer = HTTPBearer(
        auto_error=False, description="`Authorization: Bearer KEY`, a key of `rhai-tasks api-keys new`."
    )
    api.include_router(router, dependencies=[Depends(bearer)])
    api.get("/queues", tags=["queues"], dependencies=[Depends(bearer)], responses=documented())(queues)
    api.get("/health", tags=["health"], responses=documented())(health)
    return api


class Fork:
    """Gives the requests below `/v1` to the API. Starlette's `Mount` takes no path with a newline."""

    def __init__(self, app: ASGIApp, api: ASGIApp) -> None:
        self._app, self._api = app, api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] == "http" and f"{scope['path']}/".startswith(f"{_PATH}/"):
            await self._api({**scope, "root_path": scope.get("root_path", "") + _PATH}, receive, send)
        else:
            await self._app(scope, receive, send)


@asynccontextmanager
async def connect_api(api: FastAPI, site: Site) -> AsyncIterator[None]:
    """Connect the application to the server, for as long as the context lasts."""
    settings: Settings = api.state.settings
    api.state.site = site
    api.state.keys["keys"] = ApiKeys(site.queues.client, settings.namespace)
    async with AsyncClient(
        settings.redis_url,
        dialect=settings.dialect,
        prefixes=settings.prefixes,
        namespace=settings.namespace,
        retry_timeout=_RETRY_SECONDS,
    ) as api.state.client:
        yield


async def queues(
    request: Request,
    key: Reader,
    circle: Annotated[list[_Circle], Query(description="Only these circles.", max_length=100)] = [],  # noqa: B006
) -> Queues:
    """Count the tasks of circles by place; the counts are up to four seconds old."""
    site: Site = request.app.state.site
    sample = await run_in_threadpool(site.sampler.sample)
    asked = {check_circle(name) for name in circle} or set(sample.queues)
    allowed = {name for name in asked if name in (key.circles or (name,))}
    # Circles outside the sample are counted now, and not kept: a request may name any.
    unknown = sorted(allowed - sample.queues.keys())
    others = await run_in_threadpool(site.queues.count, unknown) if unknown else []
    found = [*(sample.queues[name] for name in allowed & sample.queues.keys()), *others]
    return Queues(
        at=datetime.fromtimestamp(sample.at, UTC),
        queues=[CircleQueue.of(queue) for queue in sorted(found, key=lambda queue: queue.circle)],
    )


async def health(request: Request) -> Health:
    """Say whether the Redis server answers; needs no key."""
    await run_in_threadpool(request.app.state.site.queues.client.ping)
    return Health(status="ok")
