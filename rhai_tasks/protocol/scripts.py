"""Stored scripts: their keys, and the references by which tasks name them."""

import re
from dataclasses import dataclass
from hashlib import sha256

_HASH = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_NAME = re.compile(r"@([A-Za-z0-9][A-Za-z0-9._-]{0,99})", re.ASCII)
REFERENCE = f"^({_HASH.pattern}|{_NAME.pattern})$"
"""Pattern of a reference to a stored script."""

HISTORY = 100
"""How many hashes that a name has pointed to are kept."""


@dataclass(frozen=True, slots=True)
class ScriptRef:
    """A reference to a stored script; `str()` is its form in a task's `scriptRef`.

    Attributes:
        hash: SHA-256 of the source, 64 hex digits.
        name: The name by which it was stored, if it has one.
    """

    hash: str
    name: str | None = None

    def __str__(self) -> str:
        return f"sha256:{self.hash}"


def hash_of(source: str) -> str:
    """Return the hash by which a source is stored.

    Raises:
        ValueError: The source is not UTF-8.
    """
    return sha256(source.encode()).hexdigest()


def hash_in(reference: str) -> str | None:
    """Return the hash of a reference `sha256:<hash>`; `None` for any other text."""
    found = _HASH.fullmatch(reference)
    return found[1] if found else None


def name_in(reference: str) -> str | None:
    """Return the name of a reference `@name`; `None` for any other text."""
    found = _NAME.fullmatch(reference)
    return found[1] if found else None


def is_reference(text: str) -> bool:
    """Whether a text is a reference to a stored script, which is never a script: Rhai has neither form."""
    return bool(_HASH.fullmatch(text) or _NAME.fullmatch(text))


def check_name(name: str) -> str:
    """Return the name of a script.

    Raises:
        ValueError: It cannot be one.
    """
    if name_in(f"@{name}") is None:
        raise ValueError(
            f"name={name!a}: expected at most 100 letters, digits, `.`, `_` and `-`, a letter or digit first"
        )
    return name


def scripts_key(namespace: str) -> str:
    """Hash of SHA-256 to source."""
    return f"{namespace}:__scripts__"


def script_names_key(namespace: str) -> str:
    """Hash of a script's name to the SHA-256 that it points to now."""
    return f"{namespace}:__scripts__.names"


def script_history_key(namespace: str, name: str) -> str:
    """List of what a name has pointed to: seconds since the epoch, a blank and the SHA-256, the newest first."""
    return f"{namespace}:__scripts__.history.{name}"
