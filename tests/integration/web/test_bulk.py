"""Actions on many tasks: found, confirmed, done in the background, stopped, and logged."""

from typing import Any

import pytest
import redis

from rhai_tasks import Client
from rhai_tasks.operate.bulk import Bulk
from tests.conftest import wait_until
from tests.web_page import INJECTIONS, Browser, serve


def failed(client: Any, task_id: str, **fields: str) -> None:
    given = {"script": "1", "status": "error", "error": "boom 1", "circle": "c", **fields}
    client.hset(f"rhai_task_details:{task_id}", mapping=given)


def found(browser: Browser, number: int = 1) -> str:
    """Return the question, once the tasks have been found."""
    text: list[str] = []

    def is_found() -> bool:
        text.append(browser.get(f"/bulk?job={number}").words())
        return "Searching" not in text[-1]

    wait_until(is_found)
    return text[-1]


def test_an_action_says_the_number_before_it_acts_and_is_logged_after_it(browser: Browser, client: Any) -> None:
    for number in range(150):
        failed(client, f"t{number}", error=f"boom {number}")
    failed(client, "other", error="else")

    browser.send("/bulk/find", verb="resubmit", error="boom 7", circle="c")

    assert "Submit 150 task(s) again?" in found(browser)
    assert client.llen("rhai_tasks:c") == 0
    browser.send("/bulk/act", job="1")
    wait_until(lambda: "Done: 150 of 150 task(s) submitted again." in browser.get("/bulk?job=1").words())
    assert client.llen("rhai_tasks:c") == 150
    assert "resubmit 150 task(s) where circle=c error='boom 7'the web page" in browser.get("/circle?circle=c").words()


def test_what_was_confirmed_is_done_once(browser: Browser, client: Any) -> None:
    failed(client, "t")
    browser.send("/bulk/find", verb="resubmit", circle="c")
    found(browser)

    for _ in range(2):
        browser.send("/bulk/act", job="1")
    wait_until(lambda: "Done: 1 of 1" in browser.get("/bulk?job=1").words())
    browser.send("/bulk/act", job="1")

    assert client.llen("rhai_tasks:c") == 1


def test_what_was_not_confirmed_is_not_done(browser: Browser, client: Any, app: Client) -> None:
    app.submit("1", circle="c", task_id="t")
    browser.send("/bulk/find", verb="cancel", circle="c")
    assert "Cancel 1 task(s)?" in found(browser)

    browser.send("/bulk/stop", job="1")
    browser.send("/bulk/act", job="1")

    assert "Stopped: 0 of 1" in browser.get("/bulk?job=1").words()
    assert client.hget("rhai_task_details:t", "status") == "pending"


def test_what_has_changed_since_it_was_found_is_skipped(browser: Browser, client: Any) -> None:
    for name in ("stays", "again", "gone", "text"):
        failed(client, name)
    browser.send("/bulk/find", verb="delete", circle="c")
    assert "Delete the details of 4 task(s)" in found(browser)
    client.hset("rhai_task_details:again", "status", "pending")
    client.delete("rhai_task_details:gone", "rhai_task_details:text")
    client.set("rhai_task_details:text", "no hash")

    browser.send("/bulk/act", job="1")

    wait_until(lambda: "Done: 1 of 4 task(s) deleted, 3 skipped" in browser.get("/bulk?job=1").words())
    assert sorted(client.keys("rhai_task_details:*")) == ["rhai_task_details:again", "rhai_task_details:text"]


def test_an_action_is_stopped_between_its_steps_and_says_what_it_did(
    browser: Browser, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(500):
        failed(client, f"t{number}")
    browser.send("/bulk/find", verb="delete", circle="c")
    found(browser)
    act = Bulk.act

    def stop_after_a_step(bulk: Bulk) -> Any:
        for step in act(bulk):
            browser.site.app.state.site.jobs.get(1).stopping.set()  # type: ignore[attr-defined]
            yield step

    monkeypatch.setattr(Bulk, "act", stop_after_a_step)
    browser.send("/bulk/act", job="1")

    wait_until(lambda: "Stopped: 100 of 500 task(s) deleted." in browser.get("/bulk?job=1").words())
    assert len(client.keys("rhai_task_details:*")) == 400
    assert "delete 100 task(s) where circle=c" in browser.get("/circle?circle=c").words()


def test_an_action_that_fails_says_what_it_did(browser: Browser, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    failed(client, "t")
    browser.send("/bulk/find", verb="delete", circle="c")
    found(browser)

    def fail(*_: Any) -> int:
        raise redis.ConnectionError("gone <b>")

    monkeypatch.setattr(Bulk, "_delete", fail)
    browser.send("/bulk/act", job="1")

    wait_until(lambda: "Failed: 0 of 1 task(s) deleted. gone <b>" in browser.get("/bulk?job=1").words())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"verb": "delete"}, "means every task"),
        ({"verb": "explode", "circle": "c"}, "Unknown action"),
        ({"circle": "c"}, "Unknown action"),
        ({"verb": "delete", "older": "soon"}, "is not a duration"),
    ],
)
def test_a_wrong_action_is_refused(browser: Browser, client: Any, fields: dict[str, str], problem: str) -> None:
    failed(client, "t")

    assert problem in browser.send("/bulk/find", status=422, **fields).text
    assert "None since this page was started" in browser.get("/bulk").text


def test_a_page_that_says_that_it_searches_is_live(
    browser: Browser, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed(client, "t")
    browser.send("/bulk/find", verb="delete", circle="c")
    found(browser)
    job = browser.site.app.state.site.jobs.get(1)  # type: ignore[attr-defined]
    states = ["finding"]  # it ends its search while the page is made
    monkeypatch.setattr(type(job), "state", property(lambda _: states.pop() if states else "found"), raising=False)

    html = browser.site.get("/bulk?job=1").text

    assert "Searching" in html
    assert "data-live" in html


@pytest.mark.parametrize("job", ["0", "7", "x", "", "9" * 30, "²", "-1"])
def test_an_action_that_is_not_there_is_told(browser: Browser, job: str) -> None:
    assert "no such action" in browser.send("/bulk/act", job=job, status=404).text
    assert "None since" in browser.get(f"/bulk?job={job}").text


def test_the_latest_actions_are_kept(browser: Browser, client: Any) -> None:
    for number in range(1, 25):
        browser.send("/bulk/find", verb="cancel", caller=f"nobody-{number}")
        assert "No task matches" in found(browser, number)

    text = browser.get("/bulk").text

    assert "nobody-24" in text
    assert "nobody-5" in text
    assert "nobody-3 " not in text.replace("\n", " ")


@pytest.mark.parametrize("text", INJECTIONS)
def test_filters_of_strangers_are_text(browser: Browser, text: str) -> None:
    page = browser.send("/bulk/find", verb="cancel", caller=text)

    assert page.count("script") == 1
    assert page.count("img") == 1


def test_without_actions_there_are_none(server_url: str, client: Any) -> None:
    failed(client, "t")
    with serve(server_url, read_only=True) as site:
        browser = Browser(site)
        for address in ("/bulk", "/errors", "/tasks?place=search&circle=c", "/circle?circle=c"):
            assert "/bulk/find" not in str(browser.get(address).elements)
