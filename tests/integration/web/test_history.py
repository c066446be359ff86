"""The history: one minute's counters of all workers, kept for days, bounded, and drawn."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from rhai_tasks import Settings
from rhai_tasks.observe.history import BUCKETS, HistoryWriter
from rhai_tasks.observe.metrics import FINISHED, RUN, WAIT
from rhai_tasks.protocol.history import all_numbers, history_prefix, numbers_at
from rhai_tasks.queue.broker import TaskBroker
from rhai_tasks.web import history
from tests.conftest import Dispatcher, Worker, wait_until
from tests.web_page import Browser, serve

PREFIX = history_prefix("rhai_dramatiq", BUCKETS)


@pytest.fixture
def plain(server_url: str, client: Any) -> Iterator[Any]:
    with redis.Redis.from_url(server_url) as plain:
        yield plain


@pytest.fixture
def broker(server_url: str, plain: Any) -> Iterator[TaskBroker]:
    broker = TaskBroker(Settings(redis_url=server_url))
    yield broker
    broker.client.close()
    broker.leases._client.close()


def writer_of(broker: TaskBroker) -> HistoryWriter:
    return HistoryWriter(broker.context.recorder.counts, "rhai_dramatiq", broker.client)


def now(plain: Any) -> tuple[int, int]:
    """Return the day and the minute of the server's clock."""
    seconds, _ = plain.time()
    return seconds // 86400, seconds % 86400 // 60


def sums(plain: Any, key: str, count: int) -> list[int]:
    """Return the sums of all minutes of a day."""
    data = plain.get(key)
    minutes = (numbers_at(data or b"", minute, count) for minute in range(1440))
    return [sum(column) for column in zip(*minutes, strict=True)]


def test_a_worker_adds_what_it_counted_and_adds_it_once(plain: Any, broker: TaskBroker) -> None:
    counts = broker.context.recorder.counts
    writers = [writer_of(broker) for _ in range(2)]  # as of two processes
    counts.add(FINISHED, "a", "completed", count=5)
    counts.add(FINISHED, "a", "error", count=2)
    counts.add(FINISHED, "b c", "completed", count=1)
    counts.histograms[RUN.name][3] += 7
    counts.histograms[WAIT.name][-2] += 1

    for writer in (*writers, *writers):
        writer.write()

    day, _ = now(plain)
    total = sums(plain, f"{PREFIX}{day}", all_numbers(BUCKETS))
    assert total[:2] == [12, 4]
    assert total[2 + 3] == 14
    assert total[-1] == 2
    assert sums(plain, f"{PREFIX}{day}.rhai-a", 2) == [10, 4]
    assert sums(plain, f"{PREFIX}{day}.rhai-b.20c", 2) == [2, 0]
    assert all(7 * 86400 < int(plain.ttl(key)) <= 8 * 86400 for key in plain.keys(f"{PREFIX}*"))


def test_a_day_of_a_circle_takes_bounded_bytes(plain: Any, broker: TaskBroker) -> None:
    for number in range(500):
        broker.context.recorder.counts.add(FINISHED, f"c{number}", "completed", count=2**40)

    writer_of(broker).write()
    writer = writer_of(broker)
    for number in range(500):
        broker.context.recorder.counts.add(FINISHED, f"c{number}", "completed", count=2**31)
    for _ in range(3):
        writer.write()
        broker.context.recorder.counts.add(FINISHED, "c0", "completed", count=2**31)

    keys = plain.keys(f"{PREFIX}*")
    assert len(keys) == 501
    day, _ = now(plain)
    assert all(int(plain.strlen(key)) <= 11_520 for key in keys if b".rhai-" in key)
    assert int(plain.strlen(f"{PREFIX}{day}")) <= 334_080
    assert sums(plain, f"{PREFIX}{day}.rhai-c0", 2)[0] == 2**32 - 1  # it stays at the largest number
    assert sums(plain, f"{PREFIX}{day}.rhai-c1", 2) == [2**31, 0]


def test_a_server_that_refuses_it_is_asked_once(
    plain: Any, broker: TaskBroker, caplog: pytest.LogCaptureFixture
) -> None:
    writer = writer_of(broker)
    day, _ = now(plain)
    for number in (0, 1):
        plain.lpush(f"{PREFIX}{day + number}", "no string")
    for _ in range(2):
        broker.context.recorder.counts.add(FINISHED, "a", "completed")
        writer.write()

    assert caplog.text.count("No history is written from now on") == 1


def test_what_an_outage_kept_from_it_is_written_afterwards(
    plain: Any, broker: TaskBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(broker)
    broker.context.recorder.counts.add(FINISHED, "a", "completed", count=3)

    def fail(**_: Any) -> None:
        raise redis.ConnectionError("gone")

    with monkeypatch.context() as away:
        away.setattr(writer, "_script", fail)
        with pytest.raises(redis.ConnectionError):
            writer.write()
    writer.write()

    assert sums(plain, f"{PREFIX}{now(plain)[0]}.rhai-a", 2) == [3, 0]


def test_a_worker_writes_its_history_when_it_stops(
    plain: Any, dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    worker = start_worker("c", "--threads", "1")
    for number in range(4):
        dispatcher.run("c", f"{number}")
    dispatcher.run("c", "throw 1")

    worker.stop()

    def total() -> list[int]:
        keys = plain.keys(f"{PREFIX}*.rhai-c")
        return [sum(column) for column in zip(*(sums(plain, key.decode(), 2) for key in keys), strict=True)]

    wait_until(lambda: total() == [4, 1])


@pytest.mark.parametrize("span", ["1h", "6h", "24h", "7d", "", "1y", "<b>"])
def test_every_range_is_drawn(server_url: str, plain: Any, span: str) -> None:
    day, minute = now(plain)
    for past in range(1, 8):  # the last minutes of the last week
        for circle in ("", ".rhai-c"):
            count = 2 if circle else all_numbers(BUCKETS)
            at, before = divmod(minute - 2, 1440)
            base = day + at - (past - 1)
            plain.setrange(f"{PREFIX}{base}{circle}", before * count * 4, (600).to_bytes(4, "big"))
            if not circle:
                plain.setrange(f"{PREFIX}{base}", (before * count + 2 + 10) * 4, (600).to_bytes(4, "big"))
    with serve(server_url) as site:
        browser = Browser(site)
        for circle in ("", "circle=c&"):
            page = browser.get(f"/history?{circle}range={span}")
            assert page.count("svg") == (1 if circle else 3)
            assert page.count("polyline") >= (1 if circle else 4), span
            assert page.count("b") <= 12
            current = [values for tag, values in page.elements if values.get("aria-current") and "range" in str(values)]
            assert len(current) == 1


def test_keys_of_another_type_and_no_history_break_no_page(server_url: str, plain: Any) -> None:
    plain.lpush(f"{PREFIX}{now(plain)[0]}", "x")
    with serve(server_url) as site:
        assert re.search("History", Browser(site).get("/history").text)
        assert re.search("History", Browser(site).get("/history?circle=nobody").text)


def test_many_circles_are_kept_in_bounded_memory(server_url: str, plain: Any) -> None:
    drawn = history.History(Settings(redis_url=server_url), plain)

    for number in range(200):
        drawn.draw(f"c{number}", "1h", 1e9)

    assert len(drawn._kept) <= 50
