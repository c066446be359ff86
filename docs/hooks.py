"""Adds to the site: files from outside of `docs`, and tables of the commands' options.

MkDocs calls the functions named `on_...`.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from bridge.cli import bridge, worker
from rhai_tasks.cli import main
from rhai_tasks.options import ENVIRONMENT_PREFIX

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "bench/README.md": "bench.md",
    "examples": "examples.md",
}
ICON = ROOT / "rhai_tasks/web/static/icon.svg"
COMMANDS = {"rhai-worker": worker, "rhai-bridge": bridge, "rhai-tasks": main}


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add pages for texts outside of `docs`, and the icon."""
    for source, page in PAGES.items():
        path = ROOT / source
        text = _examples(path) if path.is_dir() else path.read_text()
        files.append(File.generated(config, page, content=text))
    files.append(File.generated(config, "images/icon.svg", abs_src_path=str(ICON)))


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Turn links to texts outside of `docs` into links to their pages, and fill in the table of options."""
    source = page.file.src_uri
    at = next((ROOT / outside for outside, inside in PAGES.items() if inside == source), DOCS / source).parent
    linked = re.sub(
        r"\]\((?!\w+:|#)([^)#]+)", lambda link: f"]({_inside(at / link[1], (DOCS / source).parent)}", markdown
    )
    return linked.replace("<!-- options -->", "\n".join(options_table()))


def _inside(target: Path, page_folder: Path) -> str:
    """Return the link from a page to a file, within the site."""
    path = os.path.normpath(target)
    outside = os.path.relpath(path, ROOT)
    if outside in PAGES:
        path = str(DOCS / PAGES[outside])
    elif outside.startswith("examples/") and outside.endswith(".py"):
        path = f"{DOCS / PAGES['examples']}#{Path(outside).stem}"
    return os.path.relpath(path, page_folder)


def _examples(folder: Path) -> str:
    programs = [path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
    return "# Examples\n\nWhole programs, each run by a test.\n" + "".join(
        f"\n## {path.stem}\n\n```python\n{path.read_text()}```\n" for path in programs
    )


def options_table() -> Iterator[str]:
    """List every option that is also an environment variable, once, with the commands that have it."""
    options: dict[tuple[str, str], click.Option] = {}
    readers: dict[tuple[str, str], dict[str, None]] = {}
    for command, definition in COMMANDS.items():
        for option, read_from in _options(definition):
            if option.show_envvar:
                key = next(name for name in option.opts if name.startswith("--")), "`<br>`".join(read_from)
                options.setdefault(key, option)
                readers.setdefault(key, {})[command.removeprefix("rhai-")] = None
    yield "| option, variable | default | of | meaning |"
    yield "| --- | --- | --- | --- |"
    for (name, read_from), option in options.items():
        metavar = "" if option.is_flag or not option.metavar else f" {option.metavar}"
        of = ", ".join(readers[name, read_from])
        yield f"| `{name}{metavar}`<br>`{read_from}` | {_default(option)} | {of} | {_escaped(option.help or '')} |"


def known_variables() -> set[str]:
    """Return every variable that a command reads."""
    return {variable for command in COMMANDS.values() for _, variables in _options(command) for variable in variables}


def _options(command: click.Command, prefix: str = ENVIRONMENT_PREFIX) -> Iterator[tuple[click.Option, list[str]]]:
    """Yield the options of a command and its subcommands, with their variables, named as click does."""
    for option in command.params:
        if isinstance(option, click.Option):
            own = option.envvar or f"{prefix}_{(option.name or '').upper()}"
            yield option, [own] if isinstance(own, str) else list(own)
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _options(below, f"{prefix}_{name.upper().replace('-', '_')}")


def _default(option: click.Option) -> str:
    if option.required:
        return "required"
    if option.is_flag:
        return "off"
    value = option.default
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`" if isinstance(value, int | str) else "none"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
