"""Our own client, for the workload that submits only."""

from collections.abc import Sequence

from rhai_tasks import Client, Task

from .contender import URL
from .engine import CALLER, CONTEXT
from .native import Application as Native


class Application(Native):
    """`Client` in place of bare writes."""

    def __init__(self) -> None:
        super().__init__()
        self._ours = Client(URL, circle=CONTEXT, caller_id=CALLER)

    async def __aexit__(self, *_: object) -> None:
        self._ours.close()

    async def submit(self, script: str) -> str:
        return self._ours.submit(script).id

    async def submit_many(self, scripts: Sequence[str]) -> list[str]:
        tasks: list[Task] = self._ours.submit_many(scripts)
        return [task.id for task in tasks]
