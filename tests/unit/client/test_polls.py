"""When tasks are polled, by a clock of our own."""

import asyncio
from collections.abc import Iterator

import pytest

from rhai_tasks.client.polls import PollSchedule


@pytest.fixture
def polls() -> PollSchedule:
    return PollSchedule()


def times_of_polls(polls: PollSchedule, until: float) -> Iterator[tuple[float, set[str]]]:
    for step in range(round(until * 1000)):
        if due := polls.pop_due(lambda: step / 1000):  # noqa: B023  (called in this turn)
            yield step / 1000, due


def test_a_task_is_polled_at_doubling_intervals_up_to_a_second(polls: PollSchedule) -> None:
    polls.add("t", 0.0)

    times = [when for when, _ in times_of_polls(polls, 5.0)]

    assert times == pytest.approx([0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55, 4.55], abs=0.01)


def test_single_polls_do_not_change_the_intervals(polls: PollSchedule) -> None:
    polls.add("t", 0.0)
    polls.poll_now("t", 0.01)
    polls.poll_soon("t", 0.02)

    times = [when for when, _ in times_of_polls(polls, 0.4)]

    assert times == pytest.approx([0.01, 0.025, 0.05, 0.15, 0.35], abs=0.002)


def test_a_discarded_task_is_polled_no_more_and_begins_anew_when_added_again(polls: PollSchedule) -> None:
    polls.add("t", 0.0)
    polls.discard("t")
    polls.poll_now("t", 0.0)
    assert list(times_of_polls(polls, 1.0)) == []

    polls.add("t", 0.0)
    assert next(times_of_polls(polls, 1.0)) == (0.05, {"t"})


def test_a_wait_ends_when_an_earlier_poll_is_planned(polls: PollSchedule) -> None:
    async def wait() -> None:
        now = asyncio.get_running_loop().time()
        polls.add("later", now + 3600)
        waiting = asyncio.create_task(polls.wait())
        await asyncio.sleep(0)
        polls.poll_now("now", now)
        async with asyncio.timeout(5):
            await waiting

    asyncio.run(wait())
