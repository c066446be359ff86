"""When a broker may recover the messages of others whose leases have expired."""

import time

from rhai_tasks.queue.grace import Grace

AWAY = 6.0


def test_a_broker_that_has_just_started_recovers_nothing_for_a_while() -> None:
    grace = Grace(AWAY)

    grace.note_renewal("q", 100.0)

    assert not grace.is_over("q", 104.0)
    assert grace.is_over("q", 105.0)


def test_renewals_in_time_begin_no_grace_and_a_late_one_does() -> None:
    grace = Grace(AWAY)
    grace.note_renewal("q", 100.0)
    grace.note_renewal("q", 103.0)
    grace.note_renewal("q", 106.0)

    assert grace.is_over("q", 106.0)
    grace.note_renewal("q", 113.0)

    assert not grace.is_over("q", 113.0)


def test_each_queue_has_a_grace_of_its_own() -> None:
    grace = Grace(AWAY)

    grace.note_renewal("q", 100.0)

    assert grace.is_over("other", 100.0)


def test_a_jump_ahead_of_the_servers_clock_begins_the_grace_of_all_queues() -> None:
    grace, began = Grace(AWAY), time.monotonic()
    grace.note_clock(1000.0, began, ["q"])
    grace.note_clock(1000.5, began, ["q"])  # clocks are that exact

    assert grace.is_over("q", began)
    grace.note_clock(1010.0, began, ["q", "other"])

    assert not grace.is_over("q", began)
    assert not grace.is_over("other", began)


def test_a_jump_back_of_the_servers_clock_begins_no_grace() -> None:
    grace, began = Grace(AWAY), time.monotonic()
    grace.note_clock(1000.0, began, ["q"])

    grace.note_clock(500.0, began, ["q"])

    assert grace.is_over("q", began)
