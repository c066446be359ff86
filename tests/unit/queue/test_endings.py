"""Deliveries, runs and endings: values, and the one that stands."""

import pytest

from rhai_tasks import Settings
from rhai_tasks.protocol import DETAIL_FIELDS, Field, QueueKeys, Status, completed, failed
from rhai_tasks.queue.delivery import Delivery, Details
from rhai_tasks.queue.endings import Finished, Lost, Released
from rhai_tasks.queue.run import Run
from rhai_tasks.queue.writes import PendingReleases

KEYS = QueueKeys("namespace", "rhai-c")
DELIVERY = Delivery(KEYS, "m-1", "t", Details(script=b"1"))


def test_details_are_in_the_order_in_which_the_server_sends_them() -> None:
    def plain(name: str) -> str:
        return name.replace("_", "").lower()

    names = [plain(name.removesuffix("Queue")) for name in (*DETAIL_FIELDS, Field.TRACEPARENT)]

    assert [plain(name) for name in Details._fields] == names


def test_the_first_ending_of_a_run_stands() -> None:
    run = Run(DELIVERY)

    run.finish(failed("did not stop", "Timeout"))
    run.finish(completed("1"))
    run.release()

    assert isinstance(run.ending, Finished)
    assert run.ending.outcome == failed("did not stop", "Timeout")


@pytest.mark.parametrize("before", ["nothing", "an outcome", "a release"])
def test_a_run_that_is_lost_ends_as_nothing_else(before: str) -> None:
    run = Run(DELIVERY)
    if before == "an outcome":
        run.finish(completed("1"))
    elif before == "a release":
        run.release()

    run.lose()
    run.finish(completed("1"))

    assert run.ending == Lost(DELIVERY)
    assert run.cancel.cancelled


def test_a_release_takes_back_the_crash_that_was_counted_before_the_script_began() -> None:
    run = Run(DELIVERY, crash_counted=True)

    run.release()

    assert isinstance(run.ending, Released)
    assert run.ending.arguments(Settings()) == ["m-1", b"rhai_task_details:t", 1, "head", 0]


def test_an_interrupted_run_has_no_ending_yet() -> None:
    run = Run(DELIVERY)

    run.interrupt()

    assert run.ending is None
    assert run.cancel.cancelled


def test_an_output_that_the_server_does_not_take_gives_way_to_an_error_and_then_to_a_bare_one() -> None:
    finished = Finished(DELIVERY._replace(details=Details(script=b"1", reply_to=b"r")), completed("x" * 10), [], 0.0)

    without_output = finished.without_output(ValueError("too large"))
    bare = without_output.without_output(ValueError("too large"))

    assert without_output.outcome.status is Status.ERROR
    assert "The output of 10 bytes is larger than the server takes" in without_output.outcome.text
    assert without_output.arguments(Settings(), "w")[-1] == b"r"
    assert bare.arguments(Settings(), "w")[7] == 0  # neither reply nor follow-ups


def test_releases_are_numbered_in_the_order_in_which_they_are_handed_over() -> None:
    pending, handed_over = PendingReleases(), list[Released]()

    for name in ("m-2", "m-1"):
        pending.add(Released(DELIVERY._replace(message_id=name)), handed_over.append)

    assert [(one.delivery.message_id, one.number) for one in handed_over] == [("m-2", 1), ("m-1", 2)]


def test_a_release_that_was_cancelled_does_not_stand_and_a_later_one_does() -> None:
    pending, handed_over = PendingReleases(), list[Released]()
    pending.add(Released(DELIVERY), handed_over.append)

    pending.cancel("m-1")
    pending.add(Released(DELIVERY), handed_over.append)
    pending.done(handed_over[0])

    assert [pending.stands(one) for one in handed_over] == [False, True]
    pending.done(handed_over[1])
    assert not pending.stands(handed_over[1])
