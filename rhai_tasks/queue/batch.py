"""A batch: quick runs that one thread makes one after the other, in one call of the engine."""

import time
from collections.abc import Callable, Sequence

from rhai_tasks.engine import Batch, CancelToken
from rhai_tasks.engine.evaluation import Ended

from .run import Run


class RunBatch:
    """Runs of one queue that a thread makes one after the other.

    Threads: one makes the runs. Any other takes those that have not begun, and hands over those that have ended, so
    that none waits for a slow one.

    Args:
        runs: At least one.
        hand_over: Takes runs that have ended, while another one of the batch still runs.
    """

    def __init__(self, runs: list[Run], hand_over: Callable[[list[Run]], object]) -> None:
        self.runs, self.queue = runs, runs[0].delivery.keys.queue
        self.scripts: Batch | None = None
        """Of the runs, once a thread has begun with them."""
        self.ended: list[Run] = []
        """Those that the thread has ended itself, or taken out again because they may not begin here."""
        self.met_shortage = False
        """The system had no memory for one of its scripts."""
        self._record: Callable[[list[Run], list[Ended]], None] | None = None
        self._hand_over = hand_over

    @property
    def left(self) -> int:
        """How many runs have not begun."""
        return len(self.runs) if self.scripts is None else self.scripts.left

    def begin(self, names: Sequence[str], circle: bytes, record: Callable[[list[Run], list[Ended]], None]) -> Batch:
        """Begin with the runs.

        Args:
            names: Names of the constants for the circle and the caller.
            circle: In UTF-8.
            record: Ends runs as their scripts have ended.
        """
        self._record = record
        scripts: list[tuple[bytes, Sequence[bytes], CancelToken]] = []
        for run in self.runs:
            script, caller, public_key, *_ = run.delivery.details
            scripts.append((script or b"", (circle, public_key or b"" if caller is None else caller), run.cancel))
        self.scripts = Batch(names, scripts)
        return self.scripts

    def begun(self) -> list[Run]:
        """Return the runs that have begun, in order."""
        return self.runs if self.scripts is None else self.runs[: self.scripts.begun]

    def split(self) -> list[Run]:
        """Take the runs that have not begun out of the batch; none before its thread has begun with it."""
        if self.scripts is None:
            return []
        first, end = self.scripts.split()
        return self.runs[first:end]

    def part(self) -> "RunBatch | None":
        """Take the runs that have not begun out, and return them as a batch; `None`: there are none."""
        rest = self.split()
        return RunBatch(rest, self._hand_over) if rest else None

    def settle(self) -> list[Run]:
        """End the runs whose scripts have ended, and return them."""
        ended = self.scripts.take_ended() if self.scripts else []
        runs = [self.runs[position] for position, *_ in ended]
        if runs and self._record:
            self._record(runs, ended)
        return runs

    def hand_over(self) -> None:
        """Hand over the runs that would wait for another one; the batch's thread or the status writer calls this."""
        runs = self.settle()
        if runs:
            self._hand_over(runs)

    def is_slow(self, seconds: float) -> bool:
        """Whether the script that runs has taken `seconds`."""
        running = self.scripts.running if self.scripts else None
        return running is not None and running[1] > seconds

    def current(self) -> Run | None:
        """Return the run whose script runs, and note when that began."""
        running = self.scripts.running if self.scripts else None
        if running is None:
            return None
        position, seconds = running
        run = self.runs[position]
        if run.started is None:
            run.started = time.monotonic() - seconds
        return run

    def release(self) -> None:
        """Release the runs that have not begun; its thread calls this."""
        for run in self.split():
            run.release()
            self.ended.append(run)
