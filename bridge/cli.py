"""The commands `rhai-worker` and `rhai-bridge`: arguments in, exit status out."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.factory import load_engine
from rhai_tasks.log import capture_stderr, configure_logging
from rhai_tasks.options import (
    CIRCLE_OPTION,
    CIRCLE_VARIABLES,
    ENVIRONMENT_PREFIX,
    bridge_options,
    broker_options,
    hide_passwords,
    log_format_of,
    monitor_options,
    run_options,
    server_options,
    settings_from,
    version_option,
    whole_number,
)
from rhai_tasks.protocol import check_circle
from rhai_tasks.settings import Settings
from rhai_tasks.streams import open_standard_streams
from rhai_tasks.terminal import Failure

from .tree.supervisor import bridge_circles, supervise

_WRONG = 2  # exit status of bad input, also of wrong options
_CONTEXT = {
    "auto_envvar_prefix": ENVIRONMENT_PREFIX,
    "max_content_width": 110,
    "help_option_names": ["-h", "--help"],
}
_EPILOG = "RUST_LOG sets what is logged to stderr: error, warn, info (default), debug, trace, off, and target=level."


class _Command(click.Command):
    """A command that configures the log before it reads its options, so that errors in options are logged, too."""

    def main(self, args: Sequence[str] | None = None, *more: Any, **extra: Any) -> Any:
        open_standard_streams()
        arguments = sys.argv[1:] if args is None else list(args)
        configure_logging(os.environ.get("RUST_LOG"), log_format_of(arguments))
        if not sys.stderr.isatty():  # else a person reads it as it is
            capture_stderr()
        return super().main(arguments, *more, **extra)


@click.command(cls=_Command, context_settings=_CONTEXT, epilog=_EPILOG)
@click.option(
    *CIRCLE_OPTION,
    "circle",
    required=True,
    envvar=CIRCLE_VARIABLES,
    show_envvar=True,
    metavar="KEY",
    help="Public key of the circle whose tasks to run.",
)
@server_options
@click.option(
    "--processes",
    default=Settings().processes,
    show_default=True,
    show_envvar=True,
    type=whole_number("processes"),
    help="Worker processes.",
)
@click.option(
    "--threads",
    default=Settings().threads,
    show_default=True,
    show_envvar=True,
    type=whole_number("threads"),
    help="Scripts that one process runs at a time.",
)
@click.option(
    "--memory-limit",
    default=Settings().memory_limit,
    show_default=True,
    show_envvar=True,
    type=whole_number("memory_limit"),
    metavar="MIB",
    help=(
        "Memory of one worker process, scripts and host functions together (Linux). One that holds more is killed and "
        "started again; the task under which that happens again and again ends as an error. 0: no bound."
    ),
)
@click.option(
    "--burst",
    is_flag=True,
    show_envvar=True,
    help="End with status 0 once no task waits or runs, except paused ones, and no delayed task is due.",
)
@broker_options
@bridge_options
@run_options
@monitor_options
@version_option
def worker(circle: str, *, burst: bool, **options: Any) -> None:
    """Run one circle's tasks until told to stop.

    A bridge process takes task ids off the native list and hands them to worker processes through dramatiq.
    SIGTERM and SIGINT stop: running scripts finish, the rest goes back to the native list.
    """
    capture_stderr()
    try:
        check_circle(circle, "--circle")
        settings = settings_from(options)
        hide_passwords(settings)
        sys.exit(supervise(settings, circle, load_engine(settings), burst=burst))
    except ConfigurationError as error:
        raise Failure(str(error), _WRONG) from error


@click.command(cls=_Command, context_settings=_CONTEXT, epilog=_EPILOG)
@click.option(
    *CIRCLE_OPTION,
    "circles",
    multiple=True,
    show_envvar=True,
    metavar="KEY",
    envvar="RHAI_TASKS_CIRCLES",
    help="Circle to bridge; repeat it for several. In the variable: separated by blanks.",
)
@click.option("--all-circles", is_flag=True, show_envvar=True, help="Serve every circle, once its native list exists.")
@server_options
@broker_options
@bridge_options
@monitor_options
@version_option
def bridge(circles: tuple[str, ...], *, all_circles: bool, **options: Any) -> None:
    """Hand circles' tasks to dramatiq; `dramatiq rhai_tasks.worker:setup` runs them, here or elsewhere."""
    if not circles and not all_circles:
        raise click.UsageError("Name a --circle, or give --all-circles.")
    capture_stderr()
    try:
        settings = settings_from(options)
        hide_passwords(settings)
        checked = dict.fromkeys(check_circle(circle, "--circle") for circle in circles)  # each once
        sys.exit(bridge_circles(settings, checked, follow_all=all_circles))
    except ConfigurationError as error:
        raise Failure(str(error), _WRONG) from error
