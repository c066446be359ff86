"""A model of the turns that callers take with `--fair`, as queue/lua/turns.lua keeps them: what it promises.

Time is simulated, so each example is the same on each machine. tests/integration/queue/test_fair.py compares the
Lua functions with this model.
"""

import heapq
from collections import Counter
from dataclasses import dataclass, field
from math import inf
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.turns import Turns


@dataclass
class Caller:
    """A caller of the simulation, and how it behaves."""

    weight: float
    seconds: float  # of its tasks, on average
    arrivals: float = 0.0  # tasks a second; 0: it always has a task waiting
    first: float = 0.0  # when it comes
    then: tuple[float, float] = (inf, 0.0)  # from this moment on, how long its tasks take


@dataclass
class Simulation:
    """Threads that serve callers by their turns."""

    callers: dict[str, Caller]
    threads: int
    random: Random
    turns: Turns = field(default_factory=Turns)
    used: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # spans of runs
    waits: list[tuple[str, float]] = field(default_factory=list)  # of each task, from its arrival to its begin

    def run(self, seconds: float) -> None:
        """Simulate so long."""
        events: list[tuple[float, int, str, str]] = []  # at, number, what, caller
        waiting: dict[str, list[float]] = {name: [] for name in self.callers}
        number, free = 0, self.threads

        def at(time: float, what: str, name: str) -> None:
            nonlocal number
            number += 1
            heapq.heappush(events, (time, number, what, name))

        for name, caller in self.callers.items():
            at(caller.first, "arrives", name)
        while events and events[0][0] < seconds:
            now, _, what, name = heapq.heappop(events)
            if what.startswith("ends"):
                free += 1
                self.turns.end(int(what[5:]), now)
            else:
                caller = self.callers[name]
                waiting[name].append(now)
                if len(waiting[name]) == 1:
                    self.turns.join(name, now)
                if caller.arrivals:
                    at(now + self.random.expovariate(caller.arrivals), "arrives", name)
            while free and (chosen := self.turns.next(now)):
                arrived = waiting[chosen].pop(0)
                if not self.callers[chosen].arrivals:
                    waiting[chosen].append(now)
                free -= 1
                number += 1
                self.turns.begin(number, chosen, self.callers[chosen].weight, now)
                if not waiting[chosen]:
                    self.turns.leave(chosen)
                since, then = self.callers[chosen].then
                duration = self.random.expovariate(1 / (self.callers[chosen].seconds if now < since else then))
                self.used.setdefault(chosen, []).append((now, now + duration))
                self.waits.append((chosen, now - arrived))
                at(now + duration, f"ends {number}", chosen)
            assert not free or not any(waiting.values()), "a thread is idle while a task waits"

    def share(self, begin: float, end: float) -> dict[str, float]:
        """Return each caller's share of the worker-seconds of a window."""
        seconds = {
            name: sum(max(min(stop, end) - max(start, begin), 0.0) for start, stop in spans)
            for name, spans in self.used.items()
        }
        total = sum(seconds.values())
        return {name: seconds.get(name, 0.0) / total for name in self.callers}


weights = st.floats(1.0, 4.0)
durations = st.floats(-1.0, 1.0).map(lambda power: 10.0**power)
backlogged = st.lists(st.builds(Caller, weight=weights, seconds=durations), min_size=2, max_size=4)


def simulate(callers: list[Caller], threads: int, seed: int, seconds: float) -> Simulation:
    simulation = Simulation({f"k{i}": caller for i, caller in enumerate(callers)}, threads, Random(seed))
    simulation.run(seconds)
    return simulation


@settings(max_examples=15, deadline=None)
@given(callers=backlogged, threads=st.integers(1, 8), seed=st.integers(0, 2**32))
def test_shares_of_worker_seconds_are_within_a_twentieth_of_the_weights(
    callers: list[Caller], threads: int, seed: int
) -> None:
    longest = max(caller.seconds for caller in callers)
    window = 300 * longest * len(callers)
    simulation = simulate(callers, threads, seed, 1.5 * window)
    total = sum(caller.weight for caller in callers)
    shares = simulation.share(window / 2, 1.5 * window)
    for name, caller in simulation.callers.items():
        assert abs(shares[name] - caller.weight / total) < 0.05, shares


@settings(max_examples=15, deadline=None)
@given(flood=backlogged, threads=st.integers(1, 8), seed=st.integers(0, 2**32), first=st.floats(0.0, 200.0))
def test_a_quiet_caller_waits_for_a_free_thread_and_not_for_the_backlog(
    flood: list[Caller], threads: int, seed: int, first: float
) -> None:
    # It asks for a tenth of the share that it has a right to.
    total = sum(caller.weight for caller in flood) + 1.0
    quiet = Caller(1.0, 0.05, arrivals=0.1 * threads / total / 0.05, first=first)
    simulation = simulate([*flood, quiet], threads, seed, first + 200.0)
    waits = [seconds for name, seconds in simulation.waits if name == f"k{len(flood)}"]
    # A thread gets free when one of the long tasks ends; by then, several of its own may wait.
    longest = max(stop - start for name, spans in simulation.used.items() for start, stop in spans)
    assert waits
    assert max(waits) <= 2 * longest


@settings(max_examples=15, deadline=None)
@given(
    callers=st.lists(
        st.builds(Caller, weight=weights, seconds=durations, arrivals=st.floats(0.05, 5.0), first=st.floats(0.0, 50.0)),
        min_size=1,
        max_size=6,
    ),
    threads=st.integers(1, 8),
    seed=st.integers(0, 2**32),
)
def test_no_thread_is_idle_while_a_task_waits(callers: list[Caller], threads: int, seed: int) -> None:
    simulation = simulate(callers, threads, seed, 100.0)  # it asserts that at each moment
    assert Counter(name for name, _ in simulation.waits).total() > 0


@pytest.mark.parametrize(("seconds", "alone"), [(0.01, 10.0), (0.01, 360.0), (10.0, 10.0), (10.0, 3600.0)])
def test_the_past_gives_neither_credit_nor_debt(seconds: float, alone: float) -> None:
    """One caller had all threads for long, another came only then: from then on, both have half."""
    callers = [Caller(1.0, seconds), Caller(1.0, seconds, first=alone)]
    simulation = simulate(callers, 4, 1, alone + 400 * seconds)
    shares = simulation.share(alone + 20 * seconds, alone + 60 * seconds)
    assert abs(shares["k0"] - 0.5) < 0.2
    shares = simulation.share(alone + 20 * seconds, alone + 400 * seconds)
    assert abs(shares["k0"] - 0.5) < 0.05


def test_tasks_that_turn_out_long_hold_no_more_threads_than_their_share() -> None:
    """A caller whose tasks were short sends long ones: what runs is counted before it ends."""
    callers = [Caller(1.0, 0.01, then=(20.0, 100.0)), Caller(1.0, 0.1)]
    simulation = simulate(callers, 8, 1, 60.0)
    spans = [span for span in simulation.used["k0"] if span[0] >= 20.0]
    at_once = [sum(start <= moment < stop for start, stop in spans) for moment, _ in spans]
    assert 4 <= max(at_once) <= 6
