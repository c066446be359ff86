"""Lone tasks, which run on the thread that has fetched them, in this process, against a real server."""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import dramatiq
import pytest
from dramatiq.worker import ConsumerThread, WorkerThread

from rhai_tasks import Client, Engine, Settings
from rhai_tasks.protocol import QueueKeys, queue_name
from rhai_tasks.queue.broker import TaskBroker
from tests.conftest import FINAL, Dispatcher, wait_until
from tests.own_worker import worker_of

MESSAGES = QueueKeys(Settings().namespace, queue_name("c")).messages


class Functions:
    """Functions for scripts: which threads ran, how many at the same time, and a wait for another script."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.most_at_once, self._now, self._counting = 0, 0, threading.Lock()
        self.freed = threading.Event()
        self.engine = Engine()
        for function in (self.note, self.wait, self.free):
            self.engine.register(function.__name__, function)

    def note(self) -> None:
        self.threads.append(threading.current_thread())

    def wait(self) -> None:
        with self._inside():
            assert self.freed.wait(30)

    def free(self) -> None:
        with self._inside():
            self.freed.set()

    @contextmanager
    def _inside(self) -> Iterator[None]:
        with self._counting:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        yield
        with self._counting:
            self._now -= 1


class Lone:
    """A worker of four threads, and the tasks that it gets one by one."""

    def __init__(self, settings: Settings, dispatcher: Dispatcher, client: Any) -> None:
        self.settings, self.functions = replace(settings, threads=4), Functions()
        self._dispatcher, self._client = dispatcher, client

    def worker(self, *middleware: dramatiq.Middleware, **options: Any) -> AbstractContextManager[TaskBroker]:
        return worker_of(replace(self.settings, **options), self.functions.engine, *middleware)

    def submit(self, task_id: str, script: str) -> None:
        """Submit a task to the circle's queue, where no bridge has to bring it."""
        self._dispatcher.put(task_id, {"script": script, "status": "pending", "callerId": "caller"})
        self._client.rpush(MESSAGES, task_id)

    def run(self, task_id: str, script: str = "note()") -> None:
        """Submit a task, and wait until it has completed."""
        self.submit(task_id, script)
        assert self._dispatcher.result(task_id)["status"] == "completed"

    def begin_slow(self, script: str = "wait()") -> None:
        """Submit the task `slow`, and wait until it runs."""
        self.submit("slow", f"note(); {script}")
        wait_until(lambda: self.functions.threads, what="the slow task to begin")


@pytest.fixture
def lone(server_url: str, dispatcher: Dispatcher, client: Any) -> Lone:
    return Lone(Settings(redis_url=server_url), dispatcher, client)


def test_a_lone_task_runs_on_the_thread_that_fetched_it(lone: Lone) -> None:
    with lone.worker():
        lone.run("t")

    assert [type(thread) for thread in lone.functions.threads] == [ConsumerThread]


def test_while_a_lone_task_is_slow_others_are_fetched_and_run(lone: Lone, dispatcher: Dispatcher) -> None:
    with lone.worker():
        lone.begin_slow()
        for number in range(5):
            lone.run(f"t{number}")
        assert dispatcher.status("slow") == "processing"
        lone.run("last", "note(); free()")
        assert dispatcher.result("slow")["status"] == "completed"
        lone.run("after")

    first, *others = lone.functions.threads
    assert isinstance(first, ConsumerThread)
    # The one after these may run on either thread: the slow task has ended.
    assert {type(thread) for thread in others[:6]} == {WorkerThread}


def test_no_more_scripts_run_at_a_time_than_there_are_threads(lone: Lone, dispatcher: Dispatcher, client: Any) -> None:
    with lone.worker(threads=1):
        lone.begin_slow()
        for number in range(3):
            lone.submit(f"t{number}", "note(); free()")
        wait_until(lambda: client.llen(MESSAGES) == 0, what="the others to be fetched")
        assert dispatcher.status("t0") not in FINAL

        lone.functions.freed.set()

        for task_id in ("slow", "t0", "t1", "t2"):
            assert dispatcher.result(task_id)["status"] == "completed"
    assert lone.functions.most_at_once == 1


def test_a_slow_lone_task_goes_back_when_the_worker_stops(lone: Lone, dispatcher: Dispatcher, client: Any) -> None:
    with lone.worker(shutdown_timeout=0.2):
        lone.begin_slow("loop {}")

    assert dispatcher.status("slow") == "pending"
    assert client.llen(MESSAGES) == 1
    assert isinstance(lone.functions.threads[0], ConsumerThread)


def test_a_queue_is_drained_while_a_lone_task_is_slow(lone: Lone) -> None:
    """A process whose script is stuck ends only once its consumers are drained."""
    with lone.worker() as broker:
        lone.begin_slow()
        recall: Any = broker.context.recalls[queue_name("c")]
        consumer = recall.__self__
        assert not consumer.drained

        broker.context.draining.set()
        consumer.unblock()

        wait_until(lambda: consumer.drained, what="the consumer to be drained")
        lone.functions.freed.set()


def test_a_lone_task_can_be_cancelled(lone: Lone, dispatcher: Dispatcher, server_url: str) -> None:
    with lone.worker() as broker, Client(server_url) as app:
        lone.begin_slow("loop {}")

        assert app.task("slow").cancel()

        wait_until(lambda: not broker.context.held.all(), what="the script to end")
        lone.run("after")
    assert dispatcher.details("slow")["error"] == "cancelled"


def test_a_fault_of_consuming_beside_a_slow_script_is_logged_once(
    lone: Lone, dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with lone.worker():
        lone.begin_slow()
        monkeypatch.setattr(ConsumerThread, "handle_message", lambda *_: 1 / 0)
        lone.submit("lost", "1")
        wait_until(lambda: "Consuming beside a slow script failed" in caplog.text)
        monkeypatch.undo()
        lone.submit("waits", "1")
        lone.functions.freed.set()
        assert dispatcher.result("slow")["status"] == dispatcher.result("waits")["status"] == "completed"

    assert caplog.text.count("Consuming beside a slow script failed") == 1


class Prepares(dramatiq.Middleware):
    """An application's, whose functions need what it makes in each worker thread."""

    def after_worker_thread_boot(self, broker: dramatiq.Broker, thread: Any) -> None:
        """Prepare the thread."""


def test_a_task_runs_on_a_worker_thread_where_a_middleware_prepares_these(lone: Lone) -> None:
    with lone.worker(Prepares()):
        lone.run("t")

    assert {type(thread) for thread in lone.functions.threads} == {WorkerThread}
