"""What a tree of processes looks like at the moment when it forks."""

import threading
from typing import Any

from bridge.tree.signals import Signals
from bridge.tree.supervisor import _server_is_there
from rhai_tasks.settings import Settings


def test_the_thread_that_has_asked_the_server_is_not_ending_while_the_tree_forks(server_url: str, client: Any) -> None:
    """OpenSSL holds a lock while a thread ends: a process forked then could never take it."""
    before = set(threading.enumerate())

    with Signals() as signals:
        assert _server_is_there(Settings(redis_url=server_url), signals, None)

    (asked,) = set(threading.enumerate()) - before
    assert asked.name == "server"
    asked.join(0.2)
    assert asked.is_alive()
