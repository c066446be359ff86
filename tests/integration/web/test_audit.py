"""What an operator does on the page is in the log that `rhai-tasks audit` shows."""

from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Client
from rhai_tasks.operate.rules import Rules
from rhai_tasks.web.app import _ACTIONS
from tests.conftest import Worker, wait_until
from tests.web_page import Browser

NOT_LOGGED = {"/bulk/find", "/bulk/stop"}  # change nothing
FIELDS: dict[str, tuple[dict[str, str], str]] = {
    "/cancel": ({"id": "t"}, "cancel 1 task(s): t"),
    "/dead/retry": ({"circle": "circle", "message": "m-1"}, "retry 1 dead letter(s)"),
    "/dead/delete": ({"circle": "circle", "message": "m-1"}, "delete 1 dead letter(s)"),
    "/delayed/run": ({"circle": "circle", "delayed": "t late late"}, "run 1 delayed task(s) now"),
    "/delayed/cancel": ({"circle": "circle", "delayed": "t late late"}, "cancel 1 delayed task(s)"),
    "/bulk/act": ({"job": "1"}, "cancel 2 task(s) where circle=circle"),
    "/circle/return": ({"circle": "circle"}, "return 0 task(s)"),
    "/circle/purge": ({"circle": "circle"}, "purge 2 task(s)"),
    "/circle/pause": ({"circle": "circle"}, "pause the circle"),
    "/circle/resume": ({"circle": "circle"}, "resume the circle"),
    "/circle/limit": ({"circle": "circle", "concurrency": "1"}, "limit the circle: concurrency 1"),
    "/worker/quiet": ({}, "quiet worker process "),
    "/worker/resume": ({}, "resume worker process "),
    "/doctor/repair": ({}, "repair "),
}
NO_CIRCLE = {"/worker/quiet", "/worker/resume", "/doctor/repair"}


def test_every_action_is_logged_or_changes_nothing() -> None:
    assert set(_ACTIONS) == FIELDS.keys() | NOT_LOGGED


@pytest.mark.parametrize("action", FIELDS)
def test_an_action_is_logged_with_its_circle(
    browser: Browser, app: Client, client: Any, start_worker: Callable[..., Worker], action: str
) -> None:
    fields: dict[str, Any] = FIELDS[action][0]
    what = FIELDS[action][1]
    log = Rules(client, "rhai_dramatiq")
    if action.startswith("/worker"):
        start_worker("other")
        wait_until(lambda: "/worker?id=" in browser.site.get("/").text)
        fields = {"id": browser.site.get("/").text.split("/worker?id=")[1].split('"')[0]}
    app.submit("1", task_id="t")
    app.submit("1", task_id="late", delay=1000)
    client.hset("rhai_dramatiq:rhai-circle.XQ.msgs", "m-1", '{"args": ["t"]}')
    client.zadd("rhai_dramatiq:rhai-circle.XQ", {"m-1": 1000})
    if action == "/circle/resume":
        browser.send("/circle/pause", circle="circle")
    if action == "/bulk/act":
        browser.send("/bulk/find", verb="cancel", circle="circle")
        wait_until(lambda: "Searching" not in browser.get("/bulk?job=1").text)
    if action == "/doctor/repair":
        client.lpush("rhai_tasks:circle", "no-hash")
        browser.send("/doctor/examine")
        page = wait_until(lambda: (found := browser.get("/doctor")) and "no-hash" in found.text and found)
        (finding, *_) = [one["value"] for _, one in page.elements if one.get("name") == "finding"]
        fields = {"finding": finding}
    before = len(log.changes())

    browser.send(action, **fields)

    wait_until(lambda: len(log.changes()) == before + 1)
    change = log.changes()[0]
    assert (change.by, change.circle) == ("the web page", "" if action in NO_CIRCLE else "circle")
    assert change.what.startswith(what)
