"""Signed tasks that programs submit over the HTTP API."""

import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from rhai_tasks.protocol import signed_form
from rhai_tasks.signatures import SCHEMES, SigningKey
from tests.conftest import Worker

TERMS = {
    "timeout": 2,
    "maxOperations": 5000,
    "maxMemory": 2**24,
    "keepPrints": 100,
    "args": {"n": 41, "é": [1.5, None]},
}
TEXTS = {
    "timeout": "2.0",
    "maxOperations": "5000",
    "maxMemory": "16777216",
    "keepPrints": "100",
    "args": '{"n":41,"é":[1.5,null]}',
    "resultFormat": "json",
    "stats": "1",
    "startBefore": "2200-01-01T00:00:00+00:00",
}


def signed(key: SigningKey, task_id: str, script: str, terms: dict[str, str]) -> dict[str, Any]:
    """Sign a task as a program without this package would; return its part of a submission."""
    details = {"callerId": key.public_key, "script": script, "signedAt": str(time.time())}
    details |= {"signatureScheme": key.scheme, **terms}
    form = signed_form(task_id, "circle", {name: text.encode() for name, text in details.items()})
    signature = {name: details[name] for name in ("signedAt", "signatureScheme")}
    return {
        "script": script,
        "circle": "circle",
        "taskId": task_id,
        "callerId": key.public_key,
        "signed": {**signature, "signature": key.sign(form)},
    }


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_worker_that_demands_signatures_runs_a_task_that_its_caller_signed(
    http: httpx2.Client, start_worker: Callable[..., Worker], scheme: str
) -> None:
    start_worker("circle", "--signatures", "require")
    key = SigningKey.new(scheme)
    plain = signed(key, "plain", "40 + 2", {})
    limited = signed(key, "limited", "ARGS.n + 1", TEXTS)
    limited |= {**TERMS, "resultFormat": "json", "stats": True, "startBefore": "2200-01-01T00:00:00Z"}

    for submission in (plain, limited):
        ended = http.post("/tasks?wait=60", json=submission).json()
        assert (ended["status"], ended.get("output")) == ("completed", "42"), ended
        assert ended["callerId"] == key.public_key


def test_a_task_whose_signature_is_another_tasks_ends_as_an_error(
    http: httpx2.Client, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle", "--signatures", "require")
    submission = signed(SigningKey.new(), "one", "40 + 2", {})

    unsigned = {name: value for name, value in submission.items() if name != "signed"} | {"taskId": "two"}
    for changed in ({**submission, "script": "40 + 3"}, unsigned):
        ended = http.post("/tasks?wait=60", json=changed).json()
        assert (ended["status"], ended["errorKind"]) in {("error", "WrongSignature"), ("error", "Unsigned")}


@pytest.mark.parametrize(
    "signature",
    [
        {},
        {"signedAt": "1", "signatureScheme": "ed25519"},
        {"signedAt": "1", "signatureScheme": "rsa", "signature": "0" * 128},
        {"signedAt": "1", "signatureScheme": "ed25519", "signature": "0" * 127},
    ],
)
def test_a_signature_that_no_worker_could_read_is_refused(http: httpx2.Client, signature: dict[str, str]) -> None:
    answer = http.post("/tasks", json={"script": "1", "circle": "circle", "signed": signature})

    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
