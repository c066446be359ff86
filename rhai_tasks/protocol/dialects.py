"""Dialects: protocols of one family, which differ in their keys, names of fields, words for statuses, and defaults.

The rest of the program, Lua scripts included, has one name for each field and status: that of `Field` and of `Status`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, get_args

from rhai_tasks.errors import ConfigurationError

from .native import CANCELLED, DETAIL_FIELDS, FENCE_FIELDS, Field, Prefixes, Status
from .signed import SIGNATURE_FIELDS, TASK_ID
from .terms import TERM_FIELDS, TERMS, Term
from .text import shown

DialectName = Literal["rhai", "hero"]

FIELDS = tuple(name for attribute, name in vars(Field).items() if attribute.isupper())
"""All fields."""

READ_FIELDS = (*DETAIL_FIELDS, Field.TRACEPARENT, *TERM_FIELDS)
"""The fields of a task's details that each worker reads, in the order in which `Details` has them, then the terms."""

_STATUSES = tuple(status.value for status in Status)
_WORDS = {word: word for word in (*_STATUSES, CANCELLED)}  # in every dialect
_CAPITAL = re.compile(r"(?<!^)[A-Z]")


@dataclass(frozen=True, kw_only=True, eq=False)
class Dialect:
    """The names of one dialect.

    Attributes:
        name: The name of the dialect.
        prefixes: Prefixes of keys.
        fields: From each `Field` to its name in the details hash.
        words: From each `Status` to its word in the details hash.
        id_field: Name of a field that repeats the task's id; `None`: there is none.
        context_is_circle: Dispatchers name the circle in the field for the context, and `CONTEXT_ID` is the worker's
            circle. Otherwise `CONTEXT_ID` is the field.
        args_constant: A second name of the constant `ARGS`; `None`: there is none.
        further: Fields that workers read besides those that each dialect has.
    """

    name: DialectName
    prefixes: Prefixes
    fields: Mapping[str, str]
    words: Mapping[str, str]
    id_field: str | None = None
    context_is_circle: bool = True
    args_constant: str | None = None
    further: tuple[str, ...] = ()
    renames: bool = field(init=False)
    """Whether a name or a word differs from that of `Field` or `Status`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "renames", any(a != b for a, b in [*self.fields.items(), *self.words.items()]))

    @cached_property
    def terms(self) -> tuple[Term, ...]:
        """`TERMS` with the dialect's names of the fields."""
        return tuple(term._replace(field=self.fields[term.field]) for term in TERMS)

    @cached_property
    def read_fields(self) -> tuple[str, ...]:
        """All fields that a worker may read: `READ_FIELDS`, the dialect's further ones, those of a signature."""
        return (*READ_FIELDS, *self.further, *SIGNATURE_FIELDS)

    @cached_property
    def _places(self) -> str:
        """The places of fields by name, as a table of Lua: of `read_fields` from 1, of `FENCE_FIELDS` from -1 down."""
        places = {self.stored(name): -number for number, name in enumerate(FENCE_FIELDS, 1)}
        for number, name in enumerate(self.read_fields, 1):
            places.setdefault(self.stored(name), number)  # the first of two names counts
        return "{" + ", ".join(f"['{name}'] = {place}" for name, place in places.items()) + "}"

    @cached_property
    def _own_names(self) -> dict[str, str]:
        return {stored: name for name, stored in reversed(list(self.fields.items()))}  # the first of two names counts

    @cached_property
    def _own_words(self) -> dict[str, str]:
        return {stored: word for word, stored in self.words.items()}

    def lua(self, table: str, name: str) -> str:
        """Return what replaces `FIELD.<name>`, `STATUS.<name>` or `WORD.<name>` in Lua, a string, or `PLACES.details`.

        Args:
            table: `FIELD`, `STATUS`, `WORD` or `PLACES`.
            name: The name.

        Raises:
            KeyError: There is no such name.
        """
        tables = {"FIELD": self.fields, "STATUS": self.words, "WORD": _WORDS}
        return self._places if table == "PLACES" else f"'{tables[table][name]}'"

    def stored(self, name: str) -> str:
        """Return the name of a field in the hash; an unknown field keeps its name."""
        return self.fields.get(name, name)

    def stored_names(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the names that fields have in the hash."""
        return tuple(map(self.stored, names))

    def own_name(self, stored: str) -> str:
        """Return the field that a name in the hash stands for; an unknown name stays as it is."""
        return self._own_names.get(stored, stored)

    def status(self, word: str) -> str:
        """Return the status that a word in the hash stands for.

        An unknown word stays as it is, in quotes if another dialect has it.
        """
        return self._own_words.get(word) or (repr(word) if word in _STATUSES else word)

    def write(self, details: Sequence[str], task_id: str | None = None) -> list[str]:
        """Return names and values of fields in turns, as the hash has them.

        `task_id`: for the details of a whole task, since the hash may repeat the id.
        """
        found: list[str] = []
        for name, value in zip(details[::2], details[1::2], strict=True):
            found += (self.stored(name), self.words.get(value, value) if name == Field.STATUS else value)
        if task_id is not None and self.id_field is not None:
            found += (self.id_field, task_id)
        return found

    def read(self, details: Mapping[str, str]) -> dict[str, str]:
        """Return the fields of a hash by the names of `Field`; a known status is a word of `Status`."""
        own = self._own_names
        found = {name: value for name, value in details.items() if name not in own}
        found |= {own[name]: value for name, value in details.items() if name in own}
        if Field.STATUS in found:
            found[Field.STATUS] = self.status(found[Field.STATUS])
        return found

    def reply(self, details: Mapping[str, str | None]) -> dict[str, str | None]:
        """Return the details of a reply by their names in the hash."""
        names = {**self.fields, TASK_ID: self.id_field or TASK_ID}
        found = {names.get(name, name): value for name, value in details.items()}
        found[names[Field.STATUS]] = self.words[details[Field.STATUS] or ""]
        return found

    def complete(self, prefixes: Prefixes) -> Prefixes:
        """Replace default prefixes of keys by those of the dialect.

        `check_names` refuses a value that is not a prefix.
        """
        if isinstance(prefixes, Prefixes):
            default = Prefixes()
            own = {
                name: getattr(self.prefixes, name)
                for name in Prefixes.__slots__
                if getattr(prefixes, name) == getattr(default, name)
            }
            prefixes = replace(prefixes, **own)
        return prefixes


def _snake(name: str) -> str:
    return _CAPITAL.sub(lambda capital: f"_{capital[0].lower()}", name)


RHAI = Dialect(
    name="rhai",
    prefixes=Prefixes(),
    fields={name: name for name in FIELDS},
    words={word: word for word in _STATUSES},
)
"""The dialect of the original worker, whose names are those of `Field` and `Status`."""

HERO = Dialect(
    name="hero",
    prefixes=Prefixes(queue="hero:work_queue:", details="hero:job:", reply="hero:reply:", stop="hero:stop_queue:"),
    fields={name: _snake(name) for name in FIELDS}
    | {
        Field.PUBLIC_KEY: "caller_id",
        Field.CIRCLE: "worker_id",
        Field.ARGS: "env_vars",
        Field.WORKER_ID: "worker_process",
    },
    words={
        Status.PENDING.value: "dispatched",
        Status.PROCESSING.value: "started",
        Status.COMPLETED.value: "finished",
        Status.ERROR.value: "error",
    },
    id_field="id",
    context_is_circle=False,
    args_constant="ENV",
    further=(Field.PREREQUISITES,),
)
"""A dialect of which nothing but public documents is known."""


def dialect_named(name: str) -> Dialect:
    """Return the dialect of this name.

    Raises:
        ConfigurationError: There is none.
    """
    for dialect in (RHAI, HERO):
        if dialect.name == name:
            return dialect
    raise ConfigurationError(f"--dialect {shown(name)}: expected one of {', '.join(get_args(DialectName))}")
