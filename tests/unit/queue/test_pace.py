"""How many messages are prefetched, by the run times of scripts."""

import pytest

from rhai_tasks.queue.pace import Pace


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.0, 256), (0.001, 160), (0.005, 32), (0.2, 0)],
    ids=["nothing", "a millisecond", "5 ms", "longer"],
)
def test_about_20_ms_of_work_are_prefetched_for_each_thread(seconds: float, expected: int) -> None:
    pace = Pace()

    pace.record_run(seconds)

    assert pace.prefetch_count(8) == expected


def test_nothing_is_prefetched_before_a_script_has_run() -> None:
    pace = Pace()

    assert pace.prefetch_count(8) == 0
    assert not pace.is_fast()


def test_one_long_script_among_many_fast_ones_ends_the_prefetch_until_fifty_others_have_run() -> None:
    pace = Pace()
    for _ in range(49):
        pace.record_run(0.0001)
    pace.record_run(5.0)

    slow = pace.prefetch_count(8)
    for _ in range(50):
        pace.record_run(0.0001)

    assert (slow, pace.prefetch_count(8)) == (1, 256)
    assert pace.is_fast()


def test_running_scripts_that_take_long_outweigh_all_fast_ones_before_them() -> None:
    pace = Pace()
    for _ in range(50):
        pace.record_run(0.0)

    pace.reset_average(1.0)

    assert pace.prefetch_count(8) == 0


def test_a_batch_is_half_a_millisecond_of_work_and_at_most_32_tasks() -> None:
    sizes = []
    for seconds in (1e-6, 5e-5, 2.4e-4, 1e-3, 1.0):
        pace = Pace()
        pace.record_runs([seconds] * 50)
        sizes.append(pace.batch_size())

    assert sizes == [32, 10, 2, 1, 1]


def test_two_slow_scripts_of_fifty_do_not_part_batches_and_three_do() -> None:
    pace = Pace()
    pace.record_runs([1e-5] * 48 + [0.1] * 2)
    assert pace.batch_size() == 32

    pace.record_runs([0.1])

    assert pace.batch_size() == 1


def test_before_scripts_have_proven_quick_there_are_no_batches() -> None:
    pace = Pace()
    assert pace.batch_size() == 1

    pace.record_runs([1e-5] * 50)
    pace.reset_average(1.0)

    assert pace.batch_size() == 1
