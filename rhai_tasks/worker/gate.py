"""The gate before a run: checks prerequisites and signature, and whether the caller may run the script here."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import redis

from rhai_tasks.current import TaskRequest
from rhai_tasks.engine import Engine
from rhai_tasks.errors import TaskMalformed
from rhai_tasks.policy import PolicyFile
from rhai_tasks.protocol import NO_TERMS, Field, Task, circle_of, failed, name_in, read_moment, signed_form, to_text
from rhai_tasks.queue.acceptances import AHEAD_SECONDS, Acceptance, Acceptances
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.run import Run
from rhai_tasks.settings import Settings

from .prerequisites import Prerequisites

logger = logging.getLogger(__name__)

_HELD_SECONDS = 0.5  # between two checks of a task's prerequisites

Verify = Callable[[str, str, str, bytes], None]
"""`rhai_tasks.signatures.verify`."""


class Refusal(NamedTuple):
    """Why a task may not run."""

    text: str
    kind: str


class Gate:
    """Decides whether tasks may run.

    Args:
        broker: The worker's.
        engine: Runs the scripts.
        policy: The operator's; `None`: each caller may run each script.

    Raises:
        ConfigurationError: Signatures are to be checked, and `cryptography` is not installed.
    """

    def __init__(self, broker: TaskBroker, engine: Engine, policy: PolicyFile | None) -> None:
        self._settings, self._engine, self._policy = broker.settings, engine, policy
        self._read_fields = broker.context.read_fields
        self._timeout = engine.limits.timeout or broker.settings.limits.timeout
        self._acceptances = Acceptances(broker.context)
        self._prerequisites = Prerequisites(broker.context) if _has_prerequisites(broker.settings) else None
        self._verify = _verify() if broker.settings.signatures != "off" else None

    def admit(self, run: Run, task: Task) -> bool:
        """Say whether a task that is about to run may run; if it may not, end its run."""
        try:
            refusal = self._check_prerequisites(run)
            if run.ending is not None:
                return False
            refusal = refusal or self._check_caller(run, task) or self._check_rights(run, task)
        except TaskMalformed as error:
            refusal = Refusal(str(error), "Malformed")
        except redis.RedisError:  # this worker stops, and the server is away
            run.release()
            return False
        if refusal:
            run.finish(failed(*refusal))
        return refusal is None

    def _check_prerequisites(self, run: Run) -> Refusal | None:
        """Release the message for a while if its task has to wait for others."""
        if self._prerequisites is None:
            return None
        word, ids = self._prerequisites.check(run.delivery)
        match word:
            case "waits":
                run.release(delay=_HELD_SECONDS)
            case "failed":
                return Refusal(f"prerequisite failed: {ids[0]}", "Prerequisite")
            case "missing":
                return Refusal(f"prerequisite does not exist: {ids[0]}", "Prerequisite")
            case "cycle":
                return Refusal(f"its prerequisites form a cycle: {', '.join(ids)}", "Prerequisite")
        return None

    def _check_rights(self, run: Run, task: Task) -> Refusal | None:
        """Ask the policy and the engine's functions; put the policy's limits where they are lower than the task's."""
        if not self._policy and not self._engine.authorizers:
            return None
        request = TaskRequest(
            task.id,
            circle_of(run.delivery.keys.queue),
            task.caller_id,
            bool(run.verified),
            task.context_id,
            task.script,
            run.terms.args,
        )
        if self._policy:
            policy = self._policy.policy
            rule = policy.rule_for(request)
            if rule is None:
                return Refusal(f"not allowed: {policy.refusal_of(request)}", "Forbidden")
            if rule.limits is not NO_TERMS:
                run.terms = rule.lower(run.terms)
        try:
            reason = self._engine.refusal_of(request)
        except Exception as error:  # it is the operator's code, and may raise anything
            logger.exception("The function that decides whether a task may run failed", extra=run.delivery.about())
            reason = f"the worker's engine could not decide: {type(error).__name__}"
        return None if reason is None else Refusal(f"not allowed: {reason}", "Forbidden")

    def _check_caller(self, run: Run, task: Task) -> Refusal | None:
        if self._verify is None:
            return None
        refusal = self._check_signature(run, task, self._verify)
        run.verified = refusal is None
        if refusal and self._settings.signatures == "warn":
            logger.warning("Its caller is not verified: %s", refusal.text, extra=run.delivery.about())
            return None
        return refusal

    def _check_signature(self, run: Run, task: Task, verify: Verify) -> Refusal | None:
        delivery = run.delivery
        details = delivery.signed_details(self._read_fields)
        if Field.SIGNATURE not in details:
            return Refusal("unsigned: the task has no signature of its caller", "Unsigned")
        if name_in(task.script_ref or ""):
            why = "it signs the name of a script, which can change: sign the hash"
            return Refusal(f"wrong signature: {why}", "WrongSignature")
        form = signed_form(task.id, circle_of(delivery.keys.queue), details)
        try:
            scheme, signature, signed_at = (
                _text(details, field) for field in (Field.SIGNATURE_SCHEME, Field.SIGNATURE, Field.SIGNED_AT)
            )
            moment = read_moment(signed_at)
            verify(scheme, task.caller_id, signature, form)
        except ValueError as error:
            return Refusal(f"wrong signature: {error}", "WrongSignature")
        acceptance = self._acceptances.accept(delivery, form, moment, run.terms.timeout or self._timeout)
        run.acceptance = acceptance.key if acceptance.word == "accepted" else ""
        return self._refusal_of(acceptance)

    def _refusal_of(self, acceptance: Acceptance) -> Refusal | None:
        match acceptance.word:
            case "accepted":
                return None
            case "replayed":
                return Refusal("replayed: a task with this signature has begun before", "Replayed")
            case "early":
                text = f"signature from the future: {-acceptance.age:g} s ahead of the server's clock"
                return Refusal(f"{text}, where {AHEAD_SECONDS:g} s are allowed", "SignatureAge")
        text = f"signature too old: the task was signed {acceptance.age:g} s ago"
        return Refusal(f"{text}, and had to begin within {self._settings.signature_age:g} s", "SignatureAge")


def _text(details: dict[str, bytes], field: str) -> str:
    if field not in details:
        raise ValueError(f"there is no {field}")
    return to_text(details[field])


def _verify() -> Verify:
    from rhai_tasks.signatures import verify  # noqa: PLC0415  (an extra)

    return verify


def _has_prerequisites(settings: Settings) -> bool:
    return Field.PREREQUISITES in settings.table.further


def make_gate(broker: TaskBroker, engine: Engine, policy: PolicyFile | None) -> Gate | None:
    """Make the gate; `None` if there is nothing to check."""
    settings = broker.settings
    has_checks = settings.signatures != "off" or policy is not None or engine.authorizers
    if not has_checks and not _has_prerequisites(settings):
        return None
    return Gate(broker, engine, policy)
