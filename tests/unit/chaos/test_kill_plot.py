"""What the picture of a kill says of a tree is what its metrics say."""

from math import isnan

import pytest

from tests.chaos.kill_plot import WINDOW, Scrape, caption, quantiles, rates, totals
from tests.chaos.ledger import Account
from tests.observed import parse


def scrapes(*texts: str) -> list[Scrape]:
    """Make one a second out of what the port shows."""
    return [Scrape(second, parse(text)) for second, text in enumerate(texts)]


def histogram(fast: int, slow: int, beyond: int) -> str:
    counts = {"0.1": fast, "0.5": fast + slow, "+Inf": fast + slow + beyond}
    lines = [f'wait_seconds_bucket{{le="{bound}"}} {count}' for bound, count in counts.items()]
    return "\n".join(["# TYPE wait_seconds histogram", *lines, ""])


def test_a_gauge_is_the_sum_of_the_series_that_have_the_labels() -> None:
    text = 'tasks{circle="a",state="dead"} 1\ntasks{circle="b",state="dead"} 2\ntasks{circle="a",state="waiting"} 4\n'

    assert totals(scrapes(text), "tasks", state="dead") == [3]
    assert totals(scrapes(text), "tasks", circle="a") == [5]
    assert totals(scrapes(text), "tasks") == [7]


def test_what_is_not_shown_leaves_a_gap() -> None:
    first, second, third = totals(scrapes("tasks 1\n", "", "tasks 0\n"), "tasks")

    assert (first, third) == (1, 0)
    assert isnan(second)


def test_a_rate_is_of_a_second_over_a_window() -> None:
    counted = scrapes(*(f"# TYPE ended counter\nended_total {30 * second}\n" for second in range(WINDOW + 2)))

    found = rates(counted, "ended_total")

    assert all(map(isnan, found[:WINDOW]))
    assert found[WINDOW:] == [30, 30]


@pytest.mark.parametrize(
    ("quantile", "seconds"), [(0.25, 0.05), (0.5, 0.1), (0.75, 0.5), (0.9, 0.5)], ids=["in", "bound", "last", "beyond"]
)
def test_a_quantile_is_of_what_was_counted_in_the_window(quantile: float, seconds: float) -> None:
    before, after = histogram(100, 0, 0), histogram(104, 2, 2)

    found = quantiles(scrapes(before, *[after] * WINDOW), quantile, "wait_seconds")

    assert found[WINDOW] == pytest.approx(seconds)


def test_a_window_in_which_nothing_was_counted_has_no_quantile() -> None:
    found = quantiles(scrapes(*[histogram(1, 1, 1)] * (WINDOW + 1)), 0.5, "wait_seconds")

    assert all(map(isnan, found))


def test_the_caption_accounts_for_every_task() -> None:
    account = Account("kill", submitted=1012, completed=1000, error=11, run_twice=3, lost=["t1"])

    first, second, last = caption(account, 999.0, "a machine").splitlines()
    assert first == (
        "1,012 tasks submitted = 1,000 completed + 11 error (scripts that throw) + 1 lost; "
        "3 ran twice, 0 written twice."
    )
    assert second.startswith("rhai_tasks_finished_total came to 999.")
    assert last == "a machine"
