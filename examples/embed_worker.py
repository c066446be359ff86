"""An application that runs one circle's tasks in an engine of its own.

python -m examples.embed_worker redis://127.0.0.1/ 02abc
"""

import sys

from bridge import Args, run_worker_loop
from rhai_tasks import Engine
from rhai_tasks.log import configure_logging


def make_engine() -> Engine:
    """Make the engine, with a function that scripts can call."""
    engine = Engine()
    engine.register("greet", lambda name: f"Hello {name}!")
    return engine


def main(redis_url: str, circle: str) -> int:
    """Run tasks until SIGTERM or SIGINT; return the exit status."""
    configure_logging("info")
    return run_worker_loop(make_engine(), Args(redis_url=redis_url, circle_public_key=circle))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
