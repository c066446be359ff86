"""Threads that a process cannot do without."""

import logging
import os
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


def vital_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Make a thread whose unexpected failure ends the process.

    A process that has lost its status writer or its bridge without a word looks alive and does nothing. One
    that is gone is started again by its supervisor, and its leases bring its tasks back.
    """

    def run() -> None:
        try:
            target()
        except BaseException:
            logger.exception("The thread %s failed; the process ends", name)
            logging.shutdown()
            os._exit(1)

    return threading.Thread(target=run, name=name, daemon=True)
