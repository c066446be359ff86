"""A thread pauses while the system has no memory for scripts."""

import threading
from typing import cast

import pytest

from rhai_tasks.worker.shortage import Shortage


class Draining:
    """Notes how long it is waited for."""

    def __init__(self) -> None:
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


def test_each_pause_is_twice_as_long_as_the_one_before_up_to_8_seconds() -> None:
    shortage, draining = Shortage(), Draining()

    for _ in range(8):
        shortage.pause(cast("threading.Event", draining))

    assert draining.waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_pauses_are_short_again_once_the_shortage_has_been_over(monkeypatch: pytest.MonkeyPatch) -> None:
    shortage, draining, now = Shortage(), Draining(), 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    for _ in range(3):
        shortage.pause(cast("threading.Event", draining))

    now = 20.0
    shortage.pause(cast("threading.Event", draining))

    assert draining.waits == [0.25, 0.5, 1.0, 0.25]


def test_a_pause_ends_with_the_process() -> None:
    draining = threading.Event()
    draining.set()

    Shortage().pause(draining)
