"""The requests of a client, without a server."""

import os
from typing import Any

import pytest

from rhai_tasks import Status, TaskSpec
from rhai_tasks.client.details import DetailsWriter
from rhai_tasks.client.numbers import RequestNumbers
from rhai_tasks.client.requests import Request, Requests
from rhai_tasks.protocol import Outcome, key_pattern

REQUESTS = Requests(details_writer=DetailsWriter(circle="circle"))


def sizes(specs: Any) -> list[int]:
    return [len(batch.task_ids) for batch in REQUESTS.submit(specs)]


def test_batches_are_bounded_in_tasks_and_in_bytes() -> None:
    assert sizes(["1"] * 1200) == [500, 500, 200]
    assert sizes(["x" * 400_000] * 7) == [3, 3, 1]
    assert sizes([]) == []


def test_tasks_that_go_elsewhere_go_by_themselves_in_their_order() -> None:
    other = TaskSpec("1", circle="other")

    assert sizes(["1", "1", other, "1", TaskSpec("1", delay=1), TaskSpec("1", via="urgent")]) == [2, 1, 1, 1, 1]


def test_an_endless_iterable_is_taken_as_it_goes() -> None:
    taken = []

    def scripts() -> Any:
        while True:
            taken.append("1")
            yield "1"

    next(iter(REQUESTS.submit(scripts())))

    assert len(taken) == 500


def numbers(request: Request[Any]) -> list[Any]:
    return list(request.args[:2])


def test_a_call_is_remembered_until_it_is_known_to_be_done() -> None:
    numbering, request = RequestNumbers("ns"), Request("submit", [], [], lambda reply: reply)

    with numbering.numbered(request) as first:
        with numbering.numbered(request) as second:
            assert (numbers(first), numbers(second)) == ([1, 1], [2, 1])
        with numbering.numbered(request) as third:
            assert numbers(third) == [3, 1]
    with numbering.numbered(request) as fourth:
        assert numbers(fourth) == [4, 4]
    assert first.keys == fourth.keys


def test_a_fork_numbers_its_requests_under_a_name_of_its_own() -> None:
    numbering, request = RequestNumbers("ns"), Request("submit", [], [], lambda reply: reply)
    with numbering.numbered(request) as before:
        pass
    read, write = os.pipe()

    if not os.fork():
        with numbering.numbered(request) as mine:
            os.write(write, str(mine.keys[0]).encode())
        os._exit(0)

    assert os.read(read, 1000).decode() not in {"", before.keys[0]}
    os.wait()
    os.close(read)
    os.close(write)


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"processing", Status.PROCESSING),
        (b"completed", Status.COMPLETED),
        (b"completed ", Outcome(Status.COMPLETED, "")),
        (b"error Runtime error: a", Outcome(Status.ERROR, "Runtime error: a")),
        (b"error/Host a/b c", Outcome(Status.ERROR, "a/b c", "Host")),
    ],
)
@pytest.mark.parametrize("task_id", ["t", "with blank:colon", "\udcff"])
def test_a_state_is_parsed(task_id: str, data: bytes, state: object) -> None:
    parsed = REQUESTS.parse_state(REQUESTS.channel(task_id), data)

    assert parsed == (task_id, state)
    assert getattr(parsed[1], "kind", None) == getattr(state, "kind", None)


def test_a_pattern_means_the_prefix_to_the_letter() -> None:
    assert key_pattern("a*[b]?\\^é") == rb"a\*\[b\]\?\\\^" + "é".encode() + b"*"
