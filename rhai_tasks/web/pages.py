"""The pages: each is a function that reads the server and returns a template with its variables.

The same function makes the live part of a page, so an update costs as much as the page.
"""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import redis
from starlette.exceptions import HTTPException

from rhai_tasks.errors import ConfigurationError, TaskNotFound
from rhai_tasks.operate.queues import PLACES
from rhai_tasks.operate.tasks import PAGE, SHOWN_LINES, Details
from rhai_tasks.operate.where import Where, parse_age
from rhai_tasks.operate.why import Why, explain
from rhai_tasks.protocol import TERM_FIELDS, Field, Status, is_utf8, parse_time

from . import charts
from .foreign import is_foreign
from .highlight import highlight
from .render import reference
from .sampler import Sample, Worker
from .site import Query, Site

T = TypeVar("T")

Rendering = tuple[str, dict[str, Any]]
"""The name of a template, and its variables."""

_CIRCLES = 25  # on a page
_WORKERS = 20
_GROUPS = 50
_LISTS = ("recent", "running", "prefetched", "buffered", "waiting", "search")


def overview(site: Site, query: Query) -> Rendering:
    """Show circles, worker processes and charts."""
    sample = site.sampler.sample()
    wanted = query.text("circle")
    queues = sorted(
        (queue for queue in sample.queues.values() if wanted in queue.circle),
        key=lambda queue: (-queue.waiting - queue.buffered, -queue.prefetched - queue.running, queue.circle),
    )
    history = sample.history
    shown = _page_of(queues, query.page(), _CIRCLES)
    rules = site.queues.rules
    return "overview.html", {
        "rules": [(one.circle, rule) for one in shown.rows if one.rules for rule in rules.read(one.circle)],
        "sample": sample,
        "unserved": sum(queue.is_unserved for queue in queues),
        "circles": shown,
        "wanted": wanted,
        "workers": _page_of(sample.workers, query.number("workers", 1) or 1, _WORKERS),
        "charts": [
            charts.draw(
                "Ended tasks a second",
                (Status.COMPLETED, Status.ERROR),
                [(m.at, (m.completed, m.failed)) for m in history],
            ),
            charts.draw("Tasks in the native lists", ("waiting",), [(m.at, (m.waiting,)) for m in history]),
            *(
                charts.draw(title, ("median", "p95"), points, seconds=True, is_log=True)
                for title, points in (
                    ("Run time", [(m.at, m.ran) for m in history]),
                    ("Queue wait", [(m.at, m.waited) for m in history]),
                )
            ),
        ],
        "totals": {place: sum(queue.count(place) for queue in sample.queues.values()) for place in PLACES},
    }


def tasks(site: Site, query: Query) -> Rendering:
    """List tasks: recently ended, running, prefetched, buffered, waiting, or found by a search."""
    sample, page = site.sampler.sample(), query.page()
    place = query.text("place", "recent")
    place = place if place in _LISTS else "recent"
    where, circle, status = where_of(query), query.text("circle"), query.text("status")
    context: dict[str, Any] = {"place": place, "circle": circle, "where": where, "sample": sample}
    if place == "recent":
        ended = [
            (task, worker)
            for task, worker in sample.list_recent()
            if circle in task.circle and status in {"", task.status}
        ]
        context["found"] = found = _page_of(ended, page, PAGE)
        context["rows"] = rows_of(site, [task.task_id for task, _ in found.rows])
    elif place == "running":
        running = [one for one in sample.list_running() if circle in one[0].circle]
        context["found"] = found = _page_of(running, page, PAGE)
        context["rows"] = rows_of(site, [task.task_id for task, _ in found.rows])
    elif place == "search":
        context |= {"found": None, "searched": query.number("searched"), "keys": sample.keys}
        if query.text("go") or not where.is_any:
            search = site.tasks.search(str(query.number("cursor")), where)
            context |= {"found": search, "searched": context["searched"] + search.searched}
            context["reported"] = {task.task_id: task for task, _ in sample.list_recent()}
    elif circle and not (choice := _choice(sample, place, circle, unless=circle)):
        (queue,) = site.queues.count([circle])
        read = {"waiting": site.tasks.waiting, "buffered": site.tasks.buffered, "prefetched": site.tasks.prefetched}
        context["found"] = Page(read[place](circle, (page - 1) * PAGE), page, queue.count(place), PAGE)
    else:
        context["choice"] = choice if circle else _choice(sample, place)
    return "tasks.html", context


def errors(site: Site, query: Query) -> Rendering:
    """Show the errors in groups of one cause, as far as they have been read."""
    where = replace(where_of(query), status=Status.ERROR.value)
    walk, sample = site.error_walks.get(where), site.sampler.sample()
    is_busy = walk.is_busy  # before the groups: they are complete if it is not
    groups, total, left_out = walk.groups()
    return "errors.html", {
        "where": where,
        "walk": walk,
        "groups": _page_of(groups, query.page(), _GROUPS),
        "total": total,
        "left_out": left_out,
        "keys": sample.keys,
        "sample": sample,
        "is_busy": is_busy,
        "has_ended": not is_busy,
    }


def where_of(query: Query) -> Where:
    """Read a filter from an address.

    Raises:
        HTTPException: A filter does not take a value of the query.
    """
    older, younger = query.text("older").strip(), query.text("younger").strip()
    try:
        return Where(
            query.text("status"),
            query.text("circle"),
            query.text("caller"),
            query.text("contains"),
            query.text("error"),
            parse_age(older) if older else None,
            parse_age(younger) if younger else None,
        )
    except ConfigurationError as error:
        raise HTTPException(422, f"The filter cannot be read: {error}.") from error


def rows_of(site: Site, task_ids: Sequence[str]) -> dict[str, Details]:
    """Read tasks for a list, by id."""
    return dict(zip(task_ids, site.tasks.rows(task_ids), strict=True))


def delayed(site: Site, query: Query) -> Rendering:
    """List delayed tasks."""
    sample, circle, page = site.sampler.sample(), query.text("circle"), query.page()
    context: dict[str, Any] = {"circle": circle, "sample": sample}
    if circle:
        (queue,) = site.queues.count([circle])
        rows = site.queues.delayed.read(circle, (page - 1) * PAGE, PAGE)
        details = site.tasks.rows([row.task_id for row in rows])
        context["found"] = Page(list(zip(rows, details, strict=True)), page, queue.delayed, PAGE)
    else:
        context["choice"] = _choice(sample, "delayed")
    return "delayed.html", context


def dead(site: Site, query: Query) -> Rendering:
    """List dead letters."""
    sample, circle, page = site.sampler.sample(), query.text("circle"), query.page()
    context: dict[str, Any] = {"circle": circle, "sample": sample}
    if circle:
        (queue,) = site.queues.count([circle])
        letters = site.queues.dead_letters.read(circle, (page - 1) * PAGE, PAGE)
        context["found"] = Page(letters, page, queue.dead, PAGE)
    else:
        context["choice"] = _choice(sample, "dead")
    return "dead.html", context


def task(site: Site, query: Query) -> Rendering:
    """Show one task."""
    task_id = query.text("id")
    details, sample = site.tasks.details(task_id), site.sampler.sample()
    running = next((pair for pair in sample.list_running() if pair[0].task_id == task_id), None)
    ended = next((pair for pair in sample.list_recent() if pair[0].task_id == task_id), None)
    if details.is_final:
        running = None  # the report is older
    elif ended:
        ended = None  # it was submitted again
    reported = running or ended
    error = details.error if details.is_final else None
    script = _lines(details.text("script"), error.line if error else None)
    circle = reported[0].circle if reported else query.text("circle") or details.circle
    return "task.html", {
        "details": details,
        "sample": sample,
        "circle": circle,
        "why": _why(site, task_id, circle) if circle and details.status == Status.PENDING else None,
        "running": running,
        "ended": ended,
        "error": error,
        "script": script,
        "coloured": highlight(script["text"]),
        "output": _lines(details.text("output"), None),
        "terms": [name for name in TERM_FIELDS if name in details.fields and name != Field.ARGS],
        "commands": _commands(details),
        "replies": [] if details.problem else site.tasks.reply_lists(details),
        "timeline": _timeline(details, running, ended),
        "is_foreign": details.is_final and not ended and _is_foreign(details),
        "has_ended": details.is_final,
    }


def _why(site: Site, task_id: str, circle: str) -> Why | None:
    """Explain why a task waits; `None` if it has just gone, or a key of another type keeps it from being found."""
    with suppress(TaskNotFound, redis.ResponseError):
        return explain(site.queues, task_id, circle)
    return None


def doctor(site: Site, _: Query) -> Rendering:
    """Show the findings of the doctor."""
    return "doctor.html", {"doctor_run": site.doctor_run, "has_ended": not site.doctor_run.is_busy}


class Page:
    """A page of a list."""

    def __init__(self, rows: Sequence[Any], page: int, total: int, size: int) -> None:
        self.rows, self.page, self.total = rows, page, total
        self.first, self.last = (page - 1) * size + 1, (page - 1) * size + len(rows)
        self.pages = max((total + size - 1) // size, 1)


def _page_of(rows: Sequence[T], page: int, size: int) -> Page:
    page = min(page, max((len(rows) + size - 1) // size, 1))
    return Page(rows[(page - 1) * size : page * size], page, len(rows), size)


def _choice(sample: Sample, place: str, part: str = "", *, unless: str = "") -> list[tuple[str, int]]:
    """Return the circles with tasks in this place and with this part in their names, the fullest first.

    None if `unless` is the whole name of a circle.
    """
    if unless in sample.queues:
        return []
    named = [queue for queue in sample.queues.values() if part in queue.circle]
    full = [(queue.circle, queue.count(place)) for queue in named if queue.count(place)]
    return sorted(full, key=lambda pair: (-pair[1], pair[0]))[:100]


def _lines(text: str, marked: int | None) -> dict[str, Any]:
    """Number the lines of a text; of a long text, those around the marked line."""
    lines = text.split("\n")  # as Rhai counts them
    start = max((marked or 0) - SHOWN_LINES // 2, 0) if marked and marked > SHOWN_LINES else 0
    shown = [(start + place + 1, line.removesuffix("\r")) for place, line in enumerate(lines[start:][:SHOWN_LINES])]
    return {
        "lines": shown,
        "total": len(lines),
        "start": start,
        "text": (text := "\n".join(line for _, line in shown)),
        "coloured": highlight(text),
    }


def _timeline(details: Details, running: Any, ended: Any) -> list[tuple[float, str, str]]:
    """List the known events of a task: time (seconds since the epoch), event, and how long it took."""
    created, updated, began = (
        parse_time(details.text(name)) for name in (Field.CREATED_AT, Field.UPDATED_AT, Field.STARTED_AT)
    )
    final = "cancelled" if details.is_cancelled else details.status
    who, ran = f"begun by {details.text(Field.WORKER_ID)}", details.ran
    delivery = details.deliveries
    if running:
        began, who, delivery = running[0].since, f"begun by {_name(running[1])}", running[0].delivery
    elif ended and ended[0].ran is not None:
        began, who, delivery = ended[0].at - ended[0].ran, f"begun by {_name(ended[1])}", ended[0].delivery
        updated, ran = ended[0].at, ended[0].ran
    events: list[tuple[float, str, str]] = []
    if created is not None:
        events.append((created, "submitted", ""))
    if began is not None and (running or details.is_final):
        waited = "" if created is None else f"waited {charts.duration(max(began - created, 0))}"
        died = f"{delivery - 1} worker process(es) had died with it" if delivery and delivery > 1 else ""
        events.append((began, who, ", ".join(filter(None, (waited, died)))))
    if updated is not None and not running and (updated != created or details.is_final):
        passed = "" if created is None else f"{charts.duration(max(updated - created, 0))} after it was submitted"
        events.append((updated, final, passed if ran is None else f"ran {charts.duration(ran)}"))
    return sorted(events)


def _commands(details: Details) -> list[str]:
    """Return the commands that do at a terminal what the page shows and does; none for an id that cannot be typed."""
    if not is_utf8(details.task_id) or not details.task_id.isprintable() or not details.task_id:
        return []
    end = "-- " if details.task_id.startswith("-") else ""
    names = ("result", "replay", "profile") if details.is_final else ("status", "cancel")
    return [f"rhai-tasks {name} {end}{shlex.quote(details.task_id)}" for name in names]


def _name(worker: Worker) -> str:
    return f"{worker.report.host}, process {worker.report.pid}"


def _is_foreign(details: Details) -> bool:
    return not details.is_cancelled and is_foreign(details.text(Field.UPDATED_AT), details.text(Field.CREATED_AT))


def address(path: str, **values: str) -> str:
    """Write an address of this site."""
    return f"{path}?" + "&".join(f"{name}={reference(value)}" for name, value in values.items())
