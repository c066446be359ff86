"""The limits that a task sets for itself, where they are lower than the worker's."""

from typing import NamedTuple, Self, TypeVar

from rhai_tasks.engine import Limits
from rhai_tasks.errors import RhaiError
from rhai_tasks.protocol import Terms

Number = TypeVar("Number", int, float)


class OwnLimits(NamedTuple):
    """Limits of one task. `None`: the worker's holds."""

    timeout: float | None = None
    max_operations: int | None = None
    max_memory: int | None = None

    @classmethod
    def lower(cls, terms: Terms, limits: Limits, timeout: float | None) -> Self:
        """Return those limits of a task that are lower than the worker's: `limits`, and `timeout` in seconds."""
        return cls(
            _lower(terms.timeout, timeout),
            _lower(terms.max_operations, limits.max_operations),
            _lower(terms.max_memory, limits.max_memory),
        )

    def name_in(self, error: RhaiError, text: str) -> str:
        """Return an error's text, which says whose limit the script exceeded if it is one of these."""
        match error.kind:
            case "Timeout" if self.timeout:
                return text.replace("time limit", "the task's time limit", 1)
            case "TooManyOperations" if self.max_operations:
                return text.replace("operations", f"operations for the task's limit of {self.max_operations}", 1)
            case "OutOfMemory" if self.max_memory:
                return text.replace("memory limit", "the task's memory limit", 1)
        return text


NO_OWN_LIMITS = OwnLimits()


def _lower(own: Number | None, of_worker: float | None) -> Number | None:
    return own if own and (not of_worker or own < of_worker) else None
