"""Finds messages that no worker would ever run, because somebody has deleted an internal key, or a part of it.

A broker's lease leads to its acks, and the acks to its messages. Without the lease no broker reads the acks;
without the acks no broker knows the messages.
"""

import logging
import random
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import redis

from rhai_tasks.connection.outage import Outage
from rhai_tasks.connection.scripts import load_script, run_each
from rhai_tasks.protocol import QueueKeys, key_pattern, to_bytes, to_text
from rhai_tasks.threads import vital_thread

logger = logging.getLogger(__name__)

SEARCH_SECONDS = 60.0
"""Between two searches of one process, about: processes take turns by chance."""
FIRST_SECONDS = 15.0
"""Until the first search, at most: a tree is often started because another one is gone."""

_SCANNED = 1000  # keys in one command
_SCAN_PAUSE_SECONDS = 0.005  # between two of them: the server has others to serve
_MOST = 10_000  # messages of a queue that are searched; in a longer one, strays wait until it is shorter
_QUEUE = ".rhai-"  # between a broker's id and a circle's, in the names of sets of held messages


class Strays:
    """Searches for strays from time to time, and puts them back into their queues.

    Args:
        client: For its own thread, or shared.
        namespace: Prefix of this project's keys.
        queues: Returns those that this process serves now.
        lease_seconds: How long a lease lasts.
    """

    def __init__(
        self, client: redis.Redis, namespace: str, queues: Callable[[], Iterable[str]], lease_seconds: float
    ) -> None:
        self._client, self._namespace, self._queues, self._lease = client, namespace, queues, lease_seconds
        self._script = load_script(client, __package__, "strays")

    def start(self, outage: Outage, stopping: threading.Event) -> None:
        """Search from time to time, on a thread, until `stopping`."""
        self._thread = vital_thread("strays", lambda: self._keep_searching(outage, stopping))
        self._thread.start()

    def stop(self) -> None:
        """Wait for the thread; the event has been set."""
        self._thread.join()

    def _keep_searching(self, outage: Outage, stopping: threading.Event) -> None:
        pause = random.uniform(0, FIRST_SECONDS)  # noqa: S311  (no secret)
        while not stopping.wait(pause):
            pause = SEARCH_SECONDS * random.uniform(0.75, 1.25)  # noqa: S311
            try:
                self._search(stopping)
            except redis.RedisError as error:
                if isinstance(error, redis.ResponseError):  # the lease thread logs that a server does not answer
                    outage.failed(error)

    def _search(self, stopping: threading.Event) -> None:
        strays = self.find({queue: set() for queue in self._queues()})
        if not strays:
            return
        self.adopt(strays, lambda: stopping.wait(_SCAN_PAUSE_SECONDS))
        # By then a living worker holds its messages again, under a lease.
        if not stopping.wait(self._lease * 1.5):
            self.find(strays)

    def find(self, before: Mapping[str, Collection[str]]) -> dict[str, set[str]]:
        """Return the ids of messages that are nowhere, by queue.

        Args:
            before: By queue, the messages that an earlier search found nowhere: those that are still nowhere go back.

        Raises:
            redis.RedisError: The server does not answer, or refuses a queue; the others are searched.
        """
        calls = [self._call(QueueKeys(self._namespace, queue), ids) for queue, ids in before.items()]
        found: dict[str, set[str]] = {}
        refused: redis.RedisError | None = None
        for queue, reply in zip(before, run_each(self._client, self._script, calls), strict=True):
            if isinstance(reply, redis.RedisError):
                refused = reply
                continue
            ids, again = reply
            if again:
                logger.warning("Put %d task(s) that no worker held any more back into queue %s", again, queue)
            if ids:
                found[queue] = {to_text(message_id) for message_id in ids}
        if refused and not found:
            raise refused
        return found

    def adopt(self, queues: Collection[str], pause: Callable[[], bool]) -> None:
        """Give a lease to each broker without one that holds messages of these queues: its expiry brings them back.

        Args:
            queues: Their names.
            pause: Called between two commands; returns whether to stop.
        """
        prefix = QueueKeys.acks_start(self._namespace)
        cursor = -1
        while cursor:
            cursor, keys = self._scan(max(cursor, 0), key_pattern(prefix))
            seconds, microseconds = self._client.time()
            until = seconds * 1000 + microseconds // 1000 + int(self._lease * 1000)
            for key in keys:
                broker_id, separator, circle = to_text(key).removeprefix(prefix).rpartition(_QUEUE)
                queue = f"{_QUEUE[1:]}{circle}"
                if separator and queue in queues:
                    self._client.zadd(QueueKeys(self._namespace, queue).leases, {to_bytes(broker_id): until}, nx=True)
            if pause():
                return

    def _scan(self, cursor: int, pattern: bytes) -> tuple[int, list[bytes]]:
        reply: Any = self._client.scan(cursor, match=pattern, count=_SCANNED, _type="SET")
        return int(reply[0]), list(reply[1])

    def _call(self, keys: QueueKeys, before: Collection[str]) -> dict[str, Any]:
        """Write keys and arguments of `strays.lua`."""
        return {
            "keys": [
                keys.messages,
                keys.bodies,
                keys.deliveries,
                keys.leases,
                keys.published,
                keys.delayed_messages,
            ],
            "args": [keys.acks_start(keys.namespace), keys.queue, _MOST, *map(to_bytes, before)],
        }
