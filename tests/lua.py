"""The Lua scripts as the server runs them: each with the functions that it needs."""

import re
from pathlib import Path

from rhai_tasks.connection.scripts import script_source
from rhai_tasks.protocol import RHAI

_ROOT = Path(__file__).parent.parent
FILES = {path.stem: path for folder in ("rhai_tasks", "bridge") for path in (_ROOT / folder).rglob("lua/*.lua")}
NEEDS = {
    name: set(re.findall(r"\w+/(\w+)", re.findall(r"^-- Needs  (.*)$", path.read_text(), re.MULTILINE)[0]))
    for name, path in FILES.items()
}
LIBRARIES = {needed for names in NEEDS.values() for needed in names}
"""Files of functions; all others are scripts."""

_OPTIONS = {"WITHSCORES", "WITHVALUES", "LIMIT", "WRONGTYPE", "COUNT", "MATCH"}


def package_of(name: str) -> str:
    """Name the package of a Lua file."""
    return ".".join(FILES[name].parent.parent.relative_to(_ROOT).parts)


def text_of(name: str) -> str:
    """Read a script and the functions that it needs, without comments."""
    return re.sub(r"--.*", "", script_source(package_of(name), name, RHAI).decode())


def commands_of(name: str) -> set[str]:
    """Name the commands that a script may call, in capitals."""
    words = re.findall(r"'([A-Z]{3,})'(?:, '(NUM[A-Z]+)')?", text_of(name))
    return {f"{command}|{part}" if part else command for command, part in words} - _OPTIONS
