"""Reads all errors in the background, and keeps them in groups: a walk through many details takes a while."""

import threading
import time
from collections import OrderedDict

from rhai_tasks.operate.error_groups import ErrorGroup, ErrorGroups
from rhai_tasks.operate.tasks import Tasks
from rhai_tasks.operate.where import Where

_KEPT = 8  # walks whose results are kept, one for each filter
_AT_ONCE = 2  # walks: more would keep the server from its tasks


class ErrorWalk:
    """One walk through the details of all tasks: the groups that it has found up to now."""

    def __init__(self, where: Where) -> None:
        self.where = where
        self.is_busy = False
        self.searched = 0  # keys
        self.at = 0.0  # seconds since the epoch at which it began; 0: it has not begun
        self.problem = ""
        self._groups = ErrorGroups()
        self._lock = threading.Lock()

    def groups(self) -> tuple[list[ErrorGroup], int, int]:
        """Return the groups, the largest first; how many errors there are; and how many are in no group."""
        with self._lock:
            return self._groups.largest(), self._groups.total, self._groups.left_out

    def run(self, tasks: Tasks, stopping: threading.Event) -> None:
        """Walk. Half of the time is left to the server's other work."""
        seen: set[str] = set()  # a scan may return a task twice
        self.at, began = time.time(), time.monotonic()
        try:
            for step in tasks.walk(self.where):
                new = [one for one in step.found if one.task_id not in seen]
                seen.update(one.task_id for one in new)
                with self._lock:
                    self._groups.add(new)
                    self.searched += step.searched
                now = time.monotonic()
                if stopping.wait(min(now - began, 1.0)):
                    return
                began = time.monotonic()
        except Exception as error:  # the page of the errors shows it: nobody else waits for this thread
            self.problem = str(error)
        finally:
            self.is_busy = False


class ErrorWalks:
    """The latest walk of each filter, for all visitors."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._walks: OrderedDict[Where, ErrorWalk] = OrderedDict()
        self._busy: list[ErrorWalk] = []
        self._lock = threading.Lock()
        self._stopping = threading.Event()

    def get(self, where: Where) -> ErrorWalk:
        """Return the latest walk of a filter; without one, a new one begins, unless others keep it from that."""
        with self._lock:
            walk = self._walks.get(where)
        return walk or self.renew(where)

    def renew(self, where: Where) -> ErrorWalk:
        """Begin a walk in the place of one that has ended."""
        with self._lock:
            self._busy = [walk for walk in self._busy if walk.is_busy]
            walk = self._walks.get(where)
            if walk and walk.is_busy:
                return walk
            if len(self._busy) >= _AT_ONCE:
                return walk or ErrorWalk(where)
            walk = self._walks[where] = ErrorWalk(where)
            self._walks.move_to_end(where)
            while len(self._walks) > _KEPT:
                self._walks.popitem(last=False)
            walk.is_busy = True
            self._busy.append(walk)
        threading.Thread(target=walk.run, args=(self._tasks, self._stopping), name="errors", daemon=True).start()
        return walk

    def close(self) -> None:
        """Stop all walks."""
        self._stopping.set()
