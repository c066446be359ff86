"""Errors as `application/problem+json` (RFC 9457), each with a code that programs can compare."""

import logging
import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import redis
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

from rhai_tasks.errors import (
    ConfigurationError,
    QueueFull,
    RhaiTasksError,
    ScriptNotFound,
    ServerError,
    TaskExists,
    TaskMalformed,
    TaskNotFound,
)

logger = logging.getLogger(__name__)

_RETRY = {"Retry-After": "1"}
_SURROGATES = re.compile("[\ud800-\udfff]")
_MOST_SHOWN = 20  # faults of one request
_INVALID = "invalid-request"
_NOT_JSON = "The body is not JSON in UTF-8, is compressed, or is nested too deeply."


class Fault(BaseModel):
    """Why one part of a request cannot be used."""

    pointer: str
    detail: str


class ProblemDetails(BaseModel):
    """Why a request failed."""

    type: str = "about:blank"
    title: str
    status: int
    code: str
    detail: str
    errors: list[Fault] | None = None


class Problem(HTTPException):
    """An error of a request.

    Args:
        status: Of HTTP.
        code: For programs: lower-case words with hyphens.
        detail: For people: what is wrong, and what to do.
        headers: Headers of the answer.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.code = code


class _ProblemResponse(JSONResponse):
    media_type = "application/problem+json"


def respond(problem: Problem, errors: Sequence[Fault] | None = None) -> JSONResponse:
    """Return the answer to a request that failed."""
    details = ProblemDetails(
        title=HTTPStatus(problem.status_code).phrase,
        status=problem.status_code,
        code=problem.code,
        detail=clean(problem.detail),
        errors=None if errors is None else list(errors),
    )
    return _ProblemResponse(details.model_dump(exclude_none=True), problem.status_code, problem.headers)


def clean(text: str) -> str:
    """Put U+FFFD in place of bytes that are not UTF-8, and of half surrogates: JSON cannot carry either."""
    return _SURROGATES.sub("\ufffd", text)


_PROBLEMS: tuple[tuple[type[Exception], int, str, str], ...] = (
    (TaskNotFound, 404, "task-not-found", "There is no such task, or this key is not for it."),
    (TaskExists, 409, "task-exists", "{error}: choose another id."),
    (QueueFull, 429, "queue-full", "{error}."),
    (ScriptNotFound, 409, "script-not-found", "{error}."),
    (ConfigurationError, 422, _INVALID, "{error}."),
    (TaskMalformed, 500, "task-malformed", "Another program has written details of the task that nobody can read."),
    (ServerError, 503, "server-refuses", "The Redis server refuses the request; the log of the API says why."),
    (redis.ResponseError, 503, "server-refuses", "The Redis server refuses the request; the log of the API says why."),
    (RhaiTasksError, 503, "server-unavailable", "The Redis server does not answer. Repeat the request later."),
    (redis.RedisError, 503, "server-unavailable", "The Redis server does not answer. Repeat the request later."),
    (Exception, 422, _INVALID, "{error}."),
)
"""The problem for each error of a client of the server; the first row that fits counts."""


def problem_of(error: Exception) -> Problem:
    """Return the problem for an error of a client of the server."""
    if isinstance(error, Problem):
        return error
    status, code, detail = next(row[1:] for row in _PROBLEMS if isinstance(error, row[0]))
    if isinstance(error, ServerError | redis.ResponseError):
        logger.warning("The Redis server refuses a request of the API: %s", error)
    return Problem(status, code, detail.format(error=error), _RETRY if status in {429, 503} else None)


def answer_http(_: Request, error: Exception) -> JSONResponse:
    """Answer an error of HTTP itself, such as an unknown path."""
    assert isinstance(error, HTTPException)  # noqa: S101  (it is registered for this exception only)
    if isinstance(error, Problem):
        return respond(error)
    if error.status_code == HTTPStatus.BAD_REQUEST:  # of the framework: it could not parse a body
        return respond(Problem(400, "invalid-json", _NOT_JSON))
    code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return respond(Problem(error.status_code, code, f"{error.detail}.".replace("..", "."), error.headers))


def answer_invalid(request: Request, error: Exception) -> JSONResponse:
    """Answer a request that the OpenAPI document does not allow. The answer repeats nothing of the request."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  (it is registered for this exception only)
    faults = [_fault(found) for found in error.errors()]
    problem = Problem(422, _INVALID, f"{len(faults)} part(s) of the request cannot be used.")
    if any(found["type"] == "json_invalid" for found in error.errors()):
        problem = Problem(400, "invalid-json", _NOT_JSON)
    elif any(found["loc"] == ("body",) for found in error.errors()) and not _is_json(request):
        problem = Problem(415, "not-json", "Send the body as JSON, with the header Content-Type: application/json.")
    return respond(problem, faults[:_MOST_SHOWN])


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def answer_failed(_: Request, error: Exception) -> JSONResponse:
    """Answer an error of a client of the server."""
    return respond(problem_of(error))


def answer_broken(request: Request, error: Exception) -> JSONResponse:
    """Answer an error that nobody has foreseen."""
    logger.error("%s of %s failed", request.method, request.url.path, exc_info=error)
    return respond(Problem(500, "internal-error", "The API failed; its log says why."))


def _fault(found: Mapping[str, Any]) -> Fault:
    place, *names = found["loc"]
    pointer = "".join(f"/{str(name).replace('~', '~0').replace('/', '~1')}" for name in names)
    return Fault(pointer=clean(pointer if place == "body" else f"{place}:{pointer[1:]}")[:200], detail=found["msg"])


HANDLERS: dict[int | type[Exception], Any] = {
    HTTPException: answer_http,
    RequestValidationError: answer_invalid,
    RhaiTasksError: answer_failed,
    redis.RedisError: answer_failed,
    Exception: answer_broken,
}
"""What answers which exception."""


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the part of the OpenAPI document that says with which statuses an operation can fail."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    content = {_ProblemResponse.media_type: {"schema": schema}}
    return {
        status: {"description": HTTPStatus(status).phrase, "content": content}
        for status in (400, 401, 403, 405, 422, 429, 500, 503, *statuses)
    }
