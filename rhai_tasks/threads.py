"""Threads whose failure must end the process."""

import logging
import os
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


def vital_thread(name: str, target: Callable[[], object]) -> threading.Thread:
    """Make a thread that ends the process if `target` raises.

    A process that has silently lost its status writer or its bridge looks alive and does nothing. If it ends instead,
    its supervisor starts it again, and its leases bring its tasks back.
    """

    def run() -> None:
        try:
            target()
        except BaseException:
            logger.exception("The thread %s failed; the process ends", name)
            logging.shutdown()
            os._exit(1)

    return threading.Thread(target=run, name=name, daemon=True)
