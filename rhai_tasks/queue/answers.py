"""The answers to a task's terms: fields that are written with its outcome."""

from rhai_tasks.observe.recorder import Use
from rhai_tasks.protocol import Field, Outcome, Terms, timestamp

from .prints import Prints


def answers(
    terms: Terms, outcome: Outcome, use: Use | None, prints: Prints | None, deliveries: int, worker_id: str
) -> dict[str, str]:
    """Return the fields for which a task has asked.

    Args:
        terms: The task's.
        outcome: The task's.
        use: What the script used; `None`: no script ran.
        prints: What the script printed; `None`: none is kept, or no script ran.
        deliveries: How often the task was delivered, this time included.
        worker_id: Name of the worker process.
    """
    fields: dict[str, str] = {}
    if outcome.result is not None:
        fields[Field.RESULT] = outcome.result
    if terms.stats:
        fields |= {Field.DELIVERIES: str(deliveries), Field.WORKER_ID: worker_id}
        if use:
            started, seconds, operations, peak = use
            fields |= {
                Field.STARTED_AT: timestamp(started),
                Field.RUN_SECONDS: f"{seconds:.6f}",
                Field.OPERATIONS: str(operations),
                Field.PEAK_MEMORY: str(peak),
            }
    if prints:
        fields |= {Field.DELIVERIES: str(deliveries), Field.PRINTED: prints.text()}
    return fields
