"""Workers: dramatiq's `Worker` set up to run tasks, in our own processes or under dramatiq's command."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import cast

import dramatiq
import redis
from dramatiq import Middleware

from .actor import declare_actor
from .broker import TaskBroker
from .connection import await_server
from .engine import Engine
from .errors import ConfigurationError
from .log import format_present_handlers
from .notify import Notifier
from .options import load_engine, settings_from_environment
from .protocol import QueueKeys, circle_of
from .reports import Reporter, Reports
from .settings import Settings

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 2.0  # between two looks for queues of new circles


def make_broker(settings: Settings, *, broker_id: str | None = None) -> TaskBroker:
    """Make the broker that the settings ask for.

    Raises:
        ConfigurationError: A URL cannot be read, or a package is missing.
    """
    if settings.broker_url is None:
        return TaskBroker(settings, broker_id=broker_id)
    need_pika()
    from .rabbitmq import RabbitBroker  # noqa: PLC0415  (needs pika)

    return RabbitBroker(settings, broker_id=broker_id)


def await_servers(settings: Settings, give_up: threading.Event) -> None:
    """Wait until the servers can be worked with, however long they take to come up.

    Raises:
        ConfigurationError: Waiting will not help.
        redis.RedisError, ServerUnavailable: `give_up` was set meanwhile.
    """
    await_server(settings.redis_url, give_up)
    if settings.broker_url is not None:
        need_pika()
        from .rabbitmq import await_rabbitmq  # noqa: PLC0415  (needs pika)

        await_rabbitmq(settings.broker_url, give_up)


def need_pika() -> None:
    """Say so if the package for RabbitMQ is missing.

    Raises:
        ConfigurationError: It is.
    """
    if find_spec("pika") is None:
        raise ConfigurationError("--broker-url needs pika, which is not installed: pip install 'rhai-tasks[rabbitmq]'")


def make_worker(
    settings: Settings, engine: Engine, *, broker_id: str | None = None
) -> tuple[TaskBroker, dramatiq.Worker]:
    """Set up a worker, not started yet; it consumes the circles that `TaskBroker.declare_circle` names."""
    broker = make_broker(settings, broker_id=broker_id)
    declare_actor(broker, engine)
    return broker, dramatiq.Worker(broker, worker_threads=settings.threads)


def setup() -> None:
    """Set dramatiq's global broker: `dramatiq rhai_tasks.worker:setup` runs tasks of every bridged circle.

    Settings come from the environment (`RHAI_TASKS_REDIS_URL`...), processes, threads and queues from
    dramatiq's own options.
    """
    try:
        settings = settings_from_environment()
        format_present_handlers(settings.log_format)
        broker = make_broker(settings)
        declare_actor(broker, load_engine(settings)())
    except ConfigurationError as error:
        logger.error("%s", error)  # noqa: TRY400  (one line is enough: it says what to do)
        sys.exit(2)
    broker.add_middleware(_FollowBridges())
    if settings.metrics_address or Notifier.is_wanted():
        broker.add_middleware(_Watched())
    dramatiq.set_broker(broker)


class _FollowBridges(Middleware):
    """Consumes every queue that a bridge serves, also those that come later."""

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        threading.Thread(target=self._follow, args=(broker,), name="queues", daemon=True).start()

    def _follow(self, broker: TaskBroker) -> None:
        read = "read of the queues' names"
        broker.readiness.expect(read)
        while not broker.draining.is_set():
            try:
                queues = cast("set[bytes]", broker.client.smembers(QueueKeys.registry(broker.namespace)))
                for queue in sorted(name.decode() for name in queues):
                    if queue not in broker.queues:
                        logger.info("Following circle %s", circle_of(queue))
                        broker.declare_queue(queue)
                broker.readiness.note(read)
            except redis.RedisError as error:
                broker.outage.begin(error)
            broker.draining.wait(_FOLLOW_SECONDS)


class _Watched(Middleware):
    """Reports for each worker process, and has dramatiq's master fork a process that shows the reports."""

    @property
    def forks(self) -> list[Callable[[], int]]:
        return [watch]

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        assert isinstance(broker, TaskBroker)  # noqa: S101  (`setup` adds this to no other)
        name = f"worker {os.getpid()}"
        self._reporter = Reporter(Reports.of_siblings(), name, broker.readiness, broker.counts, broker.gauges)
        self._reporter.start()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._reporter.stop()


def watch() -> int:
    """Show health and metrics of the worker processes of dramatiq's command; runs in a fork of its master."""
    settings = settings_from_environment()
    format_present_handlers(settings.log_format)
    reports = Reports.of_siblings()
    try:
        if settings.metrics_address:
            from .monitor import listen, serve  # noqa: PLC0415  (only for who asks)

            serve(listen(settings.metrics_address), reports)
        notifier = Notifier(reports, main=os.getppid()) if Notifier.is_wanted() else None
        while True:  # until dramatiq's handler of SIGTERM exits
            if notifier:
                notifier.tell()
            time.sleep(notifier.pause if notifier else 1.0)
    finally:
        reports.remove()
