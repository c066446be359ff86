"""The web page in tests: served, and got as a browser without JavaScript does."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any

from starlette.testclient import TestClient

from rhai_tasks.settings import Settings
from rhai_tasks.web.app import make_app

INJECTIONS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</textarea></pre></code><iframe src=javascript:alert(1)>",
    "{{ 7 * 7 }}{% raw %}${7*7}",
    "javascript:alert(1)",
    "--><!--<base href=//evil.example/>",
    "</title><style>*{display:none}</style>",
    "data: x\n\nevent: end\ndata: <script>alert(1)</script>\n\n",
    "\x00\x1b[31m\u202e\u2028\r\n\t",
]


class Page(HTMLParser):
    """The elements and texts of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def words(self) -> str:
        """Return the text with one space between words."""
        return re.sub(r"\s+", " ", self.text)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


class Browser:
    """Gets pages and sends their forms, as a browser does."""

    def __init__(self, site: TestClient) -> None:
        self.site = site

    def get(self, address: str, status: int = 200) -> Page:
        answer = self.site.get(address)
        assert answer.status_code == status, answer.text
        return Page(answer.text)

    def csrf(self, page: str = "/doctor") -> str:
        return str(re.findall(r'name="csrf" value="([^"]*)"', self.site.get(page).text)[0])

    def send(self, action: str, page: str = "/", status: int = 200, **fields: str | list[str]) -> Page:
        csrf = self.csrf("/login" if action.startswith("/login") else "/doctor")
        answer = self.site.post(
            action, data={"csrf": csrf, "sure": "1", **fields}, headers={"referer": f"http://localhost{page}"}
        )
        assert answer.status_code == status, answer.text
        return Page(answer.text)


@contextmanager
def serve(url: str, **options: Any) -> Iterator[TestClient]:
    options = {"token": None, "read_only": False, "host": "127.0.0.1", "port": 8020, **options}
    base = options.pop("base", "http://localhost")
    with TestClient(make_app(Settings(redis_url=url), **options), base_url=base) as site:
        yield site
