import logging

import pytest

from rhai_tasks.log import TRACE, parse_filter

OFF = logging.CRITICAL + 10


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        pytest.param("info", {"": logging.INFO}, id="a bare level"),
        pytest.param("WARN", {"": logging.WARNING}, id="in any case"),
        pytest.param("off", {"": OFF}, id="nothing at all"),
        pytest.param("warn,bridge=debug", {"": logging.WARNING, "bridge": logging.DEBUG}, id="a target"),
        pytest.param("rhai_tasks::store", {"": OFF, "rhai_tasks.store": TRACE}, id="a target alone"),
        pytest.param(
            "rhai_worker=debug",
            {"": OFF, "rhai_tasks": logging.DEBUG, "bridge": logging.DEBUG},
            id="the original's name is ours",
        ),
        pytest.param(" info , bridge = trace ", {"": logging.INFO, "bridge": TRACE}, id="blanks"),
        pytest.param("info/some text", {"": logging.INFO}, id="a text filter is left out"),
    ],
)
def test_rust_log_is_read_as_env_logger_reads_it(text: str, levels: dict[str, int]) -> None:
    assert parse_filter(text) == levels


def test_what_cannot_be_read_is_reported_and_left_out() -> None:
    ignored: list[str] = []

    assert parse_filter("info,bridge=loud", ignored) == {"": logging.INFO}
    assert ignored == ["bridge=loud"]
