"""Commands for the keys that sign tasks."""

from typing import Any

import click

from rhai_tasks.options import FileName
from rhai_tasks.terminal import echo

from .group import main


@main.group()
def keys() -> None:
    """Make keys that sign tasks; see api-keys for the HTTP API."""


@keys.command("new")
@click.argument("file", type=FileName(exists=False))
@click.option("--scheme", type=click.Choice(["ed25519", "secp256k1"]), default="ed25519", show_default=True)
def make_key(file: Any, scheme: str) -> None:
    """Write a new private key to FILE, and print the public key.

    FILE must not exist. The public key is the caller's id.
    """
    from rhai_tasks.signatures import SigningKey  # noqa: PLC0415  (an extra)

    key = SigningKey.new(scheme)
    key.write(file)
    echo(key.public_key)
