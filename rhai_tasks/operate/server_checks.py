"""Checks of the server: its state, and the types of keys."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import redis

from rhai_tasks.protocol import to_text

from .findings import Finding

_REFUSED_SECONDS = 3.0  # a client that is refused a command tries again within this time


def check_state(client: Any) -> Iterator[Finding]:
    """Check memory, persistence and replication of the server, and what it refuses to users."""
    memory = client.info("memory")
    policy = memory.get("maxmemory_policy") or _option(client, "maxmemory-policy", "noeviction")
    if policy != "noeviction":
        yield Finding("server", f"maxmemory-policy is {policy}: tasks may vanish", "set it to noeviction")
    yield from _memory(memory)
    persistence = client.info("persistence")
    if not persistence["aof_enabled"] and not _option(client, "save", "unknown"):
        yield Finding("server", "it keeps nothing on disk: a restart loses all tasks", "set appendonly yes, or save")
    for name, what in _WRITES_TO_DISK.items():
        if persistence.get(name, "ok") != "ok":
            yield Finding("server", f"{what} ({name}: {persistence[name]})", "its log says why: often its disk is full")
    yield from _replication(client, client.info("replication"))
    yield from _refusals(client)


_WRITES_TO_DISK = {
    "rdb_last_bgsave_status": "its last snapshot failed: it refuses writes unless stop-writes-on-bgsave-error is no",
    "aof_last_bgrewrite_status": "the last rewrite of its append-only file failed",
    "aof_last_write_status": "its last write to the append-only file failed: it refuses writes",
}


def _replication(client: Any, replication: Mapping[str, Any]) -> Iterator[Finding]:
    if replication["role"] != "master":
        remedy = "name the primary in --redis-url, or its Sentinels (redis+sentinel://)"
        yield Finding("server", "it is a replica: it refuses writes", remedy)
    good = replication.get("min_slaves_good_slaves")  # absent if none is required
    wanted = _option(client, "min-replicas-to-write", "1")
    if good is not None and wanted.isdigit() and good < int(wanted):
        what = f"{good} of at least {wanted} replicas keep up: it refuses writes (NOREPLICAS)"
        yield Finding("server", what, "bring its replicas back, or lower min-replicas-to-write")


def _memory(memory: Mapping[str, Any]) -> Iterator[Finding]:
    most = memory["maxmemory"]
    used = memory["used_memory"] - memory["mem_not_counted_for_evict"]  # as the server itself compares them
    remedy = "raise maxmemory, or let finished tasks expire (--expire-finished)"
    if 0 < most <= used:
        what = f"its memory is full, so that it takes no more tasks: maxmemory is {memory['maxmemory_human']}"
        yield Finding("server", what, remedy)
    elif used > 0.9 * most > 0:
        yield Finding("server", f"{used / most:.0%} of maxmemory, {memory['maxmemory_human']}, are used", remedy)


def _refusals(client: Any) -> Iterator[Finding]:
    """Find commands that the server refuses to users now; a user without the right to read its log finds none."""
    refused: set[tuple[str, str, str]] = set()
    with suppress(redis.ResponseError):
        for entry in client.acl_log():
            if entry["reason"] != "auth" and float(entry["age-seconds"]) < _REFUSED_SECONDS:
                refused.add((entry["username"], entry["reason"], entry["object"]))
    for user, reason, what in sorted(refused):
        yield Finding("server", f"user {user!r} is refused the {reason} {what!r}", "docs/security.md lists all rights")


def _option(client: Any, name: str, default: str) -> str:
    """Read an option of the server; the default if the server refuses to show it."""
    with suppress(redis.ResponseError):
        return str(client.config_get(name).get(name, default))
    return default


def check_types(client: Any, where: str, types: Mapping[str | bytes, str]) -> Iterator[Finding]:
    """Find keys of another type, by commands that other checks need, too."""
    with client.pipeline(transaction=False) as pipeline:
        for key, wanted in types.items():
            pipeline.execute_command(_READS[wanted], key)
        answers = pipeline.execute(raise_on_error=False)
    for (key, wanted), answer in zip(types.items(), answers, strict=True):
        if isinstance(answer, redis.ResponseError) and "WRONGTYPE" in str(answer):
            name = to_text(key) if isinstance(key, bytes) else key
            yield Finding(where, f"the key {name!r} holds no {wanted}", "find out who wrote it, and delete it")


_READS = {"list": "LLEN", "hash": "HLEN", "sorted set": "ZCARD", "set": "SCARD", "string": "GET"}
