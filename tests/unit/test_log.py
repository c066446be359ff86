import json
import logging
import re
import sys
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks.log import (
    TRACE,
    LogFormat,
    _Json,
    _Text,
    about,
    capture_stderr,
    configure_logging,
    format_present_handlers,
    parse_filter,
)

OFF = logging.CRITICAL + 10


@pytest.mark.parametrize(
    ("text", "levels"),
    [
        pytest.param("info", {"": logging.INFO}, id="a bare level"),
        pytest.param("WARN", {"": logging.WARNING}, id="in any case"),
        pytest.param("off", {"": OFF}, id="nothing at all"),
        pytest.param("warn,bridge=debug", {"": logging.WARNING, "bridge": logging.DEBUG}, id="a target"),
        pytest.param("rhai_tasks::queue::writer", {"": OFF, "rhai_tasks.queue.writer": TRACE}, id="a target alone"),
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


FORGED = "\n[2026-01-31T12:00:00Z INFO  bridge.bridge] forged"


def odd_texts() -> st.SearchStrategy[str]:
    """Make a strategy of texts with each control character, and of others that steer a terminal or forge a line."""
    characters = map(chr, range(sys.maxunicode + 1))
    controls = [character for character in characters if unicodedata.category(character) in {"Cc", "Zl", "Zp"}]
    steering = [FORGED, "\x1b[2J", "\x9b2J", "\u202e", "\udcff", "\r\n" * 3]
    return st.sampled_from([*(f"a{control}b" for control in controls), *steering])


ODD = st.deferred(odd_texts)  # not when each test process collects its tests: it takes a quarter of a second


@contextmanager
def logging_as(log_format: LogFormat) -> Iterator[logging.Handler]:
    before = logging.root.handlers[:], logging.root.level
    configure_logging("info", log_format)
    try:
        yield logging.root.handlers[0]
    finally:
        logging.root.handlers, logging.root.level = before


def record_of(text: str) -> logging.LogRecord:
    """Make a record with the text at each place where a value can stand."""
    message = f"{text.replace('%', '')} %s %r"
    record = logging.LogRecord("some", logging.INFO, "", 0, message, (text, text), None, sinfo=text)
    vars(record).update(about(text, text, text))
    try:
        _raise(text)
    except ValueError:
        record.exc_info = sys.exc_info()
    return record


def _raise(text: str) -> None:
    raise ValueError(f"of {text}") from RuntimeError(text)


@given(ODD | st.text(st.characters()))
def test_no_value_begins_a_line_of_text_or_steers_a_terminal(text: str) -> None:
    first, *traceback = _Text().format(record_of(text)).split("\n")

    assert re.match(r"\[.{20} INFO  some\] ", first)
    assert first.isprintable()
    assert "  Traceback (most recent call last):" in traceback
    assert all(line.isprintable() and line.startswith("  ") for line in traceback)


@given(ODD | st.text(st.characters()))
def test_an_object_of_json_is_one_line_of_plain_characters(text: str) -> None:
    line = _Json().format(record_of(text))

    assert line.isascii()
    assert line.isprintable()
    read = json.loads(line)
    assert read["message"] == f"{text.replace('%', '')} {text} {text!r}"
    assert (read["task_id"], read["circle"], read["caller_id"]) == (text, text, text)
    assert f"ValueError: of {text}" in read["exception"]


def test_dramatiqs_own_format_steers_no_terminal_either(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = logging.StreamHandler(sys.stderr)
    theirs.setFormatter(
        logging.Formatter("\x1b[1m%(name)s\x1b[0m %(message)s")
    )  # what an application asks for, it gets
    monkeypatch.setattr(logging.root, "handlers", [theirs])

    format_present_handlers("text")

    (handler,) = logging.root.handlers
    own = "\x1b[1msome\x1b[0m "
    first, *traceback = handler.format(record_of("\n\x1b[2J")).split("\n")
    assert first.startswith(own)
    assert all(line.isprintable() for line in [first.removeprefix(own), *traceback])


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_is_written_to_stderr_past_the_log_is_a_line_of_it(
    log_format: LogFormat, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name in [(sys, "excepthook"), (sys, "unraisablehook"), (sys, "stderr"), (threading, "excepthook")]:
        monkeypatch.setattr(module, name, getattr(module, name))  # back afterwards
    with logging_as(log_format):
        capture_stderr()

        print("one", "two\n\nthree\x1b[2J", file=sys.stderr)
        print("four", end="", file=sys.stderr, flush=True)
        logging.captureWarnings(capture=False)

    shown = capfd.readouterr().err.splitlines()
    if log_format == "json":
        assert [json.loads(line)["message"] for line in shown] == ["one two", "three\x1b[2J", "four"]
        assert {json.loads(line)["level"] for line in shown} == {"error"}
    else:
        assert [line.partition(" ERROR stderr] ")[2] for line in shown] == ["one two", "three\\x1b[2J", "four"]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_record_that_cannot_be_formatted_is_told_of(log_format: LogFormat, capfd: pytest.CaptureFixture[str]) -> None:
    with logging_as(log_format) as handler:
        logging.getLogger("some").info("%d", "no number")
        handler.flush()

    (line,) = capfd.readouterr().err.splitlines()
    assert "No line can be made of '%d': TypeError(" in line
    assert "some" in line
