"""Makes a worker, without starting it."""

import threading
from importlib.util import find_spec

import dramatiq
from dramatiq.threading import is_gevent_active

from rhai_tasks.connection.server import await_server
from rhai_tasks.engine import Engine
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.policy import PolicyFile, read_policy
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.settings import Settings

from .actor import declare_actor


def make_broker(settings: Settings, *, broker_id: str | None = None) -> TaskBroker:
    """Make the broker that the settings ask for.

    Raises:
        ConfigurationError: A URL cannot be read, a package is missing, or threads are gevent's.
    """
    if is_gevent_active():  # type: ignore[no-untyped-call]  # dramatiq's is not annotated
        raise ConfigurationError(
            "gevent has replaced this process's threads: while a script runs, nothing would renew its lease. "
            "Start it without: dramatiq rhai_tasks.worker:setup, or rhai-worker"
        )
    if settings.broker_url is None:
        return TaskBroker(settings, broker_id=broker_id)
    need_pika()
    from rhai_tasks.queue.rabbitmq import RabbitBroker  # noqa: PLC0415  (needs pika)

    return RabbitBroker(settings, broker_id=broker_id)


def await_servers(settings: Settings, give_up: threading.Event) -> None:
    """Wait until the servers accept connections, however long they take to come up.

    Raises:
        ConfigurationError: Waiting will not help.
        redis.RedisError, ServerUnavailable: `give_up` was set meanwhile.
    """
    await_server(settings.redis_url, give_up)
    if settings.broker_url is not None:
        need_pika()
        from rhai_tasks.queue.rabbitmq import await_rabbitmq  # noqa: PLC0415  (needs pika)

        await_rabbitmq(settings.broker_url, give_up)


def need_pika() -> None:
    """Refuse to start if the package for RabbitMQ is missing.

    Raises:
        ConfigurationError: It is.
    """
    if find_spec("pika") is None:
        raise ConfigurationError("--broker-url needs pika, which is not installed: pip install 'rhai-tasks[rabbitmq]'")


def make_worker(
    settings: Settings, engine: Engine, *, broker_id: str | None = None, policy: PolicyFile | None = None
) -> tuple[TaskBroker, dramatiq.Worker]:
    """Set up a worker, not started yet; it consumes the circles that `TaskBroker.declare_circle` names.

    `policy`: by default, what the file of the settings says now.
    """
    broker = make_broker(settings, broker_id=broker_id)
    declare_actor(broker, engine, policy or read_policy(settings.policy))
    return broker, dramatiq.Worker(broker, worker_threads=settings.threads)
