"""Native lists: which circles have one, and how tasks are given back to it."""

import logging
import time
from collections.abc import Collection, Iterable, Iterator
from typing import cast

import redis

from rhai_tasks.connection.scripts import load_script
from rhai_tasks.protocol import (
    ACTOR,
    QueueKeys,
    circle_of,
    is_utf8,
    key_pattern,
    queue_name,
    timestamp,
    to_bytes,
    to_text,
)
from rhai_tasks.settings import Settings

logger = logging.getLogger(__name__)

_HEAD = 16  # ids of a list that are read to find out whether it is one of tasks
_LISTS_AT_ONCE = 500
_IDS_AT_ONCE = 1000  # that go back in one step, in which the server does nothing else: some milliseconds


def give_back(client: redis.Redis, settings: Settings, circle: str, *, held_by: Iterable[str] = ()) -> int:
    """Give messages that no worker holds back to the end of the native list that is taken from next, in order.

    Returns how many.

    Args:
        client: Runs the script.
        settings: The names of keys, and the order.
        circle: Whose tasks.
        held_by: Brokers that are gone: the messages that they held come first.
    """
    keys = QueueKeys(settings.namespace, queue_name(circle))
    script = load_script(client, __package__, "give_back", settings.table)
    names: list[str | bytes] = [
        to_bytes(settings.prefixes.queue + circle),
        keys.messages,
        keys.bodies,
        keys.deliveries,
        keys.full,
        keys.published,
        keys.leases,
        *(keys.acks(broker_id) for broker_id in held_by),
    ]
    start = [
        ACTOR,
        settings.prefixes.details,
        timestamp(time.time()),
        keys.acks_start(keys.namespace),
        keys.queue,
        settings.order,
    ]
    count = int(script(keys=names, args=[*start, ""]))
    if count < 0:
        count = _give_back_ids(client, settings, names, start) + int(script(keys=names, args=[*start, "all"]))
    if count:
        logger.info("Gave %d task(s) of circle %s back to the native list", count, circle)
    return count


def _give_back_ids(client: redis.Redis, settings: Settings, names: list[str | bytes], start: list[str]) -> int:
    """Give back the ids of a long queue and of lines, some at a time: the server has others to serve."""
    script = load_script(client, __package__, "give_back_ids", settings.table)
    total, left, has_lines = 0, "", 1
    while left != "0" or has_lines:
        count, rest, has_lines = script(keys=names, args=[*start, _IDS_AT_ONCE, left])
        total, left = total + count, str(rest)
    return total


def delayed_keys(keys: QueueKeys, native_key: bytes) -> list[str | bytes]:
    """List the keys of a circle that `due.lua` takes."""
    waits: list[str | bytes] = [keys.delayed, native_key, keys.delayed_messages, keys.messages]
    return [*waits, keys.bodies, keys.delay_queue, keys.delay_bodies]


def waiting_circles(client: redis.Redis, settings: Settings) -> list[str]:
    """List the circles whose native list exists, which is when it holds a task, and those with delayed tasks."""
    delayed = [circle for circle, is_delayed in _registered(client, settings).items() if is_delayed]
    return [*_listed(client, settings), *_circles_of_messages(client, settings), *delayed]


def circles_with_tasks(client: redis.Redis, settings: Settings, known: Collection[str] = ()) -> list[str]:
    """List circles as `waiting_circles` does, but without lists that may not be of tasks.

    A list of somebody else may begin with the prefix by chance, and bridging would empty it. A list is one of tasks if
    one of the ids at its head has details, or if its circle is known, or was bridged before. Whether a known circle has
    delayed tasks is not asked: the caller serves it already.
    """
    registered = _registered(client, settings, known)
    listed = _listed(client, settings)
    strange = [circle for circle in listed if circle not in known and circle not in registered]
    prefix = to_bytes(settings.prefixes.details)
    of_tasks: set[str] = set()
    for first in range(0, len(strange), _LISTS_AT_ONCE):
        some = strange[first : first + _LISTS_AT_ONCE]
        with client.pipeline(transaction=False) as pipeline:
            for circle in some:
                pipeline.lrange(cast("str", to_bytes(settings.prefixes.queue + circle)), 0, _HEAD - 1)
            heads = list(zip(some, pipeline.execute(raise_on_error=False), strict=True))
            for _, ids in heads:
                if isinstance(ids, redis.RedisError) and not str(ids).startswith("WRONGTYPE"):
                    raise ids  # else the list is gone, and another type in its place
            candidates = [(circle, ids) for circle, ids in heads if isinstance(ids, list) and ids]
            for _, ids in candidates:
                pipeline.exists(*(prefix + task_id for task_id in ids))
            of_tasks |= {circle for (circle, _), there in zip(candidates, pipeline.execute(), strict=True) if there}
    strangers = set(strange) - of_tasks
    delayed = [circle for circle, is_delayed in registered.items() if is_delayed]
    found = [circle for circle in [*listed, *delayed] if circle not in strangers]
    return [circle for circle in [*found, *_circles_of_messages(client, settings)] if is_utf8(circle)]


def _listed(client: redis.Redis, settings: Settings) -> list[str]:
    """List the circles whose native list exists."""
    prefix = to_bytes(settings.prefixes.queue)
    keys = client.scan_iter(match=key_pattern(settings.prefixes.queue), count=1000, _type="LIST")
    return [to_text(key.removeprefix(prefix)) for key in keys]


def _registered(client: redis.Redis, settings: Settings, known: Collection[str] = ()) -> dict[str, bool]:
    """Return for each circle that was ever bridged whether it has delayed tasks; `False` for those that are known."""
    names = [name.decode() for name in registered_queues(client, settings) if name.isascii()]  # no others are
    circles = {circle_of(name): QueueKeys(settings.namespace, name) for name in names}
    asked = [circle for circle in circles if circle not in known]
    with client.pipeline(transaction=False) as pipeline:
        for circle in asked:
            pipeline.exists(circles[circle].delayed, circles[circle].delayed_messages)
        delayed = dict(zip(asked, pipeline.execute(), strict=True))
    return {circle: bool(delayed.get(circle)) for circle in circles}


def registered_queues(client: redis.Redis, settings: Settings) -> set[bytes]:
    """List the queues that a bridge ever served; none if the key has a wrong type, which the doctor reports."""
    try:
        return cast("set[bytes]", client.smembers(QueueKeys.registry(settings.namespace)))
    except redis.ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return set()


def _circles_of_messages(client: redis.Redis, settings: Settings) -> Iterator[str]:
    """Yield circles that any broker has sent messages to; some more than once."""
    start = to_bytes(QueueKeys(settings.namespace, queue_name("")).messages)
    # A second scan: SCAN takes one pattern. One scan in Lua for both prefixes took 3.5 times the server's time of two.
    for key in client.scan_iter(match=key_pattern(to_text(start)), count=1000, _type="HASH"):
        name = key.removeprefix(start)
        queue = queue_name("") + to_text(name).removesuffix(".msgs").removesuffix(".DQ")
        if name.endswith(b".msgs") and queue_name(circle_of(queue)) == queue:  # not of dead letters
            yield circle_of(queue)
