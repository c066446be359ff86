"""The scripts that run now."""

import threading
import time

from rhai_tasks.observe.recorder import RunningTask, shorten
from rhai_tasks.protocol import circle_of

from .batch import RunBatch
from .run import Run


class Running:
    """The runs whose scripts run now, by thread. Threads: any."""

    def __init__(self) -> None:
        self._by_thread: dict[int, Run | RunBatch] = {}

    def begin(self, one: Run | RunBatch) -> None:
        """Note that this thread runs a script, or the scripts of a batch, from now on."""
        self._by_thread[threading.get_ident()] = one

    def end(self) -> None:
        """Note that this thread runs no script."""
        self._by_thread.pop(threading.get_ident(), None)

    def runs(self) -> list[Run]:
        """List the runs."""
        found = [one.current() if isinstance(one, RunBatch) else one for one in list(self._by_thread.values())]
        return [run for run in found if run is not None]

    def tasks(self) -> list[RunningTask]:
        """List the tasks of the runs."""
        now, clock = time.time(), time.monotonic()
        return [
            RunningTask(
                shorten(run.delivery.task_id),
                circle_of(run.delivery.keys.queue),
                now - clock + (run.started or clock),
                run.delivery.crashes + 1,
            )
            for run in self.runs()
        ]

    def are_marked(self) -> bool:
        """Whether each task is marked `processing`, and none runs in a batch."""
        return all(isinstance(one, Run) and one.marked for one in list(self._by_thread.values()))

    def hand_over(self, seconds: float) -> None:
        """Let batches whose script has taken `seconds` hand over the runs that would wait for it."""
        for one in list(self._by_thread.values()):
            if isinstance(one, RunBatch) and one.is_slow(seconds):
                one.hand_over()

    def unmarked(self, seconds: float) -> list[Run]:
        """List the runs that have taken `seconds` and are not marked `processing`."""
        due = time.monotonic() - seconds
        return [run for run in self.runs() if not run.marked and (run.started or due) <= due]
