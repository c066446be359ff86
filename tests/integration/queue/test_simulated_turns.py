"""Turns as the scripts on the server give them, by a clock that the test sets.

`sort.lua`, `fetch.lua` and `finish.lua` are as they are. tests/unit/queue/test_turns.py asks the same of
the model, with many more examples.
"""

import heapq
import itertools
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from bridge.circle import CircleBridge
from rhai_tasks import Settings
from rhai_tasks.connection import scripts
from rhai_tasks.connection.connect import connect
from rhai_tasks.operate.rules import Rules
from rhai_tasks.protocol import Quota, Rule, completed, queue_name
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.queue.endings import Finished
from rhai_tasks.queue.message import TaskMessage
from tests.conftest import Dispatcher

CIRCLE = "circle"
BEGIN = 1_000_000.0  # seconds


@dataclass(frozen=True)
class Caller:
    """A caller of the simulation."""

    weight: int
    seconds: float  # of its tasks, on average
    arrivals: float = 0.0  # tasks a second; 0: it has had a backlog since the beginning


class Simulation:
    """Threads that run the tasks of a circle, on a server whose scripts read the time from a key."""

    def __init__(self, client: Any, url: str, callers: dict[str, Caller], threads: int, seed: int) -> None:
        self._client, self._callers, self._threads, self._random = client, callers, threads, Random(seed)
        settings = Settings(redis_url=url, fair=True)
        self._broker = TaskBroker(settings, broker_id="simulated")  # its writer does not run: the simulation writes
        self._consumer = self._broker.consume(queue_name(CIRCLE), threads, 1000)
        self._consumer._leftovers._recovered = True
        self._bridge = CircleBridge(settings, CIRCLE, connect(url))
        self._dispatcher = Dispatcher(client)
        self._numbers = itertools.count()
        self._waiting = Counter[str]()
        self._arrived = dict[str, float]()
        self.used = Counter[str]()  # milliseconds of threads, by caller
        self.waits = dict[str, list[float]]()
        rules = Rules(client, settings.namespace, "me")
        for name, caller in callers.items():
            rules.set(CIRCLE, Rule("limit", "caller", name, quota=Quota(weight=caller.weight)))

    def run(self, warm_up: float, window: float) -> None:
        """Simulate so many seconds; count what is used within the window behind the warm-up."""
        events: list[tuple[float, int, Any]] = [(BEGIN, -1, None)]  # at, number, who arrives or what ends
        end, free = BEGIN + warm_up + window, self._threads
        for name, caller in self._callers.items():
            if caller.arrivals:
                heapq.heappush(events, (BEGIN + self._pause(caller), next(self._numbers), name))
            else:
                self._submit(name, BEGIN, int(1.5 * (warm_up + window) * self._threads / caller.seconds))
        while events[0][0] < end:
            now, number, event = heapq.heappop(events)
            self._set_clock(now)
            if isinstance(event, str):
                self._submit(event, now, 1)
                heapq.heappush(events, (now + self._pause(self._callers[event]), next(self._numbers), event))
            elif event is None:  # the bridge looks after the turns every few seconds
                heapq.heappush(events, (now + 3.0, number, None))
            else:
                message, seconds = event
                self._finish(message, seconds)
                free += 1
            self._sort()
            for message in self._fetch(free):
                free -= 1
                name = message.run.delivery.task_id.partition("-")[0]
                self._waiting[name] -= 1
                self.waits.setdefault(name, []).append(now - self._arrived[message.run.delivery.task_id])
                seconds = self._random.expovariate(1 / self._callers[name].seconds)
                self.used[name] += int(1000 * max(min(now + seconds, end) - max(now, BEGIN + warm_up), 0.0))
                heapq.heappush(events, (now + seconds, next(self._numbers), (message, seconds)))
            assert free == 0 or not self._waiting.total(), "a thread is idle while a task waits"

    def _pause(self, caller: Caller) -> float:
        return self._random.expovariate(caller.arrivals)

    def _set_clock(self, now: float) -> None:
        self._client.set("clock", json.dumps([int(now), int(now % 1 * 1e6)]))

    def _submit(self, name: str, now: float, count: int) -> None:
        for _ in range(count):
            task_id = self._dispatcher.submit(CIRCLE, f"{name}-{next(self._numbers)}", "1", callerId=name)
            self._arrived[task_id] = now
        self._waiting[name] += count

    def _sort(self) -> None:
        while self._bridge.take(**self._bridge.call)[0]:
            pass

    def _fetch(self, count: int) -> list[TaskMessage]:
        source: Any = self._consumer.source
        source.more = True
        self._consumer._hold(source.fetch(count), size=1)
        fetched = list(self._consumer._fetched)
        self._consumer._fetched.clear()
        return fetched

    def _finish(self, message: TaskMessage, seconds: float) -> None:
        ending = Finished(message.run.delivery, completed("1"), [], ended=0.0, use=(0.0, seconds, 1, 1))
        self._broker.writer.finish(ending, at_once=False)
        self._broker.writer._write()


Simulate = Callable[[dict[str, Caller], int, int], Simulation]


@pytest.fixture
def simulate(client: Any, server_url: str, monkeypatch: pytest.MonkeyPatch) -> Simulate:
    source_of = scripts.script_source

    def with_clock(*arguments: Any) -> bytes:
        return source_of(*arguments).replace(b"redis.call('TIME')", b"cjson.decode(redis.call('GET', 'clock'))")

    monkeypatch.setattr(scripts, "script_source", with_clock)
    return lambda callers, threads, seed: Simulation(client, server_url, callers, threads, seed)


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_worker_seconds_are_within_a_twentieth_of_the_weights(simulate: Simulate, seed: int) -> None:
    random = Random(seed)
    callers = {name: Caller(random.choice([1, 2, 3, 6]), random.choice([0.05, 0.2, 1.0])) for name in ("a", "b", "c")}
    longest, threads = max(caller.seconds for caller in callers.values()), random.randint(1, 4)

    simulation = simulate(callers, threads, seed)
    simulation.run(warm_up=20 * longest, window=300 * longest / threads)

    total = sum(caller.weight for caller in callers.values())
    for name, caller in callers.items():
        share = simulation.used[name] / simulation.used.total()
        assert abs(share - caller.weight / total) < 0.05, (simulation.used, callers)


@pytest.mark.parametrize("seed", range(3))
def test_a_quiet_caller_waits_for_a_free_thread_and_not_for_the_backlog(simulate: Simulate, seed: int) -> None:
    callers = {"noisy": Caller(1, 0.2), "loud": Caller(3, 0.05), "quiet": Caller(1, 0.05, arrivals=2.0)}

    simulation = simulate(callers, 2, seed)
    simulation.run(warm_up=0.0, window=20.0)

    assert len(simulation.waits["quiet"]) > 15
    assert max(simulation.waits["quiet"]) < 2.5  # a thread gets free when one of the long tasks ends


def test_many_callers_have_used_about_the_same_at_any_moment(simulate: Simulate) -> None:
    callers = {f"caller{number}": Caller(1, 0.1) for number in range(30)}

    simulation = simulate(callers, 2, 1)
    simulation.run(warm_up=0.0, window=30.0)

    assert (
        max(simulation.used.values()) - min(simulation.used.values()) < 1000
    )  # of 2 s each; the longest task takes 0.8 s


def test_a_fetch_of_many_tasks_takes_as_many_of_each_caller(simulate: Simulate) -> None:
    callers = {f"caller{number}": Caller(1, 700.0) for number in range(30)}  # each has four tasks

    simulation = simulate(callers, 100, 1)
    simulation.run(warm_up=0.0, window=20.0)

    assert {len(waits) for waits in simulation.waits.values()} <= {3, 4}
