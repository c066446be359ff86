"""The gate before a run: is the task signed by its caller?"""

import logging
from typing import NamedTuple

import redis

from rhai_tasks.engine import Engine
from rhai_tasks.protocol import Field, Task, circle_of, failed, read_moment, signed_form, to_text
from rhai_tasks.queue.acceptances import AHEAD_SECONDS, Acceptance, Acceptances
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.run import Run

logger = logging.getLogger(__name__)


class Refusal(NamedTuple):
    """Why a task may not run."""

    text: str
    kind: str


class Gate:
    """Decides whether tasks may run.

    Args:
        broker: The worker's.
        engine: Runs the scripts.

    Raises:
        ConfigurationError: Signatures are to be checked, and `cryptography` is not installed.
    """

    def __init__(self, broker: TaskBroker, engine: Engine) -> None:
        from rhai_tasks.signatures import verify  # noqa: PLC0415  (an extra)

        self._settings, self._verify = broker.settings, verify
        self._timeout = engine.limits.timeout or broker.settings.limits.timeout
        self._acceptances = Acceptances(broker.context)

    def admit(self, run: Run, task: Task) -> bool:
        """Say whether a task that is about to run may run; if it may not, end its run."""
        try:
            refusal = self._check_signature(run, task)
        except redis.RedisError:  # this worker stops, and the server is away
            run.release()
            return False
        if refusal and self._settings.signatures == "require":
            run.finish(failed(*refusal))
            return False
        if refusal:
            logger.warning("Its caller is not verified: %s", refusal.text, extra=run.delivery.about())
        run.verified = refusal is None
        return True

    def _check_signature(self, run: Run, task: Task) -> Refusal | None:
        delivery = run.delivery
        details = delivery.signed_details()
        if Field.SIGNATURE not in details:
            return Refusal("unsigned: the task has no signature of its caller", "Unsigned")
        form = signed_form(task.id, circle_of(delivery.keys.queue), details)
        try:
            scheme, signature, signed_at = (
                _text(details, field) for field in (Field.SIGNATURE_SCHEME, Field.SIGNATURE, Field.SIGNED_AT)
            )
            moment = read_moment(signed_at)
            self._verify(scheme, task.caller_id, signature, form)
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


def make_gate(broker: TaskBroker, engine: Engine) -> Gate | None:
    """Make the gate; `None` if there is nothing to check."""
    return None if broker.settings.signatures == "off" else Gate(broker, engine)
