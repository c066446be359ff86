"""Options that commands share; each is also an environment variable, `RHAI_TASKS_...`."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from setproctitle import setproctitle

from .connection import redact
from .engine import MIB, Engine, Limits
from .errors import ConfigurationError
from .protocol import Prefixes
from .settings import Settings

ENVIRONMENT_PREFIX = "RHAI_TASKS"

_DEFAULT = Settings()
_LIMITS = _DEFAULT.limits
Command = TypeVar("Command", bound=Callable[..., Any])


def _together(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _option(*names: str, **attributes: Any) -> Callable[[Any], Any]:
    return click.option(*names, show_default=True, show_envvar=True, **attributes)


server_options = _together(
    _option(
        "--redis-url",
        default=_DEFAULT.redis_url,
        metavar="URL",
        help="Server of the native lists and of dramatiq: a redis, rediss, unix or redis+sentinel URL.",
    ),
    _option("--namespace", default=_DEFAULT.namespace, help="Prefix of the dramatiq keys."),
    _option("--queue-prefix", default=_DEFAULT.prefixes.queue, help="Native lists: this and the circle."),
    _option("--details-prefix", default=_DEFAULT.prefixes.details, help="Details hashes: this and the task id."),
    _option("--reply-prefix", default=_DEFAULT.prefixes.reply, help="Reply lists: this and the task id."),
)

broker_options = _together(
    _option(
        "--broker-url",
        metavar="URL",
        help="RabbitMQ (amqp://, amqps://), through which messages then travel; the same for bridges and workers.",
    ),
)

bridge_options = _together(
    _option(
        "--buffer",
        default=_DEFAULT.buffer,
        type=click.IntRange(1),
        help="Messages that may wait in dramatiq; the rest of the backlog stays in the native list.",
    ),
)

watch_options = _together(
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
        type=click.FloatRange(0),
        metavar="SECONDS",
        help="How long running scripts may go on after SIGTERM.",
    ),
    _option(
        "--task-timeout",
        default=_LIMITS.timeout,
        type=click.FloatRange(0),
        metavar="SECONDS",
        help="Longest run of one script; 0: no bound.",
    ),
    _option(
        "--max-operations",
        default=_LIMITS.max_operations,
        type=click.IntRange(0),
        help="Engine operations of one script; 0: no bound, as the original.",
    ),
    _option(
        "--max-memory",
        default=_LIMITS.max_memory // MIB,
        type=click.IntRange(0),
        metavar="MIB",
        help="Memory of one script; 0: no bound.",
    ),
    _option(
        "--max-call-levels",
        default=_LIMITS.max_call_levels,
        type=click.IntRange(1, 1000),
        help="Nested calls of script functions.",
    ),
    _option(
        "--max-expr-depth",
        default=_LIMITS.max_expr_depth,
        type=click.IntRange(1, 1000),
        help="Nesting of expressions; half of it in functions.",
    ),
    _option(
        "--max-deliveries",
        default=_DEFAULT.max_deliveries,
        type=click.IntRange(1),
        help="A task ends as an error after its worker process died so often while it ran.",
    ),
    _option(
        "--reply-lists",
        is_flag=True,
        help="Also push each result to the task's own reply list, named by the reply prefix and its id.",
    ),
    _option(
        "--reply-expiry",
        default=_DEFAULT.reply_expiry,
        type=click.FloatRange(0),
        metavar="SECONDS",
        help="After which those lists expire; 0: never.",
    ),
    _option(
        "--expire-finished",
        default=_DEFAULT.expire_finished,
        type=click.FloatRange(0),
        metavar="SECONDS",
        help="Delete a task's details so long after its end, unless its field expireFinished says else; 0: keep them.",
    ),
    _option(
        "--error-format",
        default=_DEFAULT.error_format,
        type=click.Choice(["display", "debug"]),
        help="debug stores Rust's {:?} of a script's error instead of its text; some dispatchers expect that.",
    ),
    _option("--traces", is_flag=True, help="Trace tasks with OpenTelemetry, in the trace that `traceparent` names."),
    _option("--delete-finished", is_flag=True, help="Delete a task's details once it has ended and replied."),
    _option(
        "--engine",
        metavar="MODULE:FACTORY",
        help="Function that returns the rhai_tasks.Engine to use; its limits hold, and --task-timeout if it has none.",
    ),
)


def limits_from(**bounds: Any) -> Limits:
    """Make limits of what options say.

    Raises:
        click.UsageError: One is out of its range.
    """
    try:
        return Limits(**bounds)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def settings_from(options: dict[str, Any]) -> Settings:
    """Make settings of the options above, as click hands them over; absent ones have their defaults."""
    given = dict(options)
    prefixes = Prefixes(
        **{name: given.pop(f"{name}_prefix") for name in ("queue", "details", "reply") if f"{name}_prefix" in given}
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
    """Read the environment variables of all options above.

    Raises:
        ConfigurationError: One has a value that its option does not take.
    """

    @click.command(context_settings={"auto_envvar_prefix": ENVIRONMENT_PREFIX})
    @server_options
    @broker_options
    @run_options
    @watch_options
    def environment(**options: Any) -> Settings:
        return settings_from(options)

    try:
        settings = environment.main([], standalone_mode=False)
    except click.ClickException as error:
        raise ConfigurationError(error.format_message()) from error
    assert isinstance(settings, Settings)  # noqa: S101  (what the function above returns)
    return settings


def hide_passwords(settings: Settings) -> None:
    """Blank them in what `ps` shows of this process: everyone on the machine can read that."""
    title = " ".join(sys.orig_argv)  # not `getproctitle`, which fails where an argument is no UTF-8
    for url in filter(None, (settings.redis_url, settings.broker_url)):
        title = title.replace(url, redact(url))
    setproctitle(title.encode(errors="replace").decode())


def load_engine(settings: Settings) -> Callable[[], Engine]:
    """Find the engine's factory; calling it is left to the process that runs scripts.

    Raises:
        ConfigurationError: There is no such module or function.
    """
    if settings.engine is None:
        return lambda: Engine(limits=settings.limits)
    module_name, _, name = settings.engine.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` and the dramatiq command have it
    try:
        factory = getattr(importlib.import_module(module_name), name)
    except (ImportError, ValueError, AttributeError) as error:
        raise ConfigurationError(f"--engine {settings.engine!r}, wanted as module:function: {error}") from error

    def make() -> Engine:
        try:
            engine = factory()
        except Exception as error:  # it is the operator's code, and may raise anything
            raise ConfigurationError(f"--engine {settings.engine!r} failed: {type(error).__name__}: {error}") from error
        if not isinstance(engine, Engine):
            raise ConfigurationError(f"--engine {settings.engine!r} returned {type(engine).__name__}, not an Engine")
        return engine

    return make
