"""The actor: runs the script of one task, and ends the run."""

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import dramatiq
import redis
from dramatiq.middleware import CurrentMessage

from rhai_tasks.current import CurrentTask, running
from rhai_tasks.engine import ArgsError, Engine, last_use
from rhai_tasks.engine.output import log_debug, script_logger
from rhai_tasks.errors import RhaiError, RhaiSystemMemoryError, TaskMalformed
from rhai_tasks.policy import PolicyFile
from rhai_tasks.protocol import (
    ACTOR,
    DETAIL_FIELDS,
    EXPIRED,
    NO_TERMS,
    Dialect,
    Field,
    Task,
    Terms,
    circle_of,
    completed,
    failed,
    read_args,
    unreadable_term,
)
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.message import TaskMessage

from .batches import Batches
from .gate import Gate, make_gate
from .outcomes import outcome_of
from .own_limits import NO_OWN_LIMITS, OwnLimits
from .shortage import shortage
from .stored_scripts import StoredScripts
from .suspects import Suspects
from .watchdog import Watchdog

if TYPE_CHECKING:  # an extra
    from rhai_tasks.observe.tracing import Tracer

logger = logging.getLogger(__name__)

ConstantsOf = Callable[[Task, Terms], dict[str, Any]]


def declare_actor(broker: TaskBroker, engine: Engine, policy: PolicyFile | None = None) -> None:
    """Let the broker's worker run tasks in this engine, those that the policy allows.

    Raises:
        ConfigurationError: A package for the checks of the settings is missing.
    """
    timeout = engine.limits.timeout or broker.settings.limits.timeout
    broker.add_middleware(Watchdog(timeout))
    suspects, stored = Suspects(), StoredScripts(broker.context)
    gate = make_gate(broker, engine, policy)
    table = broker.settings.table
    constants_of = _constants_of(table)
    batches = Batches(broker, engine, timeout)
    broker.runs_batches = gate is None and constants_of is None
    run: Callable[[TaskMessage, Task], None] = partial(_run, broker, engine, timeout, gate, constants_of)
    if broker.context.tracer:
        run = partial(_run_traced, broker.context.tracer, run)

    names, terms = table.stored_names(DETAIL_FIELDS), table.terms

    def run_script(*_: object, **__: object) -> None:
        """Run the task of the current message; only a failure of the script itself is an outcome."""
        message = cast("TaskMessage", CurrentMessage.get_current_message())
        if message.batch is not None:
            batches.run(message.batch)
            return
        delivery = message.run.delivery
        crashes = delivery.crashes
        try:
            task = delivery.task(names)
            if delivery.terms:
                message.run.terms = delivery.read_terms(terms)
            if task.script_ref is not None:
                task = stored.load(task)
        except TaskMalformed as error:
            message.run.finish(failed(str(error), "Malformed"))
            return
        except redis.RedisError:  # this worker stops, and the server is away
            message.run.release()
            return
        if not crashes:
            run(message, task)
        elif crashes >= broker.settings.max_deliveries:
            text = f"The worker process died {crashes} times with this task; it is not tried again"
            message.run.finish(failed(text, "Poison"))
        else:
            with suspects.turn(alone=crashes + 1 >= broker.settings.max_deliveries) as may_begin:
                if may_begin:
                    run(message, task)
                else:
                    message.run.release(postponed=True)

    dramatiq.Actor(run_script, broker=broker, actor_name=ACTOR, queue_name="", priority=0, options={})


def _constants_of(table: Dialect) -> ConstantsOf | None:
    """Return the function that gives the constants of a dialect's tasks; `None`: they have those of all."""
    if table.context_is_circle and table.args_constant is None:
        return None

    def constants_of(task: Task, terms: Terms) -> dict[str, Any]:
        constants: dict[str, Any] = {}
        if not table.context_is_circle:
            constants["CONTEXT_ID"] = task.context_id or ""
        if table.args_constant is not None:
            constants[table.args_constant] = read_args(terms.args or "{}")
        return constants

    return constants_of


def _run_traced(
    tracer: "Tracer", run_task: Callable[[TaskMessage, Task], None], message: TaskMessage, task: Task
) -> None:
    """Run the script as `run_task` does, in a span."""
    run, delivery = message.run, message.run.delivery
    details = delivery.details
    run.trace = tracer.begin(delivery.about(), details.traceparent, details.created_at, delivery.fetched, time.time())
    with run.trace.run():
        run_task(message, task)


def _run(  # noqa: PLR0912, PLR0915  (a call more would cost each task)
    broker: TaskBroker,
    engine: Engine,
    timeout: float | None,
    gate: Gate | None,
    constants_of: ConstantsOf | None,
    message: TaskMessage,
    task: Task,
) -> None:
    """Run the script, and end the run as the script did; if it did not end, release the message."""
    context, run, delivery = broker.context, message.run, message.run.delivery
    piped = message.args[1:]  # the output of the previous step of a pipeline, at most one value
    # A process that ends soon begins no task: another one runs it to its end. And once the lease has lapsed, or the
    # message is another broker's, another worker may run it already.
    if context.draining.is_set() or broker.leases.lapsed(delivery.keys.queue):
        run.release()
        return
    if delivery.crashes:
        run.crash_counted = broker.writer.count_crash(delivery)
        if not run.crash_counted:
            run.release()
            return
    start_before = run.terms.start_before
    if start_before is not None and time.monotonic() + delivery.clock >= start_before:
        run.finish(failed(EXPIRED, "Expired"))
        return
    if gate is not None and not gate.admit(run, task):
        return
    broker.writer.begin(run)
    circle = circle_of(delivery.keys.queue)
    token = running.set(CurrentTask(task.id, circle, task.caller_id, task.context_id, delivery.crashes + 1))
    constants: dict[str, Any] = {"CONTEXT_ID": circle, "CALLER_ID": task.caller_id}
    if run.verified is not None:
        constants["CALLER_VERIFIED"] = run.verified
    if piped:
        constants["INPUT"] = piped[-1]
    if constants_of:
        constants |= constants_of(task, run.terms)
    limits = NO_OWN_LIMITS if run.terms is NO_TERMS else OwnLimits.lower(run.terms, engine.limits, timeout)
    run.own_timeout = limits.timeout
    keep_prints = run.terms.keep_prints
    take_print = broker.prints.follow(run, keep_prints).add if keep_prints else script_logger.debug
    started = time.perf_counter()
    try:
        evaluate = engine.run_json if run.terms.json else engine.run
        ended = evaluate(
            task.script,
            constants=constants,
            timeout=limits.timeout or timeout,
            max_operations=limits.max_operations,
            max_memory=limits.max_memory,
            cancel=run.cancel,
            print=take_print,  # not logged at info: the output of scripts is private by default
            debug=log_debug,
            args=run.terms.args,
        )
    except RhaiError as error:
        from_error = outcome_of(error, context, run, limits)
        if from_error is None:
            if isinstance(error, RhaiSystemMemoryError):
                shortage.pause(context.draining)
            return
        outcome = from_error
    except ArgsError as error:
        unreadable = unreadable_term(
            broker.settings.table.stored(Field.ARGS), run.terms.args, f"a JSON object: {error}"
        )
        outcome = failed(str(unreadable), "Malformed")
    except (TypeError, ValueError, OverflowError) as error:
        if not piped:
            raise
        what = f"INPUT is a value of type {type(piped[-1]).__name__} that no script can hold"
        outcome = failed(f"{what}: {error}", "Input")
    else:
        outcome = completed(ended) if isinstance(ended, str) else completed(*ended)
    finally:
        running.reset(token)
    seconds = time.perf_counter() - started
    context.pace.record_run(seconds)
    run.finish(outcome, (time.time() - seconds, seconds, *last_use()))
    if logger.isEnabledFor(logging.DEBUG):
        logger.debug("Task %s after %.6f s", outcome.status, seconds, extra=delivery.about())
