"""A model of queue/lua/turns.lua: how callers take turns, weighted by the worker-seconds that they use.

Each caller has a virtual time: the worker-seconds that it has used while tasks waited, divided by its weight. The
waiting caller with the smallest one is next. A task is charged when it begins, by the average of its caller's last
ones, and what it used beyond, or did not, once it ends; one that runs for longer is charged on as it runs.
"""

from dataclasses import dataclass, field

UNKNOWN_SECONDS = 1.0
SETTLE_SECONDS = 0.01
CREDIT_SECONDS = 0.001
LEAST_SECONDS = 0.0001
MOST_SECONDS = 10.0  # between two looks at what runs: a longer time is a jump of the clock


@dataclass
class Charge:
    """A task that runs, and what its caller was charged for it."""

    begun: float
    since: float  # the time from which it counts
    seconds: float
    weight: float
    caller: str


@dataclass
class Turns:
    """The turns of one circle."""

    highest: float = 0.0  # of all virtual times
    since: float = 0.0  # when tasks began to wait
    settled: float = 0.0
    times: dict[str, float] = field(default_factory=dict)
    means: dict[str, float] = field(default_factory=dict)  # seconds of a task; "": of all callers
    charges: dict[int, Charge] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)

    def join(self, caller: str, now: float) -> None:
        """A task of a caller waits that had none waiting."""
        self.settle(now)
        if self.waiting:
            start = min(self.times[name] for name in self.waiting) - CREDIT_SECONDS  # it is next, but for its own past
        else:  # no task waited, so the used threads were taken from no other caller
            start, self.since = self.highest, now
        self.waiting.add(caller)
        self._set(caller, max(self.times.get(caller, start), start))

    def leave(self, caller: str) -> None:
        """No task of a caller waits any more."""
        self.waiting.discard(caller)

    def next(self, now: float) -> str | None:
        """Return the caller whose turn it is."""
        self.settle(now)
        return min(self.waiting, key=lambda name: (self.times[name], name), default=None)

    def begin(self, task: int, caller: str, weight: float, now: float) -> None:
        """A task begins."""
        seconds = self.means.get(caller, self.means.get("", UNKNOWN_SECONDS))
        self._set(caller, self.times[caller] + seconds / weight)
        self.charges[task] = Charge(now, now, seconds, weight, caller)

    def end(self, task: int, now: float) -> None:
        """A task ends."""
        charge = self.charges.pop(task)
        self._charge(charge, now, up_to=True)
        seconds = max(now - charge.begun, LEAST_SECONDS)
        for name, part in ((charge.caller, 0.2), ("", 0.05)):
            mean = self.means.get(name, seconds)
            self.means[name] = mean + part * (seconds - mean)

    def settle(self, now: float) -> None:
        """Charge tasks that run for longer than they were charged for."""
        self.since = min(self.since, now)  # the clock may have gone back
        if abs(now - self.settled) >= SETTLE_SECONDS * (1 + len(self.charges) / 20):
            skipped = max(now - max(self.settled, self.since) - MOST_SECONDS, 0.0)
            self.settled = now
            for charge in self.charges.values():
                self._forget_old(charge, now)
                charge.begun, charge.since = min(charge.begun + skipped, now), min(charge.since + skipped, now)
                self._charge(charge, now, up_to=False)

    def _charge(self, charge: Charge, now: float, *, up_to: bool) -> None:
        self._forget_old(charge, now)
        used = max(now - charge.since, LEAST_SECONDS if up_to else 0.0)
        if up_to or used > charge.seconds:
            self._set(charge.caller, self.times[charge.caller] + (used - charge.seconds) / charge.weight)
            charge.seconds = used

    def _forget_old(self, charge: Charge, now: float) -> None:
        if charge.since < self.since or charge.since > now:  # it was charged for a time that counts no more
            charge.begun, charge.since, charge.seconds = min(charge.begun, now), self.since, 0.0

    def _set(self, caller: str, time: float) -> None:
        self.times[caller] = time
        self.highest = max(self.highest, time)
