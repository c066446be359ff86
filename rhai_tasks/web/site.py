"""The state that all requests share, and how they render pages."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse

from rhai_tasks.client import Client
from rhai_tasks.connection.urls import redact
from rhai_tasks.operate.doctor import examine
from rhai_tasks.operate.findings import Finding
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.tasks import Tasks
from rhai_tasks.settings import Settings

from .history import History
from .jobs import Jobs
from .render import environment
from .sampler import Sampler
from .security import csrf_token
from .trial import Trial
from .walks import ErrorWalks

_SAID = 200  # characters: each takes up to 16 bytes of the cookie, which has JSON escapes in base64

BY = "the web page"
"""Who changes something, in the log: the page does not know its visitors apart."""


class Site:
    """Connections, samples and templates of the page."""

    def __init__(self, settings: Settings, *, read_only: bool, has_login: bool) -> None:
        self.settings = settings
        self.read_only, self.has_login = read_only, has_login
        self.server = redact(settings.redis_url)
        self.queues = Queues(settings, BY)
        self.sampler = Sampler(settings, self.queues)
        self.tasks = Tasks(settings, self.queues)
        self.client = Client(
            settings.redis_url,
            dialect=settings.dialect,
            prefixes=settings.prefixes,
            namespace=settings.namespace,
            retry_timeout=2.0,
        )
        self.error_walks = ErrorWalks(self.tasks)
        self.trial = Trial()
        self.jobs = Jobs()
        self.history = History(settings, self.queues.client)
        self.doctor_run = DoctorRun(lambda: examine(settings))
        self.templates = environment()

    def close(self) -> None:
        """Disconnect."""
        self.error_walks.close()
        self.jobs.close()
        self.queues.close()
        self.client.close()

    def render(self, request: Request, name: str, /, status_code: int = 200, **context: Any) -> HTMLResponse:
        """Make a page."""
        page = self.templates.get_template(name).render(**self.context(request), **context)
        return HTMLResponse(page, status_code)

    def render_live(self, request: Request, name: str, /, **context: Any) -> str:
        """Make the live part of a page."""
        template = self.templates.get_template(name)
        return "".join(template.blocks["live"](template.new_context({**self.context(request), **context})))

    def context(self, request: Request) -> dict[str, Any]:
        """Return the variables of every template."""
        logins = request.app.state.logins
        is_in = logins is None or logins.is_open(request.session)
        return {
            "csrf": csrf_token(request),
            "has_login": self.has_login,
            "is_in": is_in,
            "now": time.time(),
            "path": request.url.path,
            "query": request.url.query,
            "read_only": self.read_only,
            "server": self.server if is_in else "",
            "said": request.session.pop("said", None) if request.method == "GET" else None,
        }


def say(request: Request, text: str) -> None:
    """Show a message on the next page. It is in the session's cookie, of which browsers take 4 KiB."""
    request.session["said"] = text if len(text) <= _SAID else f"{text[:_SAID]}…"


def site_of(request: Request) -> Site:
    """Return the site that all requests share."""
    site: Site = request.app.state.site
    return site


@dataclass(frozen=True, slots=True)
class Query:
    """The part of an address after the question mark."""

    values: dict[str, list[str]]

    @classmethod
    def of(cls, request: Request) -> "Query":
        """Read the query of a request; bytes that are not UTF-8 become surrogate escapes."""
        try:
            return cls(parse_qs(request.url.query, errors="surrogateescape", max_num_fields=50))
        except ValueError:
            return cls({})

    def text(self, name: str, default: str = "") -> str:
        """Return a value."""
        return self.values.get(name, [default])[0]

    def number(self, name: str, default: int = 0) -> int:
        """Return a value that is a number from 0 to the largest that a cursor can be, else the default."""
        text = self.text(name)
        is_number = text.isascii() and text.isdigit() and len(text) <= 20 and int(text) < 2**64
        return int(text) if is_number else default

    def page(self) -> int:
        """Return the number of the page, from 1."""
        return min(max(self.number("page", 1), 1), 10**9)


class DoctorRun:
    """Runs the doctor in a thread, one examination at a time: it reads every task."""

    def __init__(self, examine: Callable[[], list[Finding]]) -> None:
        self._examine = examine
        self._lock = threading.Lock()
        self.is_busy = False
        self.examinations = 0  # that have ended
        self.findings: list[Finding] = []
        self.repaired: set[int] = set()  # indexes of findings
        self.error = ""

    def start(self) -> None:
        """Start an examination, unless one is running."""
        with self._lock:
            if not self.is_busy:
                self.is_busy = True
                threading.Thread(target=self._run, name="doctor", daemon=True).start()

    def repair(self, examination: int, index: int) -> Finding | None:
        """Repair a finding of an examination; `None`: there is no such finding, or a later examination."""
        with self._lock:
            if examination != self.examinations or not 0 <= index < len(self.findings) or index in self.repaired:
                return None
            finding = self.findings[index]
            if finding.repair is None:
                return None
            finding.repair()
            self.repaired.add(index)
            return finding

    def _run(self) -> None:
        try:
            findings, error = self._examine(), ""
        except Exception as raised:
            findings, error = [], str(raised)
        with self._lock:
            self.findings, self.error, self.repaired = findings, error, set()
            self.examinations += 1
            self.is_busy = False
