"""Commands for stored scripts."""

from typing import TextIO

import click

from rhai_tasks.options import TextFile
from rhai_tasks.protocol import Field
from rhai_tasks.settings import Settings
from rhai_tasks.terminal import echo

from .group import json_option, main, make_client
from .output import print_json, print_table


@main.group()
def scripts() -> None:
    """Store scripts that tasks then name."""


_reference = click.argument("reference", metavar="@NAME|sha256:HASH")


@scripts.command()
@click.argument("file", type=TextFile())
@click.option("--name", help="Name that points to the script from now on.")
@click.pass_obj
def put(settings: Settings, file: TextIO, name: str | None) -> None:
    """Store the script in FILE (- is stdin), and print its reference."""
    with make_client(settings) as client:
        try:
            echo(client.scripts.put(file.read(), name))
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error


@scripts.command(name="list")
@json_option
@click.pass_obj
def list_(settings: Settings, as_json: bool) -> None:
    """List the names, and the scripts that they point to."""
    with make_client(settings) as client:
        refs = client.scripts.list()
    if as_json:
        print_json([{"name": ref.name, Field.SCRIPT_REF: str(ref)} for ref in refs])
    else:
        print_table(((ref.name, ref) for ref in refs), "name", "script", empty="No names.")


@scripts.command()
@_reference
@click.pass_obj
def show(settings: Settings, reference: str) -> None:
    """Print the source of a script."""
    with make_client(settings) as client:
        try:
            echo(client.scripts.get(reference))
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error


@scripts.command()
@click.argument("name")
@json_option
@click.pass_obj
def history(settings: Settings, name: str, as_json: bool) -> None:
    """List the last 100 scripts of a name, the newest first."""
    with make_client(settings) as client:
        try:
            versions = client.scripts.history(name.removeprefix("@"))
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
    if as_json:
        print_json([{Field.SCRIPT_REF: str(version.ref), "since": str(version.since)} for version in versions])
    else:
        print_table(((version.since, version.ref) for version in versions), "since", "script", empty="No scripts.")


@scripts.command()
@_reference
@click.pass_obj
def delete(settings: Settings, reference: str) -> None:
    """Delete a name, or a script that no name points to."""
    with make_client(settings) as client:
        try:
            client.scripts.delete(reference)
        except ValueError as error:
            raise click.UsageError(f"{error}.") from error
