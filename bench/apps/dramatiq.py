"""Vanilla dramatiq: a broker and a result backend on Redis.

Its defaults: a process a core, eight threads each; messages are acknowledged after they were run.
"""

from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from .contender import URL, Contender
from .engine import run

backend = RedisBackend(url=URL)
broker = RedisBroker(url=URL, middleware=None)
broker.add_middleware(Results(backend=backend))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def run_script(script: str) -> str:
    """Run a script."""
    return run(script)


class Application(Contender):
    """Messages of one actor; there is no call for many."""

    async def submit(self, script: str) -> Any:
        return run_script.send(script)

    def key(self, handle: Any) -> str:
        return str(backend.build_message_key(handle))

    async def result(self, handle: Any) -> str:
        return str(handle.get_result())
