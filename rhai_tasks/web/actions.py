"""The actions: each is a function of a form, and returns the next address and a message."""

import re
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rhai_tasks.errors import ConfigurationError, TaskNotFound
from rhai_tasks.operate.bulk import VERBS, Bulk
from rhai_tasks.operate.delayed import DelayedTask
from rhai_tasks.operate.letters import DeadLetter
from rhai_tasks.operate.where import Where
from rhai_tasks.operate.workers import set_quiet
from rhai_tasks.protocol import Quota, Rule, Status, parse_rate
from rhai_tasks.protocol.rules import Verb

from .jobs import Job
from .pages import where_of
from .render import dereference
from .security import Form, form_text, own_path, read_form
from .site import Query, Site, say, site_of

_FINDING = re.compile(r"(\d{1,9})\.(\d{1,9})")  # number of the examination, and index of the finding

Done = tuple[str | None, str]
"""The next address, `None` for the page of the form; and a message."""


def cancel(site: Site, form: Form) -> Done:
    """Cancel a task."""
    task_id = dereference(form_text(form, "id"))
    try:
        done = site.client.cancel(task_id)
    except TaskNotFound:
        return None, "That task has no details any more."
    if done:
        site.queues.note_cancels([task_id])
    return None, "Cancelled." if done else "It had ended already."


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


def return_buffered(site: Site, form: Form) -> Done:
    """Give a circle's buffered tasks back to its native list."""
    count = site.queues.give_back(dereference(form_text(form, "circle")))
    return None, f"{count} task(s) given back. A bridge that serves the circle takes them again."


def purge(site: Site, form: Form) -> Done:
    """Cancel all tasks of a circle that have not begun."""
    return None, f"{site.queues.purge(dereference(form_text(form, 'circle')))} task(s) cancelled."


def pause(site: Site, form: Form) -> Done:
    """Pause a circle, or one caller of it."""
    return _set_rule(site, form, _rule_of(form, "pause"))


def resume(site: Site, form: Form) -> Done:
    """End such a pause."""
    return _clear_rule(site, form, _rule_of(form, "pause"))


def limit(site: Site, form: Form) -> Done:
    """Set the limit of a circle, of each caller or of one; without figures, clear it."""
    try:
        quota = Quota(
            concurrency=_count(form, "concurrency"),
            rate=parse_rate(form_text(form, "rate")) if form_text(form, "rate") else None,
            waiting=_count(form, "waiting"),
        )
    except ConfigurationError as error:
        return None, f"{error}. Nothing was done."
    rule = _rule_of(form, "limit")
    if form_text(form, "each") == "1" and not rule.name:
        rule = replace(rule, scope="callers")
    return _set_rule(site, form, replace(rule, quota=quota)) if str(quota) else _clear_rule(site, form, rule)


def _rule_of(form: Form, verb: Verb) -> Rule:
    caller, reason = form_text(form, "caller"), form_text(form, "reason")
    return Rule(verb, "caller", caller, reason) if caller else Rule(verb, "circle", "", reason)


def _count(form: Form, name: str) -> int | None:
    text = form_text(form, name)
    if text and not (text.isascii() and text.isdigit() and int(text[:13]) > 0 and len(text) < 13):
        raise ConfigurationError(f"{name} {text[:80]!r}: expected a whole number from 1 to 999,999,999,999")
    return int(text) if text else None


def _set_rule(site: Site, form: Form, rule: Rule) -> Done:
    try:
        site.queues.rules.set(dereference(form_text(form, "circle")), rule)
    except ConfigurationError as error:
        return None, f"{error}. Nothing was done."
    return None, f"Set: {rule.text}. It holds from each worker's next fetch on."


def _clear_rule(site: Site, form: Form, rule: Rule) -> Done:
    found = site.queues.rules.clear(dereference(form_text(form, "circle")), rule, rule.reason)
    return None, f"Cleared: {rule.text}." if found else f"There was none: {rule.text}. Nothing was done."


def quiet(site: Site, form: Form) -> Done:
    """Let a worker process take no more tasks."""
    return _set_quiet(site, form, quiet=True)


def resume_worker(site: Site, form: Form) -> Done:
    """Let a worker process take tasks again."""
    return _set_quiet(site, form, quiet=False)


def _set_quiet(site: Site, form: Form, *, quiet: bool) -> Done:
    name = dereference(form_text(form, "id"))
    worker = next((one for one in site.sampler.sample().workers if one.broker_id == name), None)
    if worker is None:
        return None, "That worker process does not report any more. Nothing was done."
    if worker.report.rabbitmq:
        return None, "It takes tasks through RabbitMQ: stop it instead. Nothing was done."
    set_quiet(site.queues.client, site.settings.namespace, name, quiet=quiet)
    process = f"worker process {worker.report.pid} on {worker.report.host}"
    site.queues.note("", f"quiet {process}" if quiet else f"resume {process}")
    return None, "It obeys within a few seconds. Its running scripts go on."


def repair(site: Site, form: Form) -> Done:
    """Repair a finding of the doctor."""
    found = _FINDING.fullmatch(form_text(form, "finding"))
    finding = site.doctor_run.repair(int(found[1]), int(found[2])) if found else None
    if finding is None:
        return None, "The findings have changed. Nothing was done."
    site.queues.note("", finding.log_entry)
    return None, "Repaired."


def examine(site: Site, _: Form) -> Done:
    """Start an examination."""
    site.doctor_run.start()
    return "/doctor", ""


def read_errors(site: Site, form: Form) -> Done:
    """Read all errors again, of the filter that the form's page shows."""
    site.error_walks.renew(replace(_where(form), status=Status.ERROR.value))
    return None, ""


def find_many(site: Site, form: Form) -> Done:
    """Begin an action on many tasks: find them. It acts only after a confirmation."""
    verb = next((verb for verb in VERBS if verb == form_text(form, "verb")), None)
    if verb is None:
        raise HTTPException(422, "Unknown action.")
    try:
        job = site.jobs.find(Bulk(verb, _where(form), site.queues, site.client))
    except ConfigurationError as error:
        raise HTTPException(422, f"Not begun: {error}.") from error
    if job is None:
        return "/bulk", "Other actions run. Stop one, or wait until it has ended."
    return f"/bulk?job={job.number}", ""


def act_on_many(site: Site, form: Form) -> Done:
    """Act on the tasks that were found."""
    job = _job(site, form)
    return f"/bulk?job={job.number}", "" if site.jobs.act(job) else "Not begun: it has begun already, or others run."


def stop_many(site: Site, form: Form) -> Done:
    """Stop an action on many tasks."""
    job = _job(site, form)
    site.jobs.stop(job)
    return f"/bulk?job={job.number}", ""


def _job(site: Site, form: Form) -> Job:
    number = form_text(form, "job")
    job = site.jobs.get(int(number)) if number.isascii() and number.isdigit() and len(number) < 10 else None
    if job is None:
        raise HTTPException(404, "There is no such action any more.")
    return job


def _where(form: Form) -> Where:
    return where_of(Query({name: list(map(dereference, values)) for name, values in form.items()}))


def endpoint(action: Callable[[Site, Form], Done]) -> Callable[..., object]:
    """Make the endpoint of an action: it checks the form, acts in a thread, and redirects, so no reload repeats it.

    An action that nothing undoes first asks, on a page of its own.
    """
    ask = _QUESTIONS.get(action)

    async def answer(request: Request) -> Response:
        form = await read_form(request)
        if ask and form_text(form, "sure") != "1":
            return _ask(request, form, *ask(form))
        where, said = await run_in_threadpool(action, site_of(request), form)
        if said:
            say(request, said)
        return RedirectResponse(where or _back(request, form), status_code=303)

    return answer


def _ask(request: Request, form: Form, question: str, button: str) -> Response:
    """Ask the visitor to confirm the action; the answer sends the same form again."""
    back = _back(request, form)
    if not question:
        say(request, "Nothing was chosen.")
        return RedirectResponse(back, status_code=303)
    fields = [
        (name, value) for name, values in form.items() if name not in {"csrf", "back", "sure"} for value in values
    ]
    fields += [("back", back), ("sure", "1")]
    return site_of(request).render(request, "confirm.html", question=question, button=button, fields=fields, back=back)


def _ask_cancel(form: Form) -> tuple[str, str]:
    return f"Cancel task {dereference(form_text(form, 'id'))}?", "Cancel the task"


def _ask_purge(form: Form) -> tuple[str, str]:
    circle = dereference(form_text(form, "circle"))
    return f"Cancel all tasks of circle {circle} that have not begun, delayed ones too?", "Cancel the tasks"


def _ask_quiet(_: Form) -> tuple[str, str]:
    return "Let this worker process take no more tasks? Its running scripts go on.", "Quiet it"


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
    purge: _ask_purge,
    quiet: _ask_quiet,
    delete_dead: _ask_delete_dead,
    run_now: _ask_run_now,
    cancel_delayed: _ask_cancel_delayed,
}
"""For each action that nothing undoes: a question, empty if nothing is chosen, and the text of the button."""


def _back(request: Request, form: Form) -> str:
    if back := form_text(form, "back"):
        return own_path(back)
    try:
        referrer = urlsplit(request.headers.get("referer", "/"))  # only its path is used
    except ValueError:  # malformed
        return "/"
    return own_path(referrer.path + (f"?{referrer.query}" if referrer.query else ""))


def _letters(form: Form) -> list[DeadLetter]:
    circle = dereference(form_text(form, "circle"))
    return [DeadLetter(circle, dereference(name), "", "", "") for name in form.get("message", [])]


def _delayed(form: Form) -> list[DelayedTask]:
    """Read the chosen rows: `t` or `m` for a task or a message, its name, and its task, separated by blanks."""
    circle, found = dereference(form_text(form, "circle")), []
    for chosen in form.get("delayed", []):
        kind, _, names = chosen.partition(" ")
        name, _, task_id = names.partition(" ")
        found.append(DelayedTask(circle, dereference(name), dereference(task_id), 0.0, is_message=kind == "m"))
    return found
