"""Takes dramatiq's acknowledgements, and hands the endings of runs to the status writer."""

import logging
from collections.abc import Iterable
from typing import Any, cast

from dramatiq import MessageProxy

from rhai_tasks.protocol import failed

from .endings import Dead, Finished, Released
from .message import TaskMessage
from .room import Room
from .run import Run
from .work_queue import WorkQueue
from .writer import StatusWriter

logger = logging.getLogger(__name__)


class Acknowledger:
    """Ends the runs of a consumer's messages. Threads: any.

    Args:
        room: The consumer's.
        writer: Writes the endings.
        work_queue: Of dramatiq's worker threads.
    """

    def __init__(self, room: Room, writer: StatusWriter, work_queue: WorkQueue[Any]) -> None:
        self._room, self._writer, self._work_queue = room, writer, work_queue

    def ack(self, message: MessageProxy) -> None:
        """Write the endings of a message's runs; called by the thread that ran the task, or the batch."""
        task_message = cast("TaskMessage", message)
        batch = task_message.batch
        runs = [task_message.run] if batch is None else batch.ended
        error = message._exception  # noqa: SLF001  (dramatiq's, and its only access)
        if error is not None and batch is not None:
            runs = [*runs, *(run for run in batch.begun() if run.ending is None), *batch.split()]
        self.write(runs, error, at_once=self._work_queue.qsize() == 0)

    def write(self, runs: list[Run], error: BaseException | None = None, *, at_once: bool = False) -> None:
        """Write the endings of runs. `error`: of those that have none; `at_once`: in this thread."""
        finished = list[Finished]()
        for run in runs:
            ending = run.ending  # read once: another thread may lose the run at any moment
            if type(ending) is not Finished:  # without a call, as a rule
                self._end(run, error)
                ending = run.ending
            if type(ending) is Finished:
                finished.append(ending)
        if finished:
            self._writer.finish(*finished, at_once=at_once)
        else:
            self._writer.running.end()
        self._room.let_go(*runs)  # last: until the writer has the endings, the runs must be known here

    def _end(self, run: Run, error: BaseException | None) -> None:
        """End a run that has no outcome."""
        if run.ending is None:
            if run.interrupted:
                run.release()
            else:  # the worker's own failure, which dramatiq has logged with its traceback
                logger.error("The worker failed to run the task", extra=run.delivery.about())
                run.finish(failed(f"The worker failed to run the task: {error!r}", "Worker"))
        ending = run.ending
        if isinstance(ending, Released):
            self._writer.release(ending)
        elif not isinstance(ending, Finished):  # lost; also if this process has fetched it again: that run counts
            logger.warning(
                "Result dropped: the task was taken over by another worker, or its keys are gone",
                extra=run.delivery.about(),
            )
            run.delivery.acknowledge()

    def nack(self, message: MessageProxy) -> None:
        """Move a message to the dead letters."""
        for run in cast("TaskMessage", message).runs():
            self._writer.dead_letter(Dead(run.delivery, "its actor is unknown to this worker"))
            self._room.let_go(run)

    def release(self, messages: Iterable[MessageProxy]) -> None:
        """Release messages that no thread has begun."""
        for run in [run for message in messages for run in cast("TaskMessage", message).runs()]:
            if run.is_lost():
                run.delivery.acknowledge()
            else:
                self._writer.release(Released(run.delivery))
            self._room.let_go(run)
