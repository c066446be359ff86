"""API keys: what each may do, and how they are stored: as a hash, so that nobody can read a key in Redis."""

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self, get_args

from rhai_tasks.protocol import UNREADABLE, api_keys_key, count_of, to_bytes

Scope = Literal["submit", "read", "operate"]
"""What a key may do: submit tasks; read tasks and queues; cancel tasks."""

SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_RATE = 100
"""Requests a second."""

_LAST_SECOND = 253402300799  # of the year 9999
_PREFIX = "rhai"
_KEY = re.compile(rf"{_PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """The record of a key.

    Attributes:
        id: The part of the key that names it.
        name: For people.
        digest: SHA-256 of the whole key, in hex. The key has 256 random bits, so a slow hash would add nothing.
        scopes: What it may do.
        circles: To which it is bound; empty: to none.
        callers: To which it is bound; empty: to none.
        rate: Requests a second.
        created: Seconds since the epoch.
    """

    id: str
    name: str
    digest: str
    scopes: tuple[str, ...]
    circles: tuple[str, ...]
    callers: tuple[str, ...]
    rate: int
    created: int

    @classmethod
    def read(cls, key_id: str, record: bytes) -> Self | None:
        """Read a record; `None`: it is invalid, and so is its key."""
        try:
            values = json.loads(record)
            lists = {name: tuple(map(str, values[name])) for name in ("scopes", "circles", "callers")}
            return cls(
                id=key_id,
                name=str(values["name"]),
                digest=str(values["digest"]),
                rate=count_of(values["rate"]),
                created=min(count_of(values["created"]), _LAST_SECOND),
                **lists,
            )
        except UNREADABLE:
            return None

    @property
    def label(self) -> str:
        """The name of the key in the log."""
        return f"API key {self.name} ({self.id})"

    def sees(self, circle: str, caller: str) -> bool:
        """Whether the key is for tasks of this caller in this circle."""
        return circle in (self.circles or (circle,)) and caller in (self.callers or (caller,))


class ApiKeys:
    """The keys on a server.

    Args:
        client: A connection.
        namespace: Prefix of this project's keys.
    """

    def __init__(self, client: Any, namespace: str) -> None:
        self._client, self._records = client, api_keys_key(namespace)

    def make(
        self,
        name: str,
        scopes: Collection[str],
        circles: Collection[str] = (),
        callers: Collection[str] = (),
        rate: int = DEFAULT_RATE,
    ) -> str:
        """Store a new key, and return it: it can be shown only now."""
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
        key = f"{_PREFIX}_{key_id}_{secret}"
        record = ApiKey(
            id=key_id,
            name=name,
            digest=_digest(key),
            scopes=tuple(scopes),
            circles=tuple(circles),
            callers=tuple(callers),
            rate=rate,
            created=int(time.time()),
        )
        values = asdict(record)
        del values["id"]
        self._client.hset(self._records, key_id, json.dumps(values))
        return key

    def list(self) -> list[ApiKey]:
        """List the keys, the oldest first."""
        records = self._client.hgetall(self._records)
        keys = (ApiKey.read(key_id.decode(errors="replace"), record) for key_id, record in records.items())
        return sorted((key for key in keys if key), key=lambda key: key.created)

    def delete(self, key_id: str) -> bool:
        """Delete a key; `False`: there is none of this id."""
        return bool(self._client.hdel(self._records, to_bytes(key_id)))

    def find(self, key: str) -> ApiKey | None:
        """Return the record of a key; `None`: it is not a valid one."""
        key_id = id_of(key)
        record = self._client.hget(self._records, key_id) if key_id else None
        found = ApiKey.read(key_id, record) if record is not None else None
        return found if found and hmac.compare_digest(found.digest, _digest(key)) else None


def id_of(key: str) -> str:
    """Return the id in a key; empty: this text is not a key."""
    found = _KEY.fullmatch(key)
    return found[1] if found else ""


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
