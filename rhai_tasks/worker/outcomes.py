"""Which outcome has a task whose script has failed?"""

import logging

from rhai_tasks.errors import RhaiError, RhaiSystemMemoryError, RhaiTerminated
from rhai_tasks.protocol import Outcome, failed
from rhai_tasks.queue.context import QueueContext
from rhai_tasks.queue.run import Run

from .host_errors import log_host_error
from .own_limits import OwnLimits

logger = logging.getLogger(__name__)


def outcome_of(error: RhaiError, context: QueueContext, run: Run, limits: OwnLimits) -> Outcome | None:
    """Return the outcome of a run whose script has ended with this error.

    `None`: the script has not ended, because this worker stops or the system has no memory. The message is released.
    In the second case, the thread that ran the script has to pause, see `Shortage`.
    """
    if isinstance(error, RhaiSystemMemoryError):
        logger.warning("Task goes back to its queue: %s", error, extra=run.delivery.about())
        run.release(postponed=True)
        return None
    if run.interrupted and isinstance(error, RhaiTerminated):
        run.release()
        return None
    log_host_error(error, run.delivery.about())
    text = error.debug_text if context.settings.error_format == "debug" else str(error)
    return failed(limits.name_in(error, text), error.kind)
