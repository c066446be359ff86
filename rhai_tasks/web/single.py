"""The pages of one circle, of one worker process, of one action on many tasks, and of the history."""

from itertools import islice

from starlette.exceptions import HTTPException

from rhai_tasks.observe.recorder import EndedTask
from rhai_tasks.operate.queues import PLACES
from rhai_tasks.protocol import Status

from .history import RANGES
from .pages import Rendering, rows_of
from .sampler import Worker
from .site import Query, Site

_SHOWN = 20  # tasks of a kind
_CHANGES = 10


def circle(site: Site, query: Query) -> Rendering:
    """Show one circle: its tasks by place, its workers, its rules, and what operators did."""
    name, sample = query.text("circle"), site.sampler.sample()
    if not name:
        raise HTTPException(404, "No circle is named.")
    (queue,) = site.queues.count([name])
    completed, failed = (sample.rate_of(name, status.value) for status in (Status.COMPLETED, Status.ERROR))
    rate = completed + failed
    running = [pair for pair in sample.list_running() if pair[0].circle == name]
    ended = [pair for pair in sample.list_recent() if pair[0].circle == name]
    shown = [pair[0].task_id for pair in running[:_SHOWN]] + [pair[0].task_id for pair in ended[:_SHOWN]]
    rules = site.queues.rules
    return "circle.html", {
        "circle": name,
        "sample": sample,
        "queue": queue,
        "places": {place: queue.count(place) for place in PLACES},
        "rates": (completed, failed),
        "drained_in": queue.left / rate if rate and queue.left else None,
        "running": running,
        "ended": ended[:_SHOWN],
        "shown_running": running[:_SHOWN],
        "rows": rows_of(site, shown),
        "workers": [worker for worker in sample.workers if _serves(worker, name)],
        "rules": rules.read(name),
        "changes": rules.changes(name)[:_CHANGES],
    }


def history(site: Site, query: Query) -> Rendering:
    """Show the charts of the last hours or days, of a circle or of all."""
    name, span, sample = query.text("circle"), query.text("range", "24h"), site.sampler.sample()
    span = span if span in RANGES else "24h"
    return "history.html", {
        "circle": name,
        "span": span,
        "ranges": list(RANGES),
        "charts": site.history.draw(name, span, sample.at),
    }


def _serves(worker: Worker, circle: str) -> bool:
    """Whether a process serves a circle; one that serves more circles than its report names may."""
    return circle in worker.report.circles or worker.report.circle_count > len(worker.report.circles)


def _ended_at(task: EndedTask) -> float:
    return -task.at


def worker(site: Site, query: Query) -> Rendering:
    """Show one worker process: its state, what it runs, and what it ended lately."""
    name, sample = query.text("id"), site.sampler.sample()
    found = next((one for one in sample.workers if one.broker_id == name), None)
    running, recent = ((), ()) if found is None else (found.report.running, found.report.recent)
    return "worker.html", {
        "name": name,
        "sample": sample,
        "worker": found,
        "runs": [(task, found) for task in running],
        "recent": [(task, found) for task in sorted(recent, key=_ended_at)],
        "rows": rows_of(site, [one.task_id for one in running] + [one.task_id for one in recent]),
    }


_TITLES = {"cancel": "Cancel tasks", "resubmit": "Submit tasks again", "delete": "Delete tasks"}
_QUESTIONS = {
    "cancel": "Cancel {} task(s)? Waiting tasks never begin, and running ones stop.",
    "resubmit": "Submit {} task(s) again? Copies under new ids begin at once; the tasks stay as they are.",
    "delete": "Delete the details of {} task(s), with their results? This cannot be undone.",
}


def bulk(site: Site, query: Query) -> Rendering:
    """Show an action on many tasks, and the latest ones."""
    job = site.jobs.get(query.number("job"))
    state = job.state if job else ""  # before the counts: they are final if it is
    return "bulk.html", {
        "job": job,
        "state": state,
        "samples": [] if job is None else list(islice(job.bulk.task_ids.copy(), 5)),
        "jobs": site.jobs.latest(),
        "keys": site.sampler.sample().keys,
        "titles": _TITLES,
        "questions": _QUESTIONS,
        "has_ended": job is None or state not in {"finding", "acting"},
    }
