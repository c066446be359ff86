"""Commands for the file of `--policy`."""

import sys
from pathlib import Path
from typing import TextIO

import click

from rhai_tasks.current import TaskRequest
from rhai_tasks.options import FileName, TextFile, utf8
from rhai_tasks.policy import Policy, PolicyRule
from rhai_tasks.terminal import echo

from .group import FAILED, circle_option, main


@main.group()
def policy() -> None:
    """Try a policy: which callers may run which scripts."""


@policy.command()
@click.argument("file", type=FileName(exists=True))
@click.option("--caller", required=True, callback=utf8, metavar="KEY", help="Public key of the caller.")
@circle_option(required=True)
@click.option(
    "--script", type=TextFile(), metavar="FILE", help="File of a script; by default, show all rules that fit."
)
def check(file: Path, caller: str, circle: str, script: TextIO | None) -> None:
    """Say what FILE allows a caller in a circle.

    Status 1 if it allows nothing.
    """
    rules = Policy.read(file)
    if script is None:
        fitting = [rule for rule in rules.rules if rule.fits(caller, circle)]
        refusal = "the policy allows this caller nothing in this circle"
    else:
        request = TaskRequest("", circle, caller, True, None, script.read())
        found = rules.rule_for(request)
        fitting, refusal = [found] if found else [], rules.refusal_of(request)
    for rule in fitting:
        echo(_describe(rule))
    if not fitting:
        echo(f"not allowed: {refusal}", err=True)
        sys.exit(FAILED)


def _describe(rule: PolicyRule) -> str:
    scripts = "any script" if rule.scripts is None else ", ".join(f"sha256:{digest}" for digest in sorted(rule.scripts))
    limits = [f"{name} {value}" for name, value in rule.limits._asdict().items() if value]
    return f"allowed by [[allow]] number {rule.number}: {'; '.join([scripts, *limits])}"
