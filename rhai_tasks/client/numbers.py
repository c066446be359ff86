"""Numbers the requests that submit tasks, so that the server carries a repeated request out once."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar
from uuid import uuid4

from rhai_tasks.protocol import submits_key

from .requests import Request

T = TypeVar("T")


class RequestNumbers:
    """Numbers requests, so that the server recognises one that is repeated. Each fork starts numbers of its own."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._key = submits_key(self._namespace, str(uuid4()))
        self._last = 0
        self._open: set[int] = set()

    @contextmanager
    def numbered(self, request: Request[T]) -> Iterator[Request[T]]:
        """Number a request; the server remembers the number until the caller leaves, and knows whether it was done."""
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            self._last += 1
            number = self._last
            self._open.add(number)
            lowest = min(self._open)
        try:
            yield Request(request.script, [self._key, *request.keys], [number, lowest, *request.args], request.read)
        finally:
            with self._lock:
                self._open.discard(number)
