"""The checker of words finds what its rules name, where it is, and nothing in code."""

from pathlib import Path

import pytest

from tests.style import LONGEST, RULES, Rule, complaints, documents


def complain(text: str, folder: Path, suffix: str = "md") -> list[str]:
    page = folder / f"page.{suffix}"
    page.write_text(text)
    return [line.removeprefix(f"{page}:") for line in complaints([page])]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.words[:20])
def test_each_rule_finds_its_example_and_says_what_to_write(rule: Rule, tmp_path: Path) -> None:
    (complaint,) = complain(rule.example, tmp_path)

    assert rule.plainer in complaint
    assert rule.reason in complaint


def test_a_sentence_that_is_too_long_is_found_over_lines(tmp_path: Path) -> None:
    text = "# Page\n\nShort.\n" + "word\n" * (LONGEST + 1) + "\n" + "word " * LONGEST + "\n"

    (complaint,) = complain(text, tmp_path)

    assert complaint.startswith(f"3: {LONGEST + 1} words")


def test_items_and_cells_are_sentences_of_their_own(tmp_path: Path) -> None:
    item, cell = "- " + "word " * 20 + "\n", "| " + "word " * 20

    assert complain(f"{item}{item}\n{cell}{cell}|\n", tmp_path) == []


def test_code_comments_and_measured_tables_are_not_read(tmp_path: Path) -> None:
    text = "`likewise`\n\n```text\nlikewise\n```\n<!-- likewise -->\n<!-- measured: a -->\nlikewise\n<!-- end -->\n"

    assert complain(text + "\nLikewise.\n", tmp_path)[0].startswith("11: 'Likewise'")


def test_docstrings_are_read_at_their_lines(tmp_path: Path) -> None:
    source = 'job = "job"\n\n\ndef run() -> None:\n    """Run.\n\n    Likewise.\n    """\n'

    (complaint,) = complain(source, tmp_path, "py")

    assert complaint.startswith("7: 'Likewise'")


def test_the_texts_of_raised_errors_are_read_and_those_of_values_are_not(tmp_path: Path) -> None:
    source = 'x = "likewise"\nraise ValueError(f"no {x}, likewise" if x else "likewise") from None\n'

    assert [line.partition(":")[0] for line in complain(source, tmp_path, "py")] == ["2", "2"]


def test_comments_are_read_at_their_lines_and_together_if_they_stand_together(tmp_path: Path) -> None:
    apart, together = "x = 1  # word\n" * (LONGEST + 1), "# word\n" * (LONGEST + 1)
    source = f"# Likewise.\n\n{apart}\n{together}"

    first, second = complain(source, tmp_path, "py")

    assert first.startswith("1: 'Likewise'")
    assert second.startswith(f"{LONGEST + 5}: {LONGEST + 1} words")


@pytest.mark.parametrize(("suffix", "mark"), [("lua", "--"), ("rs", "///"), ("rs", "//!")])
def test_comments_of_lua_and_rust_are_read_for_words_and_not_for_length(suffix: str, mark: str, tmp_path: Path) -> None:
    source = f"likewise()\n  {mark} Likewise.\n{mark} Of tasks:\n{mark} {'word, ' * LONGEST}word.\n"

    (complaint,) = complain(source, tmp_path, suffix)

    assert complaint.startswith("2: 'Likewise'")


def test_pages_docstrings_comments_and_errors_pass() -> None:
    assert complaints(documents()) == []
