"""How a worker process hears that a task was cancelled: one subscription for the whole process."""

import logging
import threading
from collections.abc import Callable

import redis

from .connection import connect_blocking
from .protocol import cancel_channel, to_text
from .settings import Settings

logger = logging.getLogger(__name__)

_QUIET_SECONDS = 10.0  # after which the subscription is tried: a connection can be dead without a word


def hear_cancels(settings: Settings, cancel: Callable[[str], object], stop: threading.Event) -> None:
    """Call `cancel` with the id of each task that is cancelled, until `stop`.

    What is told while the subscription is down is not lost: it stands in the task's details, where each
    fetch and each renewal of the lease see it.
    """
    with connect_blocking(settings.redis_url) as client:
        while not stop.is_set():
            try:
                with client.pubsub(ignore_subscribe_messages=True) as channel:
                    channel.subscribe(cancel_channel(settings.namespace))
                    _hear(channel, cancel, stop)
            except redis.exceptions.NoPermissionError as error:
                logger.warning("Cancels are seen up to 3 s late: this user may not subscribe to them: %s", error)
                return
            except redis.RedisError:
                stop.wait(0.5)  # others log the outage


def _hear(channel: redis.client.PubSub, cancel: Callable[[str], object], stop: threading.Event) -> None:
    asked = False
    while not stop.is_set():
        message = channel.get_message(timeout=_QUIET_SECONDS)
        if message is None:
            if asked:
                raise redis.TimeoutError("the subscription does not answer")
            channel.ping()
        elif message["type"] == "message":
            cancel(to_text(message["data"]))
        asked = message is None
