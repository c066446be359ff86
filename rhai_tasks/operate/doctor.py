"""The doctor: finds problems of server, circles, workers and tasks."""

import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import redis

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.connection.server import check_server
from rhai_tasks.observe.recorder import read_report
from rhai_tasks.protocol import (
    QueueKeys,
    audit_key,
    key_pattern,
    timestamp,
    to_bytes,
    to_text,
    workers_key,
)
from rhai_tasks.queue.leases import LEASE_SECONDS
from rhai_tasks.settings import Settings

from .findings import Finding
from .queues import Queues
from .server_checks import check_state, check_types
from .task_checks import Holder, find_ids_without_details, find_orphans

_RECHECK_SECONDS = 1.0  # after the first reading: a healthy bridge or worker has moved its tasks on by then
_QUEUE = ".rhai-"  # between a broker's id and a circle's, in the names of sets of held messages
_SCANNED = 1000  # keys in one command


def examine(settings: Settings, *, stale_seconds: float = 60.0) -> list[Finding]:
    """Examine server, circles, workers and tasks; takes a second, and longer with many tasks.

    Args:
        settings: The server and its names.
        stale_seconds: A task that is `processing` and held by no worker counts as orphaned after this time.

    Raises:
        ConfigurationError: The server cannot be used at all.
    """
    with Queues(settings) as queues:
        check_server(queues.client.info("server"), settings.redis_url)
        circles = queues.circles()
        before = {circle: _progress(queues, circle) for circle in circles}
        due_before = {circle: _due(queues, circle) for circle in circles}
        time.sleep(_RECHECK_SECONDS)
        holders = list(_holders(queues))
        findings = [*check_state(queues.client)]
        findings += check_types(queues.client, "server", _common_keys(settings.namespace))
        for circle in circles:  # repairs run in this order: ids that are removed must not be taken before
            of_types = list(check_types(queues.client, circle, _keys_of(queues, circle)))
            findings += of_types
            for found in (
                find_ids_without_details(queues, circle),
                _check_bridges(queues, circle, before[circle], _progress(queues, circle)),
                _check_delays(circle, due_before[circle], _due(queues, circle)),
                _check_workers(queues, circle, holders),
                _check_dead_letters(queues, circle),
                _check_rules(queues, circle),
            ):
                findings += _guarded(circle, found, is_known=bool(of_types))
        findings += _guarded("tasks", find_orphans(queues, circles, holders, stale_seconds), is_known=False)
        return findings


def _guarded(where: str, found: Iterator[Finding], *, is_known: bool) -> Iterator[Finding]:
    """Yield the findings of one check; a key of another type ends this check alone.

    `is_known`: that key has a finding already.
    """
    try:
        yield from found
    except redis.ResponseError as error:
        if "WRONGTYPE" not in str(error):
            raise
        if not is_known:
            yield Finding(
                where, f"it cannot be examined: {error}", "look for a key of another type; see docs/protocol.md"
            )


def _keys_of(queues: Queues, circle: str) -> dict[str | bytes, str]:
    """Return a circle's keys with their types by docs/protocol.md."""
    keys = queues.keys(circle)
    return {
        queues.native_key(circle): "list",
        keys.messages: "list",
        keys.bodies: "hash",
        keys.dead: "sorted set",
        keys.dead_bodies: "hash",
        keys.dead_reasons: "hash",
        keys.sequence: "string",
        keys.published: "sorted set",
        keys.leases: "sorted set",
        keys.deliveries: "hash",
        keys.full: "string",
        keys.room: "list",
        keys.delayed: "sorted set",
        keys.delayed_messages: "sorted set",
        keys.wake: "list",
        keys.rules: "hash",
        keys.callers: "hash",
        keys.buckets: "hash",
        keys.lines: "sorted set",
        keys.line_number: "string",
        keys.turns: "hash",
        keys.charges: "hash",
    }


def _common_keys(namespace: str) -> dict[str | bytes, str]:
    return {QueueKeys.registry(namespace): "set", workers_key(namespace): "hash", audit_key(namespace): "list"}


def _progress(queues: Queues, circle: str) -> tuple[int, int]:
    """Return the length of the native list and the number of the last message: a bridge changes one of them."""
    with queues.client.pipeline(transaction=False) as pipeline:
        pipeline.llen(queues.native_key(circle))
        pipeline.get(queues.keys(circle).sequence)
        waiting, sequence = pipeline.execute(raise_on_error=False)
    for answer in (waiting, sequence):
        if isinstance(answer, redis.RedisError) and "WRONGTYPE" not in str(answer):
            raise answer
    is_number = isinstance(sequence, bytes) and sequence.isdigit() and len(sequence) < 20
    return (waiting if isinstance(waiting, int) else 0), (int(sequence) if is_number else 0)


def _check_bridges(queues: Queues, circle: str, before: tuple[int, int], now: tuple[int, int]) -> Iterator[Finding]:
    buffered = len(queues.buffered(circle))
    if before[0] and now[0] and now[1] == before[1] and buffered < queues.settings.buffer:
        yield Finding(circle, f"{now[0]} task(s) wait and nobody takes them", "start rhai-worker or rhai-bridge for it")


def _due(queues: Queues, circle: str) -> set[bytes]:
    """Return one overdue task or message of each kind: a bridge would have handed it over by now."""
    keys, client = queues.keys(circle), queues.client
    now, _ = client.time()
    found: set[bytes] = set()
    with suppress(redis.ResponseError):  # not the type that it should have
        for key in (keys.delayed, keys.delayed_messages):
            found.update(name for name, due in client.zrange(key, 0, 0, withscores=True) if due / 1000 < now)
        if client.hlen(keys.delay_bodies):
            found.add(keys.delay_bodies.encode())
    return found


def _check_delays(circle: str, before: set[bytes], now: set[bytes]) -> Iterator[Finding]:
    if before & now:
        what = "delayed tasks are due, or were delayed by a broker of dramatiq's own, and no bridge hands them over"
        yield Finding(circle, what, "start rhai-worker or rhai-bridge for it")


def _holders(queues: Queues) -> Iterator[Holder]:
    """Yield the worker processes that hold messages, with the queues of these messages."""
    prefix = QueueKeys(queues.settings.namespace, "").acks("").removesuffix(".")
    for key in queues.client.scan_iter(match=key_pattern(prefix), count=_SCANNED, _type="SET"):
        broker_id, separator, circle = to_text(key).removeprefix(prefix).rpartition(_QUEUE)
        if separator:
            yield broker_id, f"{_QUEUE[1:]}{circle}"


def _check_workers(queues: Queues, circle: str, holders: list[Holder]) -> Iterator[Finding]:
    keys, client = queues.keys(circle), queues.client
    now, _ = client.time()
    leases = {to_text(broker): until / 1000 for broker, until in client.zrange(keys.leases, 0, -1, withscores=True)}
    buffered = len(queues.buffered(circle))
    if buffered and not any(until > now for until in leases.values()):
        what = f"{buffered} task(s) are ready and no worker process is alive"
        yield Finding(circle, what, "start rhai-worker, or give them to others: rhai-tasks return")
    ahead = sum(until > now + LEASE_SECONDS + _RECHECK_SECONDS for until in leases.values())
    if ahead:
        what = f"{ahead} lease(s) end too far ahead: the server's clock went back"
        yield Finding(circle, what, "living workers mend this within 15 s; if none lives, start rhai-worker")
    recover = load_script(client, __package__, "queue/recover")
    for broker_id, queue in holders:
        # Living workers recover the messages of an expired lease within seconds.
        if queue != keys.queue or leases.get(broker_id, 0.0) >= now - LEASE_SECONDS:
            continue
        if broker_id in leases or not _is_alive(client, keys.namespace, broker_id, now):
            what = f"{client.scard(keys.acks(broker_id))} task(s) are held by a worker process that died"
            repair = partial(
                recover,
                keys=[keys.messages, keys.acks(broker_id), keys.deliveries, keys.leases],
                args=[broker_id, "expired"],
            )
            yield Finding(circle, what, "start a worker for the circle", repair)


def _is_alive(client: Any, namespace: str, broker_id: str, now: int) -> bool:
    """Return whether a process without a lease lives: it has published a report, and renews a deleted lease soon."""
    report = read_report(broker_id, client.hget(workers_key(namespace), to_bytes(broker_id)) or b"")
    return report is not None and report.at > now - LEASE_SECONDS


def _check_dead_letters(queues: Queues, circle: str) -> Iterator[Finding]:
    dead = queues.client.zcard(queues.keys(circle).dead)
    if dead:
        yield Finding(circle, f"{dead} dead letter(s)", "rhai-tasks dead list says why; retry or delete them")


def _check_rules(queues: Queues, circle: str) -> Iterator[Finding]:
    for rule in queues.rules.read(circle):
        if rule.verb == "limit":
            continue  # it is not a problem
        verb, remedy = ("paused", "resume") if rule.verb == "pause" else ("blocked", "unblock")
        what = f"{rule.subject} is {verb} since {timestamp(rule.at)} by {rule.by or 'somebody'}"
        yield Finding(circle, f"{what}: {rule.reason}" if rule.reason else what, f"rhai-tasks {remedy} ends it")
