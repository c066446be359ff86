"""What can be done: each action a function of what a form says, that returns where to go and what was done."""

import re
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bridge.queues import DeadLetter, Delayed
from rhai_tasks.errors import TaskExists, TaskNotFound

from .pages import address
from .render import dereference
from .security import own_path, read_form
from .site import Site, site_of

_FINDING = re.compile(r"(\d{1,9})\.(\d{1,9})")  # the look, and the place in it

Form = Mapping[str, list[str]]
Done = tuple[str | None, str]
"""The address to go to, `None`: back to where the form was; and what was done."""


def cancel(site: Site, form: Form) -> Done:
    """Cancel a task."""
    try:
        done = site.client.cancel(dereference(_text(form, "id")))
    except TaskNotFound:
        return None, "That task has no details any more."
    return None, "Cancelled." if done else "It had ended already."


def submit(site: Site, form: Form) -> Done:
    """Submit a script, and go to its page."""
    circle, task_id = _text(form, "circle"), _text(form, "id")
    try:
        delay = float(_text(form, "delay") or 0)
    except ValueError as error:
        raise HTTPException(422, "The delay is no number of seconds.") from error
    if not circle:
        raise HTTPException(422, "Name a circle.")
    if not 0 <= delay <= 10 * 365 * 86400:
        raise HTTPException(422, "The delay is none of this decade.")
    via = _text(form, "via") or "native"
    if via not in {"native", "dramatiq", "urgent"}:
        raise HTTPException(422, "That way does not exist.")
    try:
        task = site.client.submit(
            _text(form, "script").replace("\r\n", "\n"),  # as browsers send lines
            circle=circle,
            caller_id=_text(form, "caller"),
            task_id=task_id or None,
            unique=bool(task_id),
            delay=delay,
            via=via,  # type: ignore[arg-type]  # one of the three
        )
    except TaskExists as error:
        raise HTTPException(409, "That id is taken.") from error
    site.sampler.note(circle)
    return address("/task", id=task.id, circle=circle), "Submitted."


def retry_dead(site: Site, form: Form) -> Done:
    """Put dead letters back into their queue."""
    return None, f"{site.queues.revive(_letters(form))} dead letter(s) put back at the end of their queue."


def delete_dead(site: Site, form: Form) -> Done:
    """Delete dead letters."""
    return None, f"{site.queues.delete(_letters(form))} dead letter(s) deleted."


def run_now(site: Site, form: Form) -> Done:
    """Hand delayed tasks over now."""
    return None, f"{site.queues.hand_over(_delayed(form))} task(s) handed over."


def cancel_delayed(site: Site, form: Form) -> Done:
    """Cancel delayed tasks, and take them out."""
    delayed = _delayed(form)
    for one in delayed:
        try:
            site.client.cancel(one.task_id)
        except TaskNotFound:
            continue  # it would have ended as an error
    return None, f"{site.queues.forget(delayed)} delayed task(s) cancelled."


def repair(site: Site, form: Form) -> Done:
    """Mend what the doctor found."""
    found = _FINDING.fullmatch(_text(form, "finding"))
    if not found or not site.surgery.repair(int(found[1]), int(found[2])):
        return None, "The findings have changed. Nothing was done."
    return None, "Repaired."


def examine(site: Site, _: Form) -> Done:
    """Let the doctor look."""
    site.surgery.begin()
    return "/doctor", ""


def endpoint(action: Callable[[Site, Form], Done]) -> Callable[..., object]:
    """Make what answers a form: checked first, done in a thread, and left by a redirect: no reload repeats it."""

    async def answer(request: Request) -> Response:
        form = await read_form(request)
        where, said = await run_in_threadpool(action, site_of(request), form)
        if said:
            request.session["said"] = said
        return RedirectResponse(where or _back(request), status_code=303)

    return answer


def _back(request: Request) -> str:
    try:
        referrer = urlsplit(request.headers.get("referer", "/"))  # only its path counts
    except ValueError:  # it is no address
        return "/"
    return own_path(referrer.path + (f"?{referrer.query}" if referrer.query else ""))


def _text(form: Form, name: str) -> str:
    return form.get(name, [""])[0]


def _letters(form: Form) -> list[DeadLetter]:
    circle = dereference(_text(form, "circle"))
    return [DeadLetter(circle, dereference(name), "", "", "") for name in form.get("message", [])]


def _delayed(form: Form) -> list[Delayed]:
    """Read what was chosen: `t` or `m` for a task or a message, its name, and its task, each after a blank."""
    circle, found = dereference(_text(form, "circle")), []
    for chosen in form.get("delayed", []):
        kind, _, names = chosen.partition(" ")
        name, _, task_id = names.partition(" ")
        found.append(Delayed(circle, dereference(name), dereference(task_id), 0.0, is_message=kind == "m"))
    return found
