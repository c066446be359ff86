"""How a worker process hears that a task was cancelled: one subscription for the whole process."""

import threading
from collections.abc import Callable

import redis

from .connection import BLOCK_SECONDS, connect_blocking
from .protocol import cancel_channel, to_text
from .settings import Settings


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
                    while not stop.is_set():
                        message = channel.get_message(timeout=BLOCK_SECONDS)
                        if message:
                            cancel(to_text(message["data"]))
            except redis.RedisError:
                stop.wait(0.5)  # others log the outage
