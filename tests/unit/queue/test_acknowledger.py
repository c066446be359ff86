"""Endings that change while they are handed to the status writer."""

from typing import Any, cast
from unittest.mock import Mock

from rhai_tasks.protocol import QueueKeys, completed
from rhai_tasks.queue.acknowledger import Acknowledger
from rhai_tasks.queue.delivery import Delivery
from rhai_tasks.queue.endings import Ending
from rhai_tasks.queue.run import Run


class LostOnceRead(Run):
    """A run that another thread loses as soon as its ending has been read."""

    _now: Ending | None = None

    @property
    def ending(self) -> Ending | None:
        now = self._now
        if now is not None:
            self.lose()
        return now

    @ending.setter
    def ending(self, ending: Ending | None) -> None:
        self._now = ending


def test_a_run_that_is_lost_while_it_ends_is_written_or_acknowledged() -> None:
    acknowledged = Mock()
    run = LostOnceRead(Delivery(QueueKeys("ns", "rhai-c"), "m", "t", acknowledge=acknowledged))
    run._now = None
    run.finish(completed("42"))
    writer = Mock()

    Acknowledger(Mock(), writer, cast("Any", Mock())).write([run])

    assert writer.finish.call_count + acknowledged.call_count == 1
