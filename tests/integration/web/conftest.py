"""A browser, the page that it looks at, and a server that has something of everything."""

import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from rhai_tasks import Client
from tests.conftest import PATIENCE, Dispatcher, Worker, free_port, wait_until
from tests.web_page import Browser, serve

IMAGES = Path(__file__).parents[3] / "docs/images"
SCRIPT = """\
// Invoices of a month, summed by customer.
let invoices = [
    #{ customer: "Ada",   cents: 1250 },
    #{ customer: "Grace", cents: 990 },
];
let totals = #{};
for invoice in invoices {
    let so_far = totals[invoice.customer] ?? 0;
    totals[invoice.customer] = so_far + invoice.amount.cents;
}
totals"""


@dataclass
class Screen:
    """A browser, and the page that it is on."""

    driver: webdriver.Chrome
    base: str = ""

    def open(self, path: str) -> None:
        self.driver.get(self.base + path)

    def resize(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of that size: a phone's, if it is narrow."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def text(self) -> str:
        """Return what can be read on the page."""
        return str(self.run("return document.body.innerText"))

    def await_text(self, *words: str, within: float = PATIENCE) -> None:
        wait_until(lambda: all(word in self.text() for word in words), within=within, what=f"{words} on the page")

    def click(self, css: str) -> None:
        """Click what is there now, or is put in its place meanwhile."""

        def click() -> bool:
            try:
                self.driver.find_element(By.CSS_SELECTOR, css).click()
            except StaleElementReferenceException:
                return False
            return True

        wait_until(click, what=f"a click on {css}")

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def complaints(self) -> list[Any]:
        """Return what the browser says was wrong since the last call: errors, and breaches of the policy."""
        return list(self.driver.get_log("browser"))  # type: ignore[no-untyped-call]

    def keep(self, name: str) -> None:
        """Keep a picture, if pictures are wanted."""
        if "RHAI_TASKS_SCREENSHOTS" in os.environ:
            IMAGES.mkdir(exist_ok=True)
            self.driver.save_screenshot(str(IMAGES / f"{name}.png"))


@pytest.fixture
def browser(server_url: str, client: Any) -> Iterator[Browser]:
    """Gets pages of the server, without a process of its own."""
    with serve(server_url) as site:
        yield Browser(site)


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    driver, program = shutil.which("chromedriver"), shutil.which("chromium")
    if driver is None or program is None:
        assert "CI" not in os.environ, "CI installs chromium and chromium-driver"
        pytest.skip("chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    yield browser
    browser.quit()


@pytest.fixture
def screen(chromium: webdriver.Chrome) -> Iterator[Screen]:
    screen = Screen(chromium)
    screen.resize(1280, 800)
    screen.complaints()
    yield screen
    chromium.get("about:blank")  # before its server is stopped


def is_open(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def start_web(spawn: Callable[..., Worker], screen: Screen) -> Callable[..., None]:
    """Start the command, and turn the browser to it."""

    def start(*options: str, env: dict[str, str] | None = None) -> None:
        port = free_port()
        spawn("rhai-tasks", "web", "--port", str(port), *options, env=env)
        screen.base = f"http://127.0.0.1:{port}"

        wait_until(lambda: is_open(port), what="the page to be served")

    return start


@pytest.fixture
def web(client: Any, start_web: Callable[..., None]) -> None:
    """The command on an empty server."""
    assert client.dbsize() == 0
    start_web()


PAGES = {
    "overview": "/",
    "tasks": "/tasks",
    "task": "/task?id=invoices-2026-11&circle=02abc",
    "waiting": "/tasks?place=waiting&circle=03backlog",
    "dead": "/dead?circle=02abc",
    "delayed": "/delayed?circle=02abc",
    "search": "/tasks?place=search&go=1&status=error&caller=&circle=",
    "errors": "/errors",
    "doctor": "/doctor",
    "submit": "/submit?circle=02abc",
}


def fill(client: Any, dispatcher: Dispatcher, app: Client, start_worker: Callable[..., Worker]) -> None:
    """Make a server that has something of everything."""
    start_worker("02abc", "--processes", "2", "--threads", "4")
    for circle, count in (("03backlog", 12_000), ("04" + "f" * 62, 900), ("05night", 40), ("06", 1)):
        with client.pipeline() as pipeline:
            for number in range(count):
                pipeline.lpush(f"rhai_tasks:{circle}", f"{circle[:8]}-{number:05}")
            pipeline.execute()
    for number in range(60):
        fields = {"script": f"let total = {number};\ntotal * 2", "status": "pending", "callerId": "03caller"}
        client.hset(f"rhai_task_details:03backlo-{11_999 - number:05}", mapping=fields)
    for number in range(3):
        client.set(f"rhai_task_details:odd-{number}", "no hash")
        client.lpush("rhai_tasks:02abc", f"odd-{number}")
        app.submit("1", circle="02abc", task_id=f"nightly-report-{number}", delay=3600 * (number + 1))
    for number in range(4):
        dispatcher.submit("02abc", f"nightly-import-{number}", "loop { sleep(0.1) }", createdAt=str(time.time()))
    app.submit(SCRIPT, circle="02abc", task_id="invoices-2026-11", caller_id="03caller")
    dispatcher.result("invoices-2026-11")
    wait_until(lambda: client.zcard("rhai_dramatiq:rhai-02abc.XQ") == 3)
