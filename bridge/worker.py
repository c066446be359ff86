"""The library's interface: the functions that the original's `rhai_worker` crate offers to applications."""

from dataclasses import dataclass, field, replace

from rhai_tasks.connection.urls import check_server_url
from rhai_tasks.engine import Engine
from rhai_tasks.protocol import check_circle
from rhai_tasks.settings import Settings

from .tree.supervisor import supervise


@dataclass(frozen=True, kw_only=True)
class Args:
    """Which circle's tasks to run, and how. `redis_url` replaces `settings.redis_url`.

    Raises:
        ConfigurationError: The URL is malformed, or the circle is empty.
    """

    redis_url: str = field(repr=False)  # it may hold a password
    circle_public_key: str
    settings: Settings = field(default_factory=Settings)

    def __post_init__(self) -> None:
        check_server_url(self.redis_url)
        check_circle(self.circle_public_key)


def run_worker_loop(engine: Engine, args: Args) -> int:
    """Run one circle's tasks in this engine until SIGTERM or SIGINT; return the exit status, 0.

    Call it from the main thread, before starting threads: the bridge and the workers are forks of this process. The
    application configures logging; `rhai_tasks.log.configure_logging` configures it as the command does.

    Raises:
        ConfigurationError: The server cannot be used; the message says why.
    """
    return supervise(replace(args.settings, redis_url=args.redis_url), args.circle_public_key, lambda: engine)
