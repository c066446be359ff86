"""Scripts as messages of dramatiq's, to send, to delay, to put into groups and pipelines."""

import time
from typing import Any
from uuid import uuid4

import dramatiq
from dramatiq import Message

from .broker import TaskBroker
from .calls import Calls, TaskSpec, traceparent_if
from .protocol import ACTOR, Prefixes, queue_name, timestamp
from .settings import Settings

_DEFAULT = Settings()


class ScriptActor(dramatiq.Actor[..., str]):
    """A dramatiq actor whose argument is a script, run by the workers of a circle.

    `message`, `send` and their forms with options take a script and, by name, `caller_id`, `context_id`,
    `task_id` and `fields`, as `Client.submit` does. The id of the task is the first of a message's `args`;
    `Client.task` gives its handle. In a pipeline a script sees what the one before it returned as the
    constant `INPUT`, and the next one gets the output; a script that fails ends the pipeline.

    Other actors of a pipeline run in workers of their own, on a broker with the same server and namespace:
    `RedisBroker(url=..., namespace="rhai_dramatiq")`.

    Args:
        url: The server; as for `Client`, like the rest.
        circle: Whose workers run the scripts.
        caller_id: Public key of whoever asks.
        context_id: Field `contextId` of the details.
        prefixes: Of the native keys.
        namespace: Of the dramatiq keys.
    """

    def __init__(
        self,
        url: str = _DEFAULT.redis_url,
        *,
        circle: str,
        caller_id: str = "",
        context_id: str | None = None,
        prefixes: Prefixes | None = None,
        namespace: str = _DEFAULT.namespace,
        traces: bool = False,
    ) -> None:
        settings = Settings(redis_url=url, prefixes=prefixes or _DEFAULT.prefixes, namespace=namespace)
        self._calls = Calls(caller_id=caller_id, context_id=context_id, traceparent=traceparent_if(traces))
        super().__init__(
            _runs_elsewhere,
            broker=TaskBroker(settings),
            actor_name=ACTOR,
            queue_name=queue_name(circle),
            priority=0,
            options={},
        )

    def message_with_options(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Message[str]:
        """Make a message of a script; dramatiq's `group` and `pipeline` take it.

        Args:
            args: The script.
            kwargs: Of `TaskSpec`: `caller_id`, `context_id`, `task_id`, `fields`.
            options: dramatiq's, such as `pipe_ignore`, and `urgent=True`: before all other messages.
        """
        spec = TaskSpec(*args, **(kwargs or {}))
        pairs = iter(self._calls.details_of(spec, timestamp(time.time())))
        return Message(
            queue_name=self.queue_name,
            actor_name=self.actor_name,
            args=(spec.task_id or str(uuid4()),),
            kwargs={"details": dict(zip(pairs, pairs, strict=True))},
            options=options,
        )


def _runs_elsewhere(*_: object) -> str:
    raise NotImplementedError("scripts run in workers; send a message instead of calling")
