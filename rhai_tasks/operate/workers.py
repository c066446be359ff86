"""The worker processes of all machines, as their heartbeats report them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from rhai_tasks.observe.recorder import Report, read_report
from rhai_tasks.protocol import quiet_field, to_text, workers_key
from rhai_tasks.queue.leases import LEASE_SECONDS


def read_workers(client: Any, namespace: str) -> list[Report]:
    """Read the heartbeats of the worker processes with valid leases."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.time()
        pipeline.hgetall(workers_key(namespace))
        clock, heartbeats = pipeline.execute(raise_on_error=False)
    if isinstance(clock, redis.RedisError):
        raise clock
    seconds, microseconds = clock
    now = seconds + microseconds / 1e6
    return [report for report in parse_heartbeats(heartbeats).values() if lease_of(report, now) > 0]


def set_quiet(client: Any, namespace: str, broker_id: str, *, quiet: bool) -> None:
    """Let a worker process take no tasks, or take some again; it obeys within seconds, at its next heartbeat.

    Its running scripts go on, and what it has prefetched goes to others. It lasts until it is undone or the process
    ends; a process that takes the place of one that died obeys, too.
    """
    if quiet:
        seconds, _ = client.time()
        # Dated as a heartbeat is: workers remove old fields.
        client.hset(workers_key(namespace), quiet_field(broker_id), f'{{"at":{seconds * 1000},"quiet":true}}')
    else:
        client.hdel(workers_key(namespace), quiet_field(broker_id))


def parse_heartbeats(reply: Mapping[bytes, bytes] | Exception) -> dict[str, Report]:
    """Parse the hash of heartbeats; return reports by broker id, without those that this version cannot read.

    A key of another type, or a user without the right to read it, hides nothing else: there are no reports then.

    Raises:
        redis.RedisError: The server did not answer.
    """
    if isinstance(reply, Exception):
        if isinstance(reply, redis.ResponseError):
            return {}
        raise reply
    named = sorted((to_text(broker_id), text) for broker_id, text in reply.items())
    reports = ((broker_id, read_report(broker_id, text)) for broker_id, text in named)
    return {broker_id: report for broker_id, report in reports if report is not None}


def lease_of(report: Report, now: float) -> float:
    """Return how many more seconds the lease of a worker process is valid; negative: how long ago it ended.

    `now` is the server's clock, in seconds since the epoch.
    """
    return report.at + LEASE_SECONDS - now


def count_running(reports: Iterable[Report]) -> Counter[str]:
    """Count the running scripts by circle."""
    total = Counter[str]()
    for report in reports:
        total.update(report.running_by_circle)
    return total
