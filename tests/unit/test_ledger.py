"""The chaos ledger finds what it is there to find."""

from typing import Any

import pytest

from tests.chaos.guests import Run
from tests.chaos.ledger import Account, Excuse, Expected, Submitted, balance

FIRST, SECOND = Run("t", "<1-1.0>", 1, 1.0, 2.0), Run("t", "<2-9.0>", 2, 9.0, 10.0)
COMPLETED = {"status": "completed", "output": FIRST.token}


def account_of(
    details: dict[str, str], runs: list[Run], *excuses: Excuse, replies: int = 1, expected: str = "completed"
) -> Account:
    account = Account("fault")
    submitted = {"t": Submitted(0.5, Expected(expected))}
    balance(account, submitted, {"t": details}, {"t": replies}, {"t": runs}, excuses)
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
    assert (
        account_of({"status": "error", "error": f"{FIRST.token} (line 1)"}, [FIRST], expected="error").defects() == []
    )


def test_a_recovery_is_held_to_its_bound() -> None:
    assert Account("fault", recovery=14.0, bound=15.0).defects() == []
    assert Account("fault", recovery=16.0, bound=15.0).defects() == ["fault: recovery took 16.0 s, more than 15 s"]
