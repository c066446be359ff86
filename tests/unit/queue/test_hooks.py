"""Which middleware of an application keeps messages single."""

import inspect

import pytest
from dramatiq import Middleware

from rhai_tasks import Settings
from rhai_tasks.queue.broker import TaskBroker

HOOKS = [
    name for name, _ in inspect.getmembers(Middleware, inspect.isfunction) if name.startswith(("before_", "after_"))
]
OF_CONSUMED = {
    name
    for name in HOOKS
    if "message" in inspect.signature(getattr(Middleware, name)).parameters
    and not name.endswith(("_enqueue", "_delay_message"))  # of messages that are sent
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_for_messages_that_are_consumed_keeps_them_single(name: str) -> None:
    broker = TaskBroker(Settings(redis_url="redis://127.0.0.1:1/0"))
    assert not broker.has_message_hooks()

    broker.add_middleware(type("Own", (Middleware,), {name: lambda *_, **__: None})())

    assert broker.has_message_hooks() == (name in OF_CONSUMED)


def test_dramatiq_has_such_hooks() -> None:
    assert len(OF_CONSUMED) == 7
