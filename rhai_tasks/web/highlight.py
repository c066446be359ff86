"""Colours Rhai for pages, on the server: pages work without JavaScript."""

from collections.abc import Sequence
from functools import lru_cache

from pygments.lexer import RegexLexer, words
from pygments.token import Comment, Keyword, Name, Number, String, Text

Piece = tuple[str, str]
"""A class of the style sheet, empty for none, and a text."""

_LONGEST = 64 * 1024  # characters that are coloured
_KEYWORDS = "as break catch const continue do else export fn for global if import in is let loop private return"
_KEYWORDS += " switch this throw try until while"
_CLASSES = {Comment: "k-comment", Keyword: "k-keyword", Name.Function: "k-function", Number: "k-number"}
_CLASSES[String] = "k-string"


class _RhaiLexer(RegexLexer):  # type: ignore[misc]  # it has no annotations
    """Tokens of Rhai, as far as their colours differ; an interpolation belongs to its string."""

    tokens = {  # noqa: RUF012  (pygments declares it so)
        "root": [
            (r"//[^\n]*", Comment),
            (r"/\*", Comment, "comment"),
            (r'"(?:\\.|[^"\\])*"?', String),
            (r"`[^`]*`?", String),
            (r"'(?:\\[^\n]|[^'\\\n])*'", String),
            (r"#?[0-9][0-9a-zA-Z_]*(?:\.[0-9][0-9_]*)?", Number),
            (words(_KEYWORDS.split(), suffix=r"\b"), Keyword),
            (r"(?:true|false)\b", Keyword),
            (r"[A-Za-z_]\w*(?=\()", Name.Function),
            (r"[A-Za-z_]\w*", Text),
            (r"\s+|.", Text),
        ],
        "comment": [(r"/\*", Comment, "#push"), (r"\*/", Comment, "#pop"), (r"[^*/]+|.", Comment)],
    }


@lru_cache(maxsize=32)  # a live page is made again and again
def highlight(text: str) -> Sequence[Sequence[Piece]]:
    """Split a script into lines, and each line into coloured pieces. A huge script stays without colours."""
    if len(text) > _LONGEST:
        return [[("", line)] for line in text.split("\n")]
    lines: list[list[Piece]] = [[]]
    for _, token, value in _RhaiLexer().get_tokens_unprocessed(text):
        kind = _CLASSES.get(token, "")
        first, *others = value.split("\n")
        _add(lines[-1], kind, first)
        for other in others:
            lines.append([])
            _add(lines[-1], kind, other)
    return lines


def _add(line: list[Piece], kind: str, text: str) -> None:
    if text and line and line[-1][0] == kind:
        line[-1] = kind, line[-1][1] + text
    elif text:
        line.append((kind, text))
