"""Scripts as dramatiq messages: to send, to delay, to put into groups and pipelines."""

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dramatiq
from dramatiq import Message
from dramatiq.results import Results

from rhai_tasks.protocol import ACTOR, LONGEST, DialectName, Prefixes, check_circle, is_utf8, queue_name, timestamp
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.follow_ups import CALLBACKS, RESULT_KEY, callback_options, check_steps, milliseconds
from rhai_tasks.settings import Settings

from .base import traceparent_if
from .details import DetailsWriter
from .spec import TaskSpec, check_seconds

if TYPE_CHECKING:  # an extra
    from rhai_tasks.signatures import SigningKey

_DEFAULT = Settings()


class ScriptActor(dramatiq.Actor[..., str]):
    """A dramatiq actor whose argument is a script, run by the workers of a circle.

    `message`, `send` and their forms with options take a script and, by name, `caller_id`, `context_id`, `task_id`,
    `fields`, and the task's own limits, as `Client.submit` does. The first of a message's `args` is the task's id, for
    which `Client.task` returns a handle. In a pipeline a script gets the output of the step before as the constant
    `INPUT`. Its own output goes to the next step, and a script that fails ends the pipeline. docs/delay.md lists what
    else can follow a script.

    Other actors of a pipeline run in workers of their own, on a broker with the same server and namespace:
    `RedisBroker(url=..., namespace="rhai_dramatiq")`.

    Args:
        url: The server; as for `Client`.
        circle: Public key of the circle whose workers run the scripts.
        caller_id: Public key of the caller: `CALLER_ID` in scripts.
        context_id: Field `contextId` of the details.
        dialect: Protocol of the workers, as for `Client`.
        prefixes: Prefixes of the native keys, the same as the worker's.
        namespace: Prefix of the dramatiq keys, the same as the worker's.
        traces: Write the current OpenTelemetry span into each task.
        signing_key: As for `Client`. A step of a pipeline is signed when it is made, and `INPUT` is not signed.

    Raises:
        ConfigurationError: The URL, the circle, a prefix or the namespace cannot be used; or OpenTelemetry is not
            installed, and `traces` asks for it.
    """

    def __init__(
        self,
        url: str = _DEFAULT.redis_url,
        *,
        circle: str,
        caller_id: str = "",
        context_id: str | None = None,
        dialect: DialectName = "rhai",
        prefixes: Prefixes | None = None,
        namespace: str = _DEFAULT.namespace,
        traces: bool = False,
        signing_key: "SigningKey | None" = None,
    ) -> None:
        settings = Settings(redis_url=url, dialect=dialect, prefixes=prefixes or _DEFAULT.prefixes, namespace=namespace)
        self._details = DetailsWriter(
            circle=circle,
            caller_id=caller_id,
            context_id=context_id,
            dialect=dialect,
            traceparent=traceparent_if(traces),
            signing_key=signing_key,
        )
        self._broker = TaskBroker(settings)
        super().__init__(
            _runs_elsewhere,
            broker=self._broker,
            actor_name=ACTOR,
            queue_name=queue_name(check_circle(circle)),
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
        """Make a message that runs a script, for dramatiq's groups and pipelines.

        Args:
            args: The script.
            kwargs: Options of the task: `caller_id`, `context_id`, `task_id`, `fields`, `timeout`, `max_operations`,
                `max_memory`, `json`, `stats`, `args`, `start_before`, and `start_within`, which counts from this call
                on.
            options: dramatiq's options `pipe_ignore`, `delay` of a pipeline's step, `on_success` and `on_failure` with
                an actor in Python, `store_results`. And `urgent=True`: before all other messages.

        Raises:
            TypeError, ValueError: A worker cannot carry an option out; the text says what to do instead.
        """
        spec = TaskSpec(*args, **(kwargs or {}))
        if spec.task_id is not None and not is_utf8(spec.task_id):
            raise ValueError(f"task_id={spec.task_id!a}: a message's task id is UTF-8; Client.submit takes any bytes")
        if spec.start_within is not None:
            spec = replace(spec, start_within=None, start_before=self._server_time() + spec.start_within)
        task_id = spec.task_id or str(uuid4())
        pairs = iter(self._details.write(spec, task_id, timestamp(time.time())))
        if options.get("delay") is not None:
            options["delay"] = milliseconds(options["delay"])
        for option in CALLBACKS:
            if options.get(option) is not None:
                options |= callback_options(option, options[option], self._broker.namespace, self._broker.client)
        message: Message[str] = Message(
            queue_name=self.queue_name,
            actor_name=self.actor_name,
            args=(task_id,),
            kwargs={"details": dict(zip(pairs, pairs, strict=True))},
            options=options,
        )
        message = message.copy(options=self._result_options(message))
        check_steps(message)
        return message

    def _server_time(self) -> float:
        """Return the server's seconds since the epoch."""
        seconds, microseconds = self._broker.client.time()
        return float(seconds) + microseconds / 1e6

    def _result_options(self, message: Message[str]) -> dict[str, Any]:
        """Return the options that name the key of a message's result, if dramatiq's Results would store the result."""
        results = next((one for one in self._broker.middleware if isinstance(one, Results)), None)
        if not message.options.get("store_results", results and results.store_results):
            return {}
        if results is None:
            raise ValueError(
                "store_results: add dramatiq's middleware Results(backend=RedisBackend(url=...)) to this ScriptActor's "
                "broker first; a script's result can also be had from Client.task(message.args[0]).result()"
            )
        lifetime = message.options.get("result_ttl", results.result_ttl)
        return {RESULT_KEY: results.backend.build_message_key(message), "result_ttl": milliseconds(lifetime)}

    def send_with_options(
        self,
        *,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        delay: timedelta | float | None = None,
        **options: Any,
    ) -> Message[str]:
        """Send a message that runs a script; the arguments are those of `message_with_options`.

        `delay` is in milliseconds, as everywhere in dramatiq.

        Raises:
            QueueFull: As many tasks wait as an operator's limit allows.
            ValueError: `delay` is not a number of milliseconds, negative, or longer than a hundred years.
        """
        if delay is not None:
            milliseconds(delay)
            number = delay.total_seconds() * 1000 if isinstance(delay, timedelta) else delay
            delay = round(check_seconds("delay", number, most=LONGEST * 1000, unit="milliseconds"))
            if self._details.signing_key is not None:
                kwargs = {**(kwargs or {}), "delay": delay / 1000}  # its signature counts from when it is due
        return super().send_with_options(args=args, kwargs=kwargs, delay=delay, **options)


def _runs_elsewhere(*_: object) -> str:
    raise NotImplementedError("scripts run in workers; send a message instead of calling")
