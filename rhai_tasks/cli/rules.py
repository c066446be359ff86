"""Commands that set and show the rules of circles."""

import sys
from collections.abc import Callable, Container
from dataclasses import asdict, replace
from typing import Any

import click

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.operate.queues import Queues
from rhai_tasks.options import CIRCLE_VARIABLES, WholeNumber, utf8
from rhai_tasks.protocol import Quota, Rule, check_circle, parse_rate, script_hash, timestamp
from rhai_tasks.protocol.rules import Verb
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo

from .group import FAILED, circle_option, json_option, main
from .output import print_json, print_table

_circle = click.argument(
    "circle", envvar=CIRCLE_VARIABLES, callback=lambda _, __, circle: check_circle(circle, "CIRCLE")
)


def _read_with(read: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Make a callback that reads an option's text, if there is one."""

    def callback(_context: click.Context, _option: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else read(text)
        except ConfigurationError as error:
            raise click.BadParameter(f"{error}.") from error

    return callback


_caller = click.option("--caller", callback=utf8, metavar="KEY", help="Public key of one caller of the circle.")
_script = click.option(
    "--script", callback=_read_with(script_hash), metavar="sha256:HASH", help="Hash of one script's text."
)
_reason = click.option("--reason", callback=utf8, default="", metavar="TEXT", help="Reason, shown with the rule.")
_by = click.option("--by", callback=utf8, metavar="NAME", help="Your name in the log; by default user and machine.")


@main.command()
@_circle
@_caller
@_reason
@_by
@click.pass_obj
def pause(settings: Settings, circle: str, caller: str | None, reason: str, by: str | None) -> None:
    """Begin no more tasks of a circle, or of one caller of it. Running tasks go on, and tasks can be submitted."""
    with Queues(settings, by) as queues:
        queues.rules.set(circle, _rule_for("pause", caller, reason))


@main.command()
@_circle
@_caller
@_reason
@_by
@click.pass_obj
def resume(settings: Settings, circle: str, caller: str | None, reason: str, by: str | None) -> None:
    """End a pause; status 1 if there was none."""
    with Queues(settings, by) as queues:
        if not queues.rules.clear(circle, _rule_for("pause", caller), reason):
            echo("It is not paused.", err=True)
            sys.exit(FAILED)


@main.command()
@_circle
@_caller
@_script
@_reason
@_by
@click.pass_obj
def block(settings: Settings, circle: str, caller: str | None, script: str | None, reason: str, by: str | None) -> None:
    """End the tasks of a caller, or of a script, as errors.

    They end when a worker fetches them. The error is `blocked: <reason>`.
    """
    with Queues(settings, by) as queues:
        queues.rules.set(circle, _block_of(caller, script, reason))


@main.command()
@_circle
@_caller
@_script
@_reason
@_by
@click.pass_obj
def unblock(
    settings: Settings, circle: str, caller: str | None, script: str | None, reason: str, by: str | None
) -> None:
    """End a block; status 1 if there was none."""
    with Queues(settings, by) as queues:
        if not queues.rules.clear(circle, _block_of(caller, script), reason):
            echo("It is not blocked.", err=True)
            sys.exit(FAILED)


@main.command()
@circle_option(required=False)
@json_option
@click.pass_obj
def rules(settings: Settings, circle: str | None, as_json: bool) -> None:
    """Show pauses, blocks and limits, with the user and the reason."""
    _show(settings, circle, {"pause", "block", "limit"}, "rules", as_json=as_json)


def _show(settings: Settings, circle: str | None, verbs: Container[str], what: str, *, as_json: bool) -> None:
    with Queues(settings) as queues:
        circles = [circle] if circle else queues.circles()
        found = [(name, rule) for name in circles for rule in queues.rules.read(name) if rule.verb in verbs]
    if as_json:
        print_json([{"circle": name, **asdict(rule)} for name, rule in found])
    else:
        rows = ((name, rule.text, _time(rule.at), rule.by, rule.reason) for name, rule in found)
        print_table(rows, "circle", "rule", "since", "by", "why", empty=f"No {what}.")


@main.group()
def limits() -> None:
    """Set, show and clear limits of a circle and of its callers."""


_count = WholeNumber(1, 10**12)  # Lua counts exactly up to this number
_weight = WholeNumber(1, 1000)
_each = click.option("--each-caller", "each", is_flag=True, help="For each caller that has no limit of its own.")


@limits.command(name="set")
@circle_option(required=True)
@_caller
@_each
@click.option("--concurrency", type=_count, metavar="N", help="Tasks at once, in the whole fleet.")
@click.option(
    "--rate",
    callback=_read_with(parse_rate),
    metavar="N/s",
    help="Most tasks that begin in a time: 10/s, 600/m or 36000/h.",
)
@click.option("--burst", type=_count, metavar="N", help="Tasks that begin at once after a pause.")
@click.option(
    "--waiting", type=_count, metavar="N", help="Most waiting tasks; then this project's clients submit no more."
)
@click.option("--weight", type=_weight, metavar="N", help="Share of the caller under --fair; by default 1.")
@_reason
@_by
@click.pass_obj
def limits_set(
    settings: Settings,
    /,
    circle: str,
    caller: str | None,
    each: bool,
    by: str | None,
    reason: str,
    **figures: Any,
) -> None:
    """Set a limit, in the place of the one before.

    Without --caller and --each-caller, it is a limit of the whole circle.
    """
    if all(value is None for value in figures.values()):
        raise click.UsageError("Name a figure: --concurrency, --rate, --waiting or --weight.")
    if figures["burst"] is not None and figures["rate"] is None:
        raise click.UsageError("--burst needs --rate.")
    if figures["weight"] is not None and caller is None and not each:
        raise click.UsageError("--weight needs --caller or --each-caller.")
    quota = Quota(**figures)
    with Queues(settings, by) as queues:
        queues.rules.set(circle, replace(_limit_for(caller, each=each), reason=reason, quota=quota))


@limits.command(name="show")
@circle_option(required=False)
@json_option
@click.pass_context
def limits_show(context: click.Context, circle: str | None, as_json: bool) -> None:
    """Show the limits."""
    _show(context.obj, circle, {"limit"}, "limits", as_json=as_json)


@limits.command(name="clear")
@circle_option(required=True)
@_caller
@_each
@_reason
@_by
@click.pass_obj
def limits_clear(settings: Settings, circle: str, caller: str | None, each: bool, reason: str, by: str | None) -> None:
    """Clear a limit; status 1 if there was none."""
    with Queues(settings, by) as queues:
        if not queues.rules.clear(circle, _limit_for(caller, each=each), reason):
            echo("It is not limited.", err=True)
            sys.exit(FAILED)


def _limit_for(caller: str | None, *, each: bool) -> Rule:
    """Make the limit that the options describe, without its figures.

    Raises:
        click.UsageError: They name one caller, and each.
    """
    if each and caller is not None:
        raise click.UsageError("--caller and --each-caller exclude each other.")
    return Rule("limit", "callers") if each else _rule_for("limit", caller)


@main.command()
@circle_option(required=False)
@json_option
@click.pass_obj
def audit(settings: Settings, circle: str | None, as_json: bool) -> None:
    """List the last 1000 acts of operators, newest first."""
    with Queues(settings) as queues:
        changes = queues.rules.changes(circle)
    if as_json:
        print_json([asdict(change) for change in changes])
    else:
        rows = ((_time(one.at), one.by, one.circle, one.what, one.reason) for one in changes)
        print_table(rows, "at", "by", "circle", "what", "why", empty="No acts.")


def _rule_for(verb: Verb, caller: str | None, reason: str = "") -> Rule:
    """Make a rule for the circle, or for one caller of it."""
    return Rule(verb, "circle", "", reason) if caller is None else Rule(verb, "caller", caller, reason)


def _block_of(caller: str | None, script: str | None, reason: str = "") -> Rule:
    """Make the rule that the options describe.

    Raises:
        click.UsageError: They name neither a caller nor a script, or both.
    """
    if (caller is None) == (script is None):
        raise click.UsageError("Name a caller or a script: --caller or --script.")
    if caller is not None:
        return Rule("block", "caller", caller, reason)
    return Rule("block", "script", script or "", reason)


def _time(at: float) -> str:
    return timestamp(at) if at else ""
