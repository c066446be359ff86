"""What a script prints is kept up to a number of bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks.queue.prints import Prints


@pytest.mark.parametrize(
    ("most", "kept"),
    [
        (1, "[cut: it printed more than 1 bytes]\n"),
        (2, "é\n[cut: it printed more than 2 bytes]\n"),
        (3, "é\n[cut: it printed more than 3 bytes]\n"),
        (4, "é\na\n[cut: it printed more than 4 bytes]\n"),
        (5, "é\nab\n[cut: it printed more than 5 bytes]\n"),
        (6, "é\nab\n"),
    ],
)
def test_prints_are_cut_at_a_whole_character_and_a_line_says_so(most: int, kept: str) -> None:
    prints = Prints(most)

    for text in ("é", "ab"):
        prints.add(text)

    assert prints.text() == kept


@given(st.lists(st.text(max_size=20)), st.integers(1, 100))
def test_kept_is_a_prefix_of_what_was_printed_of_so_many_bytes(texts: list[str], most: int) -> None:
    prints, printed = Prints(most), "".join(f"{text}\n" for text in texts)

    for text in texts:
        prints.add(text)

    if len(printed.encode()) <= most:
        assert prints.text() == printed
    else:
        kept, cut, _ = prints.text().rpartition(f"[cut: it printed more than {most} bytes]\n")
        assert cut
        assert printed.startswith((kept, kept.removesuffix("\n")))
        assert most - 4 <= len(kept.removesuffix("\n").encode()) <= most


def test_a_flood_takes_no_more_memory() -> None:
    prints = Prints(1000)

    for _ in range(10_000):
        prints.add("x" * 10_000)

    assert prints.size() < 1100
