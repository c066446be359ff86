"""The web page in a real browser.

With RHAI_TASKS_SCREENSHOTS=1 the tests also take the pictures of docs/web.md and README.md.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
from selenium.common.exceptions import NoAlertPresentException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from rhai_tasks import Client
from tests.conftest import Dispatcher, Worker, free_port, wait_until
from tests.integration.web.conftest import PAGES, Screen, fill, is_open
from tests.web_page import INJECTIONS

TOKEN = "correct horse battery staple"


def test_the_alarm_for_a_circle_without_workers_has_the_colour_of_an_alarm(
    web: None, screen: Screen, dispatcher: Dispatcher
) -> None:
    dispatcher.submit("alhpa", "t", "1")
    screen.open("/")
    screen.await_text("alhpa")

    for dark in (False, True):
        screen.resize(1280, 800, dark=dark)
        alarm, *shown = screen.run("""
            const cell = document.querySelector('td[data-name="workers"]');
            cell.append(...['a', 'span', 'b'].map((tag) => {
                const element = document.createElement(tag);
                element.className = tag === 'span' ? 'quiet' : '';
                return element;
            }));
            const alarm = document.createElement('i');
            alarm.style.color = 'var(--bad)';
            document.body.append(alarm);
            return [alarm, cell, ...cell.children].map((element) => getComputedStyle(element).color)""")
        assert shown == [alarm] * len(shown)


def test_a_live_update_moves_the_focus_to_no_other_task_and_a_cancel_asks_first(
    app: Client, web: None, screen: Screen, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("c", "--threads", "3")
    sleepers = [dispatcher.submit("c", f"sleeper-{number}", "loop { sleep(0.01) }") for number in range(3)]
    screen.open("/tasks?place=running")
    screen.await_text(*sleepers)
    focused = "return document.activeElement.getAttribute('aria-label')"
    ended, second, third = screen.run(
        "return [...document.querySelectorAll('#list button')].map((one) => one.ariaLabel)"
    )
    screen.run("document.querySelectorAll('#list button')[1].focus()")
    name = ended.removeprefix("Cancel ").removesuffix("…")

    assert app.cancel(name)
    wait_until(lambda: name not in screen.text(), what="the ended task to leave the list")

    assert screen.run(focused) == second
    screen.press(Keys.ENTER)
    screen.await_text(f"Cancel task {second.removeprefix('Cancel ').removesuffix('…')}?", "Back")
    assert dispatcher.status(second.removeprefix("Cancel ").removesuffix("…")) == "processing"
    screen.press(Keys.ENTER)
    screen.await_text("Cancelled.")
    wait_until(lambda: second not in str(screen.run("return document.body.innerHTML")), what="it to leave the list")
    assert third in str(screen.run("return document.body.innerHTML"))


def test_a_page_without_a_connection_keeps_its_figures_and_says_so_where_one_looks(
    screen: Screen, dispatcher: Dispatcher, spawn: Callable[..., Worker]
) -> None:
    port = free_port()
    site = spawn("rhai-tasks", "web", "--port", str(port))
    screen.base = f"http://127.0.0.1:{port}"
    wait_until(lambda: is_open(port), what="the page to be served")
    dispatcher.submit("figures", "t", "1")
    screen.open("/")
    screen.await_text("figures", "live")
    title = screen.run("return document.title")

    site.kill()

    screen.await_text("no connection", "s old")
    assert "figures" in screen.text()
    assert screen.run("return getComputedStyle(document.querySelector('[data-live]')).opacity") != "1"
    assert screen.run("return document.querySelector('header').contains(document.getElementById('connection'))")
    assert screen.run("return document.title") == f"! {title.replace('(1) ', '')}"


@pytest.mark.usefixtures("web")
def test_a_dispatchers_task_appears_runs_and_shows_its_result_without_a_reload(
    screen: Screen, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    screen.open("/")
    screen.await_text("No circle has ever had a task here")
    screen.run("window.was_loaded_once = true")

    dispatcher.submit("circle", "long", "sleep(1.5); 40 + 2")
    screen.await_text("circle not served\t1")
    screen.click("#circles td[data-name=waiting] a")
    screen.await_text("long", "pending")
    screen.click("#list th a.id")
    screen.await_text("Task long")
    screen.run("window.was_loaded_once = true")
    start_worker()

    screen.await_text("processing")
    screen.await_text("completed", "42")
    assert screen.run("return window.was_loaded_once")
    assert screen.complaints() == []


@pytest.mark.usefixtures("web")
def test_an_endless_script_is_cancelled(
    screen: Screen, app: Client, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker("circle", "--threads", "1")
    dispatcher.submit("circle", "endless", "loop {}")
    wait_until(lambda: dispatcher.status("endless") == "processing")
    screen.open("/")
    wait_until(lambda: "endless" in screen.text(), what="the worker to tell what it runs")

    screen.click(".runs a")
    screen.await_text("processing", "begun by")
    screen.click("#cancel")
    screen.click("#sure")

    screen.await_text("Cancelled.")
    assert screen.run("return document.querySelector('.state').innerText") == "cancelled"
    assert app.submit("1").result(timeout=60) == "1"  # the thread is free


@pytest.mark.usefixtures("web")
def test_a_dead_letter_is_retried(
    screen: Screen, client: Any, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    start_worker()
    client.set("rhai_task_details:mended", "no hash")
    client.lpush("rhai_tasks:circle", "mended")
    screen.open("/dead")
    screen.await_text("circle\t1")
    screen.click("#choice a")
    screen.await_text("its details are not a hash")

    client.delete("rhai_task_details:mended")
    client.hset("rhai_task_details:mended", mapping={"script": "40 + 2", "status": "pending"})
    screen.click("input[type=checkbox]")
    time.sleep(2.5)  # longer than an update: what is chosen stays so
    screen.click(".actions button")

    screen.await_text("1 dead letter(s) put back")
    assert dispatcher.result("mended")["output"] == "42"


@pytest.mark.usefixtures("web")
def test_a_script_is_submitted_and_watched_with_the_keyboard_alone(
    screen: Screen, start_worker: Callable[..., Worker]
) -> None:
    start_worker()
    screen.open("/")
    screen.press(Keys.TAB)
    assert screen.run("return document.activeElement.innerText") == "Skip to content"
    for _ in range(20):
        screen.press(Keys.TAB)
        if screen.run("return document.activeElement.innerText") == "Submit":
            break
    outline = screen.run("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"
    screen.press(Keys.ENTER)
    screen.await_text("Submit a script")

    script, args = "sleep(1.0); `${ARGS.word} ${CALLER_ID}`", '{"word": "Hello"}'
    screen.press(script, Keys.TAB, args, Keys.TAB, "circle", Keys.TAB, "me", Keys.ENTER)

    screen.await_text("Submitted.")
    screen.await_text("completed", "Hello me")
    assert screen.complaints() == []


@pytest.mark.usefixtures("web")
@pytest.mark.parametrize("text", INJECTIONS)
def test_injections_show_as_text(screen: Screen, dispatcher: Dispatcher, app: Client, client: Any, text: str) -> None:
    fields = dict.fromkeys(("script", "callerId", "output", "error", "other", "replyToQueue"), text)
    client.hset("rhai_task_details:t", mapping={**fields, "status": "completed"})
    app.submit(text, circle=text, caller_id=text, task_id=text, delay=1000)
    dispatcher.submit(text, text, text)

    for path in ("/", "/task?id=t", "/tasks?place=waiting", "/tasks?place=search&go=1", "/errors", "/delayed"):
        screen.open(path)
        wait_until(lambda: screen.run("return document.readyState") == "complete")
        with pytest.raises(NoAlertPresentException):
            _ = screen.driver.switch_to.alert.text
        assert screen.run("return document.querySelectorAll('script').length") == 1
        assert screen.run("return document.querySelectorAll('main img, iframe, base, style').length") == 0
        assert screen.complaints() == []
    first = text.split("\n", maxsplit=1)[0][:20]
    if first.isprintable():
        assert first in screen.text() or first in str(screen.run("return document.body.textContent"))


def test_a_login_is_refused_and_accepted(
    screen: Screen, client: Any, start_web: Callable[..., None], app: Client
) -> None:
    app.submit("40 + 2", task_id="guarded")
    start_web("--read-only", env={"RHAI_TASKS_WEB_TOKEN": TOKEN})
    screen.open("/task?id=guarded")
    assert "40 + 2" not in screen.text()

    screen.press("wrong", Keys.ENTER)
    screen.await_text("That is not the token")
    screen.press(TOKEN, Keys.ENTER)

    screen.await_text("Task guarded", "40 + 2", "read-only")
    assert not screen.driver.find_elements(By.CSS_SELECTOR, "#cancel")
    screen.click("header button.plain")
    screen.await_text("Token")
    screen.open("/")
    assert "Overview" not in screen.text()


def load(app: Client, seconds: float) -> None:
    """Keep the workers busy, now more, now less."""
    end, turn = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        turn += 1
        scripts = [
            f"let s = 0; for i in 0..{500 + 37 * (n * turn % 400)} {{ s += i; }} s"
            for n in range(80 + 90 * (turn % 40 // 10))
        ]
        app.submit_many([*scripts, "throw `no such customer`", "throw `no such invoice`"])
        time.sleep(0.5)


@pytest.mark.usefixtures("web")
@pytest.mark.timeout(400)  # pictures need a load of two minutes
def test_pages_fit_every_screen_in_light_and_dark(
    screen: Screen,
    client: Any,
    dispatcher: Dispatcher,
    server_url: str,
    app: Client,
    start_worker: Callable[..., Worker],
) -> None:
    fill(client, dispatcher, app, start_worker)
    screen.open("/")
    with Client(server_url, circle="02abc", caller_id="03caller") as loader:
        load(loader, 130.0 if "RHAI_TASKS_SCREENSHOTS" in os.environ else 3.0)
        screen.await_text("02abc")
        screen.keep("web-overview")
        screen.resize(1280, 397, dark=False)
        screen.keep("web-charts")  # the README's: what fits beside its first commands
    screen.open("/doctor")
    screen.click("main form button")
    screen.await_text("what to do")
    papers = set()
    for name, path in PAGES.items():
        for width, height, dark in ((1280, 800, False), (1280, 800, True), (390, 844, False), (320, 640, True)):
            screen.resize(width, height, dark=dark)
            screen.open(path)
            wait_until(lambda: screen.run("return document.readyState") == "complete")
            assert screen.run("return document.documentElement.scrollWidth") <= width, (name, width)
            papers.add((dark, screen.run("return getComputedStyle(document.body).backgroundColor")))
            if (width, dark) == (1280, name == "tasks") and name in {"task", "tasks", "dead", "errors"}:
                screen.keep(f"web-{name}")
            if width == 390 and name == "overview":
                screen.keep("web-overview-phone")
    assert len(papers) == 2
    assert screen.complaints() == []
