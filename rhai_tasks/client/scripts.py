"""Stored scripts: their requests, and how a client sends them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rhai_tasks.errors import ScriptNotFound
from rhai_tasks.protocol import (
    HISTORY,
    ScriptRef,
    check_name,
    hash_in,
    hash_of,
    name_in,
    script_history_key,
    script_names_key,
    scripts_key,
    shown,
    to_text,
)

from .requests import Request
from .sender import AsyncSender, Sender


@dataclass(frozen=True, slots=True)
class Version:
    """A script that a name has pointed to.

    Attributes:
        ref: The script.
        since: From when on the name pointed to it, by the server's clock.
    """

    ref: ScriptRef
    since: datetime


class ScriptRequests:
    """Builds the requests for stored scripts."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._scripts, self._names = scripts_key(namespace), script_names_key(namespace)

    def put(self, source: str, name: str | None) -> Request[ScriptRef]:
        """Build the request that stores a script."""
        if not isinstance(source, str):
            raise TypeError(f"source={shown(source)}: expected a text")
        digest = hash_of(source)
        ref = ScriptRef(digest, None if name is None else check_name(name))
        keys = [self._scripts, self._names, script_history_key(self._namespace, name or "")]
        return Request("store_script", keys, [digest, source, name or "", HISTORY], lambda _: ref)

    def find(self, reference: str | ScriptRef) -> Request[ScriptRef]:
        """Build the request for the script that a name points to."""
        name, digest = _parse(reference)
        if name is None:
            return Request(None, [], ["HEXISTS", self._scripts, digest], lambda there: _found(reference, digest, there))
        return Request(None, [], ["HGET", self._names, name], lambda reply: _found(reference, reply, reply, name))

    def source(self, ref: ScriptRef) -> Request[str]:
        """Build the request for a source."""

        def read(reply: bytes | None) -> str:
            if reply is None:
                raise ScriptNotFound(str(ref))
            return to_text(reply)

        return Request(None, [], ["HGET", self._scripts, ref.hash], read)

    def names(self) -> Request[list[ScriptRef]]:
        """Build the request for all names, and the scripts that they point to."""

        def read(reply: Mapping[bytes, bytes] | Sequence[bytes]) -> list[ScriptRef]:
            pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)
            return sorted(
                (ScriptRef(to_text(hash_), to_text(name)) for name, hash_ in pairs), key=lambda ref: ref.name or ""
            )

        return Request(None, [], ["HGETALL", self._names], read)

    def history(self, name: str) -> Request[list[Version]]:
        """Build the request for all that a name has pointed to."""

        def read(reply: Sequence[bytes]) -> list[Version]:
            pairs = (to_text(entry).split(" ", 1) for entry in reply)
            return [Version(ScriptRef(digest, name), datetime.fromtimestamp(int(at), UTC)) for at, digest in pairs]

        return Request(None, [], ["LRANGE", script_history_key(self._namespace, check_name(name)), 0, -1], read)

    def delete(self, reference: str | ScriptRef) -> Request[None]:
        """Build the request that deletes a name, or a script."""
        name, digest = _parse(reference)

        def read(reply: int | bytes) -> None:
            if isinstance(reply, bytes):
                raise ValueError(  # noqa: TRY004  (the server's word, not an argument)
                    f"the name {to_text(reply)!r} points to sha256:{digest}: delete or move the name first"
                )
            if not reply:
                raise ScriptNotFound(str(reference))

        keys = [self._scripts, self._names, script_history_key(self._namespace, name or "")]
        return Request("delete_script", keys, [name or "", digest or ""], read)


def _parse(reference: str | ScriptRef) -> tuple[str | None, str | None]:
    """Return the name or the hash of a reference.

    Raises:
        ValueError: `reference` is not a reference to a stored script.
    """
    if isinstance(reference, ScriptRef):
        return None, reference.hash
    if isinstance(reference, str):
        name, digest = name_in(reference), hash_in(reference)
        if name or digest:
            return name, digest
    raise ValueError(f"{shown(reference)}: expected a ScriptRef, sha256: and 64 hex digits, or @ and a name")


def _found(reference: str | ScriptRef, digest: Any, there: Any, name: str | None = None) -> ScriptRef:
    if not there:
        raise ScriptNotFound(str(reference))
    return ScriptRef(to_text(digest) if isinstance(digest, bytes) else digest, name)


class Scripts:
    """The stored scripts of a client's server, which all circles share.

    Each method raises `ServerUnavailable`, `ServerError` and `ClientClosed` as `Client.submit` does.
    """

    def __init__(self, sender: Sender, namespace: str) -> None:
        self._sender, self._requests = sender, ScriptRequests(namespace)

    def put(self, source: str, name: str | None = None) -> ScriptRef:
        """Store a script; let a name point to it from now on. Tasks that wait keep the script that they have.

        Args:
            source: Rhai source. It is not compiled: the workers' engine may have functions of its own.
            name: At most 100 letters, digits, `.`, `_` and `-`.

        Raises:
            ValueError: It is not such a name, or the source is not UTF-8.
            TypeError: The source is not a text.
        """
        return self._sender.send(self._requests.put(source, name))

    def find(self, reference: str | ScriptRef) -> ScriptRef:
        """Return the script that `@name` points to now, or that a hash names.

        Raises:
            ScriptNotFound: There is none.
            ValueError: It is not a reference.
        """
        return self._sender.send(self._requests.find(reference))

    def get(self, reference: str | ScriptRef) -> str:
        """Return the source of a script; raises as `find`."""
        ref = reference if isinstance(reference, ScriptRef) else self.find(reference)
        return self._sender.send(self._requests.source(ref))

    def list(self) -> list[ScriptRef]:
        """Return all names with the scripts that they point to, by name."""
        return self._sender.send(self._requests.names())

    def history(self, name: str) -> Sequence[Version]:
        """Return the last 100 scripts that a name has pointed to, the newest first."""
        return self._sender.send(self._requests.history(name))

    def delete(self, reference: str | ScriptRef) -> None:
        """Delete a name, whose script stays, or a script that no name points to.

        Tasks that wait for a deleted script end as errors.

        Raises:
            ScriptNotFound: There is none.
            ValueError: It is not a reference, or a name points to the script.
        """
        self._sender.send(self._requests.delete(reference))


class AsyncScripts:
    """The stored scripts, as `Scripts`, for asyncio."""

    def __init__(self, sender: AsyncSender, namespace: str) -> None:
        self._sender, self._requests = sender, ScriptRequests(namespace)

    async def put(self, source: str, name: str | None = None) -> ScriptRef:
        """Store a script; see `Scripts.put`."""
        return await self._sender.send(self._requests.put(source, name))

    async def find(self, reference: str | ScriptRef) -> ScriptRef:
        """Return the script of a reference; see `Scripts.find`."""
        return await self._sender.send(self._requests.find(reference))

    async def get(self, reference: str | ScriptRef) -> str:
        """Return the source of a script; see `Scripts.get`."""
        ref = reference if isinstance(reference, ScriptRef) else await self.find(reference)
        return await self._sender.send(self._requests.source(ref))

    async def list(self) -> list[ScriptRef]:
        """Return all names with their scripts; see `Scripts.list`."""
        return await self._sender.send(self._requests.names())

    async def history(self, name: str) -> Sequence[Version]:
        """Return what a name has pointed to; see `Scripts.history`."""
        return await self._sender.send(self._requests.history(name))

    async def delete(self, reference: str | ScriptRef) -> None:
        """Delete a name or a script; see `Scripts.delete`."""
        await self._sender.send(self._requests.delete(reference))
