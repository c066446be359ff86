"""Follow-ups of a task in dramatiq's compositions: next steps, callbacks, results.

dramatiq's own middleware (Pipelines, Callbacks, GroupCallbacks, Results) does these things in a worker process, apart
from the acknowledgement. Here they are values, which `finish.lua` writes in one step with the outcome.

Pure, except for `refuse_elsewhere`, which reads connection settings.
"""

import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from math import inf
from typing import Any, NamedTuple
from uuid import uuid4

import dramatiq
import redis
from dramatiq import Message, Middleware
from dramatiq.brokers.redis import RedisBroker
from dramatiq.common import dq_name
from dramatiq.encoder import JSONEncoder
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as RedisRateLimits
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend as RedisResults

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import ACTOR, CANCELLED, Outcome, Status, is_circle_queue, to_bytes

CALLBACKS = ("on_success", "on_failure")
"""Options of dramatiq's that name an actor. `<option>_queue` beside one is ours: the queue of that actor."""

RESULT_KEY = "result_key"
"""Option of ours: the key from which dramatiq's result backend reads the message's result."""

_LONGEST_DELAY = 10**13  # milliseconds; some 300 years, which every part of the way can count
_RESULT_TTL = 600_000  # milliseconds; dramatiq's default
_EXCEPTION = "dramatiq.results.Result"  # how dramatiq marks a result that is an exception
_PORT = 6379
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}

# Keys that a message names are written by workers: a client may name none that is not of this kind.
_HASHED_KEY = re.compile(r"[0-9a-f]{32}")
_BARRIER = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_OPTIONS = frozenset(
    {"pipe_target", *CALLBACKS, "group_completion_uuid", "group_completion_callbacks", "store_results", RESULT_KEY}
)


class FollowUp(NamedTuple):
    """One thing that `finish.lua` does with an outcome."""

    when: str
    """The outcome that it follows: `completed`, `error` or `cancelled`."""
    kind: str
    """`message`: enqueue one. `result`: store one. `barrier`: count this task, and go on only after the last one."""
    place: bytes | str
    """The queue of the message, the key of the result or of the barrier."""
    name: str = ""
    """Id of the message."""
    body: bytes = b""
    milliseconds: int = 0
    """Delay of the message, lifetime of the result."""


Complain = Callable[[str, Exception], object]
"""Is called with a follow-up that cannot be done, and why."""


def is_composed(message: Message[Any]) -> bool:
    """Whether this message has follow-ups."""
    return not _OPTIONS.isdisjoint(message.options)


def without_follow_ups(options: dict[str, Any]) -> dict[str, Any]:
    """Leave out the options that `finish.lua` carries out, so that no middleware of a worker does so a second time."""
    left = {name: value for name, value in options.items() if name not in _OPTIONS}
    return {**left, "store_results": False}


def follow_ups(message: Message[Any], outcome: Outcome, complain: Complain) -> list[FollowUp]:
    """List the follow-ups of this outcome of a message, and those for the case that the task was cancelled.

    `complain` is called with a part that cannot be read; the other parts are done all the same.
    """
    if outcome.status is Status.COMPLETED:
        parts: list[tuple[str, Callable[[], list[FollowUp]]]] = [
            ("The pipeline ends here, its next message cannot be read", lambda: _next_step(message, outcome.text)),
            ("on_success cannot be called", lambda: _callback(message, "on_success", Status.COMPLETED, outcome.text)),
            ("The result cannot be stored", lambda: _result(message, Status.COMPLETED, outcome.text)),
            ("The group's callbacks cannot be called", lambda: _group_callbacks(message)),
        ]
    else:
        parts = _failure(message, Status.ERROR, "ScriptError", outcome.text)
    found: list[FollowUp] = []
    for what, part in [*parts, *_failure(message, CANCELLED, "TaskCancelled", CANCELLED)]:
        try:
            found += part()
        except Exception as error:  # options may hold anything, and the task itself has ended well
            complain(what, error)
    return found


def _failure(message: Message[Any], when: str, kind: str, text: str) -> list[tuple[str, Callable[[], list[FollowUp]]]]:
    exception = {"type": kind, "message": text}
    stored = {"__t": _EXCEPTION, "exn": {"type": kind, "msg": text}}
    return [
        ("on_failure cannot be called", lambda: _callback(message, "on_failure", when, exception)),
        ("The result cannot be stored", lambda: _result(message, when, stored)),
    ]


def _next_step(message: Message[Any], output: str) -> list[FollowUp]:
    if message.options.get("pipe_target") is None:
        return []
    following: Message[Any] = Message(**message.options["pipe_target"])
    args = following.args if following.options.get("pipe_ignore") else (*following.args, output)
    return [_enqueued(following.copy(args=args), Status.COMPLETED, milliseconds(following.options.get("delay")))]


def _callback(message: Message[Any], option: str, when: str, told: object) -> list[FollowUp]:
    name = message.options.get(option)
    if not name:
        return []
    queue = message.options.get(f"{option}_queue")
    if not isinstance(name, str) or not isinstance(queue, str):
        raise TypeError(f"{option}={name!r} does not name the actor's queue; give ScriptActor the actor itself")
    called: Message[Any] = Message(
        queue_name=queue, actor_name=name, args=(message.asdict(), told), kwargs={}, options={}
    )
    return [_enqueued(called, when)]


def _result(message: Message[Any], when: str, result: object) -> list[FollowUp]:
    key = message.options.get(RESULT_KEY)
    if key is None:
        return []
    own = f":{message.queue_name}:{message.actor_name}:{message.message_id}"
    if not isinstance(key, str) or not (_HASHED_KEY.fullmatch(key) or key.endswith(own)):
        raise ValueError(f"{RESULT_KEY}={key!r} is not a key that dramatiq's result backend gives this message")
    lifetime = max(milliseconds(message.options.get("result_ttl", _RESULT_TTL)), 1)
    body = json.dumps(result, separators=(",", ":")).encode()  # as dramatiq's JSONEncoder does
    return [FollowUp(when, "result", to_bytes(key), body=body, milliseconds=lifetime)]


def _group_callbacks(message: Message[Any]) -> list[FollowUp]:
    barrier, callbacks = (message.options.get(f"group_completion_{name}") for name in ("uuid", "callbacks"))
    if not barrier or not callbacks:
        return []
    if not isinstance(barrier, str) or not _BARRIER.fullmatch(barrier):
        raise ValueError(f"group_completion_uuid={barrier!r} is not a UUID")
    called = [_enqueued(Message(**callback), Status.COMPLETED) for callback in callbacks]
    return [
        FollowUp(Status.COMPLETED, "barrier", to_bytes(barrier)),
        *called,
    ]  # last: it holds these back


def _enqueued(message: Message[Any], when: str, delay: int = 0) -> FollowUp:
    name = str(uuid4())
    message = message.copy(options={"redis_message_id": name})
    if delay and not is_circle_queue(message.queue_name):
        message, delay = for_delay_queue(message, delay), 0
    return FollowUp(when, "message", to_bytes(message.queue_name), name, message.encode(), delay)


def for_delay_queue(message: Message[Any], delay: int) -> Message[Any]:
    """Address a message to the delay queue of a plain broker's worker.

    Args:
        message: For an actor in Python.
        delay: Milliseconds.
    """
    eta = int(time.time() * 1000) + delay
    return message.copy(queue_name=dq_name(message.queue_name), options={"eta": eta})


def milliseconds(delay: object) -> int:
    """Read a delay in the forms of dramatiq: milliseconds, or a `timedelta`; `None` and the past are 0.

    Raises:
        ValueError: `delay` is not a delay.
    """
    if delay is None:
        return 0
    number = delay.total_seconds() * 1000 if isinstance(delay, timedelta) else delay
    if isinstance(number, bool) or not isinstance(number, int | float) or not -inf < number <= _LONGEST_DELAY:
        raise ValueError(f"delay={delay!r}: expected milliseconds, at most {_LONGEST_DELAY}, or a timedelta")
    return max(int(number), 0)


# --- checks while a composition is built: later, no caller is there to get an error


def steps(message: Message[Any]) -> Iterator[Message[Any]]:
    """Yield a message and those that follow it in a pipeline."""
    yield message
    while isinstance(target := message.options.get("pipe_target"), dict):
        message = Message(**target)
        yield message


def check_steps(message: Message[Any]) -> None:
    """Check the follow-ups of each script of a pipeline.

    Raises:
        TypeError, ValueError: It could not.
    """
    for step in steps(message):
        milliseconds(step.options.get("delay"))
        if step.actor_name == ACTOR:
            for option in CALLBACKS:
                _callback(step, option, "", None)
            _result(step, "", None)


def callback_options(option: str, actor: object, namespace: str, client: redis.Redis) -> dict[str, str]:
    """Build the options that name an actor in Python to be called after a script.

    Args:
        option: One of `CALLBACKS`.
        actor: An actor, or the name of one of dramatiq's global broker.
        namespace: Prefix of the keys that workers write to.
        client: Client of the server that they write to.

    Raises:
        TypeError: It is neither.
        ValueError: Workers cannot enqueue messages for it.
    """
    if isinstance(actor, str):
        known = dramatiq.broker.global_broker.actors if dramatiq.broker.global_broker else {}
        if actor not in known:
            raise ValueError(f"{option}={actor!r}: dramatiq's global broker has no such actor; give the actor itself")
        actor = known[actor]
    if not isinstance(actor, dramatiq.Actor):
        raise TypeError(f"{option} value must be an Actor")
    if actor.actor_name == ACTOR:
        raise ValueError(f"{option} takes an actor in Python; a script that follows a script is a step of a pipeline")
    broker = actor.broker
    if not isinstance(broker, RedisBroker) or broker.namespace != namespace or not _same_server(broker.client, client):
        raise ValueError(
            f"{option}: the actor {actor.actor_name!r} must be on a RedisBroker with this ScriptActor's URL and "
            f"namespace={namespace!r}: workers enqueue its message there, in one step with the script's end"
        )
    return {option: actor.actor_name, f"{option}_queue": actor.queue_name}


def refuse_elsewhere(middleware: Middleware, client: redis.Redis | None) -> None:
    """Refuse a middleware whose keys workers cannot write in one step with a script's end.

    Raises:
        ConfigurationError: It is such a one; says what to do instead.
    """
    backend: Any
    if isinstance(middleware, GroupCallbacks):
        backend, wanted = middleware.rate_limiter_backend, RedisRateLimits
    elif isinstance(middleware, Results):
        backend, wanted = middleware.backend, RedisResults
        if type(backend.encoder) is not JSONEncoder:
            wanted = None
    else:
        return
    if wanted is None or not isinstance(backend, wanted) or not _same_server(backend.client, client):
        raise ConfigurationError(
            f"{type(middleware).__name__} of scripts needs dramatiq's RedisBackend, with JSON, and with the URL of "
            "this broker's server and database: workers write there, in one step with the script's end"
        )


def _same_server(one: Any, other: Any) -> bool:
    """Whether two clients may use the same database of a server, judging by their settings."""
    ours, theirs = (client.connection_pool.connection_kwargs for client in (one, other))
    same_database = (ours.get("db") or 0) == (theirs.get("db") or 0)
    if "host" not in ours or "host" not in theirs:  # through Sentinels, or a socket
        return same_database
    hosts = {ours["host"], theirs["host"]}
    ports = {one.get("port", _PORT) for one in (ours, theirs)}
    return same_database and len(ports) == 1 and (len(hosts) == 1 or hosts <= _LOOPBACK)
