"""What the documents say is so."""

import re
from pathlib import Path
from typing import Any

import pytest

from bridge.cli import bridge, worker

ROOT = Path(__file__).parent.parent.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readmes_python_runs_as_it_stands() -> None:
    names: dict[str, Any] = {}

    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)

    assert callable(names["main"])


@pytest.mark.parametrize("command", [worker, bridge], ids=["rhai-worker", "rhai-bridge"])
def test_every_option_is_documented_with_its_default(command: Any) -> None:
    table = (ROOT / "docs/options.md").read_text()

    for option in command.params:
        name = option.opts[0]
        if name in {"--version", "--help"}:
            continue
        row = re.search(rf"\| `{name}[ `][^\n]*", table)
        assert row, name
        if option.default and isinstance(option.default, int | float | str) and option.default is not True:
            assert f"{option.default:g}" if isinstance(option.default, float) else str(option.default) in row[0]


@pytest.mark.parametrize(
    "document", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target
