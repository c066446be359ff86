"""Commands for the keys of the HTTP API."""

import sys
from datetime import UTC, datetime

import click

from rhai_tasks.operate.queues import Queues
from rhai_tasks.options import CIRCLE_OPTION, WholeNumber, utf8
from rhai_tasks.protocol import Field, check_circle
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo
from rhai_tasks.web.api.keys import DEFAULT_RATE, SCOPES, ApiKey, ApiKeys, id_of

from .group import NOT_FOUND, json_option, main
from .output import print_json, print_table

_ANY = "any"


@main.group("api-keys")
def api_keys() -> None:
    """Make, list and delete keys of the HTTP API."""


@api_keys.command("new")
@click.argument("name", callback=utf8)
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="Repeat it for several."
)
@click.option(
    *CIRCLE_OPTION,
    "circles",
    multiple=True,
    callback=lambda _, __, circles: tuple(check_circle(circle, "--circle") for circle in circles),
    metavar="KEY",
    help="Only for this circle; repeat it for several. By default for all.",
)
@click.option(
    "--caller",
    "callers",
    multiple=True,
    metavar="KEY",
    callback=lambda context, option, callers: tuple(utf8(context, option, caller) for caller in callers),
    help="Only for tasks of this caller; repeat it for several. By default for all.",
)
@click.option(
    "--rate", type=WholeNumber(1, 100_000), default=DEFAULT_RATE, show_default=True, help="Requests a second."
)
@click.pass_obj
def make_api_key(
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    circles: tuple[str, ...],
    callers: tuple[str, ...],
    rate: int,
) -> None:
    """Make a key and print it; only its hash is stored."""
    with Queues(settings) as queues:
        keys = ApiKeys(queues.client, settings.namespace)
        key = keys.make(name, scopes, circles, callers, rate)
        queues.note("", f"make {_label(keys, id_of(key))}")
    echo(key)
    echo("Keep it now: it is not stored, and cannot be shown again.", err=True)


@api_keys.command("list")
@json_option
@click.pass_obj
def list_api_keys(settings: Settings, *, as_json: bool) -> None:
    """List the keys, the oldest first."""
    with Queues(settings) as queues:
        keys = ApiKeys(queues.client, settings.namespace).list()
    if as_json:
        print_json([_as_json(key) for key in keys])
        return
    rows = (
        (
            key.id,
            key.name,
            " ".join(key.scopes),
            " ".join(key.circles) or _ANY,
            " ".join(key.callers) or _ANY,
            key.rate,
            _time(key),
        )
        for key in keys
    )
    print_table(rows, "id", "name", "scopes", "circles", "callers", "rate", "created", empty="No keys.")


@api_keys.command("delete")
@click.argument("key_id", metavar="ID")
@click.pass_obj
def delete_api_key(settings: Settings, key_id: str) -> None:
    """Delete a key; within 5 s, no server accepts it."""
    with Queues(settings) as queues:
        keys = ApiKeys(queues.client, settings.namespace)
        label = _label(keys, key_id)
        if not keys.delete(key_id):
            echo(f"There is no API key {key_id!a}: `rhai-tasks api-keys list` shows the ids.", err=True)
            sys.exit(NOT_FOUND)
        queues.note("", f"delete {label}")


def _label(keys: ApiKeys, key_id: str) -> str:
    """Return the name of a key in the log; of one that cannot be read, its id."""
    return next((key.label for key in keys.list() if key.id == key_id), f"API key {key_id}")


def _time(key: ApiKey) -> str:
    return datetime.fromtimestamp(key.created, UTC).isoformat(timespec="seconds")


def _as_json(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": key.scopes,
        "circles": key.circles,
        "callers": key.callers,
        "rate": key.rate,
        Field.CREATED_AT: _time(key),
    }
