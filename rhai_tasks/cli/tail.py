"""The command that shows tasks as they change state."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import click
from redis.client import PubSub
from rich.text import Text

from rhai_tasks.client.details import DetailsWriter
from rhai_tasks.client.requests import Requests
from rhai_tasks.connection.connect import connect
from rhai_tasks.options import CIRCLE_OPTION, WholeNumber
from rhai_tasks.protocol import Field, Outcome, check_circle, key_pattern, state_channel, to_bytes
from rhai_tasks.settings import Settings

from .group import json_option, main
from .output import brief, coloured, make_console, print_json, stream

Change = tuple[str, str | Outcome]
"""A task's id, and its status or how it ended."""


@main.command()
@click.option(
    *CIRCLE_OPTION,
    "circle",
    callback=lambda _, __, circle: None if circle is None else check_circle(circle, "--circle"),
    metavar="KEY",
    help="Only tasks that clients of this project submitted to this circle.",
)
@click.option("--count", type=WholeNumber(1), help="Lines after which the command ends.")
@json_option
@click.pass_obj
def tail(settings: Settings, circle: str | None, count: int | None, as_json: bool) -> None:
    """Show tasks as they change state; Ctrl-C ends.

    Clients and workers of this project publish the changes.
    """
    key, field = settings.prefixes.details, settings.table.stored(Field.CIRCLE)
    with connect(settings.redis_url) as database, changes(settings) as found:
        wanted = (
            one for one in found if circle is None or database.hget(to_bytes(key + one[0]), field) == to_bytes(circle)
        )
        with stream():
            for task_id, state in islice(wanted, count):
                _show_change(task_id, state, as_json=as_json)


@contextmanager
def changes(settings: Settings) -> Iterator[Iterator[Change]]:
    """Subscribe to the changes of tasks' states."""
    writer = DetailsWriter(dialect=settings.dialect)
    requests = Requests(details_writer=writer, prefixes=settings.prefixes, namespace=settings.namespace)
    channels = state_channel(settings.namespace) + settings.prefixes.details
    with connect(settings.redis_url) as database, database.pubsub(ignore_subscribe_messages=True) as channel:
        channel.psubscribe(key_pattern(channels))
        yield _read(channel, requests)


def _read(channel: PubSub, requests: Requests) -> Iterator[Change]:
    while True:
        message = channel.get_message(timeout=1.0)
        if message and (change := requests.parse_state(message["channel"], message["data"])):
            yield change


def _show_change(task_id: str, state: str | Outcome, *, as_json: bool) -> None:
    status, text = (state.status, state.text) if isinstance(state, Outcome) else (state, "")
    if as_json:
        print_json({"taskId": task_id, "status": status, "text": text})
    else:
        now = time.strftime("%H:%M:%S")
        line = Text.assemble(now, "  ", brief(task_id), "  ", coloured(status), "  ", brief(text))
        make_console().print(line, soft_wrap=True)
