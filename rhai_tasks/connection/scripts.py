"""Lua scripts: put together of the files that they need, and run.

Each file lies in the folder `lua` of a package. Its line `-- Needs` names the files whose functions it calls, such as
`queue/messages`, which is rhai_tasks/queue/lua/messages.lua. They stand before it in the script, each once. A field of
the details or a status is written as `FIELD.callerId` or `STATUS.pending`; the script gets the dialect's word as a
string. `WORD.pending` is the word that is published and passed on, the same in every dialect. `PLACES.details` is the
table of the places that a worker's fields of the details have, by their names.

The server creates every function of a script again at each call; five functions cost as much as a command. So a script
has only the functions that it uses. A block that few calls enter can have functions of its own: it begins with the
line `-- Functions that only this block uses are made here.`
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import redis
from redis.commands.core import Script

from rhai_tasks.protocol import Dialect

_NEEDS = re.compile(r"^-- Needs  (?:nothing|(\w+/\w+(?:, \w+/\w+)*))$", re.MULTILINE)
_FUNCTION = re.compile(r"^local function (?P<name>\w+)\(.*?^end\n", re.MULTILINE | re.DOTALL)
_NAME = re.compile(r"\w+")
_COMMENT = re.compile(r"--.*")
_BLOCK = re.compile(r"^( +)-- Functions that only this block uses are made here\.\n(?:\1.*\n|\n)*", re.MULTILINE)
_WORD = re.compile(r"\b(FIELD|STATUS|WORD|PLACES)\.(\w+)")


def load_script(client: redis.Redis, package: str, name: str, dialect: Dialect | None = None) -> Script:
    """Register a Lua script together with the files that it needs.

    Args:
        client: Runs the script.
        package: The file's package; for a name with a folder, such as `queue/due`, it is that folder of `rhai_tasks`.
        name: The file's name, without `.lua`.
        dialect: Names the fields of the details, and the statuses; for a script that has none of them, `None`.
    """
    return client.register_script(script_source(package, name, dialect))


@cache
def script_source(package: str, name: str, dialect: Dialect | None = None) -> bytes:
    """Return the text of a script; the arguments are those of `load_script`."""
    texts: dict[tuple[str, str], str] = {}
    _add(texts, package, name)
    *needed, source = texts.values()
    functions = {found["name"]: found[0] for text in needed for found in _FUNCTION.finditer(text)}
    always = _used(_BLOCK.sub("", source), functions)
    others = {name: text for name, text in functions.items() if name not in always}
    for block in [found[0] for found in _BLOCK.finditer(source)]:
        source = source.replace(block, "".join(_used(block, others).values()) + block)
    source = "".join(always.values()) + source
    if dialect is not None:
        source = in_dialect(source, dialect)
    elif word := _WORD.search(source):
        raise ValueError(f"the script {name!r} has the word {word[0]}, and no dialect is given")
    return source.encode()


def _used(text: str, functions: Mapping[str, str]) -> dict[str, str]:
    """Return the functions that a text uses, by itself or through another one of them, by name."""
    used, words = set[str](), _words(text)
    for name in reversed(list(functions)):  # a function calls those that stand before it
        if name in words:
            used.add(name)
            words |= _words(functions[name])
    return {name: function for name, function in functions.items() if name in used}


def _words(text: str) -> set[str]:
    return set(_NAME.findall(_COMMENT.sub("", text)))


def in_dialect(text: str, dialect: Dialect) -> str:
    """Put a dialect's words into a Lua text, as strings."""
    return _WORD.sub(lambda word: dialect.lua(word[1], word[2]), text)


def _add(texts: dict[tuple[str, str], str], package: str, name: str) -> None:
    """Add a file's text, by package and name, behind the texts of the files that it needs."""
    folder, _, stem = name.rpartition("/")
    place = (f"rhai_tasks.{folder}" if folder else package, stem)
    if place in texts:
        return
    text = files(place[0]).joinpath("lua", f"{stem}.lua").read_text("utf-8")
    needs = _NEEDS.search(text)
    if not needs:
        raise ValueError(f"the script {name!r} has no line '-- Needs'")
    for needed in filter(None, (needs[1] or "").split(", ")):
        _add(texts, package, needed)
    texts[place] = text


def run_each(client: redis.Redis, script: Script, calls: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Run a script once for each of these calls, its `keys` and `args`, in one round trip.

    Returns:
        For each call the script's reply, or the server's error, which keeps no other call from being done.

    Raises:
        redis.RedisError: The server does not answer. Any of the calls may have been done.
    """
    with client.pipeline(transaction=False) as pipeline:
        for call in calls:
            pipeline.evalsha(script.sha, len(call["keys"]), *call["keys"], *call["args"])
        replies = pipeline.execute(raise_on_error=False)
    if any(isinstance(reply, redis.exceptions.ReadOnlyError) for reply in replies):
        client.connection_pool.disconnect()
    return [
        script(client=client, **call) if isinstance(reply, redis.exceptions.NoScriptError) else reply
        for call, reply in zip(calls, replies, strict=True)
    ]
