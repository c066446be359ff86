import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue

import pytest

from rhai_tasks.queue.work_queue import WorkQueue

PATIENCE = 10.0  # seconds; none of it is spent unless a test fails


@contextmanager
def threads(queue: WorkQueue[int], count: int, work: Callable[[int], object]) -> Iterator[None]:
    """Work items off in threads as dramatiq's do."""
    ended = threading.Event()

    def run() -> None:
        while not ended.is_set():
            try:
                item = queue.get(timeout=0.5)
            except Empty:
                continue
            work(item)
            queue.task_done()

    running = [threading.Thread(target=run) for _ in range(count)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in running:
            thread.join()


def test_items_come_in_their_order() -> None:
    queue: WorkQueue[int] = WorkQueue(lambda: True)

    for item in range(3):
        queue.put(item)

    assert queue.qsize() == 3
    assert [queue.get(timeout=0), queue.get_nowait(), queue.get(timeout=0)] == [0, 1, 2]


def test_an_empty_queue_says_so_after_a_while() -> None:
    queue: WorkQueue[int] = WorkQueue(lambda: True)

    with pytest.raises(Empty):
        queue.get_nowait()
    with pytest.raises(Empty):
        queue.get(timeout=0.01)


@pytest.mark.parametrize("quick", [True, False])
def test_every_item_is_taken_once(quick: bool) -> None:
    queue: WorkQueue[int] = WorkQueue(lambda: quick)
    taken: SimpleQueue[int] = SimpleQueue()

    with threads(queue, 4, taken.put):
        for item in range(5000):
            queue.put(item)
            if item % 500 == 0:
                time.sleep(0.002)  # so that the threads go to sleep now and then
        found = sorted(taken.get(timeout=PATIENCE) for _ in range(5000))

    assert found == list(range(5000))
    assert taken.empty()


@pytest.mark.parametrize("quick", [True, False])
def test_what_waits_behind_a_long_item_is_taken_by_other_threads(quick: bool) -> None:
    queue: WorkQueue[int] = WorkQueue(lambda: quick)  # also where it was thought that all would be quick
    running = threading.Barrier(4)  # none gets on before all three run, and we have seen it

    with threads(queue, 3, lambda _: running.wait(PATIENCE)):
        queue.put(0)
        queue.put(1)
        time.sleep(0.01)  # these two run
        queue.put(2)
        running.wait(PATIENCE)


def test_one_thread_works_off_what_comes_now_and_then() -> None:
    queue: WorkQueue[int] = WorkQueue(lambda: True)
    workers: list[int] = []
    done = threading.Semaphore(0)

    def work(_: int) -> None:
        workers.append(threading.get_ident())
        done.release()

    with threads(queue, 8, work):
        for item in range(100):
            queue.put(item)
            assert done.acquire(timeout=PATIENCE)
            time.sleep(0.001)  # it falls asleep again

    most = max(workers.count(one) for one in set(workers))
    assert most > len(workers) / 2  # not all: their wait ends now and then, and they begin a new one


def test_items_can_be_taken_back_that_no_thread_has_come_for() -> None:
    queue: WorkQueue[int] = WorkQueue(lambda: True)
    running, go_on = threading.Event(), threading.Event()

    def work(_: int) -> None:
        running.set()
        go_on.wait(PATIENCE)

    with threads(queue, 1, work):
        queue.put(0)
        assert running.wait(PATIENCE)
        for item in range(1, 6):
            queue.put(item)
        assert queue.remove_stuck(PATIENCE, bool) == []
        time.sleep(0.05)
        queue.put(7)  # has not waited for so long

        assert queue.remove_stuck(0.05, lambda item: item % 2 == 1) == [1, 3, 5]
        assert (queue.qsize(), queue.unfinished()) == (3, 4)
        go_on.set()


class Parts:
    """A batch of parts, some of which a thread has begun."""

    def __init__(self, *parts: int) -> None:
        self.left = list(parts)

    def split(self) -> "Parts | None":
        taken, self.left = self.left, []
        return Parts(*taken) if taken else None


def queue_of_parts(quick: bool) -> "WorkQueue[Parts]":
    return WorkQueue(lambda: quick, lambda item: bool(item.left), Parts.split)


@pytest.mark.parametrize("quick", [True, False])
def test_what_a_thread_has_not_begun_of_a_batch_is_taken_by_another_one(quick: bool) -> None:
    queue = queue_of_parts(quick)
    begun: SimpleQueue[int] = SimpleQueue()
    end = threading.Event()

    def run() -> None:
        with suppress(Empty):
            while not end.is_set():
                batch = queue.get(timeout=PATIENCE)
                begun.put(batch.left.pop(0))
                assert end.wait(PATIENCE)  # each part takes long
                queue.task_done()

    running = [threading.Thread(target=run, daemon=True) for _ in range(3)]
    for thread in running:
        thread.start()
    queue.put(Parts(1, 2, 3))

    assert [begun.get(timeout=PATIENCE) for _ in range(3)] == [1, 2, 3]
    end.set()


def test_the_rest_of_a_batch_is_removed_with_what_waits_too_long() -> None:
    queue = queue_of_parts(True)
    queue.put(Parts(1, 2))
    batch = queue.get(timeout=0)
    batch.left.pop(0)

    (rest,) = queue.remove_stuck(0.0, lambda _: True)

    assert (rest.left, batch.left) == ([2], [])
    assert queue.remove_stuck(0.0, lambda _: True) == []
