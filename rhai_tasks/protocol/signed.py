"""The signed form of a task: the bytes that its signature is of (docs/protocol.md, "Signatures").

The signature covers each field that changes what a task does, so a new term is signed without a change here.
"""

from collections.abc import Mapping

from .native import Field
from .terms import TERM_FIELDS
from .text import to_bytes

_FORM = b"rhai-tasks signed task 1\n"
_LENGTH_BYTES = 4

TASK_ID = "taskId"
"""Name of the task's id in the signed form; it is not a field of the details."""

SIGNATURE_FIELDS = (Field.SIGNED_AT, Field.SIGNATURE_SCHEME, Field.SIGNATURE)
"""The fields that only a worker with `--signatures` reads, besides all others."""

SIGNED_FIELDS = frozenset(
    {
        Field.CALLER_ID,
        Field.CONTEXT_ID,
        Field.REPLY_TO,
        Field.SCRIPT,
        Field.SCRIPT_REF,
        Field.PREREQUISITES,
        *TERM_FIELDS,
        *SIGNATURE_FIELDS,
    }
) - {Field.SIGNATURE}
"""The fields of the details that are part of the signed form."""


def signed_form(task_id: str, circle: str, details: Mapping[str, bytes]) -> bytes:
    """Return the bytes that a task's signature is of.

    Args:
        task_id: The task's id.
        circle: The circle whose workers run the task.
        details: The fields of the task's details by name; those that are not signed do not count.
    """
    parts = {name: value for name, value in details.items() if name in SIGNED_FIELDS}
    parts.setdefault(Field.CALLER_ID, details.get(Field.PUBLIC_KEY, b""))
    parts[TASK_ID], parts[Field.CIRCLE] = to_bytes(task_id), to_bytes(circle)
    form = bytearray(_FORM)
    for name in sorted(parts):
        for part in (name.encode(), parts[name]):
            form += len(part).to_bytes(_LENGTH_BYTES)
            form += part
    return bytes(form)
