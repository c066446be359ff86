"""Ends a tree once its circle has no task left, or only paused ones."""

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
_SURE = 2  # times in a row: a task is in no list for a moment while a client submits it
_SLOW = 4  # times in a row without a task that runs, until the log says that limits hold the rest up


def stop_when_done(settings: Settings, circle: str) -> None:
    """Send SIGTERM to the parent of this process, the supervisor, once no task of the circle is left.

    A pause can last for days, so paused tasks do not count; a limit lets each task begin at some time.
    """

    def watch() -> None:
        done = idle = 0
        with Queues(settings) as queues:
            while done < _SURE:
                time.sleep(_POLL_SECONDS)
                try:
                    (queue,) = queues.count([circle])
                    paused = queues.count_paused(queue)
                except redis.RedisError:  # the bridge logs the outage
                    done = 0
                    continue
                done = done + 1 if queue.left == paused else 0
                idle = idle + 1 if queue.rules and not queue.prefetched + queue.running else 0
                if idle == _SLOW:
                    logger.info(
                        "Limits of circle %s hold up %d task(s): rhai-tasks why ID says which", circle, queue.left
                    )
        if paused:
            logger.warning(
                "All %d task(s) left of circle %s are paused, as rhai-tasks rules shows: stopping", paused, circle
            )
        else:
            logger.info("No task of circle %s is left: stopping", circle)
        os.kill(os.getppid(), signal.SIGTERM)

    vital_thread("burst", watch).start()
