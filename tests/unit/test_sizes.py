"""Bounds the lines of modules and classes; ruff bounds the parameters of functions."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = [
    *(path for package in ("rhai_tasks", "bridge") for path in (ROOT / package).rglob("*.py")),
    *(ROOT / "bench").glob("*.py"),
    *(ROOT / "bench/apps").glob("*.py"),
]
LUA = [path for package in ("rhai_tasks", "bridge") for path in (ROOT / package).rglob("*.lua")]
RUST = [*(ROOT / "engine/src").rglob("*.rs")]
LINES_OF_A_MODULE = 400
LINES_OF_A_CLASS = 200


def test_a_module_has_at_most_so_many_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in (*MODULES, *LUA, *RUST)}

    assert {path: count for path, count in lines.items() if count > LINES_OF_A_MODULE} == {}


def test_a_class_has_at_most_so_many_lines() -> None:
    found = {str(path.relative_to(ROOT)): too_large(path.read_text()) for path in MODULES}

    assert {path: complaints for path, complaints in found.items() if complaints} == {}


def test_what_is_too_large_is_found() -> None:
    fields = "".join(f"    x{number} = 0\n" for number in range(LINES_OF_A_CLASS - 1))

    assert too_large(f"class Long:\n{fields}") == []
    assert too_large(f'class Long:\n    """Explained."""\n{fields}') == ["Long: 201 lines"]


def too_large(source: str) -> list[str]:
    """List the classes of a module that are too large."""
    classes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    lines = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in classes}
    return [f"{name}: {count} lines" for name, count in lines.items() if count > LINES_OF_A_CLASS]
