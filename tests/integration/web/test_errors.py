"""Errors in groups, and lists that say what a task was."""

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
import redis

from rhai_tasks.operate.tasks import Tasks
from tests.conftest import Dispatcher, Worker, wait_until
from tests.web_page import INJECTIONS, Browser, Page


def failed(client: Any, task_id: str, error: str, **fields: str) -> None:
    given = {"script": f"f({task_id})", "status": "error", "error": error, **fields}
    client.hset(f"rhai_task_details:{task_id}", mapping=given)


def groups(browser: Browser, query: str = "") -> Page:
    """Return the page of errors once all are read."""
    pages: list[Page] = []

    def is_read() -> bool:
        pages.append(browser.get(f"/errors?{query}"))
        return "Reading" not in pages[-1].text

    wait_until(is_read)
    return pages[-1]


def test_errors_of_one_cause_are_one_group_with_its_callers_times_and_samples(browser: Browser, client: Any) -> None:
    for number in range(12):
        failed(
            client,
            f"order-{number:02}",
            f"Runtime error: stock {number} is empty (line {number}, position 3)",
            callerId="ada" if number else "bob",
            circle="shop",
            updatedAt=f"2026-11-30T10:{number:02}:00.000000Z",
        )
    failed(client, "odd", "Variable not found: x (line 1, position 1)", callerId="eve")
    client.hset("rhai_task_details:good", mapping={"script": "1", "status": "completed", "output": "1"})

    page = groups(browser)

    text = page.words()
    assert "13 error(s)" in text
    assert re.search(
        r"12 Runtime error: stock … is emptyExport .* 2026-11-30 10:00:002026-11-30 10:11:00 ada 11bob 1 shop "
        r"order-11order-10order-09",
        text,
    ), text
    assert "1 Variable not found: x" in text
    assert "good" not in text


def test_a_group_leads_to_its_tasks_and_to_their_export(browser: Browser, client: Any) -> None:
    for number in range(3):
        failed(client, f"t{number}", f"no customer {number}", callerId="ada", updatedAt="2026-11-30T10:00:00.000000Z")
    failed(client, "other", "no invoice 1")

    page = groups(browser)
    addresses = [str(values.get("href")) for tag, values in page.elements if tag == "a"]
    search = next(
        address for address in addresses if address.startswith("/tasks") and quote("no customer …") in address
    )
    export = next(address for address in addresses if "export" in address and quote("no customer …") in address)

    assert "3 found here" in browser.get(search).text
    lines = [json.loads(line) for line in browser.site.get(export).text.splitlines()]
    assert sorted(line["task_id"] for line in lines) == ["t0", "t1", "t2"]
    assert lines[0]["caller"] == "ada"
    assert lines[0]["at"] == "2026-11-30T10:00:00.000000Z"


@pytest.mark.parametrize(
    ("query", "expected"),
    [("circle=a", 1), ("caller=me", 1), ("contains=boom", 2), ("contains=Boom", 0), ("younger=1h", 0), ("older=1h", 2)],
)
def test_errors_are_filtered(browser: Browser, client: Any, query: str, expected: int) -> None:
    failed(client, "one", "boom 1", circle="a", updatedAt="2026-01-01T00:00:00.000000Z")
    failed(client, "two", "boom 2", callerId="me", updatedAt="2026-01-01T00:00:00.000000Z")

    page = groups(browser, query)

    assert f"{expected} error(s)" in page.text
    assert "No task that matches" in page.text if not expected else "boom …" in page.text


def test_what_failed_meanwhile_is_read_again_on_demand(browser: Browser, client: Any) -> None:
    failed(client, "one", "boom")
    assert "1 error(s)" in groups(browser, "contains=boom").text
    failed(client, "two", "boom")
    assert "1 error(s)" in groups(browser, "contains=boom").text

    browser.send("/errors/read", page="/errors?contains=boom", contains="boom")

    wait_until(lambda: "2 error(s)" in groups(browser, "contains=boom").text)


@pytest.mark.parametrize(
    "query", ["status=&younger=soon", "older=-1", "older=" + "9" * 400, "younger=" + quote("<b>"), "older=1h1"]
)
@pytest.mark.parametrize("path", ["/errors", "/tasks", "/errors/export"])
def test_a_filter_that_cannot_be_read_is_told(browser: Browser, path: str, query: str) -> None:
    page = browser.get(f"{path}?place=search&{query}", status=422)

    assert "is not a duration" in page.text
    assert page.count("b") <= 1  # the header's


@pytest.mark.parametrize("text", INJECTIONS)
def test_errors_of_strangers_are_text_in_groups_and_exports(browser: Browser, client: Any, text: str) -> None:
    failed(client, text, text, callerId=text, circle=text)

    page = groups(browser)

    assert page.count("script") == 1
    assert page.count("img") == 1
    assert "1 error(s)" in page.text
    export = browser.site.get("/errors/export?status=error")
    assert export.headers["content-disposition"].startswith("attachment")
    (line,) = export.text.splitlines()
    assert json.loads(line)["task_id"] == text


def test_details_of_any_kind_are_read_over(browser: Browser, client: Any) -> None:
    client.set("rhai_task_details:text", "no hash")
    client.hset("rhai_task_details:bytes", mapping={"status": "error", "error": b"\xff\xfe boom"})
    client.hset("rhai_task_details:huge", mapping={"status": "error", "error": "x" * 200_000})
    client.hset("rhai_task_details:none", mapping={"status": "error"})

    page = groups(browser)

    assert "3 error(s)" in page.text
    assert "boom" in page.text


def test_a_failure_of_the_server_is_told_and_the_next_reading_succeeds(
    browser: Browser, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(client, "one", "boom")
    walk = Tasks.walk

    def fails(*_: Any, **__: Any) -> Any:
        raise redis.ConnectionError("gone")

    monkeypatch.setattr(Tasks, "walk", fails)
    assert "The reading failed: gone" in groups(browser).words()
    monkeypatch.setattr(Tasks, "walk", walk)
    browser.send("/errors/read")

    wait_until(lambda: "1 error(s)" in groups(browser).text)


def test_lists_say_who_submitted_which_script_and_how_it_failed(
    browser: Browser, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("c", "--threads", "2")
    dispatcher.submit("c", "bad", "\n  throw `no stock`;\nlast", callerId="ada")
    dispatcher.submit("c", "slow", "// waits\nloop { sleep(0.01) }", callerId="bob")
    dispatcher.result("bad")
    wait_until(lambda: "slow" in browser.get("/tasks?place=running").text)

    running, recent = browser.get("/tasks?place=running").words(), browser.get("/tasks").words()
    found = browser.get("/tasks?place=search&status=error").words()

    assert re.search(r"slow c bob // waits", running), running
    assert re.search(r"bad error c ada .* ago .* Runtime error: no stock.* throw `no stock`;", recent), recent
    assert re.search(r"bad error ada .*s Runtime error: no stock.* throw `no stock`;", found), found
