"""Actions on many tasks, in the background: each finds its tasks, waits for a confirmation, and acts."""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing

from rhai_tasks.operate.bulk import Bulk

_KEPT = 20  # the latest actions
_AT_ONCE = 2


class Job:
    """An action on many tasks, and how far it is."""

    def __init__(self, number: int, bulk: Bulk) -> None:
        self.number, self.bulk = number, bulk
        self.at = time.time()
        self.state = "finding"  # found, acting, done, stopped, failed
        self.problem = ""
        self.stopping = threading.Event()

    @property
    def is_busy(self) -> bool:
        """Whether a thread works on it."""
        return self.state in {"finding", "acting"}

    def run(self, steps: Callable[[], Generator[None, None, None]], then: str) -> None:
        """Carry out steps; half of the time is left to the server's other work."""
        began = time.monotonic()
        try:
            with closing(steps()) as each:
                for _ in each:
                    if self.stopping.wait(min(time.monotonic() - began, 1.0)):
                        then = "stopped"
                        break
                    began = time.monotonic()
            self.state = then
        except Exception as error:  # the page of the action shows it: nobody else waits for this thread
            self.state, self.problem = "failed", str(error)


class Jobs:
    """The latest actions on many tasks. They end with the process."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._last = 0

    def get(self, number: int) -> Job | None:
        """Return an action."""
        return self._jobs.get(number)

    def latest(self) -> list[Job]:
        """List the actions, the latest first."""
        with self._lock:
            return sorted(self._jobs.values(), key=lambda job: -job.number)

    def find(self, bulk: Bulk) -> Job | None:
        """Begin to find the tasks of an action; `None`: others keep it from that."""
        with self._lock:
            if not self._has_room():
                return None
            self._last += 1
            job = self._jobs[self._last] = Job(self._last, bulk)
            old = [number for number, one in self._jobs.items() if not one.is_busy]
            for number in old[: max(len(self._jobs) - _KEPT, 0)]:
                del self._jobs[number]
        self._start(job, bulk.find, "found")
        return job

    def act(self, job: Job) -> bool:
        """Begin to act on the tasks; `False`: it is in another state, or others keep it from that."""
        with self._lock:
            if job.state != "found" or not self._has_room():
                return False
            job.state = "acting"
        self._start(job, lambda: self._act(job.bulk), "done")
        return True

    def stop(self, job: Job) -> None:
        """Stop an action after its present step."""
        with self._lock:
            job.stopping.set()
            if job.state == "found":
                job.state = "stopped"

    def close(self) -> None:
        """Stop all actions."""
        for job in self.latest():
            job.stopping.set()

    def _act(self, bulk: Bulk) -> Generator[None, None, None]:
        try:
            yield from bulk.act()
        finally:
            bulk.note()

    def _has_room(self) -> bool:
        return sum(job.is_busy for job in self._jobs.values()) < _AT_ONCE

    def _start(self, job: Job, steps: Callable[[], Generator[None, None, None]], then: str) -> None:
        threading.Thread(target=job.run, args=(steps, then), name=f"bulk {job.number}", daemon=True).start()
