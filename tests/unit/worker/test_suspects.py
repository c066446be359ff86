"""Tasks that are suspected of crashing a process start one at a time."""

import threading
import time
from collections.abc import Callable

import pytest

from rhai_tasks.worker.suspects import Suspects
from tests.conftest import wait_until


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[[Suspects, bool], tuple[list[bool], threading.Event]]:
    """Starts a suspect in a thread; returns whether its turn came, once that is known, and what ends it."""
    monkeypatch.setattr("rhai_tasks.worker.suspects._PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr("rhai_tasks.worker.suspects._SUSPECT_SECONDS", 0.05)

    def start(suspects: Suspects, alone: bool) -> tuple[list[bool], threading.Event]:
        came, end = list[bool](), threading.Event()

        def run() -> None:
            with suspects.turn(alone=alone) as turn:
                came.append(turn)
                end.wait(10.0)

        threading.Thread(target=run, daemon=True).start()
        wait_until(lambda: came)
        return came, end

    return start


Start = Callable[[Suspects, bool], tuple[list[bool], threading.Event]]


def test_a_suspect_starts_a_moment_after_the_one_before_it(start: Start) -> None:
    suspects = Suspects()
    start(suspects, False)
    began = time.monotonic()

    came, _ = start(suspects, False)

    assert came == [True]
    assert time.monotonic() - began > 0.04


def test_a_suspect_before_its_last_delivery_does_not_start_beside_another(start: Start) -> None:
    suspects = Suspects()
    _, end = start(suspects, False)

    beside, _ = start(suspects, True)
    end.set()
    wait_until(lambda: suspects._running == 0)
    after, _ = start(suspects, True)

    assert (beside, after) == ([False], [True])


def test_no_suspect_starts_beside_one_before_its_last_delivery(start: Start) -> None:
    suspects = Suspects()
    _, end = start(suspects, True)

    beside, _ = start(suspects, False)
    end.set()
    wait_until(lambda: suspects._running == 0)
    after, _ = start(suspects, False)

    assert (beside, after) == ([False], [True])
