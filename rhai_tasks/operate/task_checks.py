"""Checks of single tasks: ids without details, and tasks that no worker runs any more."""

import time
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import Any

from rhai_tasks.protocol import (
    Field,
    QueueKeys,
    Status,
    key_pattern,
    parse_time,
    state_channel,
    timestamp,
    to_bytes,
    to_text,
)

from .findings import Finding
from .messages import tasks_of
from .queues import Queues

_SCANNED = 1000  # keys or elements in one command

_STATE = (Field.STATUS, Field.UPDATED_AT)

Holder = tuple[str, str]
"""A worker process that holds messages, by its broker id, and the queue of those messages."""


def find_ids_without_details(queues: Queues, circle: str) -> Iterator[Finding]:
    """Find ids in the native list whose tasks have no details."""
    client, native = queues.client, queues.native_key(circle)
    prefix = to_bytes(queues.settings.prefixes.details)
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


def find_orphans(queues: Queues, circles: list[str], holders: list[Holder], stale_seconds: float) -> Iterator[Finding]:
    """Find tasks that are `processing`, though no worker with a lease holds them and no queue has them."""
    client, prefix, table = queues.client, queues.settings.prefixes.details, queues.settings.table
    home = Field.CONTEXT_ID if table.context_is_circle else Field.CIRCLE
    fields, running = table.stored_names((*_STATE, home)), table.words[Status.PROCESSING].encode()
    known: set[str] = set()
    for broker_id, queue in holders:
        names = QueueKeys(queues.settings.namespace, queue)
        known.update(tasks_of(client, names, client.smembers(names.acks(broker_id))))
    for circle in circles:
        names = queues.keys(circle)
        known.update(tasks_of(client, names, [*queues.buffered(circle), *queues.parked(circle)]))
    keys = client.scan_iter(match=key_pattern(prefix), count=_SCANNED, _type="HASH")
    while some := list(islice(keys, _SCANNED)):
        with client.pipeline(transaction=False) as pipeline:
            for key in some:
                pipeline.hmget(key, *fields)
            states = pipeline.execute()
        for key, (status, updated, home_circle) in zip(some, states, strict=True):
            task_id = to_text(key).removeprefix(prefix)
            if status != running or task_id in known or _age(updated) < stale_seconds:
                continue
            what = f"task {task_id!r} is processing, and no worker of this project holds it"
            circle = to_text(home_circle) if home_circle else ""
            repair = partial(_submit_again, queues, circle, key, updated) if circle in circles else None
            yield Finding(circle or "tasks", what, "unless an original worker runs it, submit it again", repair)


def _submit_again(queues: Queues, circle: str, key: bytes, updated: bytes | None) -> None:
    settings, table = queues.settings, queues.settings.table
    fields, running = table.stored_names(_STATE), table.words[Status.PROCESSING].encode()
    pending = [Field.STATUS, Status.PENDING, Field.UPDATED_AT, timestamp(time.time())]

    def submit(pipeline: Any) -> None:
        is_as_seen = pipeline.hmget(key, *fields) == [running, updated]
        pipeline.multi()
        if is_as_seen:
            pipeline.hset(key, items=table.write(pending))
            pipeline.lpush(queues.native_key(circle), key.removeprefix(to_bytes(settings.prefixes.details)))
            pipeline.publish(to_bytes(state_channel(settings.namespace)) + key, Status.PENDING)

    queues.client.transaction(submit, key)


def _age(updated: bytes | None) -> float:
    """Return the seconds since a time of a details hash; infinite if it cannot be read."""
    then = parse_time(updated or b"")
    return float("inf") if then is None else time.time() - then
