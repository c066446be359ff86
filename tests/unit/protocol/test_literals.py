"""The words of the wire format are spelled in rhai_tasks/protocol only."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from rhai_tasks.protocol import Field, Status

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
}
"""Words of other things, too: columns, options, labels of metrics."""
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


def test_the_names_are_those_of_the_reference() -> None:
    page = (ROOT / "docs/protocol.md").read_text()

    assert {name for name in FIELDS if f"`{name}`" not in page} == set()
    assert {str(status) for status in Status if f"`{status}`" not in page} == set()
