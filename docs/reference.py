"""Writes what the pages repeat of the code: the options, the help of each command, and llms.txt.

python -m docs.reference

The results are in the repository, so that the pages are whole wherever they are read. A test compares them.
"""

import re
from collections import Counter
from collections.abc import Iterator
from copy import copy
from pathlib import Path

import click

from bridge.cli import bridge, worker
from rhai_tasks.cli import main
from rhai_tasks.options import ENVIRONMENT_PREFIX

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
COMMANDS = {"rhai-worker": worker, "rhai-bridge": bridge, "rhai-tasks": main}
_WIDTH = 110
_TABLE = re.compile(r"(?<=<!-- options -->\n).*?(?=<!-- end -->)", re.DOTALL)
_COMMANDS = re.compile(r"(?<=<!-- commands -->\n).*(?=<!-- end -->)", re.DOTALL)


def texts() -> dict[Path, str]:
    """Return the text that each generated file should have."""
    options, commands = DOCS / "options.md", DOCS / "commands.md"
    return {
        options: _TABLE.sub(lambda _: "\n".join(["", *options_table(), "\n"]), options.read_text()),
        commands: _COMMANDS.sub(lambda _: "\n".join(["", *_helps(), ""]), commands.read_text()),
        ROOT / "llms.txt": "\n".join(_index()) + "\n",
    }


def _helps() -> Iterator[str]:
    shared = _shared_options()
    yield "| option | meaning |\n| --- | --- |"
    for option in sorted(shared.values(), key=_name):
        metavar = "" if option.is_flag or not option.metavar else f" {option.metavar}"
        yield f"| `{', '.join(option.opts)}{metavar}` | {_escaped(option.help or '')} |"
    yield ""
    for name, command in COMMANDS.items():
        yield from _help(command, click.Context(command, info_name=name, **command.context_settings), 2, shared)


def _help(
    command: click.Command, context: click.Context, level: int, shared: dict[tuple[str, ...], click.Option]
) -> Iterator[str]:
    context.terminal_width = context.max_content_width = _WIDTH
    elsewhere = {_name(option): option for option in _elsewhere(command, shared)}
    shown = copy(command)
    shown.params = [one for one in command.params if one not in elsewhere.values()]
    shown.add_help_option = False
    yield f"{'#' * level} {context.command_path}\n\n```text\n{shown.get_help(context).rstrip()}\n```\n"
    if elsewhere:
        yield f"Also: {', '.join(f'`{name}`' for name in elsewhere)}.\n"
    if isinstance(command, click.Group):
        for name, below in sorted(command.commands.items()):
            yield from _help(below, click.Context(below, context, info_name=name), min(level + 1, 4), shared)


def _elsewhere(command: click.Command, shared: dict[tuple[str, ...], click.Option]) -> Iterator[click.Option]:
    """Yield the options that the page on options, or the table of shared ones, explains."""
    for option in command.params:
        if isinstance(option, click.Option) and (option.show_envvar or _identity(option) in shared):
            yield option


def _shared_options() -> dict[tuple[str, ...], click.Option]:
    """Return the options without a variable that several commands have with one text, if no other text is shared."""
    options = [option for command in COMMANDS.values() for option, _ in _options(command) if not option.show_envvar]
    counts = Counter(_identity(option) for option in options if option.help)
    repeated = {_identity(option): option for option in options if counts[_identity(option)] > 1}
    names = Counter(_name(option) for option in repeated.values())
    return {identity: option for identity, option in repeated.items() if names[_name(option)] == 1}


def _identity(option: click.Option) -> tuple[str, ...]:
    return (*option.opts, option.help or "", str(option.type), str(option.default), str(option.required))


def _name(option: click.Option) -> str:
    return next(name for name in option.opts if name.startswith("--"))


def _index() -> Iterator[str]:
    """List the pages as https://llmstxt.org has it: a title, a summary, and a link with a sentence for each page."""
    readme = (ROOT / "README.md").read_text()
    _, _, text = readme.partition("\n\n")
    yield f"# rhai-tasks\n\n> {_sentence(text)}\n\n## Pages\n"
    for page in sorted(DOCS.rglob("*.md")):
        title, _, text = page.read_text().partition("\n\n")
        yield f"- [{title.removeprefix('# ')}]({page.relative_to(ROOT).as_posix()}): {_sentence(text)}"


def _sentence(text: str) -> str:
    first = re.match(r".*?\.(?=\s)", text.partition("\n\n")[0] + "\n", re.DOTALL)
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", first[0] if first else text)
    return " ".join(plain.split())


def options_table() -> Iterator[str]:
    """List every option that is also an environment variable, once, with the commands that have it."""
    options: dict[tuple[str, str], click.Option] = {}
    readers: dict[tuple[str, str], dict[str, None]] = {}
    for command, definition in COMMANDS.items():
        for option, read_from in _options(definition):
            if option.show_envvar:
                key = _name(option), "`<br>`".join(read_from)
                options.setdefault(key, option)
                readers.setdefault(key, {})[command.removeprefix("rhai-")] = None
    yield "| option, variable | default | of | meaning |"
    yield "| --- | --- | --- | --- |"
    for (name, variables), option in options.items():
        metavar = "" if option.is_flag or not option.metavar else f" {option.metavar}"
        of = ", ".join(readers[name, variables])
        yield f"| `{name}{metavar}`<br>`{variables}` | {_default(option)} | {of} | {_escaped(option.help or '')} |"


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


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
