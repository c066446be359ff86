"""Options that give a script its arguments."""

import json
from collections.abc import Callable
from typing import Any, NoReturn

import click

from rhai_tasks.options import utf8


def args_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--arg` and `--args` to a command; `read_args` reads their values, `arg` and `args`."""
    for option in (
        click.option("--args", callback=utf8, metavar="JSON", help="ARGS in the script: a JSON object."),
        click.option(
            "--arg",
            multiple=True,
            metavar="NAME=VALUE",
            help="A value in ARGS: JSON, else text. May be given again.",
        ),
    ):
        command = option(command)
    return command


def read_args(arg: tuple[str, ...], args: str | None) -> dict[str, Any] | None:
    """Return the arguments of both options; those of `--arg` replace others. `None`: there are none.

    Raises:
        click.UsageError: `--args` is not a JSON object, or `--arg` has no name.
    """
    if args is None and not arg:
        return None
    try:
        read: Any = {} if args is None else json.loads(args, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise click.UsageError(f"--args is not JSON: {error}.") from error
    if not isinstance(read, dict):
        raise click.UsageError('--args is not a JSON object: expected one such as {"n": 3}.')
    for pair in arg:
        name, sign, text = pair.partition("=")
        if not sign or not name:
            raise click.UsageError(f"--arg {pair!r}: expected NAME=VALUE.")
        read[name] = _value(text)
    return read


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
