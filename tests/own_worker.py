"""A worker in this process, as dramatiq runs it."""

from collections.abc import Iterator
from contextlib import contextmanager

import dramatiq

from rhai_tasks import Engine, Settings
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.worker.make import make_worker


@contextmanager
def worker_of(
    settings: Settings, engine: Engine, *middleware: dramatiq.Middleware, batches: bool = True
) -> Iterator[TaskBroker]:
    """Run a worker of the circle `c` that takes scripts for quick from the first one on.

    Args:
        settings: The worker's.
        engine: Runs the scripts.
        middleware: An application's.
        batches: Run quick tasks in batches.
    """
    broker, worker = make_worker(settings, engine)
    broker.runs_batches = batches
    for one in middleware:
        broker.add_middleware(one)
    broker.context.pace.record_runs([1e-5] * 50)
    broker.declare_circle("c")
    worker.start()
    try:
        yield broker
    finally:
        worker.stop()
