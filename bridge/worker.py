"""The library's face: what the original's `rhai_worker` crate offers to applications."""

from dataclasses import dataclass, field, replace

from rhai_tasks.engine import Engine
from rhai_tasks.settings import Settings

from .supervisor import supervise


@dataclass(frozen=True, kw_only=True)
class Args:
    """What to work on, and how. `settings.redis_url` gives way to the `redis_url` here."""

    redis_url: str
    circle_public_key: str
    settings: Settings = field(default_factory=Settings)


def run_worker_loop(engine: Engine, args: Args) -> int:
    """Run one circle's tasks in this engine until SIGTERM or SIGINT; return the exit status, 0.

    Call it from the main thread, before starting threads: the bridge and the workers are forks of this
    process. Logging is the application's; `rhai_tasks.log.configure_logging` sets up the command's.

    Raises:
        ConfigurationError: The server cannot be worked with; the message says why.
    """
    return supervise(replace(args.settings, redis_url=args.redis_url), args.circle_public_key, lambda: engine)
