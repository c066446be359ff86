"""What is wrong with the queues, and what to do about it."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import redis

from rhai_tasks.broker import LEASE_SECONDS
from rhai_tasks.connection import check_server
from rhai_tasks.protocol import QueueKeys, Status, key_pattern, moment, state_channel, timestamp, to_bytes, to_text
from rhai_tasks.settings import Settings
from rhai_tasks.store import load_script

from .queues import Queues, tasks_of

_SECOND_LOOK = 1.0  # seconds after the first: what a healthy bridge or worker has in hand is elsewhere by then
_REFUSED_SECONDS = 3.0  # whoever is refused something tries again within that time
_QUEUE = ".rhai-"  # between a broker's id and a circle's, in the names of sets of held messages
_SCANNED = 1000  # keys or elements in one command


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong."""

    where: str  # a circle, or the server
    what: str
    remedy: str
    repair: Callable[[], object] | None = None  # mends what is still so; loses nothing, however late it comes


def examine(settings: Settings, *, stale_seconds: float = 60.0) -> list[Finding]:
    """Look at server, circles, workers and tasks; takes a second, and longer with many tasks.

    Args:
        settings: The server and its names.
        stale_seconds: A task that is `processing` and held by nobody counts as orphaned after so long.

    Raises:
        ConfigurationError: The server cannot be used at all.
    """
    queues = Queues(settings)
    try:
        check_server(queues.client.info("server"), settings.redis_url)
        circles = queues.circles()
        before = {circle: _moment(queues, circle) for circle in circles}
        time.sleep(_SECOND_LOOK)
        holders = list(_holders(settings, queues.client))
        findings = [*_server(queues.client)]
        for circle in circles:  # repairs are done in this order: what is removed must not be taken before
            findings += _ids_without_hash(settings, queues, circle)
            findings += _bridges(settings, queues, circle, before[circle], _moment(queues, circle))
            findings += _workers(queues, circle, holders)
            findings += _dead_letters(queues, circle)
        findings += _orphans(settings, queues, circles, holders, stale_seconds)
        return findings
    finally:
        queues.close()


def _server(client: Any) -> Iterator[Finding]:
    policy = _option(client, "maxmemory-policy", "noeviction")
    if policy != "noeviction":
        yield Finding("server", f"maxmemory-policy is {policy}: tasks may vanish", "set it to noeviction")
    yield from _memory(client.info("memory"))
    persistence = client.info("persistence")
    if not persistence["aof_enabled"] and not _option(client, "save", "unknown"):
        yield Finding("server", "it keeps nothing on disk: a restart loses all tasks", "set appendonly yes, or save")
    yield from _refusals(client)


def _memory(memory: Mapping[str, Any]) -> Iterator[Finding]:
    most = memory["maxmemory"]
    used = memory["used_memory"] - memory["mem_not_counted_for_evict"]  # as the server itself compares
    remedy = "raise maxmemory, or let finished tasks go (--expire-finished)"
    if 0 < most <= used:
        what = f"its memory is full, so that it takes no more tasks: maxmemory is {memory['maxmemory_human']}"
        yield Finding("server", what, remedy)
    elif used > 0.9 * most > 0:
        yield Finding("server", f"{used / most:.0%} of maxmemory, {memory['maxmemory_human']}, are used", remedy)


def _refusals(client: Any) -> Iterator[Finding]:
    """Find what the server refuses to users right now; it tells only those who may know."""
    refused: set[tuple[str, str, str]] = set()
    with suppress(redis.ResponseError):
        for entry in client.acl_log():
            if entry["reason"] != "auth" and float(entry["age-seconds"]) < _REFUSED_SECONDS:
                refused.add((entry["username"], entry["reason"], entry["object"]))
    for user, reason, what in sorted(refused):
        yield Finding("server", f"user {user!r} is refused the {reason} {what!r}", "docs/security.md lists all rights")


def _option(client: Any, name: str, default: str) -> str:
    """Read an option of the server; the default where it tells nobody."""
    with suppress(redis.ResponseError):
        return str(client.config_get(name).get(name, default))
    return default


def _moment(queues: Queues, circle: str) -> tuple[int, int]:
    """Return how much waits in the native list, and the last message's number."""
    waiting = queues.client.llen(queues.native_key(circle))
    return waiting, int(queues.client.get(queues.keys(circle).sequence) or 0)


def _bridges(
    settings: Settings, queues: Queues, circle: str, before: tuple[int, int], now: tuple[int, int]
) -> Iterator[Finding]:
    buffered = len(queues.buffered(circle))
    if before[0] and now[0] and now[1] == before[1] and buffered < settings.buffer:
        yield Finding(circle, f"{now[0]} task(s) wait and nobody takes them", "start rhai-worker or rhai-bridge for it")


def _holders(settings: Settings, client: Any) -> Iterator[tuple[str, str]]:
    """Yield worker processes that hold messages, and the queue that those are of."""
    prefix = QueueKeys(settings.namespace, "").acks("").removesuffix(".")
    for key in client.scan_iter(match=key_pattern(prefix), count=_SCANNED, _type="SET"):
        broker_id, separator, circle = to_text(key).removeprefix(prefix).rpartition(_QUEUE)
        if separator:
            yield broker_id, f"{_QUEUE[1:]}{circle}"


def _workers(queues: Queues, circle: str, holders: list[tuple[str, str]]) -> Iterator[Finding]:
    keys, client = queues.keys(circle), queues.client
    now, _ = client.time()
    leases = {to_text(broker): until / 1000 for broker, until in client.zrange(keys.leases, 0, -1, withscores=True)}
    buffered = len(queues.buffered(circle))
    if buffered and not any(until > now for until in leases.values()):
        what = f"{buffered} task(s) are ready and no worker process is alive"
        yield Finding(circle, what, "start rhai-worker, or give them to others: rhai-tasks return")
    requeue = load_script(client, "rhai_tasks", "requeue")
    for broker_id, queue in holders:
        # Others sweep a lease that ran out within seconds; if none did, nobody is there.
        if queue == keys.queue and leases.get(broker_id, 0.0) < now - LEASE_SECONDS:
            what = f"{client.scard(keys.acks(broker_id))} task(s) are held by a worker process that died"
            repair = partial(
                requeue,
                keys=[keys.messages, keys.acks(broker_id), keys.deliveries, keys.leases],
                args=[broker_id, "expired"],
            )
            yield Finding(circle, what, "start a worker for the circle", repair)


def _ids_without_hash(settings: Settings, queues: Queues, circle: str) -> Iterator[Finding]:
    client, native, prefix = queues.client, queues.native_key(circle), to_bytes(settings.prefixes.details)
    missing: list[bytes] = []
    for start in range(0, client.llen(native), _SCANNED):
        ids = client.lrange(native, start, start + _SCANNED - 1)
        with client.pipeline(transaction=False) as pipeline:
            for task_id in ids:
                pipeline.exists(prefix + task_id)
            missing += [task_id for task_id, there in zip(ids, pipeline.execute(), strict=True) if not there]
    if missing:

        def repair() -> None:
            for task_id in missing:
                _remove(client, native, task_id, prefix + task_id)

        what = f"{len(missing)} id(s) in the native list have no details, as {to_text(missing[0])!r}"
        yield Finding(circle, what, "they end as errors when they are taken; or remove them", repair)


def _remove(client: Any, native: bytes, task_id: bytes, details: bytes) -> None:
    def remove(pipeline: Any) -> None:
        is_submitted = pipeline.exists(details)
        pipeline.multi()
        if not is_submitted:
            pipeline.lrem(native, 0, task_id)

    client.transaction(remove, details)


def _dead_letters(queues: Queues, circle: str) -> Iterator[Finding]:
    dead = queues.client.zcard(queues.keys(circle).dead)
    if dead:
        yield Finding(circle, f"{dead} dead letter(s)", "rhai-tasks dead list says why; retry or delete them")


def _orphans(
    settings: Settings, queues: Queues, circles: list[str], holders: list[tuple[str, str]], stale_seconds: float
) -> Iterator[Finding]:
    """Find tasks that are `processing`, while no worker of ours holds them and no queue has them."""
    client, prefix = queues.client, settings.prefixes.details
    known: set[str] = set()
    for broker_id, queue in holders:
        names = QueueKeys(settings.namespace, queue)
        known.update(tasks_of(client, names, client.smembers(names.acks(broker_id))))
    for circle in circles:
        names = queues.keys(circle)
        known.update(tasks_of(client, names, queues.buffered(circle)))
    keys = client.scan_iter(match=key_pattern(prefix), count=_SCANNED, _type="HASH")
    while some := list(islice(keys, _SCANNED)):
        with client.pipeline(transaction=False) as pipeline:
            for key in some:
                pipeline.hmget(key, "status", "updatedAt", "contextId")
            states = pipeline.execute()
        for key, (status, updated, context) in zip(some, states, strict=True):
            task_id = to_text(key).removeprefix(prefix)
            if status != Status.PROCESSING.encode() or task_id in known or _age(updated) < stale_seconds:
                continue
            what = f"task {task_id!r} is processing, and no worker of ours holds it"
            circle = to_text(context) if context else ""
            repair = partial(_submit_again, settings, queues, circle, key, updated) if circle in circles else None
            yield Finding(circle or "tasks", what, "unless an original worker runs it, submit it again", repair)


def _submit_again(settings: Settings, queues: Queues, circle: str, key: bytes, updated: bytes | None) -> None:
    def submit(pipeline: Any) -> None:
        is_as_seen = pipeline.hmget(key, "status", "updatedAt") == [Status.PROCESSING.encode(), updated]
        pipeline.multi()
        if is_as_seen:
            pipeline.hset(key, mapping={"status": "pending", "updatedAt": timestamp(time.time())})
            pipeline.lpush(queues.native_key(circle), key.removeprefix(to_bytes(settings.prefixes.details)))
            pipeline.publish(to_bytes(state_channel(settings.namespace)) + key, "pending")

    queues.client.transaction(submit, key)


def _age(updated: bytes | None) -> float:
    """Read how many seconds ago; an unknown time is long ago."""
    then = moment(updated or b"")
    return float("inf") if then is None else time.time() - then
