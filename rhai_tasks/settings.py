"""What an operator can set; the one place where a default value stands.

Durations are in seconds, sizes in bytes.
"""

from dataclasses import dataclass, field
from typing import Literal

from .engine import Limits
from .log import LogFormat
from .protocol import Prefixes


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How workers and bridges run. A drop-in worker with the defaults behaves as the original does."""

    redis_url: str = "redis://127.0.0.1:6379/0"
    broker_url: str | None = None  # RabbitMQ, through which messages then travel; None: dramatiq on the same server
    prefixes: Prefixes = field(default_factory=Prefixes)
    namespace: str = "rhai_dramatiq"  # of the dramatiq keys; no prefix of the native ones, so no scan confuses them
    processes: int = 1
    threads: int = 8
    buffer: int = 256  # messages that may wait in dramatiq; the rest of the backlog stays in the native list
    shutdown_timeout: float = 30.0  # how long running scripts may go on after SIGTERM
    limits: Limits = field(default_factory=lambda: Limits(timeout=3600.0))
    memory_limit: int = 0  # bytes of one worker process, beyond which its supervisor kills it; 0: none
    max_deliveries: int = 3  # a task whose process died under it so often ends as an error
    reply_lists: bool = False  # also push the result to rhai_reply:<task_id>
    reply_expiry: float = 3600.0  # of those lists; a list named by the task itself never expires
    expire_finished: float = 0.0  # seconds after its end at which a task's details go; 0 keeps them
    error_format: Literal["display", "debug"] = "display"  # Rust's `{}` or `{:?}` of the error, as tasks store it
    delete_finished: bool = False  # some dispatchers want the details gone once they have the reply
    engine: str | None = None  # "package.module:factory" that returns an Engine
    log_format: LogFormat = "text"
    metrics_address: str | None = None  # "HOST:PORT" of health and metrics of the whole tree; None: neither
    traces: bool = False  # spans of OpenTelemetry
