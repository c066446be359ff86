"""What the documents say is so."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rhai_tasks import protocol
from rhai_tasks.cli import web
from rhai_tasks.protocol import QueueKeys

ROOT = Path(__file__).parent.parent.parent
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


def test_the_readmes_python_runs_as_it_stands() -> None:
    names: dict[str, Any] = {}

    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)

    assert callable(names["main"])


def test_every_option_of_the_web_page_is_documented_with_its_default() -> None:
    table = (ROOT / "docs/web.md").read_text()

    for option in web.params:
        variable, default = f"RHAI_TASKS_WEB_{str(option.name).upper()}", f"`{option.default}`"
        default = {"token": "none", "read_only": "off"}.get(str(option.name), default)
        assert re.search(rf"^\| `{option.opts[0]}` \| `{variable}` \| {re.escape(default)} \|", table, re.MULTILINE), (
            option
        )


@pytest.mark.parametrize(
    "document", [*sorted(ROOT.glob("docs/**/*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


def test_every_key_and_field_is_in_the_protocol() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    own = QueueKeys("<ns>", "<queue>")
    properties = [name for name, value in vars(QueueKeys).items() if isinstance(value, property)]
    keys = {getattr(own, name).removeprefix(f"{own.messages}.") for name in properties}
    keys |= {own.acks("<broker>"), QueueKeys.registry("<ns>"), protocol.submits_key("<ns>", "<client>")}
    keys |= {protocol.state_channel("<ns>"), protocol.cancel_channel("<ns>"), protocol.workers_key("<ns>")}
    reply = protocol.reply_json(protocol.Task(id="", script=""), protocol.completed(""), "")

    assert properties
    assert [key for key in keys if key not in page] == []
    assert [field for field in (*protocol.DETAIL_FIELDS, *json.loads(reply)) if f"`{field}`" not in page] == []
