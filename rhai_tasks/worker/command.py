"""Workers under dramatiq's own command: `dramatiq rhai_tasks.worker:setup`."""

import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import cast

import dramatiq
import redis
from dramatiq import Middleware

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.factory import load_engine
from rhai_tasks.log import capture_stderr, format_present_handlers
from rhai_tasks.observe.reports import Reporter, Reports
from rhai_tasks.observe.systemd import Notifier
from rhai_tasks.options import log_format_of, settings_from_environment
from rhai_tasks.policy import read_policy
from rhai_tasks.protocol import QueueKeys, circle_of
from rhai_tasks.queue.broker import TaskBroker

from .actor import declare_actor
from .make import make_broker

logger = logging.getLogger(__name__)

_FOLLOW_SECONDS = 2.0  # between two reads of the registry of queues


def setup() -> None:
    """Set dramatiq's global broker: `dramatiq rhai_tasks.worker:setup` runs tasks of every bridged circle.

    Settings come from the environment (`RHAI_TASKS_REDIS_URL`...), processes, threads and queues from
    dramatiq's own options.
    """
    format_present_handlers(log_format_of(()))
    capture_stderr()
    try:
        settings = settings_from_environment()
        broker = make_broker(settings)
        declare_actor(broker, load_engine(settings)(), read_policy(settings.policy))
    except ConfigurationError as error:
        logger.error("%s", error)  # noqa: TRY400  (one line is enough: it says what to do)
        sys.exit(2)
    broker.add_middleware(_FollowBridges())
    broker.add_middleware(_FlushLog())
    if settings.metrics_address or Notifier.is_wanted():
        broker.add_middleware(_Monitoring())
    dramatiq.set_broker(broker)


class _FollowBridges(Middleware):
    """Consumes every queue that a bridge serves, now or later, of those that dramatiq's `--queues` names."""

    def after_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:
        threading.Thread(
            target=self._follow, args=(broker, worker.consumer_whitelist), name="queues", daemon=True
        ).start()

    def _follow(self, broker: TaskBroker, chosen: Collection[str] | None) -> None:
        read, refused = "read of the queues' names", set[str]()
        broker.readiness.expect(read)
        while not broker.context.draining.is_set():
            try:
                queues = cast("set[bytes]", broker.client.smembers(QueueKeys.registry(broker.namespace)))
                for queue in sorted(name.decode() for name in queues):
                    if queue in broker.queues or (chosen and queue not in chosen):
                        continue
                    try:
                        broker.declare_queue(queue)
                    except ConfigurationError as error:
                        if queue not in refused:
                            logger.error("%s", error)  # noqa: TRY400  (one line is enough: it says what to do)
                            refused.add(queue)
                    else:
                        logger.info("Following circle %s", circle_of(queue))
                broker.readiness.note(read)
            except redis.RedisError as error:
                broker.context.outage.failed(error)
            broker.context.draining.wait(_FOLLOW_SECONDS)


class _FlushLog(Middleware):
    """Writes the last lines before dramatiq closes the pipe to its main process."""

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        for handler in logging.getLogger().handlers:
            handler.flush()


class _Monitoring(Middleware):
    """Reports on each worker process, and lets dramatiq's master fork a monitor that shows the reports."""

    @property
    def forks(self) -> list[Callable[[], int]]:
        return [monitor]

    def before_worker_boot(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        assert isinstance(broker, TaskBroker)  # noqa: S101  (`setup` adds this to no other)
        name = f"worker {os.getpid()}"
        self._reporter = Reporter(Reports.of_siblings(), name, broker.recorder)
        self._reporter.start()

    def after_worker_shutdown(self, broker: dramatiq.Broker, worker: dramatiq.Worker) -> None:  # noqa: ARG002
        self._reporter.stop()


def monitor() -> int:
    """Show health and metrics of the worker processes of the `dramatiq` command; runs in a fork of its master."""
    settings = settings_from_environment()
    format_present_handlers(settings.log_format)
    capture_stderr()
    reports = Reports.of_siblings()
    try:
        if settings.metrics_address:
            from rhai_tasks.observe.monitor import listen, serve  # noqa: PLC0415  (only if it is asked for)

            serve(listen(settings.metrics_address), reports)
        notifier = Notifier(reports, main=os.getppid()) if Notifier.is_wanted() else None
        while True:  # until dramatiq's handler of SIGTERM exits
            if notifier:
                notifier.tell()
            time.sleep(notifier.pause if notifier else 1.0)
    finally:
        reports.remove()
