"""Colours of scripts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rhai_tasks.web.highlight import highlight


def coloured(script: str) -> list[tuple[str, str]]:
    return [piece for line in highlight(script) for piece in line if piece[0]]


@pytest.mark.parametrize(
    ("script", "kind", "text"),
    [
        ("let a = 1;", "k-keyword", "let"),
        ("let a = 1_000.5;", "k-number", "1_000.5"),
        ("f(x)", "k-function", "f"),
        ("x // why", "k-comment", "// why"),
        ("/* a /* b */ c */ x", "k-comment", "/* a /* b */ c */"),
        ('"say \\"if\\""', "k-string", '"say \\"if\\""'),
        ("`${if a { 1 }}`", "k-string", "`${if a { 1 }}`"),
        ("iffy", "", ""),
    ],
)
def test_parts_of_the_language_have_their_colours(script: str, kind: str, text: str) -> None:
    found = coloured(script)

    assert ((kind, text) in found) if kind else not found


@pytest.mark.parametrize("open_", ['"', "`", "/*", "'", "${", "//"])
def test_what_is_not_closed_stays_text(open_: str) -> None:
    assert "".join(text for line in highlight(f"a {open_} b") for _, text in line) == f"a {open_} b"


@given(st.text(alphabet="aif 1\n\"'`\\/*${}()#._\r\t\x00é", max_size=200))
def test_colours_change_no_character_and_no_line(script: str) -> None:
    lines = ["".join(text for _, text in line) for line in highlight(script)]

    assert lines == script.split("\n")


def test_a_huge_script_has_no_colours() -> None:
    assert coloured("let a = 1;\n" * 10_000) == []
