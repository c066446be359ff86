"""Ends a tree once its circle has no task left."""

import logging
import os
import signal
import time

import redis

from rhai_tasks.operate.queues import Queues
from rhai_tasks.settings import Settings
from rhai_tasks.threads import vital_thread

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_EMPTY = 2  # times in a row: a task is in no list for a moment while a client submits it


def stop_when_done(settings: Settings, circle: str) -> None:
    """Send SIGTERM to the parent of this process, the supervisor, once no task of the circle is left."""

    def watch() -> None:
        empty = 0
        with Queues(settings) as queues:
            while empty < _EMPTY:
                time.sleep(_POLL_SECONDS)
                try:
                    (queue,) = queues.count([circle])
                except redis.RedisError:  # the bridge logs the outage
                    empty = 0
                else:
                    empty = 0 if queue.left else empty + 1
        logger.info("No task of circle %s is left: stopping", circle)
        os.kill(os.getppid(), signal.SIGTERM)

    vital_thread("burst", watch).start()
