"""Lone tasks, which run on the thread that has fetched them, in this process, against a real server."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dramatiq
import pytest
from dramatiq.worker import ConsumerThread, WorkerThread

from rhai_tasks import Client, Engine, Settings
from rhai_tasks.protocol import QueueKeys, queue_name
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.worker.make import make_worker
from tests.conftest import FINAL, Dispatcher, wait_until

MESSAGES = QueueKeys(Settings().namespace, queue_name("c")).messages


class Functions:
    """Functions for scripts: which threads ran, how many at the same time, and a wait for another script."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.most, self._now, self._counting = 0, 0, threading.Lock()
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
            self.most = max(self.most, self._now)
        yield
        with self._counting:
            self._now -= 1


@pytest.fixture
def functions() -> Functions:
    return Functions()


@pytest.fixture
def submit(dispatcher: Dispatcher, client: Any) -> Callable[[str, str], None]:
    """Submit a task to the circle's queue, where no bridge has to bring it."""

    def submit(task_id: str, script: str) -> None:
        dispatcher.put(task_id, {"script": script, "status": "pending", "callerId": "caller"})
        client.rpush(MESSAGES, task_id)

    return submit


@contextmanager
def worker_of(
    engine: Engine, server_url: str, *middleware: dramatiq.Middleware, **options: Any
) -> Iterator[TaskBroker]:
    """Run a worker that takes scripts for quick from the first one on."""
    broker, worker = make_worker(Settings(redis_url=server_url, **{"threads": 4, **options}), engine)
    for one in middleware:
        broker.add_middleware(one)
    broker.context.pace.record_runs([1e-5] * 50)
    broker.declare_circle("c")
    worker.start()
    try:
        yield broker
    finally:
        worker.stop()


def test_a_lone_task_runs_on_the_thread_that_fetched_it(
    functions: Functions, submit: Callable[[str, str], None], dispatcher: Dispatcher, server_url: str
) -> None:
    with worker_of(functions.engine, server_url):
        submit("t", "note()")
        assert dispatcher.result("t")["status"] == "completed"

    assert [type(thread) for thread in functions.threads] == [ConsumerThread]


def test_while_a_lone_task_is_slow_others_are_fetched_and_run(
    functions: Functions, submit: Callable[[str, str], None], dispatcher: Dispatcher, server_url: str
) -> None:
    with worker_of(functions.engine, server_url):
        submit("slow", "note(); wait()")
        wait_until(lambda: functions.threads, what="the slow task to begin")
        for number in range(5):
            submit(f"t{number}", "note()")
            assert dispatcher.result(f"t{number}")["status"] == "completed"
        assert dispatcher.status("slow") == "processing"
        submit("last", "note(); free()")

        assert dispatcher.result("slow")["status"] == dispatcher.result("last")["status"] == "completed"
        submit("after", "note()")
        assert dispatcher.result("after")["status"] == "completed"

    first, *others = functions.threads
    assert isinstance(first, ConsumerThread)
    assert {type(thread) for thread in others[:6]} == {WorkerThread}


def test_no_more_scripts_run_at_a_time_than_there_are_threads(
    functions: Functions, submit: Callable[[str, str], None], dispatcher: Dispatcher, server_url: str, client: Any
) -> None:
    with worker_of(functions.engine, server_url, threads=1):
        submit("slow", "note(); wait()")
        wait_until(lambda: functions.threads, what="the slow task to begin")
        for number in range(3):
            submit(f"t{number}", "note(); free()")
        wait_until(lambda: client.llen(MESSAGES) == 0, what="the others to be fetched")
        assert dispatcher.status("t0") not in FINAL

        functions.freed.set()

        for task_id in ("slow", "t0", "t1", "t2"):
            assert dispatcher.result(task_id)["status"] == "completed"
    assert functions.most == 1


def test_a_slow_lone_task_goes_back_when_the_worker_stops(
    functions: Functions, submit: Callable[[str, str], None], dispatcher: Dispatcher, server_url: str, client: Any
) -> None:
    with worker_of(functions.engine, server_url, shutdown_timeout=0.2):
        submit("slow", "note(); loop {}")
        wait_until(lambda: functions.threads, what="the slow task to begin")

    assert dispatcher.status("slow") == "pending"
    assert client.llen(MESSAGES) == 1
    assert isinstance(functions.threads[0], ConsumerThread)


def test_a_queue_is_drained_while_a_lone_task_is_slow(
    functions: Functions, submit: Callable[[str, str], None], server_url: str
) -> None:
    """The end of a process with a stuck script waits for that."""
    with worker_of(functions.engine, server_url) as broker:
        submit("slow", "note(); wait()")
        wait_until(lambda: functions.threads, what="the slow task to begin")
        recall: Any = broker.context.recalls[queue_name("c")]
        assert not recall.__self__.drained

        broker.context.draining.set()
        recall.__self__.unblock()

        wait_until(lambda: recall.__self__.drained, what="the consumer to be drained")
        functions.freed.set()


def test_a_lone_task_can_be_cancelled(
    functions: Functions, submit: Callable[[str, str], None], dispatcher: Dispatcher, server_url: str
) -> None:
    with worker_of(functions.engine, server_url) as broker, Client(server_url) as app:
        submit("slow", "note(); loop {}")
        wait_until(lambda: functions.threads, what="the task to begin")

        assert app.task("slow").cancel()

        wait_until(lambda: not broker.context.held.all(), what="the script to end")
        submit("after", "note()")
        assert dispatcher.result("after")["status"] == "completed"
    assert dispatcher.details("slow")["error"] == "cancelled"


class Prepares(dramatiq.Middleware):
    """An application's, whose functions need what it makes in each worker thread."""

    def after_worker_thread_boot(self, broker: dramatiq.Broker, thread: Any) -> None:
        """Prepare the thread."""


def test_a_task_runs_on_a_worker_thread_where_a_middleware_prepares_these(
    functions: Functions, submit: Callable[[str, str], None], dispatcher: Dispatcher, server_url: str
) -> None:
    with worker_of(functions.engine, server_url, Prepares()):
        submit("t", "note()")
        assert dispatcher.result("t")["status"] == "completed"

    assert {type(thread) for thread in functions.threads} == {WorkerThread}
