"""A run: a delivery while this process holds it."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rhai_tasks.engine import CancelToken
from rhai_tasks.observe.recorder import Use
from rhai_tasks.protocol import NO_TERMS, Outcome, Status, Terms

from .delivery import Delivery
from .endings import Ending, Finished, Lost, Released, Trace, following
from .prints import Prints

if TYPE_CHECKING:  # an extra
    from rhai_tasks.observe.tracing import TaskTrace

QUICK_SECONDS = 0.05
"""Longest run of a script whose task's details are not read again at its end. A longer one may end while somebody else
writes them, whom no count of changes tells of."""


@dataclass(slots=True, eq=False)
class Run:
    """A delivery that this process holds, its script, and its ending, once there is one.

    The first ending stands, unless the delivery is lost.

    Threads: the worker thread that runs the script changes it; others call `lose` and `interrupt`, and the watchdog
    `finish`. What two threads write at the same time does no harm: the server accepts one ending of a delivery.
    """

    delivery: Delivery
    terms: Terms = NO_TERMS  # once the task is read
    marked: bool = False  # as `processing`
    cancel: CancelToken = field(default_factory=CancelToken)
    own_timeout: float | None = None  # seconds, if the task's own limit is lower than the worker's
    started: float | None = None  # time.monotonic() at which the script began
    acceptance: str = ""  # key of the acceptance of the task's signature, if it was checked
    verified: bool | None = None  # whether the task is signed by its caller; `None`: nothing was checked
    crash_counted: bool = False  # before the script could end the process; a release takes it back
    interrupted: bool = False  # by a stopping worker: if it does not end by itself, it is released
    prints: Prints | None = None  # what the script prints, if the task asks to keep it
    ending: Ending | None = None
    trace: "TaskTrace | None" = None

    def finish(self, outcome: Outcome, use: Use | None = None) -> None:
        """End with an outcome."""
        if self.ending is None:
            delivery = self.delivery
            # Without more calls than these: each task comes this way.
            follow_ups = following(delivery, outcome) if delivery.composed else []
            trace = Trace(self.trace, time.time()) if self.trace else None
            is_quick = use is not None and use[1] < QUICK_SECONDS
            self.ending = Finished(
                delivery,
                outcome,
                follow_ups,
                time.time(),
                use,
                trace,
                terms=self.terms,
                prints=self.prints,
                acceptance=self.acceptance,
                is_simple=is_quick and delivery.changes is not None and outcome.status is Status.COMPLETED,
            )

    def release(self, *, postponed: bool = False, delay: float = 0.0) -> None:
        """End undone: the message goes back to its queue.

        Args:
            postponed: It goes behind all others.
            delay: Seconds after which it goes back, behind all others.
        """
        if self.ending is None:
            trace = Trace(self.trace, time.time()) if self.trace else None
            self.ending = Released(self.delivery, postponed, self.crash_counted, trace, delay=delay)

    def lose(self) -> None:
        """Stop the script; nothing is written for it, whatever it ended as before."""
        self.ending = Lost(self.delivery)
        self.cancel.cancel()

    def is_lost(self) -> bool:
        """Whether another broker has got the message, or its keys are gone."""
        return isinstance(self.ending, Lost)

    def interrupt(self) -> None:
        """Stop the script, and release the message."""
        self.interrupted = True
        self.cancel.cancel()
