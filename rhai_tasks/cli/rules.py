"""Commands that set and show the rules of circles."""

import sys
from dataclasses import asdict

import click

from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import Rule, check_circle, script_hash, timestamp
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo

from .group import FAILED, circle_option, json_option, main
from .output import print_json, print_table

_circle = click.argument(
    "circle", envvar="RHAI_TASKS_CIRCLE", callback=lambda _, __, circle: check_circle(circle, "CIRCLE")
)
_caller = click.option("--caller", metavar="KEY", help="Public key of one caller of the circle.")
_script = click.option("--script", metavar="sha256:HASH", help="Hash of one script's text.")
_reason = click.option("--reason", default="", metavar="TEXT", help="Is shown wherever the rule is.")
_by = click.option("--by", metavar="NAME", help="Your name in the log; by default user and machine.")


@main.command()
@_circle
@_reason
@_by
@click.pass_obj
def pause(settings: Settings, circle: str, reason: str, by: str | None) -> None:
    """Begin no more tasks of a circle. Running tasks go on, and tasks can be submitted."""
    with Queues(settings) as queues:
        queues.rules(by).set(circle, Rule("pause", "circle", reason=reason))


@main.command()
@_circle
@_reason
@_by
@click.pass_obj
def resume(settings: Settings, circle: str, reason: str, by: str | None) -> None:
    """End a pause; status 1 if there was none."""
    with Queues(settings) as queues:
        if not queues.rules(by).clear(circle, Rule("pause", "circle"), reason):
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
    """End the tasks of a caller, or of a script, as errors when they are fetched: `blocked: <reason>`."""
    with Queues(settings) as queues:
        queues.rules(by).set(circle, _block_of(caller, script, reason))


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
    with Queues(settings) as queues:
        if not queues.rules(by).clear(circle, _block_of(caller, script), reason):
            echo("It is not blocked.", err=True)
            sys.exit(FAILED)


@main.command()
@circle_option(required=False)
@json_option
@click.pass_obj
def rules(settings: Settings, circle: str | None, as_json: bool) -> None:
    """Show pauses and blocks: of which circle, since when, by which user, and why."""
    with Queues(settings) as queues:
        found = [
            (name, rule) for name in ([circle] if circle else queues.circles()) for rule in queues.rules().read(name)
        ]
    if as_json:
        print_json([{"circle": name, **asdict(rule)} for name, rule in found])
    else:
        rows = ((name, f"{rule.verb} {rule.subject}", _time(rule.at), rule.by, rule.reason) for name, rule in found)
        print_table(rows, "circle", "rule", "since", "by", "why")


@main.command()
@circle_option(required=False)
@json_option
@click.pass_obj
def audit(settings: Settings, circle: str | None, as_json: bool) -> None:
    """List the last 1000 changes of rules, newest first."""
    with Queues(settings) as queues:
        changes = queues.rules().changes(circle)
    if as_json:
        print_json([asdict(change) for change in changes])
    else:
        rows = ((_time(one.at), one.by, one.circle, one.what, one.reason) for one in changes)
        print_table(rows, "at", "by", "circle", "what", "why")


def _block_of(caller: str | None, script: str | None, reason: str = "") -> Rule:
    """Make the rule that the options describe.

    Raises:
        click.UsageError: They name neither a caller nor a script, or both.
    """
    if (caller is None) == (script is None):
        raise click.UsageError("Name a caller or a script: --caller or --script.")
    if caller is not None:
        return Rule("block", "caller", caller, reason)
    return Rule("block", "script", script_hash(script or ""), reason)


def _time(at: float) -> str:
    return timestamp(at) if at else ""
