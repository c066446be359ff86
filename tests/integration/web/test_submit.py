"""The form that submits a script, and the page of its task."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks import Client
from tests.conftest import Worker, wait_until
from tests.web_page import INJECTIONS, Browser, Page, serve


def values(page: Page) -> dict[str, str]:
    return {str(each.get("name")): str(each.get("value")) for tag, each in page.elements if tag == "input"}


def try_(browser: Browser, what: str, **fields: str | list[str]) -> Page:
    return browser.send("/try", "/submit", 200, **{"try": what}, **fields)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("let a = 1;\nlet b = ;", r"Not accepted: line 2, column 9 .*unexpected"),
        ("let a = 1; a", r"Accepted The syntax is correct"),
        ("", r"Accepted The syntax is correct"),
        ("unknown()", r"Accepted The syntax is correct"),
    ],
)
def test_the_syntax_is_checked_before_anything_is_sent(
    browser: Browser, client: Any, script: str, expected: str
) -> None:
    page = try_(browser, "check", script=script, circle="c", delay="5", via="urgent")

    assert re.search(expected, page.words(), re.IGNORECASE), page.words()
    assert values(page) | {"circle": "c", "delay": "5"} == values(page)
    assert script.strip() in page.text
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("print(`hi ${CALLER_ID}`); ARGS.a + 1", r"Accepted 42 Printedhi ada.* operations"),
        ("let a = [];\n  a.nothing()", r"Not accepted: line 2, column 5 .*Function not found: nothing"),
        ("loop {}", "Not accepted.*time limit"),
        ("let s = []; loop { s.push(`abc`) }", "Not accepted.*(memory|time) limit"),
        ("CONTEXT_ID", "Accepted here"),
    ],
)
def test_a_script_runs_in_the_pages_own_engine_within_its_limits(
    browser: Browser, client: Any, script: str, expected: str
) -> None:
    page = try_(browser, "run", script=script, circle="here", caller="ada", args='{"a": 41}')

    assert re.search(expected, page.words()), page.words()
    assert client.dbsize() == 0


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_a_tried_script_says_is_text(browser: Browser, text: str) -> None:
    page = try_(browser, "run", script="print(ARGS); throw ARGS.t", args='{"t": "<b>x"}', circle=text)

    assert "Runtime error: <b>x" in page.text
    assert page.count("b") == 1  # the header's
    assert page.count("script") == 1


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"circle": "", "delay": ""}, "Name a circle"),
        ({"delay": "abc"}, "must be a number of seconds"),
        ({"delay": "-1"}, "between 0 and 10 years"),
        ({"args": "["}, "not JSON"),
        ({"args": "[]"}, "must be a JSON object"),
        ({"id": "taken"}, "is taken"),
        ({"via": "pigeon"}, "Unknown queue"),
    ],
)
def test_a_form_that_is_refused_comes_back_with_all_that_was_typed(
    browser: Browser, client: Any, fields: dict[str, str], problem: str
) -> None:
    client.hset("rhai_task_details:taken", mapping={"script": "1"})
    given = {"script": "let precious = 1;", "circle": "c", "caller": "ada", "maxMemory": "1000", **fields}
    status = 409 if "id" in fields else 422

    page = browser.send("/submit", status=status, **given)

    assert problem in page.text
    assert "let precious = 1;" in page.text
    kept = values(page)
    expected = {name: value for name, value in given.items() if name not in {"script", "args", "via"}}
    assert expected.items() <= kept.items()
    assert fields.get("args", "") in page.text


def test_without_actions_nothing_is_tried(server_url: str, client: Any) -> None:
    with serve(server_url, read_only=True) as site:
        Browser(site).send("/try", status=404, script="1")


def test_a_tasks_page_shows_its_way_its_prints_its_arguments_and_its_cost(
    browser: Browser, app: Client, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle", "--threads", "1")
    task = app.submit(
        "print(`one`); print(`two`); ARGS.n * 2",
        circle="circle",
        args={"n": 21},
        stats=True,
        keep_prints=1000,
        json=True,
        timeout=30.0,
    )
    assert task.result(timeout=60) == "42"

    page = browser.get(f"/task?id={task.id}")

    text = page.words()
    assert re.search(r"Timeline .*submitted.*begun by .*waited .*completedran", text), text
    assert "Printed Copy one two" in text
    assert 'Arguments Copy {"n":21}' in text.replace('": 21', '":21')
    assert "Result as JSON Copy 42" in text
    assert re.search(r"timeout ?30", text)
    assert re.search(r"operations ?\d+ ?peakMemory ?\d+", text)
    assert f"rhai-tasks replay {task.id}" in text
    assert f"rhai-tasks profile {task.id}" in text


def test_a_finished_task_keeps_its_way_when_no_worker_reports_it(browser: Browser, client: Any) -> None:
    times = {"createdAt": "2026-11-30T10:00:00Z", "startedAt": "2026-11-30T10:00:02Z", "updatedAt": "1796032806"}
    client.hset(
        "rhai_task_details:t",
        mapping={
            "script": "1",
            "status": "completed",
            "output": "1",
            "deliveries": "3",
            "workerId": "w-1",
            "runSeconds": "1.5",
            **times,
        },
    )

    text = browser.get("/task?id=t").words()

    assert "10:00:00.000submitted" in text
    assert "begun by w-1waited 2 s, 2 worker process(es) had died with it" in text
    assert "completedran 1.5 s" in text


@pytest.mark.parametrize(
    ("fields", "expiry"),
    [
        ({"status": "pending", "keepFinished": "60"}, "as the options of its worker say"),
        ({"status": "pending", "expireFinished": "90"}, "1 min 30 s after its end"),
        ({"status": "processing", "expireFinished": "0"}, "never"),
        ({"status": "pending", "expireFinished": "x"}, "as the options of its worker say"),
        ({"status": "completed", "keepFinished": "60"}, "never"),
        ({"status": "completed", "expireFinished": "90"}, "never"),  # an original worker reads no such field
    ],
)
def test_a_task_has_one_line_on_the_end_of_its_details(
    browser: Browser, client: Any, fields: dict[str, str], expiry: str
) -> None:
    client.hset("rhai_task_details:t", mapping={"script": "1", **fields})

    text = browser.get("/task?id=t").words()

    assert f"details expire{expiry}" in text.replace("expire ", "expire")
    assert "Finished" not in text


@pytest.mark.parametrize("value", ["", "x", "-1", "9" * 400, "nan", "1e999"])
@pytest.mark.parametrize("field", ["runSeconds", "deliveries", "startedAt", "operations", "peakMemory"])
def test_numbers_of_strangers_break_no_page(browser: Browser, client: Any, field: str, value: str) -> None:
    fields = {"script": "1", "status": "error", "error": "e", "createdAt": "1", "updatedAt": "2", field: value}
    client.hset("rhai_task_details:t", mapping=fields)

    assert "submitted" in browser.get("/task?id=t").text
    assert "1 found here" in browser.get("/tasks?place=search&go=1").text


def test_the_commands_of_a_task_can_be_typed(browser: Browser, client: Any) -> None:
    for name in ("-x", "a b'c", "t\x1b[31m"):
        client.hset(f"rhai_task_details:{name}", mapping={"script": "1", "status": "pending"})

    assert "rhai-tasks cancel -- -x" in browser.get("/task?id=-x").text
    assert "rhai-tasks status 'a b'\"'\"'c'" in browser.get("/task?id=a%20b%27c").text
    assert "At a terminal" not in browser.get("/task?id=t%1b[31m").text


def test_prints_come_while_the_script_runs(browser: Browser, app: Client, start_worker: Callable[..., Worker]) -> None:
    start_worker("circle", "--threads", "1")
    task = app.submit("print(`begun`); loop { sleep(0.01) }", circle="circle", keep_prints=1000)

    wait_until(lambda: "Printed Copy begun" in browser.get(f"/task?id={task.id}").words())
    task.cancel()


HIDDEN = 'let a = "\u200b\u202e\t";\n\na'


def value_of(page: Page, name: str) -> str | None:
    (value,) = [values.get("value") for tag, values in page.elements if tag == "input" and values.get("name") == name]
    return value


def test_a_script_comes_back_to_the_letter_and_what_cannot_be_seen_in_it_is_named(
    browser: Browser, client: Any
) -> None:
    given = {
        "script": HIDDEN,
        "circle": "c\u200b",
        "callerId": "a\u200bda",
        "args": '{"a": "\u200b"}',
        "status": "error",
    }
    client.hset("rhai_task_details:t", mapping=given)

    page = browser.get("/submit?again=t&circle=c%E2%80%8B")

    assert HIDDEN in page.text
    assert given["args"] in page.text
    assert (value_of(page, "circle"), value_of(page, "caller")) == (given["circle"], given["callerId"])
    assert "Invisible characters are in the script: \\u200b \\u202e" in page.text
    assert "Invisible" not in browser.get("/submit").text


def test_lines_that_a_browser_sends_come_back_as_they_were(browser: Browser) -> None:
    page = try_(browser, "check", script="let a = 1;\r\na\r", circle="c")

    assert "let a = 1;\r\na\r" in page.text


@pytest.mark.parametrize("script", ["a\x00b", b"a\xffb"], ids=["NUL", "no UTF-8"])
def test_what_no_page_can_hold_is_replaced(browser: Browser, client: Any, script: str | bytes) -> None:
    client.hset("rhai_task_details:t", mapping={"script": script, "status": "error"})

    assert "a\ufffdb" in browser.get("/submit?again=t").text
