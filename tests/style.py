"""Check the wording of the documents, docstrings, comments and errors.

python -m tests.style

A small table of rules, because the checkers that know more words (vale) download a program when they are first run, and
those that a registry serves whole (proselint) know nothing of this project's words. No rule is about passive voice: to
find it takes a grammar of English. CONTRIBUTING.md names the style guide.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parent.parent
_NAMES = re.compile(r"`x`(?:, `x`)+")  # a list of names, which is read as one thing
LONGEST = 30  # words in a sentence; Google's guide advises fewer than 26

_BEFORE = r"of|for|with|by|to|than|from|as|on|all|takes?|gives?|puts?|keeps?|holds?|moves?|removes?|returns?"
_AFTER = r"(?:is|are|was|were|has|have|had|it|they|waits?|runs?|comes?|came|ends?|ended|stands?|holds?|held)"


@dataclass(frozen=True)
class Rule:
    """Words that a reader stumbles over."""

    words: str  # as a pattern
    plainer: str
    reason: str
    example: str  # that it finds


RULES = [
    Rule(r"likewise", "repeat the noun", "the reader has to look back", "Likewise, the last one first."),
    Rule(rf"(?:^|[,;:.] |\b(?:{_BEFORE}) )what {_AFTER}", "the noun", "it hides the thing", "It takes what waits."),
    Rule(
        r"who(?:ever|soever)\b|\b(?:process|worker|bridge|client|server|dispatcher|message|task)s? who",
        "that, or the noun",
        "only persons are 'who'",
        "Whoever holds the message.",
    ),
    Rule(r"but for", "except", 'it can mean "without whom"', "All but for one."),
    Rule(
        r"leases?(?: that| which)?(?: did not| does not| do not)? (?:stands?|stood)",
        "is valid",
        "the field says so",
        "While the lease stands.",
    ),
    Rule(
        r"(?:is|are) given in (?:the |their )?place of",
        "gets for",
        "the receiver comes first",
        "Scripts are given in place of it a map.",
    ),
    Rule(
        r"(?:it|they|this|that|which|what) (?:is|are) none",
        "is not a, and the noun",
        "the reader has to look for the noun",
        "An error if it is none.",
    ),
    Rule(
        r"so (?:many|much|long)(?=[.:;,]|$| (?!as|that))(?!, that)",
        "that many, or the argument's name",
        "it names no amount",
        "Wait so long.",
    ),
    Rule(
        r"^[a-z]\w*(?: \([^)]*\))?: Of (?:the|its|this|that|all|one)",
        "the noun after it",
        "it is half of a phrase",
        "client: Of the server.",
    ),
    Rule(
        r"(?:of|to|for|than|is|are|was|were|not) (?:ours|theirs)",
        "this project's, or the owner's name",
        "it names no owner",
        "Workers of ours.",
    ),
    Rule(
        r"(?:is|are|was|were|be|been) told|told (?:of|about|that|when)|tells? of",
        "report, publish, notify",
        "only people tell",
        "The bridge is told.",
    ),
    Rule(
        r"hears?|heard|believes?|verdicts?|wants?|deaf|impatient",
        "receive, assume, decision, expect",
        "processes have no minds",
        "A bridge hears it.",
    ),
    Rule(r"heed(?:s|ed|ing)?", "check, obey", "the field has no such word", "A cancel is heeded."),
    Rule(
        r"looks? (?:at|for|after|into|through|what|whether)|looked (?:at|for|after|into|through)",
        "poll, read, check, search",
        "processes have no eyes",
        "The worker looks at the list.",
    ),
    Rule(
        r"as ever|anew|at hand|thus|hence|whilst|upon|amidst",
        "as before, again, available, so, while, on",
        "nobody says it",
        "The task runs anew.",
    ),
    Rule(r"wanted (?:is|are)|(?:is|are) wanted", "expected", "errors of the field say so", "A number is wanted."),
    Rule(
        r"(?<!there )(?:is|are) no (?!longer|more)\w+",
        "is not a",
        "the negation belongs to the verb",
        "A text is no number.",
    ),
    Rule(r"jobs?", "task", "one word for one thing", "Run a job."),
    Rule(r"please|simply|obviously|of course|easily|very", "nothing", "it adds no fact", "Simply run it."),
    Rule(
        r"utili[sz]es?|leverages?|in order to|prior to|due to the fact that",
        "use, to, before, because",
        "the short word says the same",
        "In order to stop.",
    ),
    Rule(r"e\.g\.|i\.e\.|etc\.", "for example, that is, and so on", "not everybody reads Latin", "A key, e.g. a list."),
    Rule(
        r"blacklists?|whitelists?|master/slave",
        "blocklist, allowlist, primary/replica",
        "the guide bans them",
        "A whitelist.",
    ),
]


@dataclass(frozen=True)
class Unit:
    """A paragraph, list item or cell, as words without markup."""

    line: int
    text: str
    is_prose: bool = True  # else a list of keys and arguments may be part of it, which is long

    def sentences(self) -> list[str]:
        return [part.strip() for part in re.split(r"(?<=[.!?])[\s\"')*]+|(?<=[a-z]): ", self.text) if part.strip()]


def complaints(paths: list[Path]) -> list[str]:
    """Return a line for each use of a rule's words, and for each sentence that is too long."""
    return [
        f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{unit.line}: {complaint}"
        for path in paths
        for unit in _READERS[path.suffix](path.read_text())
        for complaint in _judge(unit)
    ]


def documents() -> list[Path]:
    """List the pages, and the sources of the packages and of the engine."""
    return [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")),
        *sorted((ROOT / "docs").rglob("*.md")),
        *(path for package in ("rhai_tasks", "bridge") for path in sorted((ROOT / package).rglob("*.py"))),
        *(path for package in ("rhai_tasks", "bridge") for path in sorted((ROOT / package).rglob("*.lua"))),
        *sorted((ROOT / "engine/src").rglob("*.rs")),
    ]


def _judge(unit: Unit) -> Iterator[str]:
    for rule in RULES:
        for found in re.finditer(rf"(?<![\w`-])(?:{rule.words})(?![\w-])", unit.text, re.IGNORECASE):
            if unit.text.endswith("?"):  # as of packages, which answer a question
                continue
            yield f"{found[0].strip(' ,;:.')!r}: write {rule.plainer} ({rule.reason})"
    for sentence in unit.sentences() if unit.is_prose else []:
        count = len(re.findall(r"[\w`][^\s]*", _NAMES.sub("`x`", sentence)))
        if count > LONGEST:
            yield f"{count} words in one sentence, more than {LONGEST}: {sentence[:60]}..."


def _prose(text: str, first: int = 1) -> Iterator[Unit]:
    """Split Markdown into units; code, comments, and measured and generated tables count for nothing."""

    def blank(found: re.Match[str]) -> str:
        return "\n" * found[0].count("\n")

    text = re.sub(
        r"<!-- (?:measured: |options -->).*?<!-- end -->|<!--.*?-->|^```.*?^```$",
        blank,
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    text = re.sub(r"`+[^`]+`+", lambda found: "`x`" + blank(found), text)
    text = re.sub(r"!?\[((?:[^\[\]]|\n)*?)\]\([^)]*\)", r"\1", text)
    line, lines = first, list[str]()
    for number, content in enumerate([*text.split("\n"), ""], first):
        starts = re.match(r"\s*(?:[-*] |\d+\. |#|\||\w[\w, ]*:(?:\s|$)|\.\. |[│├└ ]*── )", content) is not None
        if lines and (starts or not content.strip()):
            yield Unit(line, " ".join(lines))
            lines = []
        if content.lstrip().startswith("|"):
            yield from (Unit(number, cell.strip()) for cell in re.split(r"(?<!\\)\|", content) if cell.strip(" -:"))
        elif content.strip():
            line = line if lines else number
            lines.append(re.sub(r"^\s*(?:[-*] |\d+\. |#+ |> )", "", content).strip())


def _words_of_code(source: str) -> Iterator[Unit]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring is not None:
                yield from _prose(docstring, node.body[0].lineno)
        elif isinstance(node, ast.Raise):
            yield from (Unit(text.lineno, _text(text)) for text in _texts(node))
    lines, last = list[str](), 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            is_alone = token.line.lstrip().startswith("#")
            if lines and not (is_alone and token.start[0] == last + 1):
                yield from _prose("\n".join(lines), last - len(lines) + 1)
                lines = []
            lines.append(token.string.lstrip("# "))
            last = token.start[0]
    yield from _prose("\n".join(lines), last - len(lines) + 1)


def _comments(mark: str, source: str) -> Iterator[Unit]:
    """Split the comments on lines of their own into units; `mark` is a pattern of their beginning."""
    kept = [re.sub(rf"^\s*{mark} ?", "", line) if re.match(rf"\s*{mark}", line) else "" for line in source.split("\n")]
    yield from (Unit(unit.line, unit.text, is_prose=False) for unit in _prose("\n".join(kept)))


_READERS: dict[str, Callable[[str], Iterator[Unit]]] = {
    ".md": _prose,
    ".py": _words_of_code,
    ".lua": partial(_comments, "--"),
    ".rs": partial(_comments, "//[/!]?"),
}


def _texts(node: ast.AST) -> Iterator[ast.Constant | ast.JoinedStr]:
    """Yield the texts in an expression, each with its parts."""
    for below in ast.iter_child_nodes(node):
        if isinstance(below, ast.JoinedStr) or (isinstance(below, ast.Constant) and isinstance(below.value, str)):
            yield below
        else:
            yield from _texts(below)


def _text(node: ast.Constant | ast.JoinedStr) -> str:
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "`x`" for part in parts)


if __name__ == "__main__":
    found = complaints([Path(name).resolve() for name in sys.argv[1:]] or documents())
    sys.exit("\n".join(found) or None)
