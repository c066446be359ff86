"""The engine that every contender runs scripts in: the same limits, and a host function that blocks as I/O does."""

import time

from rhai_tasks.engine import Engine, Limits

CONTEXT = "02bench"
CALLER = "03caller"


def make_engine() -> Engine:
    """Make an engine with the limits of a drop-in worker and `wait(ms)`."""
    engine = Engine(limits=Limits(timeout=3600.0))

    @engine.function
    def wait(ms: int) -> None:
        """Block, as a call of a slow service does; Python lets its other threads run meanwhile."""
        time.sleep(ms / 1000)

    return engine


_engine = make_engine()


def run(script: str) -> str:
    """Run a script as a task that came with it."""
    return _engine.run(script, constants={"CONTEXT_ID": CONTEXT, "CALLER_ID": CALLER})
