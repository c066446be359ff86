"""Brings stored scripts to the tasks that name them."""

import threading
from collections import OrderedDict
from functools import partial
from typing import cast

from rhai_tasks.connection.outage import retry_until_answered
from rhai_tasks.errors import TaskMalformed
from rhai_tasks.protocol import Field, Task, hash_in, hash_of, name_in, script_names_key, scripts_key, shown
from rhai_tasks.queue.context import QueueContext

_KEPT_BYTES = 64 * 1024 * 1024
"""Of sources that a process keeps: a script crosses the network once, and not once a task."""


class StoredScripts:
    """Reads stored scripts, and keeps those that were used last. Threads: any."""

    def __init__(self, context: QueueContext) -> None:
        self._context = context
        self._kept: OrderedDict[str, str] = OrderedDict()  # by hash
        self._size = 0
        self._lock = threading.Lock()

    def load(self, task: Task) -> Task:
        """Return the task with the source that its `script_ref` names.

        Raises:
            TaskMalformed: There is no such script, or its source is another one.
            redis.RedisError: This process stops, and the server is away.
        """
        reference = task.script_ref or ""
        name = name_in(reference)
        digest = self._hash_of(name) if name else hash_in(reference)
        if digest is None:
            field = self._context.settings.table.stored(Field.SCRIPT_REF)
            raise TaskMalformed(
                f"Field '{field}' of the task is {shown(reference)}: "
                + ("no script has this name" if name else "expected sha256: and 64 hex digits, or @ and a name")
            )
        source = self._find(digest)
        return task._replace(script=self._fetch(digest) if source is None else source)

    def _hash_of(self, name: str) -> str | None:
        found = self._ask(script_names_key(self._context.settings.namespace), name)
        return hash_in(f"sha256:{found.decode(errors='replace')}") if found else None

    def _find(self, digest: str) -> str | None:
        with self._lock:
            source = self._kept.get(digest)
            if source is not None:
                self._kept.move_to_end(digest)
            return source

    def _fetch(self, digest: str) -> str:
        found = self._ask(scripts_key(self._context.settings.namespace), digest)
        if found is None:
            raise TaskMalformed(f"The script sha256:{digest} is not stored: it was deleted, or never put")
        try:
            source = found.decode()
            is_right = hash_of(source) == digest
        except UnicodeDecodeError:
            is_right = False
        if not is_right:
            raise TaskMalformed(f"The script that is stored as sha256:{digest} has another hash: it was changed")
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = source
                self._size += len(found)
            while self._size > _KEPT_BYTES and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._size -= len(oldest.encode())
        return source

    def _ask(self, key: str, field: str) -> bytes | None:
        context = self._context
        reply = retry_until_answered(partial(context.client.hget, key, field), context.outage, context.stopping)
        return cast("bytes | None", reply)
