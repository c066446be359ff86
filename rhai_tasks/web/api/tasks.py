"""The operations on tasks."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse

from rhai_tasks.client import AsyncClient, AsyncTask, TaskSpec
from rhai_tasks.errors import (
    ConfigurationError,
    ScriptError,
    TaskCancelled,
    TaskExists,
    TaskNotFound,
    TaskTimeout,
)
from rhai_tasks.protocol import Field, Status, check_circle
from rhai_tasks.web.site import Site

from .events import follow
from .guard import Waiting
from .keys import ApiKey, Scope
from .models import (
    RESULT_FIELDS,
    STATE_FIELDS,
    Batch,
    BatchSubmission,
    Cancelled,
    Result,
    Submission,
    Task,
    circle_and_caller,
    result_of,
    task_of,
)
from .problems import Problem, documented, problem_of

router = APIRouter(tags=["tasks"])

_MOST_SECONDS = 60.0  # that one request waits
_FINAL = {status.value for status in Status if status.is_final}
_REPEATED_FIELDS = (*STATE_FIELDS, Field.REQUEST_HASH)
_REPEATABLE = "request-"  # how the ids of tasks of requests that may be repeated begin
_IDEMPOTENCY_KEY = r"^[ -~]{1,200}$"

TaskId = Annotated[str, Path(max_length=1000)]
Wait = Annotated[
    float, Query(ge=0, le=_MOST_SECONDS, description="Seconds to wait for the end of the task.", examples=[10])
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern=_IDEMPOTENCY_KEY,
        description="Any text that names this request: repeated with it, the request has its effect once.",
    ),
]


def client_of(request: Request) -> AsyncClient:
    """Return the client that all requests share."""
    client: AsyncClient = request.app.state.client
    return client


def need(scope: Scope) -> Any:
    """Make a dependency: the key of a request, which must have this scope."""

    def key_of(request: Request) -> ApiKey:
        key: ApiKey = request.state.key
        if scope not in key.scopes:
            raise Problem(403, "missing-scope", f"This key lacks the scope {scope!r}: make a key with it.")
        if scope != "read" and request.app.state.read_only:
            raise Problem(403, "read-only", "This server runs with --read-only.")
        return key

    return Depends(key_of)


Client = Annotated[AsyncClient, Depends(client_of)]
Submitter = Annotated[ApiKey, need("submit")]
Reader = Annotated[ApiKey, need("read")]
Operator = Annotated[ApiKey, need("operate")]


async def _find(key: ApiKey, client: AsyncClient, task_id: str, names: Sequence[str]) -> dict[str, str]:
    """Return fields of a task's details.

    Raises:
        TaskNotFound: There is no such task, or the key is not for it: the answer does not say which.
    """
    details = await client.task(task_id).details(*names)
    if not key.sees(*circle_and_caller(details)):
        raise TaskNotFound(task_id)
    return details


async def _wait(request: Request, task: AsyncTask, seconds: float) -> bool:
    """Wait until a task has ended; `False`: it has not ended in time, or the client has gone."""
    waiting: Waiting = request.app.state.waiting
    async with waiting.one():
        ended, gone = asyncio.create_task(task.result(seconds)), asyncio.create_task(_disconnected(request))
        try:
            await asyncio.wait({ended, gone}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                ended.result()
            return ended.done()
        except (ScriptError, TaskCancelled):
            return True
        except TaskTimeout:
            return False
        finally:
            ended.cancel()
            gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.post(
    "/tasks",
    status_code=202,
    response_model=None,
    responses={
        200: {"model": Result, "description": "It has ended."},
        202: {"model": Task, "description": "It was submitted."},
        **documented(408, 409, 413, 415),
    },
)
async def submit(
    request: Request,
    key: Submitter,
    client: Client,
    submission: Submission,
    wait: Wait = 0.0,
    idempotency_key: IdempotencyKey = None,
) -> JSONResponse:
    """Submit a task; with `wait`, answer with its outcome if it ends in time."""
    (task,) = await _submit(request, client, key, [submission], idempotency_key)
    headers = {"Location": f"{request.scope.get('root_path', '')}/tasks/{task.task_id}"}
    if wait and await _wait(request, client.task(task.task_id), wait):
        outcome = result_of(task.task_id, await client.task(task.task_id).details(*RESULT_FIELDS))
        return JSONResponse(_dump(outcome), headers=headers)
    return JSONResponse(_dump(task), status_code=202, headers=headers)


@router.post("/batches", status_code=202, response_model_exclude_unset=True, responses=documented(408, 409, 413, 415))
async def submit_batch(
    request: Request, key: Submitter, client: Client, batch: BatchSubmission, idempotency_key: IdempotencyKey = None
) -> Batch:
    """Submit up to 500 tasks.

    If it fails, some of them may have been submitted: repeat the request with an `Idempotency-Key`.
    """
    return Batch(tasks=await _submit(request, client, key, batch.tasks, idempotency_key))


async def _submit(
    request: Request, client: AsyncClient, key: ApiKey, submissions: Sequence[Submission], idempotency_key: str | None
) -> list[Task]:
    digest = ""
    if idempotency_key is not None:
        named = f"{request.url.path}\n{key.id}\n{idempotency_key}\n"
        digest = hashlib.sha256(named.encode() + await request.body()).hexdigest()
    try:
        specs = [
            _spec_of(submission, key, _task_id(key, idempotency_key, place), digest)
            for place, submission in enumerate(submissions)
        ]
        tasks = await client.submit_many(specs)
    except TaskExists:
        if not digest:
            raise
        return [await _repeat(client, spec, digest) for spec in specs]
    except (ConfigurationError, ValueError, TypeError) as error:
        raise problem_of(error) from error
    return [_submitted(task.id, spec) for task, spec in zip(tasks, specs, strict=True)]


async def _repeat(client: AsyncClient, spec: TaskSpec, digest: str) -> Task:
    """Submit a task of a repeated request, unless it exists.

    Raises:
        TaskExists: Another request has made a task of this id.
        Problem: The key of the request was used for another request.
    """
    with suppress(TaskExists):
        (task,) = await client.submit_many([spec])
        return _submitted(task.id, spec)
    assert spec.task_id is not None  # noqa: S101  (the request has a key)
    details = await client.task(spec.task_id).details(*_REPEATED_FIELDS)
    if details.get(Field.REQUEST_HASH) == digest:
        return task_of(spec.task_id, details)
    if spec.task_id.startswith(_REPEATABLE):
        raise Problem(422, "idempotency-key-reused", "This Idempotency-Key was sent with another request.")
    raise TaskExists(spec.task_id)


def _submitted(task_id: str, spec: TaskSpec) -> Task:
    details = {Field.STATUS: Status.PENDING, Field.CIRCLE: spec.circle or "", Field.CALLER_ID: spec.caller_id or ""}
    return task_of(task_id, details)


def _task_id(key: ApiKey, idempotency_key: str | None, place: int) -> str | None:
    """Return the id of a task of a request that may be repeated."""
    if idempotency_key is None:
        return None
    return _REPEATABLE + hashlib.sha256(f"{key.id} {place} {idempotency_key}".encode()).hexdigest()[:40]


def _spec_of(submission: Submission, key: ApiKey, task_id: str | None, digest: str) -> TaskSpec:
    """Make the task of a submission.

    Raises:
        Problem: The key is not for its circle or caller, or it names no circle.
        ValueError: A value cannot be used.
    """
    circle = _allowed(Field.CIRCLE, submission.circle, key.circles)
    caller = _allowed(Field.CALLER_ID, submission.caller_id, key.callers, "")
    fields = {Field.REQUEST_HASH: digest} if digest else {}
    if submission.signed is not None:
        fields |= submission.signed.model_dump(by_alias=True)
    return TaskSpec(
        submission.script if submission.script is not None else submission.script_ref or "",
        circle=check_circle(circle),
        caller_id=caller,
        context_id=submission.context_id,
        task_id=submission.task_id or task_id,
        fields=fields,
        unique=True,
        delay=submission.delay,
        via=submission.via,
        timeout=submission.timeout,
        max_operations=submission.max_operations,
        max_memory=submission.max_memory,
        start_before=submission.start_before,
        json=submission.result_format is not None,
        stats=submission.stats,
        keep_prints=submission.keep_prints,
        args=submission.args,
    )


def _allowed(name: str, value: str | None, allowed: Sequence[str], default: str | None = None) -> str:
    """Return a circle or caller that a key may use: the given one, else the key's only one, else the default."""
    if value is None:
        value = allowed[0] if len(allowed) == 1 else default if not allowed else None
    if value is None:
        raise Problem(422, "invalid-request", f"Name the {name}: this key does not have exactly one.")
    if allowed and value not in allowed:
        raise Problem(403, "not-for-this-key", f"This key is for another {name}.")
    return value


@router.get("/tasks/{task_id}", response_model_exclude_unset=True, responses=documented(404))
async def status(key: Reader, client: Client, task_id: TaskId) -> Task:
    """Return a task's state."""
    return task_of(task_id, await _find(key, client, task_id, STATE_FIELDS))


@router.get(
    "/tasks/{task_id}/result",
    response_model=None,
    responses={
        200: {"model": Result, "description": "It has ended."},
        202: {"model": Task, "description": "It has not ended."},
        **documented(404),
    },
)
async def result(request: Request, key: Reader, client: Client, task_id: TaskId, wait: Wait = 0.0) -> JSONResponse:
    """Return a task's outcome; with `wait`, wait for its end first."""
    details = await _find(key, client, task_id, RESULT_FIELDS)
    if wait and details.get(Field.STATUS) not in _FINAL and await _wait(request, client.task(task_id), wait):
        details = await client.task(task_id).details(*RESULT_FIELDS)
    if details.get(Field.STATUS) not in _FINAL:
        return JSONResponse(_dump(task_of(task_id, details)), status_code=202)
    return JSONResponse(_dump(result_of(task_id, details)))


@router.post("/tasks/{task_id}/cancel", responses=documented(404))
async def cancel(request: Request, key: Operator, client: Client, task_id: TaskId) -> Cancelled:
    """Cancel a task: it ends as the error `cancelled`."""
    await _find(key, client, task_id, STATE_FIELDS)
    cancelled = await client.cancel(task_id)
    if cancelled:
        site: Site = request.app.state.site
        await run_in_threadpool(site.queues.note_cancels, [task_id], by=key.label)
    return Cancelled(task_id=task_id, cancelled=cancelled)


async def _visible(key: Reader, client: Client, task_id: TaskId) -> AsyncTask:
    await _find(key, client, task_id, STATE_FIELDS)
    return client.task(task_id)


@router.get(
    "/tasks/{task_id}/events",
    response_class=EventSourceResponse,
    responses={200: {"description": "Events `state`, `print`, `end` and `problem`."}, **documented(404)},
)
async def events(request: Request, task: Annotated[AsyncTask, Depends(_visible)]) -> AsyncIterator[ServerSentEvent]:
    """Follow a task by server-sent events, for ten minutes at most: its states, what it prints, its outcome."""
    async for event in follow(request.app.state.waiting, task, request.state.check):
        yield event


def _dump(task: Task) -> dict[str, Any]:
    return task.model_dump(mode="json", by_alias=True, exclude_unset=True)
