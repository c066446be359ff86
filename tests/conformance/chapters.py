"""Chapters of cases: a TOML file each, with what is run and what Rhai itself answered."""

import json
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CASES = Path(__file__).parent / "cases"
MODULES = Path(__file__).parent / "modules"  # what they may import
CONSTANTS: dict[str, object] = {"CONTEXT_ID": "the context", "CALLER_ID": "the caller"}
"""What a task's script finds in its scope; the oracle says the same."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One script, and how it ends: with an output of a type, or with an error."""

    name: str
    script: str
    printed: tuple[str, ...] = ()  # each text given to `print`
    debugged: tuple[str, ...] = ()  # each text given to `debug`, behind its position
    output: str | None = None  # the text of the value
    type: str | None = None  # what `type_of` says of it
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """A file of cases, under a comment that says what it is about."""

    path: Path
    comment: str
    cases: tuple[Case, ...]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def read() -> list[Chapter]:
    """Read all chapters, in the order of their names."""
    return [_read(path) for path in sorted(CASES.glob("*.toml"))]


def _read(path: Path) -> Chapter:
    text = path.read_text()
    comment = re.match(r"(#[^\n]*\n)*", text)
    cases = tomllib.loads(text)["case"]
    return Chapter(path=path, comment=comment[0] if comment else "", cases=tuple(_case(**case) for case in cases))


def _case(*, printed: Iterable[str] = (), debugged: Iterable[str] = (), **rest: Any) -> Case:
    return Case(printed=tuple(printed), debugged=tuple(debugged), **rest)


def write(chapter: Chapter) -> None:
    """Write a chapter as it is to be read: of the comments, only the one at the head stays."""
    chapter.path.write_text("\n".join([chapter.comment, *map(_toml, chapter.cases)]))


def _toml(case: Case) -> str:
    lines = ["[[case]]", f"name = {_string(case.name)}", f"script = {_string(case.script)}"]
    if case.printed:
        lines.append(f"printed = {_list(case.printed)}")
    if case.debugged:
        lines.append(f"debugged = {_list(case.debugged)}")
    if case.output is not None:
        lines.append(f"output = {_string(case.output)}")
    if case.type is not None:
        lines.append(f"type = {_string(case.type)}")
    if case.error is not None:
        lines.append(f"error = {_string(case.error)}")
    return "\n".join(lines) + "\n"


def _list(texts: Iterable[str]) -> str:
    return f"[{', '.join(json.dumps(text, ensure_ascii=False) for text in texts)}]"


def _string(text: str) -> str:
    """Write a string in the form that needs no escapes, if there is one."""
    printable = all(letter.isprintable() or letter in "\n\t" for letter in text)
    if printable and "\n" not in text:
        if '"' not in text and "\\" not in text:
            return f'"{text}"'
        if "'" not in text:
            return f"'{text}'"
    if printable and "'''" not in text and not text.endswith("'"):
        return f"'''\n{text}'''" if "\n" in text else f"'''{text}'''"
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
