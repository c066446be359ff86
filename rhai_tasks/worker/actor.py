"""The actor: run one task's script and say how it ended."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast
from uuid import uuid4

import dramatiq
from dramatiq import Message
from dramatiq.middleware import CurrentMessage

from .broker import TaskBroker, TaskMessage
from .current import CurrentTask, running
from .engine import Engine, last_use
from .errors import RhaiError, RhaiTerminated, TaskMalformed
from .protocol import ACTOR, Outcome, Status, Task, circle_of, completed, failed, to_bytes
from .watchdog import Watchdog

logger = logging.getLogger(__name__)
script_logger = logging.getLogger("rhai_tasks.script")

_SUSPECT_SECONDS = 0.25  # for which a suspect runs before the next one begins
_PATIENCE_SECONDS = 1.0  # for which a suspect that may not begin holds a thread


def declare_actor(broker: TaskBroker, engine: Engine) -> None:
    """Make the broker's worker run tasks in this engine."""
    timeout = engine.limits.timeout or broker.settings.limits.timeout
    broker.add_middleware(Watchdog(timeout))
    suspects = _Suspects()
    run = partial(_run_traced if broker.tracer else _run, broker, engine, timeout)

    def run_script(*_: object, **__: object) -> None:
        """Run the current message's task, which comes with it; only the script's own failure is an outcome."""
        message = cast("TaskMessage", CurrentMessage.get_current_message())
        held = message.held
        try:
            task = held.task()
        except TaskMalformed as error:
            if isinstance(held.details, list):
                held.outcome = failed(str(error), "Malformed")
            else:
                message.fail()  # no hash to write an outcome into
            return
        if held.deaths >= broker.settings.max_deliveries:
            held.outcome = failed(
                f"The worker process died {held.deaths} times with this task; it is not tried again",
                "Poison",
            )
        elif held.deaths:
            with suspects.turn(alone=held.deaths + 1 >= broker.settings.max_deliveries) as may_begin:
                held.postponed = not may_begin
                if may_begin:
                    outcome = run(message, task)
                    held.outcome = held.outcome or outcome  # the watchdog may have recorded one, which stands
        else:
            outcome = run(message, task)
            held.outcome = held.outcome or outcome
        if held.outcome and "pipe_target" in message.options and held.outcome.status is Status.COMPLETED:
            held.following = _following(message, held.outcome.text)

    dramatiq.Actor(run_script, broker=broker, actor_name=ACTOR, queue_name="", priority=0, options={})


def _following(message: TaskMessage, output: str) -> tuple[bytes, str, bytes] | None:
    """Write the message of a pipeline that gets this one's output: its queue, id and body; `None`: it is none."""
    try:
        following: Message[Any] = Message(**message.options["pipe_target"])
        args = following.args if following.options.get("pipe_ignore") else (*following.args, output)
        message_id = str(uuid4())
        body = following.copy(args=args, options={"redis_message_id": message_id}).encode()
        return to_bytes(following.queue_name), message_id, body
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        logger.error(  # noqa: TRY400  (not a failure of ours)
            "The pipeline ends here, its next message cannot be read: %s", error, extra=message.held.about()
        )
        return None


class _Suspects:
    """Lets tasks that may have ended their process begin one after the other, so that the next death is counted justly.

    Most deaths come at once, so who has run for a moment lets the next one begin: a worker that was killed with
    many long scripts has them all running again soon. Only before its last delivery is counted a suspect needs that
    no other runs, and lets none begin until it has ended: that count is a verdict. Who cannot begin holds no thread
    up: it goes back, for another process or for later.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._running = 0
        self._alone = False
        self._begun = 0.0  # time.monotonic()

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[bool]:
        """Wait a moment for a turn, and hold it; say whether it came."""
        with self._changed:
            end = time.monotonic() + _PATIENCE_SECONDS
            while not (came := self._may_begin(alone=alone)) and time.monotonic() < end:
                self._changed.wait(_SUSPECT_SECONDS)
            if came:
                self._running += 1
                self._alone, self._begun = alone, time.monotonic()
        try:
            yield came
        finally:
            if came:
                with self._changed:
                    self._running -= 1
                    self._alone = False
                    self._changed.notify_all()

    def _may_begin(self, *, alone: bool) -> bool:
        shared = not self._alone and not alone and time.monotonic() >= self._begun + _SUSPECT_SECONDS
        return self._running == 0 or shared


def _log_debug(text: str, _source: str | None, line: int | None, column: int | None) -> None:
    script_logger.debug("%s:%s: %s", line, column, text)


def _run_traced(
    broker: TaskBroker, engine: Engine, timeout: float | None, message: TaskMessage, task: Task
) -> Outcome | None:
    """Do as `_run`, in a span."""
    held = message.held
    assert broker.tracer  # noqa: S101  (else nobody calls this)
    assert isinstance(held.details, list)  # noqa: S101  (the task was read from it)
    held.trace = broker.tracer.begin(held.about(), held.details[-1], held.created_at, held.fetched, time.time())
    try:
        with held.trace.run():
            return _run(broker, engine, timeout, message, task)
    finally:
        held.script_ended = time.time()


def _run(broker: TaskBroker, engine: Engine, timeout: float | None, message: TaskMessage, task: Task) -> Outcome | None:
    """Return how the script ended, `None` if it did not: it goes back."""
    held, piped = message.held, message.args[1:]  # from the step before in a pipeline, at most one value
    if broker.lease_lapsed(held.keys.queue) or (held.deaths and not broker.store.count_delivery(held)):
        held.interrupted = True  # another worker may run it by now
        return None
    broker.store.started(held)
    circle = circle_of(held.keys.queue)
    token = running.set(CurrentTask(task.id, circle, task.caller_id, task.context_id, held.deaths + 1))
    constants: dict[str, Any] = {"CONTEXT_ID": circle, "CALLER_ID": task.caller_id}
    if piped:
        constants["INPUT"] = piped[-1]
    started = time.perf_counter()
    try:
        output = engine.run(
            task.script,
            constants=constants,
            timeout=timeout,
            cancel=held.cancel,
            print=script_logger.debug,  # not info: what scripts print is nobody's business by default
            debug=_log_debug,
        )
    except RhaiTerminated as error:
        if held.interrupted:
            return None
        outcome = failed(str(error), error.kind)
    except RhaiError as error:
        outcome = failed(error.debug_text if broker.settings.error_format == "debug" else str(error), error.kind)
    else:
        outcome = completed(output)
    finally:
        running.reset(token)
    seconds = time.perf_counter() - started
    broker.ran(seconds)
    if broker.counts:
        held.use = (time.time() - seconds, seconds, *last_use())
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("Task %s after %.6f s", outcome.status, seconds, extra=held.about())
    return outcome
