"""A web service that runs scripts: it submits the body of each request as a task, and answers with the result.

    RHAI_TASKS_REDIS_URL=redis://127.0.0.1/ RHAI_TASKS_CIRCLE=02abc uvicorn examples.web_service:app
    curl --data '40 + 2' 'http://127.0.0.1:8000/run'

While its script runs, a request takes no thread and no connection to Redis.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from rhai_tasks import AsyncClient
from rhai_tasks.errors import ScriptError, TaskTimeout

TIMEOUT = 5.0  # seconds until a request is answered with an error


class State(TypedDict):
    """The state that requests share."""

    client: AsyncClient


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[State]:
    """Connect once, for all requests."""
    async with AsyncClient(os.environ["RHAI_TASKS_REDIS_URL"], circle=os.environ["RHAI_TASKS_CIRCLE"]) as client:
        yield {"client": client}


async def run(request: Request) -> JSONResponse:
    """Run the script in the request's body."""
    client: AsyncClient = request.state.client
    task = await client.submit((await request.body()).decode(), caller_id=request.headers.get("x-caller", ""))
    try:
        return JSONResponse({"output": await task.result(timeout=TIMEOUT)})
    except ScriptError as error:
        return JSONResponse({"error": str(error), "line": error.line}, status_code=422)
    except TaskTimeout:
        await task.cancel()
        return JSONResponse({"error": f"took more than {TIMEOUT:g} s"}, status_code=504)


app = Starlette(routes=[Route("/run", run, methods=["POST"])], lifespan=lifespan)
