"""The actions: each is a function of a form, and returns the next address and a message."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rhai_tasks.client.spec import WAYS
from rhai_tasks.errors import TaskExists, TaskNotFound
from rhai_tasks.operate.delayed import DelayedTask
from rhai_tasks.operate.letters import DeadLetter
from rhai_tasks.protocol import REPEATED_TERMS, Field, Status
from rhai_tasks.settings import LONGEST_SECONDS

from .pages import address, where_of
from .render import dereference
from .security import own_path, read_form
from .site import Query, Site, site_of

_FINDING = re.compile(r"(\d{1,9})\.(\d{1,9})")  # number of the examination, and index of the finding

Form = Mapping[str, list[str]]
Done = tuple[str | None, str]
"""The next address, `None` for the page of the form; and a message."""


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
        raise HTTPException(422, "The delay must be a number of seconds.") from error
    if not circle:
        raise HTTPException(422, "Name a circle.")
    if not 0 <= delay <= LONGEST_SECONDS:
        raise HTTPException(422, "The delay must be between 0 and 10 years.")
    via = _text(form, "via") or "native"
    way = next((way for way in WAYS if way == via), None)
    if way is None:
        raise HTTPException(422, "Unknown way.")
    _check_args(_text(form, Field.ARGS))
    try:
        task = site.client.submit(
            _text(form, "script").replace("\r\n", "\n"),  # as browsers send lines
            circle=circle,
            caller_id=_text(form, "caller"),
            task_id=task_id or None,
            unique=bool(task_id),
            delay=delay,
            via=way,
            fields={name: text for name in REPEATED_TERMS if (text := _text(form, name).strip())},
        )
    except TaskExists as error:
        raise HTTPException(409, "That id is taken.") from error
    site.sampler.note(circle)
    return address("/task", id=task.id, circle=circle), "Submitted."


def _check_args(text: str) -> None:
    try:
        args = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"The arguments are no JSON: {error}.") from error
    if not isinstance(args, dict):
        raise HTTPException(422, "The arguments must be a JSON object.")


def retry_dead(site: Site, form: Form) -> Done:
    """Put dead letters back into their queue."""
    return None, f"{site.queues.dead_letters.retry(_letters(form))} dead letter(s) put back at the end of their queue."


def delete_dead(site: Site, form: Form) -> Done:
    """Delete dead letters."""
    return None, f"{site.queues.dead_letters.delete(_letters(form))} dead letter(s) deleted."


def run_now(site: Site, form: Form) -> Done:
    """Hand delayed tasks over now."""
    return None, f"{site.queues.delayed.hand_over(_delayed(form))} task(s) handed over."


def cancel_delayed(site: Site, form: Form) -> Done:
    """Cancel delayed tasks, and remove them."""
    delayed = _delayed(form)
    for one in delayed:
        try:
            site.client.cancel(one.task_id)
        except TaskNotFound:
            continue  # without details it would end as an error
    return None, f"{site.queues.delayed.remove(delayed)} delayed task(s) cancelled."


def repair(site: Site, form: Form) -> Done:
    """Repair a finding of the doctor."""
    found = _FINDING.fullmatch(_text(form, "finding"))
    if not found or not site.doctor_run.repair(int(found[1]), int(found[2])):
        return None, "The findings have changed. Nothing was done."
    return None, "Repaired."


def examine(site: Site, _: Form) -> Done:
    """Start an examination."""
    site.doctor_run.start()
    return "/doctor", ""


def read_errors(site: Site, form: Form) -> Done:
    """Read all errors again, of the filter that the form's page shows."""
    where = where_of(Query({name: list(map(dereference, values)) for name, values in form.items()}))
    site.error_walks.renew(replace(where, status=Status.ERROR.value))
    return None, ""


def endpoint(action: Callable[[Site, Form], Done]) -> Callable[..., object]:
    """Make the endpoint of an action: it checks the form, acts in a thread, and redirects, so no reload repeats it.

    An action that nothing undoes first asks, on a page of its own.
    """
    ask = _QUESTIONS.get(action)

    async def answer(request: Request) -> Response:
        form = await read_form(request)
        if ask and _text(form, "sure") != "1":
            return _ask(request, form, *ask(form))
        where, said = await run_in_threadpool(action, site_of(request), form)
        if said:
            request.session["said"] = said
        return RedirectResponse(where or _back(request, form), status_code=303)

    return answer


def _ask(request: Request, form: Form, question: str, button: str) -> Response:
    """Ask whether the action is wanted; the answer sends the same form again."""
    back = _back(request, form)
    if not question:
        request.session["said"] = "Nothing was chosen."
        return RedirectResponse(back, status_code=303)
    fields = [
        (name, value) for name, values in form.items() if name not in {"csrf", "back", "sure"} for value in values
    ]
    fields += [("back", back), ("sure", "1")]
    return site_of(request).render(request, "confirm.html", question=question, button=button, fields=fields, back=back)


def _ask_cancel(form: Form) -> tuple[str, str]:
    return f"Cancel task {dereference(_text(form, 'id'))}?", "Cancel the task"


def _ask_delete_dead(form: Form) -> tuple[str, str]:
    count = len(form.get("message", []))
    return f"Delete {count} dead letter(s)?" if count else "", "Delete"


def _ask_run_now(form: Form) -> tuple[str, str]:
    count = len(form.get("delayed", []))
    return f"Run {count} delayed task(s) now?" if count else "", "Run now"


def _ask_cancel_delayed(form: Form) -> tuple[str, str]:
    count = len(form.get("delayed", []))
    return f"Cancel {count} delayed task(s)?" if count else "", "Cancel the tasks"


_QUESTIONS: dict[Callable[[Site, Form], Done], Callable[[Form], tuple[str, str]]] = {
    cancel: _ask_cancel,
    delete_dead: _ask_delete_dead,
    run_now: _ask_run_now,
    cancel_delayed: _ask_cancel_delayed,
}
"""For each action that nothing undoes: a question, empty if nothing is chosen, and the text of the button."""


def _back(request: Request, form: Form) -> str:
    if back := _text(form, "back"):
        return own_path(back)
    try:
        referrer = urlsplit(request.headers.get("referer", "/"))  # only its path is used
    except ValueError:  # malformed
        return "/"
    return own_path(referrer.path + (f"?{referrer.query}" if referrer.query else ""))


def _text(form: Form, name: str) -> str:
    return form.get(name, [""])[0]


def _letters(form: Form) -> list[DeadLetter]:
    circle = dereference(_text(form, "circle"))
    return [DeadLetter(circle, dereference(name), "", "", "") for name in form.get("message", [])]


def _delayed(form: Form) -> list[DelayedTask]:
    """Read the chosen rows: `t` or `m` for a task or a message, its name, and its task, separated by blanks."""
    circle, found = dereference(_text(form, "circle")), []
    for chosen in form.get("delayed", []):
        kind, _, names = chosen.partition(" ")
        name, _, task_id = names.partition(" ")
        found.append(DelayedTask(circle, dereference(name), dereference(task_id), 0.0, is_message=kind == "m"))
    return found
