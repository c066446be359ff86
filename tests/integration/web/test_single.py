"""The pages of one circle and of one worker process."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import Rule
from tests.conftest import Dispatcher, Worker, wait_until
from tests.web_page import Browser, Page


def links(page: Page, start: str) -> list[str]:
    hrefs = (str(values.get("href")) for tag, values in page.elements if tag == "a")
    return [href for href in hrefs if href.startswith(start)]


def test_a_circle_that_nobody_serves_says_how_long_its_tasks_wait(
    browser: Browser, dispatcher: Dispatcher, client: Any
) -> None:
    dispatcher.submit("lost", "t", "1", createdAt="2026-01-01T00:00:00Z")
    Rules(client, "rhai_dramatiq", "ada").set("lost", Rule("pause", "circle", reason="<b>moves</b>"))

    page = browser.get("/circle?circle=lost")

    text = page.words()
    assert re.search(r"waiting ?1 buffered ?0", text)
    assert re.search(r"Now paused oldest waiting ?\d+ days", text), text
    assert re.search(r"time to drain ?no task has ended lately", text)
    assert "nobody serves this circle" in text
    assert "pause the circle" in text
    assert "<b>moves</b>" in text  # the reason of the rule, and of the change
    assert page.count("b") == 1


def test_a_circle_at_work_shows_its_tasks_and_leads_to_its_workers(
    browser: Browser, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("busy", "--threads", "2")
    dispatcher.submit("busy", "bad", "throw `no stock`", callerId="ada")
    dispatcher.submit("busy", "slow", "loop { sleep(0.01) }", callerId="bob")
    dispatcher.submit("other", "elsewhere", "1")
    dispatcher.result("bad")
    wait_until(lambda: "slow busy bob" in browser.get("/circle?circle=busy").words())

    page = browser.get("/circle?circle=busy")

    text = page.words()
    assert "elsewhere" not in text
    assert re.search(r"bad error busy ada .* Runtime error: no stock", text), text
    (address,) = set(links(page, "/worker?"))
    worker = browser.get(address).words()
    assert re.search(r"threads ?1 of 2 run a script version ?\d+\.\d+", worker), worker
    assert re.search(r"circles ?1: busy", worker)
    assert "slow busy bob" in worker
    assert "bad error busy ada" in worker
    assert set(links(browser.get("/"), "/worker?")) == {address}


def test_a_circles_actions_are_done_and_logged(browser: Browser, dispatcher: Dispatcher, client: Any) -> None:
    for number in range(3):
        dispatcher.submit("c", f"t{number}", "1")

    purged = browser.send("/circle/purge", page="/circle?circle=c", circle="c")

    assert "3 task(s) cancelled" in purged.text
    assert "purge 3 task(s)the web page" in purged.words()
    assert "0 task(s) given back" in browser.send("/circle/return", page="/circle?circle=c", circle="c").text
    assert dispatcher.details("t0")["error"] == "cancelled"


def test_a_circle_is_paused_and_resumed(browser: Browser) -> None:
    page, markup = "/circle?circle=c", "<b>why</b>"

    paused = browser.send("/circle/pause", page=page, circle="c", reason=markup)
    assert "Set: pause the circle." in paused.text
    assert "pause the circle" in paused.words()
    assert markup in paused.text  # as a text
    browser.send("/circle/pause", page=page, circle="c", caller="ada")
    assert "pause caller ada" in browser.get(page).words()
    assert "Cleared: pause the circle." in browser.send("/circle/resume", page=page, circle="c").text
    again = browser.send("/circle/resume", page=page, circle="c").text
    assert "There was none: pause the circle. Nothing was done." in again


def test_limits_are_set_and_cleared(browser: Browser) -> None:
    page = "/circle?circle=c"

    def send(**fields: Any) -> str:
        return str(browser.send("/circle/limit", page=page, circle="c", **fields).text)

    assert "Set: limit the circle: concurrency 4, rate 10/s, waiting 9." in send(
        concurrency="4", rate="600/m", waiting="9"
    )
    assert "Set: limit each caller: concurrency 2." in send(concurrency="2", each="1")
    assert "Set: limit caller ada: concurrency 1." in send(concurrency="1", caller="ada", each="1")
    assert "limit each caller: concurrency 2" in browser.get(page).words()
    assert "Cleared: limit each caller." in send(each="1")
    for wrong in ({"concurrency": "0"}, {"waiting": "x"}, {"concurrency": "9" * 20}, {"rate": "10"}, {"rate": "0/s"}):
        assert "Nothing was done." in send(**wrong)
    assert "limit the circle: concurrency 4" in browser.get(page).words()


def test_a_worker_is_made_quiet_and_takes_tasks_again(
    browser: Browser, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("c", "--threads", "1")
    wait_until(lambda: links(browser.get("/"), "/worker?"))
    (address,) = links(browser.get("/"), "/worker?")
    name = address.removeprefix("/worker?id=")

    assert "Let this worker process take no more tasks?" in browser.send("/worker/quiet", id=name, sure="").text
    assert "State quiet" not in browser.get(address).words()
    browser.send("/worker/quiet", page=address, id=name)

    wait_until(lambda: "State quiet" in browser.get(address).words())
    assert "quiet" in browser.get("/circle?circle=c").words()
    browser.send("/worker/resume", page=address, id=name)
    wait_until(lambda: "State quiet" not in browser.get(address).words())
    assert dispatcher.run("c", "40 + 2")["output"] == "42"


@pytest.mark.parametrize("name", ["none", "", "quiet%20x", "%FF"])
def test_a_worker_that_is_not_there_is_told(browser: Browser, client: Any, name: str) -> None:
    assert "No worker process of this name" in browser.get(f"/worker?id={name}").text
    assert "does not report any more" in browser.send("/worker/quiet", id=name).text
    assert not client.exists("rhai_dramatiq:__workers__")


def test_a_circle_must_be_named(browser: Browser) -> None:
    assert "No circle is named" in browser.get("/circle", status=404).text


@pytest.mark.parametrize("character", ["\u00fc", "\U0001f600"])
def test_a_message_of_any_length_fits_into_a_cookie(browser: Browser, character: str) -> None:
    csrf = browser.csrf()
    form = {"csrf": csrf, "circle": "c", "caller": character * 100_000}

    answer = browser.site.post("/circle/pause", data=form, follow_redirects=False)

    assert answer.status_code == 303
    assert sum(map(len, answer.headers.values())) < 4096
    assert f"Set: pause caller {character * 2}" in browser.get("/circle?circle=c").text


def test_an_address_to_go_back_to_fits_into_a_header(browser: Browser) -> None:
    form = {"csrf": browser.csrf(), "circle": "c", "back": "/circle?circle=" + "c" * 100_000}

    answer = browser.site.post("/circle/pause", data=form, follow_redirects=False)

    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_what_the_log_keeps_of_an_act_is_bounded(browser: Browser, client: Any) -> None:
    client.hset("rhai_task_details:" + "t" * 100_000, mapping={"script": "1", "status": "pending"})

    browser.send("/cancel", id="t" * 100_000)
    browser.send("/circle/pause", circle="c", reason="r" * 100_000)

    assert [len(entry) < 5000 for entry in client.lrange("rhai_dramatiq:__audit__", 0, -1)] == [True, True]


@pytest.mark.parametrize("prefix", ["rhai_tasks:c", "rhai_dramatiq:rhai-c"])
def test_a_circle_with_tasks_and_no_worker_is_called_so_in_words(browser: Browser, client: Any, prefix: str) -> None:
    client.sadd("rhai_dramatiq:__queues__", "rhai-c")
    assert "not served" not in browser.get("/").text
    client.lpush(prefix, "t")

    wait_until(lambda: "c not served" in browser.get("/").words())
