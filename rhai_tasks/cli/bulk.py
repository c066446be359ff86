"""Commands that act on many tasks at once."""

from collections.abc import Callable

import click

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.operate.bulk import Bulk, Verb
from rhai_tasks.operate.queues import Queues
from rhai_tasks.operate.where import Where, parse_where
from rhai_tasks.options import utf8
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo

from .group import Command, json_option, main, make_client
from .output import print_json

_SAMPLES = 5
_DONE = {"cancel": "cancelled", "resubmit": "submitted again", "delete": "deleted"}


class WhereType(click.ParamType[Where]):
    """The type of an option that is a filter of tasks."""

    name = "filter"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Where:
        """Read a filter."""
        if isinstance(value, Where):
            return value
        try:
            where = parse_where(str(value))
        except ConfigurationError as error:
            self.fail(f"{error}.", param, ctx)
        if where == Where():  # it would mean every task
            self.fail("the filter is empty.", param, ctx)
        return where


def where_option(*, required: bool) -> Callable[[Command], Command]:
    """Make the option `--where`."""
    help_ = "Which tasks: caller=, circle=, status=, error~PART, older=1h, younger=."
    return click.option("--where", type=WhereType(), required=required, callback=_utf8, metavar="FILTER", help=help_)


def _utf8(context: click.Context, option: click.Parameter, where: Where | None) -> Where | None:
    utf8(context, option, None if where is None else str(where))
    return where


really_option = click.option("-y", "--yes", is_flag=True, help="Do it; by default, only count the tasks.")


@main.command()
@where_option(required=True)
@really_option
@json_option
@click.pass_obj
def resubmit(settings: Settings, where: Where, yes: bool, as_json: bool) -> None:
    """Submit copies of ended tasks, under new ids.

    A copy has the script, caller, circle, arguments and limits of its task, but no signature. The task stays as it is.
    """
    act(settings, "resubmit", where, yes=yes, as_json=as_json)


@main.command()
@where_option(required=True)
@really_option
@json_option
@click.pass_obj
def delete(settings: Settings, where: Where, yes: bool, as_json: bool) -> None:
    """Delete the details of ended tasks.

    Their results cannot be read any more.
    """
    act(settings, "delete", where, yes=yes, as_json=as_json)


def act(settings: Settings, verb: Verb, where: Where, *, yes: bool, as_json: bool) -> None:
    """Find the tasks that match a filter, and with `yes` act on them."""
    with make_client(settings) as client, Queues(settings) as queues:
        bulk = Bulk(verb, where, queues, client)
        for _ in bulk.find():
            pass
        if yes and bulk.task_ids:
            try:
                for _ in bulk.act():
                    pass
            finally:  # also what was done before an error or Ctrl-C
                bulk.note()
    found = list(bulk.task_ids)
    if as_json:
        print_json({"found": len(found), "done": bulk.done, "skipped": bulk.skipped, "samples": found[:_SAMPLES]})
    elif yes:
        echo(f"{bulk.done:,} task(s) {_DONE[verb]}" + (f", {bulk.skipped:,} skipped" if bulk.skipped else ""))
    else:
        for task_id in found[:_SAMPLES]:
            echo(task_id)
        echo(f"{len(found):,} task(s) would be {_DONE[verb]}. Nothing was done: add --yes to do it.", err=True)
