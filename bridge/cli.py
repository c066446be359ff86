"""The commands `rhai-worker` and `rhai-bridge`: arguments in, exit status out."""

import os
import sys
from typing import Any

import click

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.log import configure_logging
from rhai_tasks.options import (
    ENVIRONMENT_PREFIX,
    bridge_options,
    broker_options,
    hide_passwords,
    load_engine,
    run_options,
    server_options,
    settings_from,
    watch_options,
)
from rhai_tasks.settings import Settings

from .supervisor import bridge_circles, supervise

_CONTEXT = {"auto_envvar_prefix": ENVIRONMENT_PREFIX, "max_content_width": 110}
_EPILOG = "RUST_LOG sets what is logged to stderr: error, warn, info (default), debug, trace, off, and target=level."


class _Failure(click.ClickException):
    """Bad input: one line, and the exit status that also wrong options have."""

    exit_code = 2


@click.command(context_settings=_CONTEXT, epilog=_EPILOG)
@click.option("--circle-public-key", required=True, show_envvar=True, metavar="KEY", help="Whose tasks to run.")
@server_options
@click.option(
    "--processes",
    default=Settings().processes,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1),
    help="Worker processes.",
)
@click.option(
    "--threads",
    default=Settings().threads,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(1),
    help="Scripts that one process runs at a time.",
)
@click.option(
    "--memory-limit",
    default=Settings().memory_limit,
    show_default=True,
    show_envvar=True,
    type=click.IntRange(0),
    metavar="MIB",
    help=(
        "Memory of one worker process, scripts and host functions together (Linux). One that holds more is killed and "
        "started again; the task under which that happens again and again ends as an error. 0: no bound."
    ),
)
@broker_options
@bridge_options
@run_options
@watch_options
@click.version_option(package_name="rhai-tasks")
def worker(circle_public_key: str, **options: Any) -> None:
    """Run one circle's tasks until told to stop.

    A bridge process takes task ids off the native list and hands them to worker processes through dramatiq.
    SIGTERM and SIGINT stop: running scripts finish, the rest goes back to the native list.
    """
    settings = settings_from(options)
    configure_logging(os.environ.get("RUST_LOG"), settings.log_format)
    hide_passwords(settings)
    try:
        sys.exit(supervise(settings, circle_public_key, load_engine(settings)))
    except ConfigurationError as error:
        raise _Failure(str(error)) from error


@click.command(context_settings=_CONTEXT, epilog=_EPILOG)
@click.option(
    "--circle",
    "circles",
    multiple=True,
    show_envvar=True,
    metavar="KEY",
    envvar="RHAI_TASKS_CIRCLES",
    help="Whose tasks to bridge; repeat it. In the variable: separated by blanks.",
)
@click.option("--all-circles", is_flag=True, show_envvar=True, help="Every circle, as its native list appears.")
@server_options
@broker_options
@bridge_options
@watch_options
@click.version_option(package_name="rhai-tasks")
def bridge(circles: tuple[str, ...], *, all_circles: bool, **options: Any) -> None:
    """Hand circles' tasks to dramatiq; `dramatiq rhai_tasks.worker:setup` runs them, here or elsewhere."""
    if not circles and not all_circles:
        raise click.UsageError("Name a --circle, or give --all-circles.")
    settings = settings_from(options)
    configure_logging(os.environ.get("RUST_LOG"), settings.log_format)
    hide_passwords(settings)
    try:
        sys.exit(bridge_circles(settings, circles, follow_all=all_circles))
    except ConfigurationError as error:
        raise _Failure(str(error)) from error
