"""The chaos ledger finds what it is there to find."""

from dataclasses import replace
from typing import Any

import pytest

from tests.chaos.faults import DIED
from tests.chaos.guests import Run
from tests.chaos.ledger import CRASHED, Account, Excuse, Expected, Submitted, balance, changed, over_limit, starved

FIRST, SECOND = Run("t", "<1-1.0>", 1, 1.0, 2.0), Run("t", "<2-9.0>", 2, 9.0, 10.0)
COMPLETED = {"status": "completed", "output": FIRST.token}
COMPLETES, FAILS = Expected("completed"), Expected("error")


def account_of(
    details: dict[str, str],
    runs: list[Run],
    *excuses: Excuse,
    replies: int = 1,
    expected: Expected = COMPLETES,
    silences: list[tuple[float, float]] | None = None,
) -> Account:
    account = Account("fault")
    submitted = {"t": Submitted(0.5, expected)}
    balance(account, submitted, {"t": details}, {"t": replies}, {"t": runs}, excuses, silences or [])
    return account


def test_a_task_that_ran_once_to_its_end_is_no_defect() -> None:
    account = account_of(COMPLETED, [FIRST])

    assert account.defects() == []
    assert (account.submitted, account.completed, account.error, account.run_twice) == (1, 1, 0, 0)


@pytest.mark.parametrize("details", [{}, {"status": "pending"}, {"status": "processing"}], ids=repr)
def test_a_task_without_a_final_status_is_lost(details: dict[str, str]) -> None:
    assert "1 lost: t" in account_of(details, [FIRST]).defects()[0]


def test_a_task_that_the_server_lost_is_counted_apart() -> None:
    account = account_of({}, [], Excuse("the server lost it", None, 0.0, 1.0))

    assert (account.lost_by_server, account.defects()) == (1, [])


def test_two_final_writes_are_a_defect() -> None:
    assert "two final writes" in account_of(COMPLETED, [FIRST], replies=2).defects()[0]


def test_a_final_status_without_its_reply_is_a_defect() -> None:
    assert account_of(COMPLETED, [FIRST], replies=0).defects() == ["fault: 1 with a final status and no reply: t"]


def test_a_second_run_needs_an_excuse_of_the_run_that_was_in_vain() -> None:
    details: dict[str, Any] = {"status": "completed", "output": SECOND.token}
    killed = Excuse("killed", frozenset({FIRST.pid}), 1.5, 1.5)
    another = Excuse("killed", frozenset({SECOND.pid}), 1.5, 1.5)
    long_after = Excuse("killed", frozenset({FIRST.pid}), 8.0, 8.0)

    assert account_of(details, [FIRST, SECOND], killed).defects() == []
    assert account_of(details, [FIRST, SECOND], killed).run_twice == 1
    assert account_of(details, [FIRST, SECOND], another).run_twice_for_nothing
    assert account_of(details, [FIRST, SECOND], long_after).run_twice_for_nothing
    assert account_of(details, [FIRST, SECOND]).run_twice_for_nothing


def test_a_result_that_no_run_of_the_task_gave_is_a_defect() -> None:
    assert "wrong end" in account_of({"status": "completed", "output": "<7-7.0>"}, [FIRST]).defects()[0]
    assert "wrong end" in account_of({"status": "error", "error": "?"}, [FIRST]).defects()[0]
    thrown = {"status": "error", "error": f"{FIRST.token} (line 1)"}
    assert account_of(thrown, [FIRST], expected=FAILS).defects() == []


def died(times: int) -> dict[str, str]:
    return {"status": "error", "error": f"The worker process died {times} times with this task"}


def ended(run: Run, why: str, *, deadly: bool = True) -> Excuse:
    return Excuse(why, frozenset({run.pid}), run.began, run.began + 1.0, deadly)


def test_who_ended_its_own_process_died_as_often_as_it_ran() -> None:
    crashes = [ended(FIRST, CRASHED), ended(SECOND, CRASHED)]

    assert account_of(died(2), [FIRST, SECOND], *crashes, expected=DIED).defects() == []
    assert account_of(died(3), [FIRST, SECOND], *crashes, expected=DIED).defects() == []  # once before it began
    assert "wrong end" in account_of(died(4), [FIRST, SECOND], *crashes, expected=DIED).defects()[0]
    assert "wrong end" in account_of(died(1), [FIRST, SECOND], *crashes, expected=DIED).defects()[0]


def test_a_task_that_dies_because_of_neighbours_alone_and_is_told_that_it_died_is_a_defect() -> None:
    beside, killed = ended(FIRST, CRASHED), ended(SECOND, "killed")

    assert account_of(died(2), [FIRST, SECOND], beside, killed).defects() == []  # who was not suspected yet
    assert "wrong end" in account_of(died(2), [FIRST, SECOND], beside, ended(SECOND, CRASHED)).defects()[0]
    assert "wrong end" in account_of(died(2), [FIRST, SECOND], ended(FIRST, "killed")).defects()[0]


def test_a_run_that_was_given_back_or_forgotten_is_not_counted_as_a_death() -> None:
    killed, stopped = ended(FIRST, "killed"), ended(SECOND, "its supervisor was killed", deadly=False)

    assert account_of(died(1), [FIRST, SECOND], killed, stopped).defects() == []
    assert "wrong end" in account_of(died(0), [FIRST, SECOND], killed, stopped).defects()[0]


def test_a_fault_that_could_not_be_brought_about_is_a_defect() -> None:
    assert "could not be brought about" in Account("mixed", failed=["kill-worker (OSError())"]).defects()[0]


def test_a_recovery_is_held_to_its_bound() -> None:
    assert Account("fault", recovery=14.0, bound=15.0).defects() == []
    assert Account("fault", recovery=16.0, bound=15.0).defects() == ["fault: recovery took 16.0 s, more than 15 s"]


def test_a_hash_that_is_nobodys_task_and_is_written_to_is_a_defect() -> None:
    written = {"same": {"status": "mine"}, "new": {}, "other": {"status": "mine"}, "none": {}, "gone": {"a": "b"}}
    found = {
        "same": {"status": "mine"},
        "new": {"status": "error"},
        "other": {"status": "error"},
        "none": {},
        "gone": {},
    }

    forged = changed(written, found)

    assert forged == ["new ({'status': 'error'})", "other ({'status': 'error'})"]
    assert "2 hashes forged" in Account("fault", forged=forged).defects()[0]


def test_a_tree_that_does_not_stop_is_a_defect() -> None:
    assert Account("fault", hung=["a tree"]).defects() == ["fault: 1 hung: a tree"]


def test_a_reply_is_missing_by_right_if_the_server_refused_replies_when_the_task_ended() -> None:
    assert account_of(COMPLETED, [FIRST], replies=0, silences=[(1.5, 2.5)]).defects() == []
    assert "no reply" in account_of(COMPLETED, [FIRST], replies=0, silences=[(9.0, 10.0)]).defects()[0]


def test_a_caller_of_whom_too_many_tasks_ran_at_once_is_a_defect() -> None:
    def run(pid: int, began: float, ended: float | None) -> Run:
        return Run("t", f"<{pid}-{began}>", pid, began, ended)

    submitted = {task: Submitted(0.5, COMPLETES, caller) for task, caller in (("a", "x"), ("b", "x"), ("c", "y"))}
    after = {"a": [run(1, 1.0, 2.0)], "b": [run(2, 2.0, 3.0)], "c": [run(1, 1.0, 3.0)]}
    beside = after | {"b": [run(2, 1.9, 3.0)]}
    killed = {"a": [run(1, 1.0, None), run(2, 5.0, 6.0)], "b": [run(2, 4.5, 4.9)]}

    assert over_limit(submitted, after, [], 1) == []
    assert over_limit(submitted, beside, [], 1) == ["x (2 of 1)"]
    assert over_limit(submitted, beside, [], 1, {2}) == []
    guests = {task: replace(one, expected=Expected("error", "time limit")) for task, one in submitted.items()}
    assert over_limit(guests, beside, [], 1) == []
    assert over_limit(submitted, killed, [Excuse("killed", frozenset({1}), 4.0, 4.0)], 1) == []
    assert "1 over their limit: x (2 of 1)" in Account("fault", over_limit=["x (2 of 1)"]).defects()[0]


def test_a_caller_starves_if_none_of_its_tasks_begins_while_many_of_others_do() -> None:
    submitted = {f"t{number}": Submitted(0.0, COMPLETES, "many") for number in range(200)}
    runs = {f"t{number}": [Run(f"t{number}", "", 1, number / 10, 30.0)] for number in range(200)}
    late = submitted | {"late": Submitted(1.0, COMPLETES, "one")}
    begun = runs | {"late": [Run("late", "", 1, 16.0, 17.0)]}
    between = late | {"between": Submitted(1.0, COMPLETES, "one")}

    assert starved(submitted, runs, 10.0) == []
    assert starved(late, begun, 10.0) == ["one (late: 15.0 s, 149 tasks of others)"]
    assert starved(late, begun, 20.0) == []
    assert starved(between, begun | {"between": [Run("between", "", 1, 8.0, 9.0)]}, 10.0) == []
    assert "1 starved: one" in Account("fault", starved=["one"]).defects()[0]
