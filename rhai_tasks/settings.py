"""The settings of workers and bridges, with their defaults and bounds.

Durations are in seconds, sizes in bytes.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from .connection.urls import check_broker_url, check_server_url
from .engine import Limits
from .engine.limits import MIB, TIB
from .errors import ConfigurationError
from .log import LogFormat
from .protocol import Dialect, DialectName, Prefixes, check_names, dialect_named

ErrorFormat = Literal["display", "debug"]
Order = Literal["newest", "oldest"]
Signatures = Literal["off", "warn", "require"]

LONGEST_SECONDS = 10 * 366 * 86_400
"""Ten years. A longer time is a mistake; the system's clocks and the server's numbers can hold this one."""

SHORTEST_SECONDS = 0.001
"""A millisecond: the server counts in these."""


class Bounds(NamedTuple):
    """The bounds of a setting that is a number."""

    low: float
    high: float
    whole: bool = True
    or_zero: bool = False  # 0 is allowed beside them, and switches the setting off
    unit: int = 1  # in which the option counts

    def check(self, name: str, value: object) -> None:
        """Check a value.

        Raises:
            ConfigurationError: The value is out of bounds, or no such number; the text begins with `name`.
        """
        is_number = isinstance(value, int if self.whole else int | float) and not isinstance(value, bool)
        if is_number and ((self.or_zero and value == 0) or self.low <= value <= self.high):  # type: ignore[operator]
            return  # and nan is none of them
        shown = f"{value / self.unit:g}" if is_number and self.unit > 1 else _brief(value)  # type: ignore[operator]
        what = "a whole number" if self.whole else "a number of seconds"
        zero = "0, or " if self.or_zero else ""
        low, high = self.in_units()
        raise ConfigurationError(f"{name} {shown}: expected {zero}{what} from {low:,g} to {high:,}")

    def in_units(self) -> tuple[float, float]:
        """Return the lowest and the highest value in the option's unit."""
        return (self.low, self.high) if self.unit == 1 else (self.low // self.unit, self.high // self.unit)


BOUNDS = {
    "processes": Bounds(1, 1000),  # more than a machine has cores
    "threads": Bounds(1, 1000),  # of a process; each reserves 294 MiB of address space with the default limits
    "buffer": Bounds(1, 1_000_000),  # one Lua script moves that many, and the server does nothing else meanwhile
    "shutdown_timeout": Bounds(0, LONGEST_SECONDS, whole=False),
    # An idle process has 13 MiB; a limit below that would kill it.
    "memory_limit": Bounds(40 * MIB, 1024 * TIB, or_zero=True, unit=MIB),
    "max_deliveries": Bounds(1, 1_000_000),
    "reply_expiry": Bounds(SHORTEST_SECONDS, LONGEST_SECONDS, whole=False, or_zero=True),
    "expire_finished": Bounds(SHORTEST_SECONDS, LONGEST_SECONDS, whole=False, or_zero=True),
    "signature_age": Bounds(1, 86_400, whole=False),  # the server remembers each signature that long
}
"""Bounds of the numbers in `Settings`, wide enough for any use: a value beyond is a mistake that would fail later."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How workers and bridges run.

    The defaults are the original worker's, except for its missing limits of time and memory (docs/protocol.md,
    "Different from the original").

    Args:
        redis_url: Server of the native lists and of dramatiq.
        broker_url: RabbitMQ server that carries messages; `None`: Redis carries them.
        dialect: Protocol of the dispatchers: which names fields and statuses have.
        prefixes: Prefixes of the native keys. Those that are the defaults become the dialect's.
        namespace: Prefix of the dramatiq keys. No native key begins like it, so that scans tell them apart.
        processes: Worker processes.
        threads: Threads of a worker process, each of which runs a script at a time.
        order: Which task of a native list is next: the `newest`, as with the original worker, or the `oldest`.
        fair: The bridge sorts tasks by their callers, who take turns by the worker-seconds that they use. The order is
            then `oldest`.
        buffer: Messages that may wait in dramatiq's queue; further tasks stay in the native list.
        shutdown_timeout: Seconds for which running scripts may continue after SIGTERM.
        limits: Limits of each script.
        memory_limit: Bytes of a worker process, above which the supervisor kills it; 0: no limit.
        max_deliveries: Deaths of worker processes after which the task that ran ends as an error.
        reply_lists: Also push each result to the task's own reply list, `rhai_reply:<task_id>`.
        reply_expiry: Seconds after which such a list expires; 0: never. A list that the task names never expires.
        expire_finished: Seconds after its end at which a task's details expire; 0 keeps them.
        error_format: How tasks store a script's error: as Rust's `{}` (`display`) or `{:?}` (`debug`) formats it.
        delete_finished: Delete a task's details once it has ended and replied, as some dispatchers expect.
        engine: `package.module:factory` that returns the `Engine` to use.
        log_format: `text` or `json`.
        metrics_address: `HOST:PORT` at which a tree of processes serves health and metrics; `None`: nowhere.
        traces: Trace tasks with OpenTelemetry.
        signatures: What happens with a task without a valid signature of its caller: `off`: nothing is checked; `warn`:
            it runs, and is logged; `require`: it ends as an error.
        signature_age: Seconds after its `signedAt` in which a task has to begin.
        policy: File that says which callers may run which scripts; `None`: all may.

    Raises:
        ConfigurationError: A value cannot be used; the text names the option that sets it.
    """

    redis_url: str = field(default="redis://127.0.0.1:6379/0", repr=False)  # may hold a password, as the next
    broker_url: str | None = field(default=None, repr=False)
    dialect: DialectName = "rhai"
    prefixes: Prefixes = field(default_factory=Prefixes)
    namespace: str = "rhai_dramatiq"
    processes: int = 1
    threads: int = 8
    order: Order = "newest"
    fair: bool = False
    buffer: int = 256
    shutdown_timeout: float = 30.0
    limits: Limits = field(default_factory=lambda: Limits(timeout=3600.0))
    memory_limit: int = 0
    max_deliveries: int = 3
    reply_lists: bool = False
    reply_expiry: float = 3600.0
    expire_finished: float = 0.0
    error_format: ErrorFormat = "display"
    delete_finished: bool = False
    engine: str | None = None
    log_format: LogFormat = "text"
    metrics_address: str | None = None
    traces: bool = False
    signatures: Signatures = "off"
    signature_age: float = 300.0
    policy: Path | None = None

    def __post_init__(self) -> None:
        check_server_url(self.redis_url)
        if self.broker_url is not None:
            check_broker_url(self.broker_url)
        object.__setattr__(self, "prefixes", dialect_named(self.dialect).complete(self.prefixes))
        check_names(self.prefixes, self.namespace)
        for name, bounds in BOUNDS.items():
            bounds.check(option_of(name), getattr(self, name))
        if not isinstance(self.limits, Limits):
            raise ConfigurationError(f"limits {_brief(self.limits)}: expected rhai_tasks.Limits")
        timeout = self.limits.timeout
        if timeout is not None:
            Bounds(SHORTEST_SECONDS, LONGEST_SECONDS, whole=False).check("--task-timeout", timeout)
        words_of = {"order": Order, "log_format": LogFormat, "error_format": ErrorFormat, "signatures": Signatures}
        for name, words in ((name, get_args(type_)) for name, type_ in words_of.items()):
            if (value := getattr(self, name)) not in words:
                raise ConfigurationError(f"{option_of(name)} {_brief(value)}: expected one of {', '.join(words)}")
        for name in ("fair", "reply_lists", "delete_finished", "traces"):
            if not isinstance(value := getattr(self, name), bool):
                raise ConfigurationError(f"{option_of(name)} {_brief(value)}: expected True or False")
        if self.engine is not None and not _is_engine(self.engine):
            raise ConfigurationError(f"--engine {_brief(self.engine)}: expected module:function")
        if self.policy is not None and not isinstance(self.policy, Path):
            raise ConfigurationError(f"--policy {_brief(self.policy)}: expected a pathlib.Path")
        if self.metrics_address is not None:
            read_address("--metrics-address", self.metrics_address)
        if self.fair:
            self._take_turns()

    def _take_turns(self) -> None:
        if self.broker_url is not None:
            raise ConfigurationError(
                "--fair with --broker-url: callers cannot take turns through RabbitMQ; give one of them"
            )
        object.__setattr__(self, "order", "oldest")  # within a line, and when tasks are given back

    @property
    def table(self) -> Dialect:
        """The table of the dialect."""
        return dialect_named(self.dialect)


def option_of(name: str) -> str:
    """Return the name of the option that sets a field."""
    return f"--{name.replace('_', '-')}"


def read_address(option: str, address: object) -> tuple[str, int]:
    """Parse `HOST:PORT`, `[IPv6]:PORT` or `PORT` into host and port; `PORT` alone is one of 127.0.0.1.

    Raises:
        ConfigurationError: `address` is none of these; the text begins with `option`.
    """
    if isinstance(address, str):
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        is_port = port.isascii() and port.isdigit() and len(port) < 6 and int(port) < 65536
        if is_port and host.isprintable() and " " not in host:
            return host or "127.0.0.1", int(port)
    raise ConfigurationError(f"{option} {_brief(address)}: expected HOST:PORT, with a port from 0 to 65535")


def _is_engine(text: object) -> bool:
    if not isinstance(text, str):
        return False
    module, colon, function = text.partition(":")
    return bool(colon) and function.isidentifier() and all(part.isidentifier() for part in module.split("."))


def _brief(value: object) -> str:
    """Quote a value for a message: on one line, and cut to 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
