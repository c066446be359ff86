"""What the documents say is so."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from docs.reference import COMMANDS, texts
from rhai_tasks import protocol
from rhai_tasks.cli.services import web
from rhai_tasks.protocol import QueueKeys

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_readmes_python_runs_as_it_stands() -> None:
    names: dict[str, Any] = {}

    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), names)

    assert callable(names["main"])


@pytest.mark.parametrize("path", texts(), ids=lambda path: path.name)
def test_generated_pages_are_those_of_the_code(path: Path) -> None:
    assert path.read_text() == texts()[path], "run: make reference"


def test_the_map_is_that_of_the_packages() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `([\w/]+)/` \| (.*) \|$", text, re.MULTILINE)
    packages = [path.parent for name in ("rhai_tasks", "bridge") for path in (ROOT / name).rglob("__init__.py")]

    assert sorted(path.relative_to(ROOT).as_posix() for path in packages if path != ROOT / "rhai_tasks") == sorted(
        name for name, _ in rows
    )
    for name, question in rows:
        docstring = ast.get_docstring(ast.parse((ROOT / name / "__init__.py").read_text())) or ""
        assert docstring.splitlines()[0] == question, name
    beside = text.partition("Beside the packages")[2].partition("`engine/src`")[0]
    for path in (ROOT / "rhai_tasks").glob("[a-z]*.py"):
        assert f"`{path.stem}`" in beside, path.name


def test_the_folders_of_the_engine_are_in_the_order_of_their_imports() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    folders = re.findall(r"`(\w+)`", text.partition("in the order of their imports:")[2].partition("\n\n")[0])
    source = ROOT / "engine/src"

    assert sorted(folders) == sorted(path.name for path in source.iterdir() if path.is_dir())
    for file in source.glob("*/*.rs"):
        used = set(re.findall(r"crate::(\w+)", file.read_text())) & set(folders)
        allowed = folders[: folders.index(file.parent.name) + 1]
        assert used <= set(allowed), file.name


def test_every_option_of_the_web_page_is_named_there() -> None:
    page = (ROOT / "docs/web.md").read_text()

    for option in web.params:
        assert f"`{option.opts[0]}`" in page.partition("## Options")[2].partition("##")[0], option


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_table_has_an_empty_line_before_and_after_it(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)

    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        before, _, after = text.partition(table)
        assert before.endswith("\n\n"), table
        assert not after or after.startswith("\n"), table


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda path: path.name)
def test_a_page_begins_with_what_it_is_for(page: Path) -> None:
    title, _, text = page.read_text().partition("\n\n")

    assert re.fullmatch(r"# .+", title)
    assert re.match(r"This (page|reference|tutorial) [^.]+\.", text.replace("\n", " "))


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", document.read_text()):
        assert (document.parent / target).exists(), target


@pytest.mark.parametrize("document", PAGES, ids=lambda path: path.name)
def test_files_that_a_page_names_exist(document: Path) -> None:
    named = re.findall(r"`((?:rhai_tasks|bridge|tests|bench|examples)/[\w./-]+)`", document.read_text())
    scripts = re.findall(r"`(\w+)\.lua`", document.read_text())

    assert [name for name in named if not (ROOT / name).exists()] == []
    present = {path.stem for name in ("rhai_tasks", "bridge") for path in ROOT.glob(f"{name}/**/*.lua")}
    assert set(scripts) <= present


def test_every_key_and_field_is_in_the_protocol() -> None:
    page = (ROOT / "docs/protocol.md").read_text()
    own = QueueKeys("<ns>", "<queue>")
    properties = [name for name, value in vars(QueueKeys).items() if isinstance(value, property)]
    keys = {getattr(own, name).removeprefix(f"{own.messages}.") for name in properties}
    keys |= {own.acks("<broker>"), QueueKeys.registry("<ns>"), protocol.submits_key("<ns>", "<client>")}
    keys |= {protocol.state_channel("<ns>"), protocol.cancel_channel("<ns>"), protocol.workers_key("<ns>")}
    reply = protocol.reply_json(protocol.Task(id="", script=""), protocol.completed(""), "", {})

    assert properties
    assert [key for key in keys if key not in page] == []
    assert [field for field in (*protocol.DETAIL_FIELDS, *json.loads(reply)) if f"`{field}`" not in page] == []


def test_the_page_of_commands_names_each_option_and_explains_it_once() -> None:
    page, options = (ROOT / "docs/commands.md").read_text(), (ROOT / "docs/options.md").read_text()
    sections = dict(re.findall(r"^#+ (rhai-.*)\n((?:(?!#).*\n)*)", page, re.MULTILINE))
    shared = page.partition("<!-- commands -->")[2].partition("\n## ")[0]

    for path, command in _commands():
        usage, _, also = sections[path].partition("\nAlso: ")
        for option in command.params:
            if isinstance(option, click.Option):
                name = next(name for name in option.opts if name.startswith("--"))
                is_elsewhere = f"`{name}`" in also
                assert is_elsewhere != (f" {name}" in usage.partition("Options:")[2]), (path, name)
                assert not is_elsewhere or re.search(rf"`(?:-\w, )?{name}\b", shared + options), (path, name)


def _commands() -> Iterator[tuple[str, click.Command]]:
    below: list[tuple[str, click.Command]] = list(COMMANDS.items())
    while below:
        path, command = below.pop()
        yield path, command
        if isinstance(command, click.Group):
            below += [(f"{path} {name}", one) for name, one in command.commands.items()]
