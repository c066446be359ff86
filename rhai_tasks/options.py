"""The options that commands share; each is also an environment variable, `RHAI_TASKS_...`."""

import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from math import isnan, nan
from pathlib import Path
from typing import Any, TypeVar, get_args

import click
from setproctitle import setproctitle

from .connection.urls import redact
from .engine import Limits
from .engine.limits import MIB, TIB
from .errors import ConfigurationError
from .log import LogFormat
from .protocol import DialectName, Prefixes, is_utf8
from .settings import BOUNDS, LONGEST_SECONDS, Settings, option_of

logger = logging.getLogger(__name__)

ENVIRONMENT_PREFIX = "RHAI_TASKS"

CIRCLE_OPTION = ("-c", "--circle", "--circle-public-key")
"""The spellings of the option for one circle; the last is the original worker's."""
CIRCLE_VARIABLES = [f"{ENVIRONMENT_PREFIX}_CIRCLE", f"{ENVIRONMENT_PREFIX}_CIRCLE_PUBLIC_KEY"]

_URL_OPTIONS = ("--redis-url", "--broker-url")
_DEFAULT = Settings()
_LIMITS = _DEFAULT.limits
Command = TypeVar("Command", bound=Callable[..., Any])

version_option = click.version_option(package_name="rhai-tasks", allow_from_autoenv=False)
"""Not read from a variable: deployments set `RHAI_TASKS_VERSION` for purposes of their own."""


class Seconds(click.FloatRange):
    """The type of an option that is a number of seconds, `low` at least. click's own ranges accept `nan`."""

    def __init__(self, low: float = 0) -> None:
        super().__init__(low, LONGEST_SECONDS)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a text, or a default."""
        try:
            number = float(value)
        except ValueError:
            number = nan
        if isnan(number):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return float(super().convert(value, param, ctx))


class WholeNumber(click.IntRange):
    """The type of an option that is a whole number in a range."""

    name = "whole number"  # in errors and help; click says "integer range"


def _together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def utf8(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Check that a text is UTF-8, as a callback of an option: arguments may be any bytes."""
    if text is not None and not is_utf8(text):
        raise click.BadParameter(f"{text!a} is not UTF-8.")
    return text


def secret(_context: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """Check that a token can be typed, as a callback of an option; the error does not show the token."""
    if text is not None and not (text.strip() and text.isprintable()):
        raise click.BadParameter("expected one or more printable characters.")
    return text


class TextFile(click.File):
    """The type of an option that is a file of UTF-8 to read."""

    def __init__(self) -> None:
        super().__init__(encoding="utf-8")

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Open the file."""
        return super().convert(_file_name(value), param, ctx)


class FileName(click.Path):
    """The type of an option that is the name of a file."""

    def __init__(self, *, exists: bool) -> None:
        super().__init__(exists=exists, dir_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check the name."""
        return super().convert(_file_name(value), param, ctx)


class Folder(click.Path):
    """The type of an option that is an existing folder."""

    def __init__(self) -> None:
        super().__init__(exists=True, file_okay=False, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check that the folder exists."""
        return super().convert(_file_name(value), param, ctx)


def _file_name(value: Any) -> Any:
    # A NUL raises an error that click does not expect; click's message would show other control characters as they are.
    if isinstance(value, str) and (not value or any(char < " " or char == "\x7f" for char in value)):
        raise click.BadParameter(f"{value!a} is not a file name.")
    return value


def whole_number(name: str) -> WholeNumber:
    """Make the type of an option for a field of `Settings`, with the field's bounds."""
    low, high = BOUNDS[name].in_units()
    return WholeNumber(0 if BOUNDS[name].or_zero else int(low), int(high))


def _option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, show_default=True, show_envvar=True, **attributes)


operations = WholeNumber(0, 2**63 - 1)  # the engine counts in 64 bits
mebibytes = WholeNumber(0, TIB // MIB)  # of one script

server_options = _together(
    _option(
        "--redis-url",
        default=_DEFAULT.redis_url,
        metavar="URL",
        help="Server of the native lists and of dramatiq: a redis, rediss, unix or redis+sentinel URL.",
    ),
    _option("--namespace", default=_DEFAULT.namespace, help="Prefix of the dramatiq keys."),
    _option(
        "--dialect",
        default=_DEFAULT.dialect,
        type=click.Choice(get_args(DialectName)),
        help="Protocol of the dispatchers: names of keys, fields and statuses.",
    ),
    _option("--queue-prefix", default=_DEFAULT.prefixes.queue, help="Prefix of native lists; the circle follows."),
    _option(
        "--details-prefix", default=_DEFAULT.prefixes.details, help="Prefix of details hashes; the task id follows."
    ),
    _option("--reply-prefix", default=_DEFAULT.prefixes.reply, help="Prefix of reply lists; the task id follows."),
    _option(
        "--stop-prefix",
        default=_DEFAULT.prefixes.stop,
        help="Prefix of lists of tasks to cancel; the circle follows. Empty: no such lists.",
    ),
)

broker_options = _together(
    _option(
        "--broker-url",
        metavar="URL",
        help="RabbitMQ (amqp://, amqps://), through which messages then travel; the same for bridges and workers.",
    ),
)

order_option = _option(
    "--order",
    envvar=f"{ENVIRONMENT_PREFIX}_ORDER",
    default=_DEFAULT.order,
    type=click.Choice(["newest", "oldest"]),
    help="Which task of the native list is next; the original worker takes the newest.",
)

bridge_options = _together(
    order_option,
    _option(
        "--fair",
        is_flag=True,
        help="Callers take turns, by the worker-seconds that they use; each one's oldest task is next.",
    ),
    _option(
        "--buffer",
        default=_DEFAULT.buffer,
        type=whole_number("buffer"),
        help="Messages that may wait in dramatiq; the rest of the backlog stays in the native list.",
    ),
)

monitor_options = _together(
    _option(
        "--metrics-address",
        metavar="HOST:PORT",
        help="Serve /livez, /readyz and /metrics of all processes there; a port alone is this machine's.",
    ),
    _option(
        "--log-format",
        default=_DEFAULT.log_format,
        type=click.Choice(["text", "json"]),
        help="Lines of text as the original's, or a JSON object each.",
    ),
)

run_options = _together(
    _option(
        "--shutdown-timeout",
        default=_DEFAULT.shutdown_timeout,
        type=Seconds(),
        metavar="SECONDS",
        help="How long running scripts may go on after SIGTERM.",
    ),
    _option(
        "--task-timeout",
        default=_LIMITS.timeout,
        type=Seconds(),
        metavar="SECONDS",
        help="Longest run of one script; 0: no bound.",
    ),
    _option(
        "--max-operations",
        default=_LIMITS.max_operations,
        type=operations,
        help="Engine operations of one script; 0: no bound, as the original.",
    ),
    _option(
        "--max-memory",
        default=_LIMITS.max_memory // MIB,
        type=mebibytes,
        metavar="MIB",
        help="Memory of one script; 0: no bound.",
    ),
    _option(
        "--max-call-levels",
        default=_LIMITS.max_call_levels,
        type=WholeNumber(1, 1000),
        help="Nested calls of script functions.",
    ),
    _option(
        "--max-expr-depth",
        default=_LIMITS.max_expr_depth,
        type=WholeNumber(10, 1000),  # half of it applies in functions, where `x + 1` needs 5
        help="Nesting of expressions; half of it in functions.",
    ),
    _option(
        "--max-deliveries",
        default=_DEFAULT.max_deliveries,
        type=whole_number("max_deliveries"),
        help="Deaths of worker processes after which the task that ran ends as an error.",
    ),
    _option(
        "--reply-lists",
        is_flag=True,
        help="Also push each result to the task's own reply list, named by the reply prefix and its id.",
    ),
    _option(
        "--reply-expiry",
        default=_DEFAULT.reply_expiry,
        type=Seconds(),
        metavar="SECONDS",
        help="Time until those lists expire; 0: never.",
    ),
    _option(
        "--expire-finished",
        default=_DEFAULT.expire_finished,
        type=Seconds(),
        metavar="SECONDS",
        help="Time from a task's end until its details are deleted, unless its field expireFinished differs; 0: never.",
    ),
    _option(
        "--error-format",
        default=_DEFAULT.error_format,
        type=click.Choice(["display", "debug"]),
        help="debug stores Rust's {:?} of a script's error instead of its text; some dispatchers expect that.",
    ),
    _option("--traces", is_flag=True, help="Trace tasks with OpenTelemetry, in the trace that `traceparent` names."),
    _option(
        "--signatures",
        default=_DEFAULT.signatures,
        type=click.Choice(["off", "warn", "require"]),
        help="Check that tasks are signed by their callers; require ends any other task as an error.",
    ),
    _option(
        "--signature-age",
        default=_DEFAULT.signature_age,
        type=Seconds(1),
        metavar="SECONDS",
        help="Age up to which a signed task may begin.",
    ),
    _option(
        "--policy",
        type=FileName(exists=True),
        metavar="FILE",
        help="TOML file that says which callers may run which scripts; read again at SIGHUP.",
    ),
    _option("--delete-finished", is_flag=True, help="Delete a task's details once it has ended and replied."),
    _option(
        "--engine",
        metavar="MODULE:FACTORY",
        help="Function that returns the rhai_tasks.Engine to use; its limits hold, and --task-timeout if it has none.",
    ),
)


def limits_from(*, timeout_option: str = "--task-timeout", **bounds: Any) -> Limits:
    """Make limits from the values of options.

    Raises:
        ConfigurationError: A limit is out of its range; the text names its option.
    """
    try:
        return Limits(**bounds)
    except ValueError as error:
        name = str(error).partition(" ")[0]
        option = timeout_option if name == "timeout" else option_of(name)
        raise ConfigurationError(f"{option}: {error}") from error


def settings_from(options: dict[str, Any]) -> Settings:
    """Make settings from the options above, as click passes them; an option that is absent has its default.

    Raises:
        ConfigurationError: An option has a value that cannot be used.
    """
    given = dict(options)
    prefixes = Prefixes(
        **{name: given.pop(f"{name}_prefix") for name in Prefixes.__slots__ if f"{name}_prefix" in given}
    )
    if "memory_limit" in given:
        given["memory_limit"] *= MIB
    limits = _LIMITS
    if "task_timeout" in given:
        depth = given.pop("max_expr_depth")
        limits = limits_from(
            timeout=given.pop("task_timeout") or None,
            max_operations=given.pop("max_operations"),
            max_memory=given.pop("max_memory") * MIB,
            max_call_levels=given.pop("max_call_levels"),
            max_expr_depth=depth,
            max_function_expr_depth=max(depth // 2, 1),
        )
    return Settings(prefixes=prefixes, limits=limits, **given)


def settings_from_environment() -> Settings:
    """Make settings from the environment variables of all options above.

    Raises:
        ConfigurationError: A variable has a value that its option does not accept.
    """

    @click.command(context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX}, add_help_option=False)
    @server_options
    @broker_options
    @run_options
    @monitor_options
    def environment(**options: Any) -> Settings:
        return settings_from(options)

    try:
        settings = environment.main([], standalone_mode=False)
    except click.ClickException as error:
        raise ConfigurationError(error.format_message()) from error
    assert isinstance(settings, Settings)  # noqa: S101  (what the function above returns)
    return settings


def log_format_of(arguments: Sequence[str]) -> LogFormat:
    """Read `--log-format` before all other options, so that errors about these are logged in this format."""
    given = [os.environ.get(f"{ENVIRONMENT_PREFIX}_LOG_FORMAT")]
    given += [value for name, value in pairwise(arguments) if name == "--log-format"]
    given += [text.partition("=")[2] for text in arguments if text.startswith("--log-format=")]
    return "json" if given[-1] == "json" else "text"


def hide_passwords(settings: Settings) -> None:
    """Blank passwords in this process's title, which every user of the machine can read with `ps`."""
    title = " ".join(_without_passwords(sys.orig_argv))  # `getproctitle` fails on arguments that are not UTF-8
    for url in filter(None, (settings.redis_url, settings.broker_url)):
        title = title.replace(url, redact(url))
    setproctitle(title.encode(errors="replace").decode())


def _without_passwords(arguments: Iterable[str]) -> Iterator[str]:
    """Blank passwords in all values of the URL options: the last of several counts, but the title shows all."""
    is_url = False
    for argument in arguments:
        option, separator, value = argument.partition("=")
        if is_url:
            yield redact(argument)
        elif option in _URL_OPTIONS and separator:
            yield f"{option}={redact(value)}"
        else:
            yield argument
        is_url = not is_url and argument in _URL_OPTIONS
