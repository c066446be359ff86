"""How the supervisor waits for the server."""

import time
from typing import Any

import pytest

from bridge.tree import supervisor
from rhai_tasks.settings import Settings


class _SignalsThatNeverCome:
    def wait(self, timeout: float | None = None) -> set[int]:
        assert timeout == 0, "the server's answer would not end this wait"
        return set()


def test_the_wait_for_the_server_ends_with_its_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "await_servers", lambda *_: time.sleep(0.1))
    signals: Any = _SignalsThatNeverCome()

    assert supervisor._server_is_there(Settings(), signals, None)
