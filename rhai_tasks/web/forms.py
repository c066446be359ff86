"""The form that submits a script: a form that is refused comes back with its values."""

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rhai_tasks.client.spec import WAYS
from rhai_tasks.errors import QueueFull, TaskExists
from rhai_tasks.operate.tasks import Details, Value
from rhai_tasks.protocol import REPEATED_TERMS, Field
from rhai_tasks.settings import LONGEST_SECONDS
from rhai_tasks.terminal import visible

from .pages import Rendering, address
from .security import Form, form_text, read_form
from .site import Query, Site, say, site_of

_HIDDEN_TERMS = tuple(field for field in REPEATED_TERMS if field != Field.ARGS)
_NO_VALUES = {"circle": "", "script": "", "caller": "", "args": "", "id": "", "delay": "", "via": WAYS[0]}


def page(site: Site, query: Query) -> Rendering:
    """Show the form, filled in from another task if one is named."""
    again = site.tasks.details(query.text("again")) if query.text("again") else Details("")
    args = again.fields.get(Field.ARGS, Value(0, ""))
    values = {
        **_NO_VALUES,
        "circle": query.text("circle"),
        "script": again.text(Field.SCRIPT) or again.text(Field.SCRIPT_REF),
        "caller": again.caller,
        "args": "" if args.is_cut else args.text,
    }
    return "submit.html", {
        "values": values,
        "terms": [(name, again.text(name)) for name in _HIDDEN_TERMS if name in again.fields],
        "is_cut": "script" in again.fields and again.fields["script"].is_cut,
        "is_cut_args": args.is_cut,
        **_common(site, values["script"]),
    }


def _common(site: Site, script: str) -> dict[str, Any]:
    return {
        "names": sorted(site.sampler.sample().queues)[:200],
        "problem": "",
        "tried": None,
        "invisible": sorted({code for code in map(visible, set(script) - {"\r"}) if len(code) > 1}),
    }


def _again(request: Request, form: Form, status: int = 200, **changed: Any) -> Response:
    """Show the form with the values that were sent."""
    site = site_of(request)
    context = {
        "values": {name: form_text(form, name) or default for name, default in _NO_VALUES.items()},
        "terms": [(name, form_text(form, name)) for name in _HIDDEN_TERMS if form_text(form, name)],
        "is_cut": False,
        "is_cut_args": False,
        **_common(site, form_text(form, "script")),
        **changed,
    }
    return site.render(request, "submit.html", status_code=status, **context)


async def submit(request: Request) -> Response:
    """Submit the script, and go to the page of its task."""
    form = await read_form(request)
    try:
        where = await run_in_threadpool(_submit, site_of(request), form)
    except HTTPException as error:
        return await run_in_threadpool(_again, request, form, error.status_code, problem=error.detail)
    say(request, "Submitted.")
    return RedirectResponse(where, status_code=303)


async def try_(request: Request) -> Response:
    """Check the script or run it here, and show the form with the outcome."""
    form = await read_form(request)
    return await run_in_threadpool(_try, request, form)


def _try(request: Request, form: Form) -> Response:
    trial, script = site_of(request).trial, _script(form)
    if form_text(form, "try") != "run":
        return _again(request, form, tried=trial.check(script))
    try:
        constants = {"CONTEXT_ID": form_text(form, "circle"), "CALLER_ID": form_text(form, "caller")}
        return _again(request, form, tried=trial.run(script, _args(form), constants))
    except HTTPException as error:
        return _again(request, form, error.status_code, problem=error.detail)


def _submit(site: Site, form: Form) -> str:
    circle, task_id = form_text(form, "circle"), form_text(form, "id")
    try:
        delay = float(form_text(form, "delay") or 0)
    except ValueError as error:
        raise HTTPException(422, "The delay must be a number of seconds.") from error
    if not circle:
        raise HTTPException(422, "Name a circle.")
    if not 0 <= delay <= LONGEST_SECONDS:
        raise HTTPException(422, "The delay must be between 0 and 10 years.")
    via = form_text(form, "via") or "native"
    way = next((way for way in WAYS if way == via), None)
    if way is None:
        raise HTTPException(422, "Unknown queue.")
    _args(form)
    try:
        task = site.client.submit(
            _script(form),
            circle=circle,
            caller_id=form_text(form, "caller"),
            task_id=task_id or None,
            unique=bool(task_id),
            delay=delay,
            via=way,
            fields={name: text for name in REPEATED_TERMS if (text := form_text(form, name).strip())},
        )
    except TaskExists as error:
        raise HTTPException(409, "That id is taken.") from error
    except QueueFull as error:
        raise HTTPException(429, f"Not submitted: {error}.") from error
    site.sampler.note(circle)
    return address("/task", id=task.id, circle=circle)


def _script(form: Form) -> str:
    return form_text(form, "script").replace("\r\n", "\n")  # as browsers send lines


def _args(form: Form) -> dict[str, Any]:
    try:
        args = json.loads(form_text(form, Field.ARGS) or "{}")
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"The arguments are not JSON: {error}.") from error
    if not isinstance(args, dict):
        raise HTTPException(422, "The arguments must be a JSON object.")
    return args
