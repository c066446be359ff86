"""The words of the wire format are spelled in rhai_tasks/protocol only."""

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rhai_tasks.connection.scripts import script_source
from rhai_tasks.protocol import CANCELLED, RHAI, Field, Status
from tests.lua import FILES

ROOT = Path(__file__).parents[3]
FIELDS = {value for name, value in vars(Field).items() if name.isupper()}
ENGLISH = {
    "args",
    "script",
    "status",
    "output",
    "error",
    "submission",
    "circle",
    "timeout",
    "stats",
    "result",
    "operations",
    "prerequisites",
}
"""Words of other things, too: columns, options, labels of metrics."""
WIRE = FIELDS | set(Status) | {CANCELLED}
WORDS = (FIELDS | set(Status)) - ENGLISH
MODULES = sorted(
    path
    for folder in ("rhai_tasks", "bridge")
    for path in (ROOT / folder).rglob("*.py")
    if (ROOT / "rhai_tasks/protocol") not in path.parents
)


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Find the texts of a module that are a name of a field or a status, each with its line."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if text in WORDS:
                yield node.lineno, text
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") in {"hget", "hset", "hmget", "hdel"}:
            for arg in node.args[1:]:
                if isinstance(arg, ast.Constant) and arg.value in ENGLISH:
                    yield node.lineno, str(arg.value)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_takes_names_of_fields_and_statuses_from_the_protocol(path: Path) -> None:
    assert list(literals(path)) == []


@pytest.mark.parametrize("path", sorted(FILES.values()), ids=lambda path: path.stem)
def test_a_lua_script_takes_names_of_fields_and_statuses_from_the_dialect(path: Path) -> None:
    code = re.sub(r"--.*", "", path.read_text())

    words = {word for text in re.findall(r"'([^'\n]*)'", code) for word in text.split()} & WIRE
    assert words <= ENGLISH - set(Status)
    assert not re.search(r"'H(SET|GET|MGET|DEL)', details, '\w+'", code)


def test_a_lua_script_gets_the_words_of_its_dialect() -> None:
    pirates = replace(RHAI, fields={**RHAI.fields, "status": "whereabouts"}, words={**RHAI.words, "pending": "ashore"})
    ours, theirs = (script_source("rhai_tasks.queue", "release", dialect).decode() for dialect in (RHAI, pirates))

    assert "'HSET', details, 'status', 'pending', 'updatedAt'" in ours
    assert "'HSET', details, 'whereabouts', 'ashore', 'updatedAt'" in theirs


def test_the_names_are_those_of_the_reference() -> None:
    page = (ROOT / "docs/protocol.md").read_text()

    assert {name for name in FIELDS if f"`{name}`" not in page} == set()
    assert {str(status) for status in Status if f"`{status}`" not in page} == set()
