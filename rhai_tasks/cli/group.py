"""The group of all commands, and the options and arguments that several of them have.

A command is a function that is added to `main`. An error that it raises ends it with one line and an exit status.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import click
import redis

from rhai_tasks.client import Client
from rhai_tasks.connection.outage import to_our_error
from rhai_tasks.errors import (
    ConfigurationError,
    RhaiTasksError,
    ScriptError,
    ScriptNotFound,
    ServerUnavailable,
    TaskCancelled,
    TaskNotFound,
    TaskTimeout,
)
from rhai_tasks.options import (
    CIRCLE_OPTION,
    CIRCLE_VARIABLES,
    ENVIRONMENT_PREFIX,
    Seconds,
    hide_passwords,
    server_options,
    settings_from,
    version_option,
)
from rhai_tasks.protocol import check_circle
from rhai_tasks.settings import Settings
from rhai_tasks.streams import open_standard_streams
from rhai_tasks.terminal import Failure, echo, shown

FAILED, WRONG, NOT_FOUND, TIMED_OUT, UNAVAILABLE = 1, 2, 3, 4, 5
INTERRUPTED = 130  # as a shell reports a command that Ctrl-C has ended
_STATUS = {
    ScriptError: FAILED,
    TaskCancelled: FAILED,
    TaskNotFound: NOT_FOUND,
    ScriptNotFound: NOT_FOUND,
    TaskTimeout: TIMED_OUT,
    ServerUnavailable: UNAVAILABLE,
    ConfigurationError: WRONG,
}
_EPILOG = (
    "Exit status: 0 done; 1 a task failed or was cancelled, or doctor found something; 2 wrong use; 3 no such task; "
    "4 not ended in time; 5 the server does not answer; 130 interrupted by Ctrl-C."
)
Command = TypeVar("Command", bound=Callable[..., Any])


def _safe(error: click.UsageError) -> click.UsageError:
    """Make the values in a message of click's safe for a terminal, and say where an option of the group belongs."""
    text = error.format_message()
    if isinstance(error, click.NoSuchOption) and error.ctx and error.ctx.parent:
        own = {name for option in main.params for name in option.opts}
        if error.option_name in own:
            program, command = error.ctx.find_root().info_name, error.ctx.info_name
            text = f"{error.option_name} stands before the command: {program} {error.option_name} ... {command}"
    error.format_message = lambda: shown(text, err=True)  # type: ignore[method-assign]  # it is of one of many classes
    return error


class _Commands(click.Group):
    """Ends a command that raises an error with one line and an exit status."""

    def main(self, *args: Any, **extra: Any) -> Any:
        open_standard_streams()  # before click reads the arguments, which may open files
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*args, **options)
        except click.UsageError as error:
            raise _safe(error) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            raise _safe(error) from None
        except KeyboardInterrupt:
            echo(err=True)  # behind the terminal's ^C
            raise click.exceptions.Exit(INTERRUPTED) from None
        except (RhaiTasksError, redis.RedisError) as error:
            own = to_our_error(error, ctx.params["redis_url"]) if isinstance(error, redis.RedisError) else error
            raise Failure(str(own), status_of(own)) from error


def status_of(error: RhaiTasksError) -> int:
    """Return the exit status of a command that ends with this error."""
    if isinstance(error.__cause__, ServerUnavailable):  # a wait that the server cut short
        return UNAVAILABLE
    return next((code for kind, code in _STATUS.items() if isinstance(error, kind)), FAILED)


@click.group(
    cls=_Commands,
    epilog=_EPILOG,
    context_settings={
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "max_content_width": 110,
        "help_option_names": ["-h", "--help"],
    },
)
@server_options
@version_option
@click.pass_context
def main(context: click.Context, /, **options: Any) -> None:
    """Submit Rhai scripts, follow tasks, inspect and repair queues."""
    context.obj = settings_from(options)
    hide_passwords(context.obj)


# --- options and arguments of several commands

yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
timeout_option = click.option(
    "--timeout", type=Seconds(), metavar="SECONDS", help="Longest wait; by default without end."
)
task_ids_argument = click.argument("task_ids", nargs=-1, required=True, metavar="TASK_ID...")


def circle_option(*, required: bool) -> Callable[[Command], Command]:
    """Make the option `--circle`; without `required`, `None` stands for all circles."""
    return click.option(
        *CIRCLE_OPTION,
        "circle",
        envvar=CIRCLE_VARIABLES,
        show_envvar=True,
        required=required,
        callback=lambda _, __, circle: None if circle is None else check_circle(circle, "--circle"),
        metavar="KEY",
        help="Public key of the circle." if required else "Only this circle; by default all.",
    )


def make_client(settings: Settings, **options: Any) -> Client:
    """Make a client of the settings; `options` are further arguments of `Client`."""
    return Client(
        settings.redis_url,
        dialect=settings.dialect,
        prefixes=settings.prefixes,
        namespace=settings.namespace,
        retry_timeout=5.0,
        **options,
    )
