"""Workers: dramatiq's `Worker` set up to run tasks, in our own processes or under dramatiq's command."""

import logging
import threading
from typing import cast

import dramatiq
import redis
from dramatiq import Middleware

from .actor import declare_actor
from .broker import TaskBroker
from .engine import Engine
from .options import load_engine, settings_from_environment
from .protocol import QueueKeys, circle_of
from .settings import Settings

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 2.0  # between two looks for queues of new circles


def make_worker(
    settings: Settings, engine: Engine, *, broker_id: str | None = None
) -> tuple[TaskBroker, dramatiq.Worker]:
    """Set up a worker, not started yet; it consumes the circles that `TaskBroker.declare_circle` names."""
    broker = TaskBroker(settings, broker_id=broker_id)
    declare_actor(broker, engine)
    return broker, dramatiq.Worker(broker, worker_threads=settings.threads)


def setup() -> None:
    """Set dramatiq's global broker: `dramatiq rhai_tasks.worker:setup` runs tasks of every bridged circle.

    Settings come from the environment (`RHAI_TASKS_REDIS_URL`...), processes, threads and queues from
    dramatiq's own options.
    """
    settings = settings_from_environment()
    broker = TaskBroker(settings)
    declare_actor(broker, load_engine(settings)())
    broker.add_middleware(_FollowBridges())
    dramatiq.set_broker(broker)


class _FollowBridges(Middleware):
    """Consumes every queue that a bridge serves, also those that come later."""

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        threading.Thread(target=self._follow, args=(broker,), name="queues", daemon=True).start()

    def _follow(self, broker: TaskBroker) -> None:
        while not broker.draining.is_set():
            try:
                queues = cast("set[bytes]", broker.client.smembers(QueueKeys.registry(broker.namespace)))
                for queue in sorted(name.decode() for name in queues):
                    if queue not in broker.queues:
                        logger.info("Following circle %s", circle_of(queue))
                        broker.declare_queue(queue)
            except redis.RedisError as error:
                broker.outage.begin(error)
            broker.draining.wait(_FOLLOW_SECONDS)
