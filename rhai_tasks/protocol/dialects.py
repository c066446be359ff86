"""Dialects: the names that fields and statuses have in the details hash.

The rest of the program, Lua scripts included, has one name for each: that of `Field` and of `Status`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from .native import Field, Status


@dataclass(frozen=True, slots=True, eq=False)
class Dialect:
    """One table of names.

    Attributes:
        name: The dialect's own.
        fields: By `Field`, the name in the hash.
        words: By `Status`, the word in the field for the status.
    """

    name: str
    fields: Mapping[str, str]
    words: Mapping[str, str]

    def lua(self, table: str, name: str) -> str:
        """Return the Lua string that replaces `FIELD.<name>` or `STATUS.<name>`, by the name of the table and the name.

        Raises:
            KeyError: The dialect has no such name.
        """
        return f"'{(self.fields if table == 'FIELD' else self.words)[name]}'"


FIELDS = tuple(name for attribute, name in vars(Field).items() if attribute.isupper())
"""All fields."""

RHAI = Dialect("rhai", fields={name: name for name in FIELDS}, words={status.value: status.value for status in Status})
"""The dialect of the original worker, whose names are those of `Field` and `Status`."""
