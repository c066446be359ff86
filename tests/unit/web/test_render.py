"""How the web page writes texts and numbers, and draws lines."""

import pytest

from rhai_tasks.terminal import visible
from rhai_tasks.web.charts import HEIGHT, draw, duration, number
from rhai_tasks.web.render import brief, dereference, environment, exact, format_time, reference
from rhai_tasks.web.security import is_loopback, own_path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\tb\nc", "a\tb\nc"),
        ("a\r\nb", "a\nb"),
        ("nul \x00 bell \x07 escape \x1b[31m", "nul \\x00 bell \\x07 escape \\x1b[31m"),
        ("right \u202e left", "right \\u202e left"),
        ("no \u200b width", "no \\u200b width"),
        ("no text \udcff", "no text \\xff"),
        ("lone \ud800", "lone \\ud800"),
        ("Grüße, 世界 🎉", "Grüße, 世界 🎉"),
    ],
)
def test_every_character_is_visible(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_whatever_a_template_shows_is_visible_and_escaped() -> None:
    template = environment().from_string("<i title='{{ text }}'>{{ text }}</i>{{ none }}")

    assert template.render(text="<b>'\"&\x00\udcff", none=None) == (
        "<i title='&lt;b&gt;&#39;&#34;&amp;\\x00\\xff'>&lt;b&gt;&#39;&#34;&amp;\\x00\\xff</i>None"
    )


@pytest.mark.parametrize(
    ("text", "written"), [("a\r\nb\rc<&", "a&#13;\nb&#13;c&lt;&amp;"), ("\u200b\x00\ud800", "\u200b\ufffd\ufffd")]
)
def test_a_text_for_a_form_is_escaped_once_and_keeps_all_that_a_page_can_hold(text: str, written: str) -> None:
    assert exact(text) == written


@pytest.mark.parametrize("task_id", ["plain", "a/../b", "?&=#% +", "\udcff\udc00"[:1], "Grüße", '"><script>', "\n\x00"])
def test_an_id_survives_addresses_and_forms(task_id: str) -> None:
    assert dereference(reference(task_id)) == task_id
    assert reference(task_id).isascii()
    assert not set(reference(task_id)) & set("&=?#/'\"<> +")


@pytest.mark.parametrize(
    ("value", "written"), [(0, "0"), (7.25, "7.2"), (1234, "1,234"), (56_780, "56.8k"), (1e6, "1M"), (2.5e9, "2.5G")]
)
def test_numbers_are_short(value: float, written: str) -> None:
    assert number(value) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0, "0 s"),
        (0.00025, "250 µs"),
        (0.0123, "12.3 ms"),
        (5.04, "5.04 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (3700, "1 h 01 min"),
        (5 * 86400, "5 days"),
    ],
)
def test_durations_are_short(seconds: float, written: str) -> None:
    assert duration(seconds) == written


def test_sizes_times_and_starts_are_short() -> None:
    sizes = environment().from_string("{% for size in sizes %}{{ size | filesizeformat(true) }} {% endfor %}")
    assert sizes.render(sizes=[1, 1536, 5 * 1024 * 1024]) == "1 Byte 1.5 KiB 5.0 MiB "
    assert format_time(0) == "1970-01-01 00:00:00"
    assert format_time(1e300).startswith("9999")
    assert brief("a\n  b" + "c" * 10_000_000, 10) == "a bcccccc…"


def test_a_line_is_broken_where_samples_are_missing_and_ends_now() -> None:
    chart = draw("t", ("a", "b"), [(0, (1, None)), (2, (3, None)), (100, (4, 1.5)), (102, (2, None))])

    first, second = chart.lines
    assert [len(piece.split()) for piece in first.pieces] == [2, 2]
    assert first.pieces[1].endswith("472.0,69.2")
    assert (first.latest, second.latest) == ("2", "1.5")
    assert [label for _, label in chart.levels] == ["0", "2.5", "5"]


@pytest.mark.parametrize(
    ("values", "levels"),
    [
        ([0.001, 0.02], ["1 ms", "10 ms", "100 ms"]),
        ([0.0002, 20], ["100 µs", "10 ms", "1 s", "1 min"]),
        ([5, 90], ["1 s", "10 s", "1 min"]),
        ([150, 7200], ["10 min", "1 h"]),
        ([0.0005, 7200], ["100 µs", "100 ms", "1 min"]),
        ([90_000, 900_000], ["10 h", "10 days"]),
        ([], ["1 ms", "10 ms", "100 ms", "1 s"]),
    ],
)
def test_levels_of_durations_are_whole_units_and_fit_beside_the_chart(values: list[float], levels: list[str]) -> None:
    points = [(number, (value,)) for number, value in enumerate(values)]

    chart = draw("t", ("median",), points, seconds=True, is_log=True)

    assert [label for _, label in chart.levels] == levels
    assert all(0 <= y <= HEIGHT for y, _ in chart.levels)
    assert max(map(len, levels)) <= 8  # characters: 46 units are left of the chart


def test_a_chart_of_nothing_can_be_drawn() -> None:
    chart = draw("t", ("a",), [], seconds=True)

    assert (chart.lines[0].latest, chart.lines[0].pieces) == ("-", ())


@pytest.mark.parametrize(
    ("host", "is_own"), [("127.0.0.1", 1), ("::1", 1), ("localhost", 1), ("0.0.0.0", 0), ("::", 0)]
)
def test_loopback_is_known(host: str, is_own: int) -> None:
    assert is_loopback(host) == is_own
    assert not is_loopback("example.org")


@pytest.mark.parametrize(
    "address", ["//evil.example/", "/\\evil.example", "https://evil.example/", "javascript:alert(1)", "", "/a\nb", "/ü"]
)
def test_a_login_leads_to_no_other_site(address: str) -> None:
    assert own_path(address) == "/"
    assert own_path("/task?id=a%20b&circle=c") == "/task?id=a%20b&circle=c"
