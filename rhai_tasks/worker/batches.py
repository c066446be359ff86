"""Runs batches: the quick scripts of simple tasks, in one call of the engine."""

import logging
import time
from functools import partial
from typing import cast

from rhai_tasks.current import CurrentTask, running
from rhai_tasks.engine import Engine
from rhai_tasks.engine.evaluation import Ended
from rhai_tasks.engine.output import log_debug, script_logger
from rhai_tasks.errors import RhaiError, RhaiSystemMemoryError, TaskMalformed
from rhai_tasks.protocol import Outcome, circle_of, completed, failed
from rhai_tasks.queue.batch import RunBatch
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.endings import Finished
from rhai_tasks.queue.run import QUICK_SECONDS, Run

from .outcomes import outcome_of
from .own_limits import NO_OWN_LIMITS
from .shortage import shortage

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 0.002
"""After which this worker is asked again whether it may still run tasks."""


class Batches:
    """Runs batches. It is the actor for tasks that have nothing but a script, a caller and times.

    Threads: any.

    Args:
        broker: The worker's.
        engine: Runs the scripts.
        timeout: Seconds that each script has; `None`: no limit.
    """

    def __init__(self, broker: TaskBroker, engine: Engine, timeout: float | None) -> None:
        self._broker, self._engine, self._timeout = broker, engine, timeout

    def run(self, batch: RunBatch) -> None:
        """Run the scripts of a batch one after the other, and end their runs, also those that may not begin."""
        broker, engine = self._broker, self._engine
        queue = batch.queue
        circle = circle_of(queue)
        scripts = batch.begin(("CONTEXT_ID", "CALLER_ID"), circle.encode(), partial(self._end, batch))
        wants_task = engine.calls_host or script_logger.isEnabledFor(logging.DEBUG)
        token = running.set(_task_of(batch.runs[0], circle)) if wants_task else None
        try:
            while scripts.left:
                # A process that ends soon begins no task: another one runs it to its end. And once the lease has
                # lapsed, another worker may run it already.
                if broker.context.draining.is_set() or broker.leases.lapsed(queue):
                    batch.release()
                    break
                broker.writer.begin_batch(batch)
                engine.run_batch(
                    scripts,
                    timeout=self._timeout,
                    patience=_PATIENCE_SECONDS,
                    print=script_logger.debug,
                    debug=log_debug,
                    begin=(lambda place: running.set(_task_of(batch.runs[place], circle))) if wants_task else None,
                )
                if scripts.left:  # the next one may take long
                    batch.hand_over()
                else:
                    batch.ended += batch.settle()
                if batch.met_shortage:
                    batch.release()
                    shortage.pause(broker.context.draining)
        finally:
            if token is not None:
                running.reset(token)

    def _end(self, batch: RunBatch, runs: list[Run], ended: list[Ended]) -> None:
        """End runs as their scripts have ended."""
        now = time.time()
        self._broker.context.pace.record_runs([seconds for _, _, seconds, _, _ in ended])
        for run, (_, result, seconds, operations, peak) in zip(runs, ended, strict=True):
            use = (now - seconds, seconds, operations, peak)
            if type(result) is str:
                if run.ending is None:  # else it was lost meanwhile
                    is_simple = seconds < QUICK_SECONDS
                    run.ending = Finished(run.delivery, completed(result), [], now, use, is_simple=is_simple)
            else:
                batch.met_shortage |= isinstance(result, RhaiSystemMemoryError)
                outcome = self._failure(run, result)
                if outcome is not None:
                    run.finish(outcome, use)
        if logger.isEnabledFor(logging.DEBUG):
            for run, (_, _, seconds, *_) in zip(runs, ended, strict=True):
                logger.debug("Task ended after %.6f s", seconds, extra=run.delivery.about())

    def _failure(self, run: Run, error: str | BaseException | None) -> Outcome | None:
        """Return the outcome of a run without output; `None`: it goes back to its queue."""
        if isinstance(error, RhaiError):
            return outcome_of(error, self._broker.context, run, NO_OWN_LIMITS)
        try:
            run.delivery.task()
        except TaskMalformed as why:
            return failed(str(why), "Malformed")
        about = run.delivery.about()
        logger.error("The worker failed to run the task", exc_info=cast("BaseException", error), extra=about)
        return failed(f"The worker failed to run the task: {error!r}", "Worker")


def _task_of(run: Run, circle: str) -> CurrentTask:
    task = run.delivery.task()
    return CurrentTask(task.id, circle, task.caller_id, task.context_id, 1)
