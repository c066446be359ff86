"""The page for everybody: by keyboard, on a phone, without JavaScript, and by axe's rules of WCAG."""

import json
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import pytest
from selenium.webdriver.common.keys import Keys

from rhai_tasks import Client
from tests.conftest import Dispatcher, Worker, wait_until
from tests.integration.web.conftest import PAGES, Screen, fill

AXE = files("axe_core_python").joinpath("axe.min.js").read_text()
SIZES = ((1280, 800, False), (820, 1180, True), (390, 844, False))
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]
MORE_PAGES = {
    "circle": "/circle?circle=02abc",
    "history": "/history",
    "circle's history": "/history?circle=02abc&range=7d",
    "bulk": "/bulk",
    "running": "/tasks?place=running",
    "filtered": "/tasks?place=search&contains=customer&younger=1h",
    "not found": "/nowhere",
}
SMALL = """
return [...document.querySelectorAll('a, button, input:not([type=hidden]), select, textarea')]
  .filter((one) => one.checkVisibility({visibilityProperty: true}) && !one.closest('p, .skip, .note'))
  .map((one) => [one.outerHTML.slice(0, 120), one.getBoundingClientRect()])
  .filter(([, box]) => box.width > 0 && (box.height < 23.9 || box.width < 23.9))
  .map(([text, box]) => `${text} ${box.width} x ${box.height}`)"""


@pytest.mark.usefixtures("web")
@pytest.mark.timeout(300)
def test_every_page_keeps_the_rules_of_wcag_and_its_targets_are_large_enough(
    screen: Screen, client: Any, dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker]
) -> None:
    fill(client, dispatcher, app, start_worker)
    screen.open("/errors")
    screen.await_text("1 error(s)")
    wait_until(lambda: client.hkeys("rhai_dramatiq:__workers__"), what="a worker to report")
    worker = "/worker?id=" + client.hkeys("rhai_dramatiq:__workers__")[0]
    for name, path in {**PAGES, **MORE_PAGES, "worker": worker}.items():
        for width, height, dark in SIZES:
            screen.resize(width, height, dark=dark)
            screen.open(path)
            wait_until(lambda: screen.run("return document.readyState") == "complete")
            assert screen.run("return document.documentElement.scrollWidth") <= width, (name, width)
            assert screen.run(SMALL) == [], (name, width)
            screen.run(AXE)
            found = screen.driver.execute_async_script("axe.run({runOnly: arguments[0]}).then(arguments[1])", RULES)
            broken = [(rule["id"], [node["html"] for node in rule["nodes"]][:3]) for rule in found["violations"]]
            assert broken == [], (name, dark, json.dumps(broken, indent=1))


@pytest.mark.usefixtures("web")
def test_a_list_is_read_by_keys_alone_and_the_keys_can_be_switched_off(screen: Screen, client: Any) -> None:
    for number in range(3):
        fields = {"script": "1", "status": "error", "error": "boom", "createdAt": str(1e9 - number)}
        client.hset(f"rhai_task_details:t{number}", mapping=fields)
    focused = "return document.activeElement.innerText || document.activeElement.id"
    screen.open("/tasks?place=search&status=error")

    screen.press("j")
    assert screen.run(focused) == "t0"
    screen.press("j", "j", "k")
    assert screen.run(focused) == "t1"
    screen.press(Keys.ENTER)
    screen.await_text("Task t1")
    screen.press("/")
    assert screen.run(focused) == "find"
    screen.press("t2/jk?")
    assert screen.run("return document.getElementById('find').value") == "t2/jk?"

    screen.open("/tasks?place=search&status=error")
    screen.press("?")
    screen.await_text("next and previous row")
    screen.click("#keys-on")
    screen.press(Keys.ESCAPE)
    screen.press("j")
    assert screen.run("return document.activeElement.tagName") != "A"
    screen.open("/tasks?place=search&status=error")
    screen.press("j")
    assert screen.run("return document.activeElement.innerText") != "t0"
    screen.press("?")
    screen.click("#keys-on")
    screen.press(Keys.ESCAPE)
    screen.press("j")
    assert screen.run(focused) == "t0"
    assert screen.complaints() == []


@pytest.mark.usefixtures("web")
def test_the_tab_says_how_many_circles_nobody_serves(screen: Screen, dispatcher: Dispatcher) -> None:
    screen.open("/")
    assert screen.run("return document.title").startswith("Overview")

    dispatcher.submit("lost", "t", "1")

    wait_until(lambda: screen.run("return document.title").startswith("(1) Overview"))
    icon = "return document.querySelector('link[rel=icon]').getAttribute('href')"
    assert screen.run(icon) == "/static/alarm.svg"
    dispatcher.client.delete("rhai_tasks:lost")
    wait_until(lambda: screen.run("return document.title").startswith("Overview"))
    assert screen.run(icon) == "/static/icon.svg"


ROWS_OF_PAGE = """
const tops = (css) => new Set([...document.querySelectorAll(css)].map((one) => one.offsetTop)).size;
const name = document.querySelector('header .name'), range = document.createRange();
range.selectNode(name.lastChild);
return {
  pages: tops('header nav a'),
  tiles: tops('.totals div'),
  gap: range.getBoundingClientRect().left - name.querySelector('img').getBoundingClientRect().right,
  broken: [...document.querySelectorAll('.wide a.id')].filter((one) => one.offsetHeight > 30).map((one) => one.text),
}"""


@pytest.mark.usefixtures("web")
def test_on_a_desktop_pages_tiles_and_short_names_are_in_one_line(
    screen: Screen, app: Client, client: Any, start_worker: Callable[..., Worker]
) -> None:
    start_worker("02abc")
    for number in range(3):
        script = "let long_name_of_a_variable = 1; " * 10
        app.submit(script, circle="02abc", caller_id="03caller", task_id=f"t{number}").result(60)
    screen.open("/tasks")
    screen.await_text("t0", "02abc")
    listed = screen.run(ROWS_OF_PAGE)
    screen.open("/")
    overview = screen.run(ROWS_OF_PAGE)

    assert (listed["pages"], listed["broken"]) == (1, [])
    assert (overview["pages"], overview["tiles"], overview["broken"]) == (1, 1, [])
    assert overview["gap"] >= 8


@pytest.mark.usefixtures("web")
def test_a_task_is_one_line_on_a_phone(screen: Screen, client: Any) -> None:
    for number in range(20):
        fields = {"script": "let a = 1;\n" * 20, "status": "error", "error": "boom " * 50, "callerId": "c" * 66}
        client.hset(f"rhai_task_details:{'t' * 80}{number}", mapping=fields)
    screen.resize(390, 844)

    screen.open("/tasks?place=search&status=error")

    heights = screen.run("return [...document.querySelectorAll('tbody tr')].map((row) => row.offsetHeight)")
    assert len(heights) == 20
    assert max(heights) < 44


@pytest.mark.usefixtures("web")
def test_without_javascript_no_control_is_shown_that_would_do_nothing(screen: Screen, client: Any) -> None:
    client.hset("rhai_task_details:t", mapping={"script": "1", "status": "error", "error": "boom"})
    screen.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        screen.open("/task?id=t")
        texts = [button.text for button in screen.driver.find_elements("css selector", "button") if button.text]
    finally:
        screen.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    assert texts == ["Open"]


@pytest.mark.usefixtures("web")
def test_all_tasks_of_one_cause_are_submitted_again_in_three_clicks(screen: Screen, client: Any) -> None:
    for number in range(30):
        fields = {"script": "1", "status": "error", "error": f"no stock {number}", "circle": "shop"}
        client.hset(f"rhai_task_details:t{number}", mapping=fields)
    screen.open("/errors")
    screen.await_text("no stock …")

    screen.click("#groups button[value=resubmit]")
    screen.await_text("Submit 30 task(s) again?")
    screen.click("#sure")

    screen.await_text("Done: 30 of 30 task(s) submitted again.")
    assert client.llen("rhai_tasks:shop") == 30
    assert screen.complaints() == []


@pytest.mark.usefixtures("web")
def test_what_is_copied_is_the_text_itself(screen: Screen, client: Any) -> None:
    script = 'let a = "<b>";\n\ta'
    client.hset("rhai_task_details:t", mapping={"script": script, "status": "pending"})
    grant = {"origin": screen.base, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]}
    screen.driver.execute_cdp_cmd("Browser.grantPermissions", grant)
    screen.open("/task?id=t")

    screen.click("#script .copy")

    wait_until(lambda: "Copied" in screen.text())
    assert screen.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == script
