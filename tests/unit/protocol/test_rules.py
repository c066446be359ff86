"""Rates, as operators write and read them."""

import pytest

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import Quota, parse_rate


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("10/s", "10/s"),
        ("1.5/s", "1.5/s"),
        ("600/m", "10/s"),
        ("10/m", "10/m"),
        ("10/h", "10/h"),
        ("7/h", "7/h"),
        ("100.25/m", "100.25/m"),
        ("0.36/h", "0.0001/s"),
        ("1000000/s", "1000000/s"),
    ],
)
def test_a_rate_is_shown_in_a_unit_in_which_it_is_exact(written: str, shown: str) -> None:
    rate = parse_rate(written)

    assert str(Quota(rate=rate)) == f"rate {shown}"
    assert parse_rate(shown) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("rate", [1 / 7, 1e-300, 1e300])
def test_a_rate_of_any_program_is_shown(rate: float) -> None:
    assert float(str(Quota(rate=rate)).removeprefix("rate ").removesuffix("/s")) == pytest.approx(rate)


@pytest.mark.parametrize(
    "text", ["", "10", "10/d", "10/min", "0/s", "-1/s", "1e3/s", "nan/s", "٣/s", "0.3/h", "1000001/s", "9" * 400 + "/s"]
)
def test_what_is_not_a_rate_is_refused_with_the_bounds(text: str) -> None:
    with pytest.raises(ConfigurationError, match="from 0.36/h to 1000000/s"):
        parse_rate(text)
