"""The soak tells what grows from what stays."""

from tests.chaos.soak import FLAT, Sample, compare


def samples(growth: float) -> list[Sample]:
    return [Sample(minute, 40.0 + growth * minute, 48, 43, 5.0, 20.0) for minute in range(40)]


def test_what_stays_is_the_same_in_the_first_and_the_last_third() -> None:
    assert compare(samples(0.0))["memory_mib"] == (40.0, 40.0)


def test_what_grows_shows() -> None:
    first, last = compare(samples(1.0))["memory_mib"]

    assert last / first > FLAT["memory_mib"]
