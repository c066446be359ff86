"""No module, class or function is so large that nobody keeps it in mind."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for package in ("rhai_tasks", "bridge") for path in (ROOT / package).rglob("*.py"))
SCRIPTS = sorted(path for package in ("rhai_tasks", "bridge") for path in (ROOT / package).rglob("*.lua"))
LINES_OF_A_MODULE = 400
LINES_OF_A_CLASS = 200  # docstrings, comments and empty lines left out: to explain a class is no reason to part it
PARAMETERS = 8  # that a caller may give by position; those that have to be named explain themselves

LARGER = {
    "Evaluator.eval": "its options have names in the signatures that callers see; Python takes positions faster",
}


def test_a_module_has_at_most_so_many_lines() -> None:
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in (*MODULES, *SCRIPTS)}

    assert {path: count for path, count in lines.items() if count > LINES_OF_A_MODULE} == {}


def test_a_class_has_at_most_so_many_lines_and_a_function_so_many_parameters() -> None:
    found = {str(path.relative_to(ROOT)): too_large(path.read_text()) for path in MODULES}

    assert {path: complaints for path, complaints in found.items() if complaints} == {}


def test_what_is_too_large_is_found() -> None:
    lines = "".join(f"    x{number} = 0\n" for number in range(LINES_OF_A_CLASS))
    long = f'class Long:\n    """Explained."""\n\n    # Twice.\n{lines}'
    wide = "def wide(a, b, c, d, e, f, g, h, i, *, j): ..."

    assert too_large(long) == ["Long: 201 lines"]
    assert too_large(wide) == ["wide: 9 parameters"]
    assert too_large(long.replace("x0 = 0\n", "\n") + wide.replace(", i", "")) == []


def too_large(source: str) -> list[str]:
    """Return what is too large in a module."""
    tree, found = ast.parse(source), list[str]()
    scopes: list[ast.Module | ast.ClassDef] = [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    for scope in (tree, *scopes):
        if isinstance(scope, ast.ClassDef) and (lines := _lines(scope, source)) > LINES_OF_A_CLASS:
            found.append(f"{scope.name}: {lines} lines")
        for node in scope.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            name = f"{scope.name}.{node.name}" if isinstance(scope, ast.ClassDef) else node.name
            given = len(node.args.posonlyargs) + len(node.args.args) - isinstance(scope, ast.ClassDef)  # but for `self`
            if given > PARAMETERS and name not in LARGER and not _is_command(node):
                found.append(f"{name}: {given} parameters")
    return found


def _lines(node: ast.ClassDef, source: str) -> int:
    text = source.splitlines()
    lines = set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    for inner in ast.walk(node):
        if isinstance(inner, ast.Expr) and isinstance(inner.value, ast.Constant) and isinstance(inner.value.value, str):
            lines -= set(range(inner.lineno, (inner.end_lineno or inner.lineno) + 1))
    return sum(bool(text[number - 1].strip()) and not text[number - 1].lstrip().startswith("#") for number in lines)


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether click calls it: each option is a parameter, by its name."""
    return any("command(" in ast.unparse(decorator) for decorator in node.decorator_list)
