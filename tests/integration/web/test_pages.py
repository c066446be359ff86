"""The web page without JavaScript: contents, actions and access."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import quote

import pytest
import redis
from starlette.testclient import TestClient

from bridge.circle import CircleBridge
from rhai_tasks import Client
from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import Quota, Rule
from rhai_tasks.settings import Settings
from rhai_tasks.web.security import MOST_STREAMS
from tests.commands import BIN
from tests.conftest import Dispatcher, Worker, free_port, make_server, wait_until
from tests.web_page import INJECTIONS, Browser, Page, serve

MIB = 1024 * 1024
TOKEN = "correct horse battery staple"


@pytest.fixture
def site(server_url: str, client: Any) -> Iterator[TestClient]:
    assert client.dbsize() == 0
    with serve(server_url) as site:
        yield site


@pytest.fixture
def browser(site: TestClient) -> Browser:
    return Browser(site)


def details(client: Any, task_id: str, **fields: str | bytes) -> None:
    client.hset(f"rhai_task_details:{task_id}", mapping=fields)


# --- contents


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("/", "No circle has ever had a task here"),
        ("/", "rhai-worker --circle-public-key KEY"),
        ("/tasks", "No worker of this project has reported"),
        ("/tasks?place=running", "No script runs"),
        ("/tasks?place=waiting", "No task waits"),
        ("/tasks?place=buffered&circle=c", "No task is buffered"),
        ("/tasks?place=search", "Search reads"),
        ("/delayed", "Nothing is delayed"),
        ("/dead", "There are none"),
        ("/errors", "Reading all tasks"),
        ("/doctor", "Nothing has been examined"),
        ("/task?id=unknown", "never submitted"),
        ("/task", "never submitted"),
    ],
)
def test_a_page_of_nothing_says_so(browser: Browser, address: str, words: str) -> None:
    assert words in " ".join(browser.get(address).text.split())


def test_the_overview_shows_the_rules_of_its_circles(browser: Browser, dispatcher: Dispatcher, client: Any) -> None:
    dispatcher.submit("busy", "t", "1")
    rules = Rules(client, "rhai_dramatiq", "ada")
    rules.set("busy", Rule("pause", "circle", reason="<b>moves</b>"))
    rules.set("busy", Rule("limit", "caller", "noisy", quota=Quota(concurrency=4)))

    page = browser.get("/")

    text = re.sub(r"\s+", " ", page.text)
    assert "busy paused" in text
    assert "limit caller noisy: concurrency 4" in text
    assert re.search(r"pause the circle[-0-9]+ [:0-9]+ada<b>moves</b>", text), text


def test_the_overview_shows_what_is_where(browser: Browser, dispatcher: Dispatcher, client: Any) -> None:
    for number in range(3):
        dispatcher.submit("busy", f"t{number}", "1")
    client.zadd("rhai_dramatiq:rhai-late.delayed", {"d": 9e12})
    client.sadd("rhai_dramatiq:__queues__", "rhai-late")

    page = browser.get("/")

    rows = re.sub(r"\s+", " ", page.text[page.text.index("completed/s") :])
    assert re.search(r"busy not served 3 0 0 0 0 0 0 0 0 0 late 0 0 0 0 0 1 0 0 0 0", rows), rows


def test_waiting_tasks_come_in_pages_in_their_order(browser: Browser, dispatcher: Dispatcher) -> None:
    for number in range(120):
        dispatcher.submit("c", f"task-{number:03}", f"{number}")

    last = browser.get("/tasks?place=waiting&circle=c&page=3")

    assert re.findall(r"task-\d+", last.text) == [f"task-{number:03}" for number in range(19, -1, -1)]
    assert "101 to 120 of 120" in last.text
    assert "No task waits" in browser.get("/tasks?place=waiting&circle=c&page=99999999999").text


def test_buffered_tasks_are_shown(browser: Browser, dispatcher: Dispatcher, server_url: str, client: Any) -> None:
    dispatcher.submit("c", "one", "40 + 2")
    bridge = CircleBridge(Settings(redis_url=server_url), "c", client)
    bridge.forward(0)
    bridge.close()

    page = browser.get("/tasks?place=buffered&circle=c")

    assert "one" in page.text
    assert "40 + 2" in page.text


def test_the_line_and_column_of_an_error_are_marked(browser: Browser, client: Any) -> None:
    details(
        client,
        "t",
        script="let a = 1;\n  a.b();\nlast",
        status="error",
        error="Function not found (line 2, position 5)",
    )

    html = browser.site.get("/task?id=t").text

    assert '<th scope="row">2</th><td><code>  a.<mark>b</mark>();</code>' in html
    assert "line 2, column 5" in html


@pytest.mark.parametrize(
    "position", ["line 900000, position 3", "line 0, position 0", f"line {'9' * 5000}, position 1"]
)
def test_a_position_outside_of_the_script_marks_nothing(browser: Browser, client: Any, position: str) -> None:
    details(client, "t", script="1", status="error", error=f"no ({position})")

    page = browser.get("/task?id=t")

    assert page.count("mark") == 0


def test_an_error_far_down_a_long_script_is_shown(browser: Browser, client: Any) -> None:
    lines = [f"line {number}" for number in range(1, 20_001)]
    details(client, "t", script="\n".join(lines), status="error", error="no (line 15000, position 1)")

    page = browser.get("/task?id=t")

    assert "line 15000, column 1" in page.text
    assert page.count("tr") < 1100


@pytest.mark.parametrize("text", INJECTIONS)
def test_texts_of_strangers_are_never_markup(browser: Browser, client: Any, text: str) -> None:
    plain = {"id": "plain", "script": "1", "callerId": "x", "status": "completed", "output": "1", "replyToQueue": "r"}
    details(client, "plain", error="x", other="x", **plain)
    expected = sorted(tag for tag, _ in browser.get("/task?id=plain").elements)

    fields = dict.fromkeys(("script", "callerId", "output", "error", "replyToQueue", "id"), text)
    details(client, text, status="completed", **fields)
    client.hset(f"rhai_task_details:{text}", text, text)
    address = f"/task?id={quote(text)}"
    page = browser.get(address)

    assert page.count("img") == 1
    assert sorted({tag for tag, _ in page.elements}) == sorted(set(expected))
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name in {"style", "srcdoc"}], tag
        assert not (attributes.get("href") or "").startswith(("javascript", "data", "//"))

    live = browser.site.get(f"/live{address}").text
    events = [event for event in live.split("\n\n") if event]
    assert len(events) == 2
    assert all(line.startswith("data: ") for line in events[0].split("\n"))
    assert Page(events[0]).count("script") == 0


@pytest.mark.parametrize("text", [*INJECTIONS, "\udcff\udcfe", ""])
def test_names_of_strangers_are_never_markup_on_any_page(
    browser: Browser, client: Any, app: Client, server_url: str, text: str
) -> None:
    circle, raw = text.encode("utf-8", "surrogateescape"), redis.Redis.from_url(server_url)
    raw.lpush(b"rhai_tasks:" + circle, circle, b"other")
    raw.hset(b"rhai_task_details:" + circle, mapping={"script": circle, "callerId": circle, "status": circle})
    queue = "rhai_dramatiq:rhai-dead"
    raw.sadd("rhai_dramatiq:__queues__", "rhai-dead", b"\xff<b>")
    raw.zadd(f"{queue}.XQ", {circle or b"m": 1.0})
    raw.hset(f"{queue}.XQ.reasons", circle or b"m", circle)
    raw.hset(f"{queue}.XQ.msgs", circle or b"m", b'{"args": ["\\ud800"]}')
    raw.zadd(f"{queue}.delayed", {circle or b"m": 9e15})
    raw.hset("rhai_dramatiq:__workers__", "w", b"garbage" + circle)
    name = quote(circle)

    for address in (
        "/",
        "/?circle=" + name,
        "/tasks?circle=" + name,
        "/tasks?place=waiting",
        "/tasks?place=waiting&circle=" + name,
        f"/tasks?place=search&go=1&caller={name}&status={name}",
        f"/tasks?place=search&contains={name}&error={name}",
        f"/circle?circle={name or 'c'}",
        "/circle?circle=dead",
        f"/worker?id={name}",
        f"/history?circle={name}&range={name}",
        f"/errors?circle={name}&caller={name}&contains={name}&error={name}",
        "/dead",
        "/dead?circle=dead",
        "/delayed?circle=dead",
        "/submit?circle=" + name,
        "/submit?again=" + name,
    ):
        page = browser.get(address)
        assert page.count("script") == 1, address
        assert not {tag for tag, _ in page.elements} & {"iframe", "base", "style"}, address
        assert page.count("img") == 1
        assert not [1 for _, attributes in page.elements for name_ in attributes if name_.startswith("on")], address
    raw.close()


def test_a_huge_output_is_cut_and_downloads_as_text(browser: Browser, client: Any) -> None:
    output = "<script>alert(1)</script>\n" * (5 * MIB // 26)
    details(client, "big", script="1", status="completed", output=output, callerId="x" * 5 * MIB)

    answer = browser.site.get("/task?id=big")
    assert len(answer.content) < MIB
    assert "5.0 MiB in all" in answer.text
    assert Page(answer.text).count("script") == 1
    assert len(browser.site.get("/tasks?place=search&go=1").content) < 100_000

    whole = browser.site.get("/task/field?id=big&name=output")
    assert whole.text == output
    assert whole.headers["content-type"] == "text/plain; charset=utf-8"
    assert whole.headers["content-disposition"].startswith("attachment")
    assert whole.headers["x-content-type-options"] == "nosniff"
    assert browser.site.get("/task/field?id=big&name=none").status_code == 404


@pytest.mark.parametrize("script", ["x" * 5 * MIB, "\n" * 5 * MIB, "é" * 2 * MIB], ids=["one line", "lines", "letters"])
def test_a_huge_script_makes_no_huge_page(browser: Browser, client: Any, script: str) -> None:
    details(client, "big", script=script, status="error", error="no (line 1, position 2000000)")

    assert len(browser.site.get("/task?id=big").content) < MIB


def test_thousands_of_fields_are_counted_and_few_are_shown(browser: Browser, client: Any) -> None:
    details(client, "t", script="1", **{f"field{number}": "x" * 10_000 for number in range(3000)})

    page = browser.get("/task?id=t")

    assert "2,950 further fields" in page.text
    assert page.text.count("Download all of it") == 50


def test_details_that_are_no_hash_are_said_to_be_none(browser: Browser, client: Any) -> None:
    client.set("rhai_task_details:odd", "text")
    client.lpush("rhai_tasks:c", "odd")

    assert "its details are not a hash: WRONGTYPE" in browser.get("/task?id=odd").text
    assert "no details" in browser.get("/tasks?place=waiting&circle=c").text


def test_keys_of_another_type_break_no_page(browser: Browser, client: Any) -> None:
    client.sadd("rhai_dramatiq:__queues__", "rhai-odd")
    for name in ("", ".delayed", ".XQ"):
        client.set(f"rhai_dramatiq:rhai-odd{name}", "text")
    client.set("rhai_tasks:odd", "text")

    assert "odd" in browser.get("/").text


def test_a_search_goes_on_where_it_stopped(browser: Browser, client: Any) -> None:
    with client.pipeline() as pipeline:
        for number in range(12_000):
            caller = "wanted" if number % 1500 == 7 else "other"
            pipeline.hset(f"rhai_task_details:task-{number:05}", mapping={"status": "completed", "callerId": caller})
        pipeline.execute()
    address: str | None = "/tasks?place=search&go=1&status=completed&caller=wanted&circle="
    found: set[str] = set()
    requests = 0

    while address:
        page = browser.get(address)
        found |= set(re.findall(r"task-\d{5}", page.text))
        requests += 1
        further = [attributes["href"] for tag, attributes in page.elements if attributes.get("class") == "button"]
        address = further[0] if further else None

    assert found == {f"task-{number:05}" for number in range(7, 12_000, 1500)}
    assert requests == 3
    assert "12,000 of 12,000 keys searched" in page.text


@pytest.mark.parametrize(
    "query", ["page=-1", "page=x", "page=1e9", "cursor=99999999999999999999", "place=x", "page=²", "&" * 200]
)
def test_odd_queries_are_answered(browser: Browser, query: str) -> None:
    browser.get(f"/tasks?place=search&go=1&{query}")
    browser.get(f"/?{query}")


def test_what_runs_and_has_ended_is_told_by_workers(
    browser: Browser, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("c", "--threads", "2")
    dispatcher.run("c", "40 + 2", createdAt=str(time.time()))
    dispatcher.submit("c", "endless", "loop { sleep(0.1) }", createdAt=str(time.time()))

    wait_until(lambda: "endless" in browser.get("/tasks?place=running").text)
    wait_until(lambda: "completed" in browser.get("/tasks").text)

    assert "endless" in browser.get("/").text
    task = browser.get("/task?id=endless").text
    assert re.search(r"begun by \S+, process \d+", task)
    assert re.search(r"deliveries\s*1\b", task)
    assert re.search(r"circle\s*c\b", task)


def test_a_worker_that_was_killed_is_shown_as_lost_and_one_that_stops_is_gone(
    browser: Browser, dispatcher: Dispatcher, start_worker: Callable[..., Worker], client: Any
) -> None:
    killed, stopped = start_worker("c"), start_worker("d")
    dispatcher.run("d", "1")
    wait_until(lambda: client.hlen("rhai_dramatiq:__workers__") == 2)
    killed.kill()
    assert stopped.stop() == 0

    assert client.hlen("rhai_dramatiq:__workers__") == 1
    wait_until(lambda: re.search(r"lost .* ago", browser.get("/").text))


def test_what_killed_workers_left_behind_is_removed_by_others(client: Any, start_worker: Callable[..., Worker]) -> None:
    for number in range(4):
        client.hset("rhai_dramatiq:__workers__", f"killed-{number}", '{"at":1000,"host":"gone"}')
    client.hset("rhai_dramatiq:__workers__", "garbage", "garbage")

    start_worker("c")

    wait_until(lambda: client.hlen("rhai_dramatiq:__workers__") == 1)


def test_other_workers_are_inferred_from_what_they_finish(
    browser: Browser, dispatcher: Dispatcher, client: Any
) -> None:
    for number in range(3):
        dispatcher.submit("c", f"t{number}", "1", updatedAt="2026-01-01T00:00:00Z")
    browser.get("/")

    task_id = client.blpop("rhai_tasks:c")[1]  # as the original does
    client.hset(f"rhai_task_details:{task_id}", mapping={"status": "completed", "output": "1"})

    wait_until(lambda: "Inferred: other workers" in browser.get("/").text)
    assert "another kind of worker" in browser.get(f"/task?id={task_id}").text


def test_our_workers_are_not_taken_for_others(
    browser: Browser, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    dispatcher.submit("c", "t", "1", createdAt="2026-01-01T00:00:00Z", updatedAt="2026-01-01T00:00:00Z")
    browser.get("/")
    start_worker("c")
    dispatcher.result("t")
    end = time.monotonic() + 5

    while time.monotonic() < end:
        assert "Inferred" not in browser.get("/").text + browser.get("/task?id=t").text
        time.sleep(0.5)


# --- actions


def test_a_script_is_submitted_and_its_page_opened(browser: Browser, client: Any) -> None:
    page = browser.send("/submit", script="let a = 1;\r\na", circle="c", caller="me", id="mine", delay="", via="native")

    assert "Submitted." in page.text
    assert client.lrange("rhai_tasks:c", 0, -1) == ["mine"]
    fields = client.hgetall("rhai_task_details:mine")
    assert (fields["script"], fields["callerId"]) == ("let a = 1;\na", "me")
    assert "Submitted." not in browser.get("/task?id=mine").text


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"delay": "soon"}, 422, "must be a number"),
        ({"delay": "nan"}, 422, "between 0 and 10 years"),
        ({"delay": "-1"}, 422, "between 0 and 10 years"),
        ({"circle": ""}, 422, "Name a circle"),
        ({"via": "carrier pigeon"}, 422, "Unknown queue"),
        ({"id": "taken"}, 409, "taken"),
    ],
)
def test_a_wrong_form_is_refused(
    browser: Browser, client: Any, fields: dict[str, str], status: int, words: str
) -> None:
    details(client, "taken", script="1")

    page = browser.send("/submit", status=status, **{"script": "1", "circle": "c", **fields})

    assert words in page.text
    assert client.llen("rhai_tasks:c") == 0


def test_a_task_is_cancelled(browser: Browser, app: Client, client: Any) -> None:
    task = app.submit("1", task_id="odd \udcff&")
    reference = "odd%20%FF%26"

    page = browser.send("/cancel", f"/task?id={reference}", id=reference)

    assert "Cancelled." in page.text
    assert "cancelled" in page.text
    assert task.details()["error"] == "cancelled"
    app.submit("1", task_id="ended")
    client.hset("rhai_task_details:ended", "status", "completed")
    assert "had ended already" in browser.send("/cancel", id="ended").text
    assert "no details any more" in browser.send("/cancel", id="none").text


def dead(client: Any, *names: str) -> None:
    for name in names:
        client.hset("rhai_dramatiq:rhai-c.XQ.msgs", name, f'{{"args": ["task-{name}"]}}')
        client.zadd("rhai_dramatiq:rhai-c.XQ", {name: 1000})
        client.hset("rhai_dramatiq:rhai-c.XQ.reasons", name, f"because {name}")
    client.sadd("rhai_dramatiq:__queues__", "rhai-c")


def test_chosen_dead_letters_are_retried_and_deleted(browser: Browser, client: Any) -> None:
    dead(client, "a", "b", "c")

    page = browser.get("/dead?circle=c")
    assert "because a" in page.text
    assert "task-c" in page.text
    page = browser.send("/dead/retry", "/dead?circle=c", circle="c", message="a")
    assert "1 dead letter(s) put back" in page.text
    page = browser.send("/dead/delete", "/dead?circle=c", circle="c", message=["b", "gone"])
    assert "1 dead letter(s) deleted" in page.text

    assert client.lrange("rhai_dramatiq:rhai-c", 0, -1) == ["a"]
    assert client.zrange("rhai_dramatiq:rhai-c.XQ", 0, -1) == ["c"]
    assert client.hkeys("rhai_dramatiq:rhai-c.XQ.msgs") == ["c"]


@pytest.mark.parametrize(("via", "chosen"), [("native", "t wanted wanted"), ("dramatiq", "m {} wanted")])
def test_a_delayed_task_is_run_now_or_cancelled(
    browser: Browser, app: Client, client: Any, via: Any, chosen: str
) -> None:
    suffix = "delayed" if via == "native" else "delayed_messages"
    target = "rhai_tasks:circle" if via == "native" else "rhai_dramatiq:rhai-circle"
    for action, end in (("/delayed/cancel", "cancelled"), ("/delayed/run", "handed over")):
        app.submit("1", task_id="wanted", delay=1000, via=via)
        app.submit("1", task_id="other", delay=2000, via=via)
        assert "wanted" in browser.get("/delayed?circle=circle").text
        name = client.zrange(f"rhai_dramatiq:rhai-circle.{suffix}", 0, 0)[0]

        page = browser.send(action, "/delayed?circle=circle", circle="circle", delayed=chosen.format(name))

        assert f"1 task(s) {end}" in page.text or f"1 delayed task(s) {end}" in page.text
        assert client.zscore(f"rhai_dramatiq:rhai-circle.{suffix}", name) is None
        assert app.task("other").status() == "pending"
        if action == "/delayed/cancel":
            assert app.task("wanted").details()["error"] == "cancelled"
            assert client.llen(target) == 0
        else:
            assert client.llen(target) == 1
        assert "0 " in browser.send(action, circle="circle", delayed=chosen.format(name)).text


def test_the_doctor_finds_and_repairs(browser: Browser, client: Any) -> None:
    client.lpush("rhai_tasks:c", "no-hash")

    browser.send("/doctor/examine", "/doctor")
    page = wait_until(lambda: (found := browser.get("/doctor")) and "no-hash" in found.text and found)
    (finding,) = [one["value"] for tag, one in page.elements if one.get("name") == "finding"]
    assert "Repaired." in browser.send("/doctor/repair", "/doctor", finding=finding).text

    assert client.llen("rhai_tasks:c") == 0
    assert "Nothing was done" in browser.send("/doctor/repair", "/doctor", finding=finding).text
    assert "Nothing was done" in browser.send("/doctor/repair", "/doctor", finding="9.x").text


def test_the_live_part_is_sent_until_the_task_has_ended(browser: Browser, client: Any) -> None:
    details(client, "t", script="1", status="processing")

    def finish() -> None:
        details(client, "t", status="completed", output="4 2")

    threading.Timer(0.7, finish).start()
    answer = browser.site.get("/live/task?id=t")

    first, *_, last, end = answer.text.strip().split("\n\n")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "processing" in first
    assert "4 2" in last
    assert end.startswith("event: end")


def test_a_live_page_is_told_of_a_problem_and_keeps_its_figures(browser: Browser, client: Any) -> None:
    client.config_set("maxclients", 1)  # the page's pool is empty: it cannot connect
    app: Any = browser.site.app
    app.state.is_stopping = lambda: True  # the stream ends after one event
    try:
        answer = browser.site.get("/live/")
    finally:
        client.config_set("maxclients", 1000)

    assert answer.text.startswith("event: problem\ndata: ")
    assert "<" not in answer.text


@pytest.mark.parametrize(
    ("action", "fields", "question"),
    [
        ("/cancel", {"id": "t"}, "Cancel task t?"),
        ("/circle/purge", {"circle": "c"}, "Cancel all tasks of circle c that have not begun, delayed ones too?"),
        ("/dead/delete", {"circle": "c", "message": ["a", "b"]}, "Delete 2 dead letter(s)?"),
        ("/delayed/run", {"circle": "c", "delayed": ["t late late"]}, "Run 1 delayed task(s) now?"),
        ("/delayed/cancel", {"circle": "c", "delayed": ["t late late"]}, "Cancel 1 delayed task(s)?"),
    ],
)
def test_an_action_that_nothing_undoes_asks_first_and_its_answer_does_it(
    browser: Browser, client: Any, action: str, fields: dict[str, Any], question: str
) -> None:
    details(client, "t", script="1", status="pending")
    details(client, "late", script="1", status="pending")
    client.zadd("rhai_dramatiq:rhai-c.delayed", {"late": 9e12})
    client.zadd("rhai_dramatiq:rhai-c.XQ", {"a": 1, "b": 2})
    before = {key: client.dump(key) for key in client.keys("*")}

    page = browser.send(action, "/tasks?place=running", sure="", **fields)

    assert question in page.text
    assert {key: client.dump(key) for key in before} == before
    form: dict[str, Any] = {}
    for tag, attributes in page.elements:
        if tag == "input" and attributes.get("type") == "hidden" and attributes["name"] != "csrf":
            form.setdefault(str(attributes["name"]), []).append(attributes["value"])
    assert form["back"] == ["/tasks?place=running"]
    answer = browser.send(action, "/elsewhere", **form)
    assert "Running" in answer.text
    assert {key: client.dump(key) for key in before} != before


@pytest.mark.parametrize("action", ["/dead/delete", "/delayed/run", "/delayed/cancel"])
def test_an_action_with_nothing_chosen_says_so(browser: Browser, action: str) -> None:
    assert "Nothing was chosen." in browser.send(action, "/dead?circle=c", sure="", circle="c").text


def test_tasks_of_clients_are_found_by_their_circle(browser: Browser, app: Client, client: Any) -> None:
    task = app.submit("1", circle="alpha")
    app.submit("2", circle="beta", context_id="alpha")
    details(client, "former", script="1", contextId="alpha", error="boom\nmore", createdAt="2026-01-31T12:00:00.5Z")

    found = browser.get("/tasks?place=search&circle=alpha")

    assert "2 found here" in found.text
    assert found.text.index(task.id[:20]) < found.text.index("former")
    assert "boom" in found.text
    assert "2026-01-31 12:00:00" in found.text
    page = browser.get(f"/task?id={task.id}")
    assert "It waits: 1 of 1 in the native list. no worker of this project serves the circle" in re.sub(
        r"\s+", " ", page.text
    )
    again = next(str(value["href"]) for tag, value in page.elements if "again" in str(value.get("href")))
    assert again.endswith("circle=alpha")


def test_a_part_of_a_circles_name_finds_it_in_every_list(browser: Browser, client: Any, dispatcher: Dispatcher) -> None:
    dispatcher.submit("alpha", "t", "1")

    assert "alpha" in browser.get("/tasks?place=waiting&circle=alp").text
    assert "of alpha" in re.sub(r"\s+", " ", browser.get("/tasks?place=waiting&circle=alpha").text)
    assert "none that has ended matches" in browser.get("/tasks?place=recent&circle=alp").text
    assert "has reported an ended task" in browser.get("/tasks?place=recent").text


# --- access


def test_every_answer_carries_the_headers(browser: Browser) -> None:
    for address in ("/", "/static/style.css", "/nowhere", "/task/field?id=x&name=y"):
        headers = browser.site.get(address).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert browser.site.get("/").headers["cache-control"] == "no-store"


def test_nothing_comes_from_elsewhere(browser: Browser) -> None:
    for address in ("/", "/submit", "/static/style.css", "/static/live.js"):
        assert not re.findall(
            r"(?:src|href|action)=.?(?:https?:)?//|url\(|@import|http", browser.site.get(address).text
        )


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8020"])
def test_a_name_that_is_not_ours_is_refused(browser: Browser, host: str) -> None:
    assert browser.site.get("/", headers={"host": host}).status_code == 400


@pytest.mark.parametrize("host", ["localhost:8020", "127.0.0.1:8020", "[::1]:8020"])
def test_names_of_this_machine_are_answered(browser: Browser, host: str) -> None:
    assert browser.site.get("/", headers={"host": host}).status_code == 200


ACTIONS = (
    "/submit",
    "/cancel",
    "/dead/retry",
    "/dead/delete",
    "/delayed/run",
    "/delayed/cancel",
    "/doctor/repair",
    "/doctor/examine",
    "/errors/read",
    "/try",
    "/bulk/find",
    "/bulk/act",
    "/bulk/stop",
    "/circle/return",
    "/circle/purge",
    "/circle/pause",
    "/circle/resume",
    "/circle/limit",
    "/worker/quiet",
    "/worker/resume",
)
READS = {"/doctor/examine", "/errors/read"}
"""These change nothing."""


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_needs_a_form_of_this_session(browser: Browser, action: str, client: Any) -> None:
    fields = {"script": "1", "circle": "c", "id": "t", "message": "a", "delayed": "t a a"}
    dead(client, "a")
    browser.get("/")

    assert browser.site.post(action, data=fields).status_code == 403
    assert browser.site.post(action, data={**fields, "csrf": "x"}).status_code == 403
    csrf = browser.csrf()
    for origin in ("http://evil.example", "null", "http://localhost:1", "http://["):
        answer = browser.site.post(action, data={**fields, "csrf": csrf}, headers={"origin": origin})
        assert answer.status_code == 403
    assert browser.site.get(action).status_code == (200 if action == "/submit" else 405)
    assert client.zcard("rhai_dramatiq:rhai-c.XQ") == 1
    assert client.exists("rhai_tasks:c", "rhai_task_details:t") == 0


@pytest.mark.parametrize("body", [b"x" * 9 * MIB, b"\xff\xfe", b"a=1&" * 5000], ids=["large", "bytes", "fields"])
def test_a_body_that_is_no_form_of_ours_is_refused(browser: Browser, body: bytes) -> None:
    assert browser.site.post("/submit", content=body).status_code in {400, 403, 413}


@pytest.mark.parametrize("field", ["script", "circle", "caller", "id", "delay", "via"])
def test_a_form_that_is_no_text_is_refused(browser: Browser, field: str, client: Any) -> None:
    fields = {"circle": "c", "script": "1", field: "%FF"}
    body = "&".join([f"csrf={browser.csrf()}", *(f"{name}={value}" for name, value in fields.items())])

    assert browser.site.post("/submit", content=body).status_code == 400
    assert client.dbsize() == 0


@pytest.mark.parametrize(
    ("action", "field", "value", "said"),
    [
        ("/doctor/repair", "finding", f"{'9' * 5000}.1", "Nothing was done"),  # more digits than Python reads
        ("/doctor/repair", "finding", "².²", "Nothing was done"),
        ("/dead/retry", "message", "%FF", "0 dead letter(s) put back"),  # no UTF-8 once it is dereferenced
        ("/dead/delete", "message", "%ED%A0%80", "0 dead letter(s) deleted"),
        ("/delayed/run", "delayed", "m %FF %FF", "0 task(s) handed over"),
        ("/delayed/cancel", "delayed", "m %FF %FF", "0 delayed task(s) cancelled"),
        ("/cancel", "id", "%FF", "no details any more"),
    ],
)
def test_a_form_that_no_page_of_ours_has_does_nothing(
    browser: Browser, action: str, field: str, value: str, said: str
) -> None:
    form = {"csrf": browser.csrf(), "sure": "1", "circle": "c", field: value}

    answer = browser.site.post(action, data=form)

    assert answer.status_code == 200
    assert said in answer.text


def test_a_dead_letter_may_have_any_name(browser: Browser, server_url: str) -> None:
    with redis.Redis.from_url(server_url) as raw:
        raw.zadd("rhai_dramatiq:rhai-c.XQ", {b"\xff": 1, b"\xfe": 2})
        raw.hset("rhai_dramatiq:rhai-c.XQ.msgs", mapping={b"\xff": b"{}", b"\xfe": b"{}"})

        assert "1 dead letter(s) put back" in browser.send("/dead/retry", circle="c", message="%FF").text
        assert "1 dead letter(s) deleted" in browser.send("/dead/delete", circle="c", message="%FE").text
        assert raw.lrange("rhai_dramatiq:rhai-c", 0, -1) == [b"\xff"]
        assert not raw.exists("rhai_dramatiq:rhai-c.XQ.msgs")


@pytest.mark.parametrize("referrer", ["http://[", "http://a]b/"])
def test_an_action_goes_to_the_overview_from_where_is_no_address(browser: Browser, referrer: str) -> None:
    fields = {"csrf": browser.csrf(), "sure": "1", "id": "t"}

    answer = browser.site.post("/cancel", data=fields, headers={"referer": referrer}, follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.fixture
def guarded(server_url: str, client: Any) -> Iterator[Browser]:
    with serve(server_url, token=TOKEN, base="https://tasks.example") as site:
        yield Browser(site)


@pytest.mark.parametrize("address", ["/", "/tasks", "/task?id=a%2Fb", "/task/field?id=x&name=y", "/submit", "/nowhere"])
def test_without_a_login_there_is_only_the_login(guarded: Browser, address: str) -> None:
    answer = guarded.site.get(address, follow_redirects=False)

    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=")
    assert guarded.site.get(f"/live{address}").status_code == 401
    assert guarded.site.post("/cancel", data={"id": "t"}).status_code == 401


def log_in(browser: Browser, token: str, status: int = 200, wanted: str = "/") -> Page:
    return browser.send(f"/login?next={quote(wanted)}", "/login", status=status, token=token)


def test_the_right_token_opens_what_was_wanted(guarded: Browser, client: Any) -> None:
    details(client, "a/b", script="1", status="pending")

    assert "That is not the token" in log_in(guarded, "wrong", 403).text
    page = log_in(guarded, TOKEN, wanted="/task?id=a%2Fb")

    assert "a/b" in page.text
    guarded.send("/logout", "/task?id=a%2Fb")
    assert guarded.site.get("/", follow_redirects=False).status_code == 303


def test_a_login_leads_nowhere_else(guarded: Browser) -> None:
    assert "Overview" in log_in(guarded, TOKEN, wanted="//evil.example/").text


def test_cookies_are_kept_from_scripts_other_sites_and_plain_connections(guarded: Browser, site: TestClient) -> None:
    secure = guarded.site.get("/login").headers["set-cookie"].lower()
    plain = site.get("/").headers["set-cookie"].lower()

    for cookie in (secure, plain):
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
    assert "; secure" in secure
    assert "; secure" not in plain


def test_a_forged_cookie_opens_nothing(guarded: Browser) -> None:
    guarded.site.cookies.set("rhai_tasks_8020", "eyJ1c2VyIjogdHJ1ZX0=.aaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb")

    assert guarded.site.get("/", follow_redirects=False).status_code == 303


def test_who_guesses_is_slowed_down(guarded: Browser) -> None:
    for _ in range(5):
        log_in(guarded, "guess", 403)

    assert "Too many failed logins" in log_in(guarded, TOKEN, 429).text


@pytest.mark.parametrize("action", [action for action in ACTIONS if action not in READS])
def test_read_only_has_no_actions(server_url: str, app: Client, client: Any, action: str) -> None:
    app.submit("1", task_id="t")
    dead(client, "a")
    with serve(server_url, read_only=True) as site:
        browser = Browser(site)
        assert site.post(action, data={"csrf": browser.csrf(), "id": "t"}).status_code == 404
        for address in ("/", "/task?id=t", "/dead?circle=c", "/tasks?place=running"):
            page = browser.get(address)
            assert not [form for tag, form in page.elements if tag == "form" and form.get("method") == "post"]
        assert "read-only" in page.text


def test_passwords_are_never_shown(client: Any) -> None:
    port = free_port()
    with serve(f"redis://user:s3cret@127.0.0.1:{port}/0?password=s3cret") as site:
        for address in ("/", "/tasks", "/task?id=t", "/dead?circle=c"):
            answer = site.get(address)
            assert answer.status_code == 503
            assert "does not answer" in answer.text
            assert "s3cret" not in answer.text


def test_pages_come_back_with_the_server() -> None:
    with (
        make_server() as server,
        serve(str(server.connection_url)) as site,
        redis.Redis(port=server.port) as client,
    ):
        assert site.get("/").status_code == 200
        client.config_set("requirepass", "x")
        client.client_kill_filter(_type="normal", skipme=True)
        wait_until(lambda: site.get("/").status_code == 503)
        client.config_set("requirepass", "")
        wait_until(lambda: site.get("/").status_code == 200)


# --- the command


def test_only_so_many_pages_are_live_at_a_time(spawn: Callable[..., Worker], client: Any) -> None:
    port = free_port()
    spawn("rhai-tasks", "web", "--port", str(port))

    def get(path: str) -> HTTPResponse:
        connection = HTTPConnection("127.0.0.1", port)
        opened.callback(connection.close)
        connection.request("GET", path, headers={"Connection": "close"})  # the answer is all that holds it open
        return opened.enter_context(connection.getresponse())

    def answers() -> bool:
        with suppress(ConnectionRefusedError):
            return get("/").status == 200
        return False

    with ExitStack() as opened:
        wait_until(answers, what="the page to be served")
        live = [get("/live/delayed") for _ in range(MOST_STREAMS)]
        assert {answer.status for answer in live} == {200}

        assert (get("/live/delayed").status, get("/delayed").status) == (503, 200)

        live[0].close()
        wait_until(lambda: get("/live/delayed").status == 200, what="room for another")


def test_an_address_of_others_needs_a_token(server_url: str) -> None:
    ended = subprocess.run(
        [str(BIN / "rhai-tasks"), "--redis-url", server_url, "web", "--host", "0.0.0.0"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert ended.returncode == 2
    assert "give a --token too" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_missing_extra_is_named() -> None:
    program = "import sys; sys.modules['uvicorn'] = None; from rhai_tasks.cli import main; main(['web'])"

    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 2
    assert "pip install 'rhai-tasks[web]'" in ended.stderr


def test_a_task_that_is_submitted_again_keeps_its_terms_but_the_time_to_begin(
    browser: Browser, dispatcher: Dispatcher
) -> None:
    terms = {"timeout": "2", "resultFormat": "json", "startBefore": "1", "result": "7"}
    dispatcher.submit("c", "first", "7", **terms)

    elements = browser.get("/submit?again=first").elements
    hidden = {one["name"]: one["value"] for tag, one in elements if tag == "input" and one.get("type") == "hidden"}
    browser.send("/submit", script="7", circle="c", id="second", timeout="2", resultFormat="json", startBefore="1")

    assert hidden.items() >= {"timeout": "2", "resultFormat": "json"}.items()
    assert hidden.keys().isdisjoint({"startBefore", "result"})
    details = dispatcher.details("second")
    assert (details["timeout"], details["resultFormat"]) == ("2", "json")
    assert details.keys().isdisjoint({"startBefore", "result"})


def test_a_task_with_a_stored_script_names_it_and_is_submitted_again(
    browser: Browser, app: Client, dispatcher: Dispatcher
) -> None:
    ref = app.scripts.put("40 + 2", name="answer")
    app.submit("@answer", task_id="first")

    assert str(ref) in browser.get("/task?id=first").text
    assert str(ref) in browser.get("/submit?again=first").text
    browser.send("/submit", script=str(ref), circle="c", id="second")

    assert dispatcher.details("second")["scriptRef"] == str(ref)


def test_a_script_is_submitted_with_arguments_and_keeps_them_when_it_is_submitted_again(
    browser: Browser, dispatcher: Dispatcher
) -> None:
    args = '{"text": "</textarea>&", "n": 1.0}'
    browser.send("/submit", script="7", circle="c", id="first", args=f" {args} ")

    page = browser.get("/submit?again=first").text

    assert dispatcher.details("first")["args"] == args
    assert args in page
    dispatcher.submit("c", "long", "7", args=json.dumps({"text": "x" * 300_000}))
    assert "The arguments of that task are too long for this form" in browser.get("/submit?again=long").text


@pytest.mark.parametrize("args", ["[1]", "{", "no"])
def test_arguments_that_are_no_json_object_are_refused(browser: Browser, dispatcher: Dispatcher, args: str) -> None:
    refused = browser.send("/submit", status=422, script="7", circle="c", id="refused", args=args)

    assert "The arguments " in refused.text
    assert dispatcher.details("refused") == {}
