"""Scripts at a terminal: one from a file, or one input after the other."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from rhai_tasks.engine import CancelToken, Engine, Function, Scope
from rhai_tasks.engine.functions import TYPES
from rhai_tasks.errors import RhaiError, RhaiSyntaxError
from rhai_tasks.terminal import echo, shown

T = TypeVar("T")

_VARIABLE = re.compile(r"(?<![\w.])([A-Za-z_]\w*)\.$")
_HELP = """\
:functions [TEXT]   functions that scripts can call, or those whose signature has TEXT, with their documentation
:variables          variables of the lines so far
:reset              forget variables and functions
:quit               leave; Ctrl-D too. Ctrl-C stops a script"""
_COMMANDS = (":functions", ":help", ":quit", ":reset", ":variables")


def describe_error(error: RhaiError, source: str, engine: Engine) -> str:
    """Describe an error of a script, with the line of `source` that it points to.

    An error in a module, or in a function of an earlier input, points to the call that led there.
    """
    line, column = _place_in(source, error, engine)
    lines = source.split("\n")  # as Rhai counts them
    if line is None or column is None or line > len(lines):
        return str(error)
    text = lines[line - 1].removesuffix("\r")
    before = shown(text[: column - 1], err=True)
    return f"{error}\n  {text}\n  {' ' * len(before)}^"


def _place_in(source: str, error: RhaiError, engine: Engine) -> tuple[int | None, int | None]:
    """Return line and column of the innermost place of an error that is in `source`."""
    place = error.line, error.column
    if error.frames:  # it ran, so it compiles
        own = {function.name for function in engine.compile(source).functions}
        for name, line, column in error.frames:
            if name in own:
                break
            place = line, column
    return place


def interruptible(evaluate: Callable[[CancelToken], T]) -> T:
    """Evaluate on a thread, so that Ctrl-C stops the script at once, also inside a host function."""
    cancel = CancelToken()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(evaluate, cancel)
        try:
            return running.result()
        except KeyboardInterrupt:
            cancel.cancel()
            raise


class Session:
    """The state that the inputs of a terminal share: variables and functions.

    Args:
        engine: Runs the lines.
        constants: Visible in all of them.
        args: The constant `ARGS` of all of them; `None`: they have none.
    """

    def __init__(
        self, engine: Engine, constants: Mapping[str, object], args: Mapping[str, object] | None = None
    ) -> None:
        self._engine, self._constants, self._args = engine, constants, args
        self.reset()

    def reset(self) -> None:
        """Forget variables and functions."""
        self.scope = Scope()

    def evaluate(self, source: str) -> str:
        """Run an input; its functions stay defined, its variables stay in the scope.

        Returns:
            The text of its value.

        Raises:
            RhaiError: It failed; the position is one in the input, or in the one that defined the function.
        """
        text: str = interruptible(
            lambda cancel: self._engine.run(
                source, scope=self.scope, constants=self._constants, cancel=cancel, print=echo, args=self._args
            )
        )
        return text


def is_incomplete(error: RhaiSyntaxError, source: str) -> bool:
    """Whether more lines could complete a script that does not compile: the error is at its end."""
    at_the_end = (error.line or 0, error.column or 0) > _last(source)
    return at_the_end or ("Open string" in str(error) and source.count("`") % 2 == 1)


def _last(source: str) -> tuple[int, int]:
    """Return line and column of the last character that is not blank, from 1."""
    lines = source.rstrip().split("\n")
    return len(lines), len(lines[-1])


def repl(session: Session, engine: Engine) -> None:
    """Read scripts from the terminal until the end of input, and show the value of each."""
    with suppress(ImportError):
        import readline  # noqa: PLC0415  (editing, history and completion, where Python has readline)

        found: list[str | None] = []

        def find(start: str, place: int) -> str | None:
            if place == 0:  # it asks for one after the other
                before = readline.get_line_buffer()[: readline.get_begidx()]
                found[:] = complete(session, engine, start, before)
            return found[place]

        readline.set_completer_delims(" \t\n()[]{}.,;+-*/%=<>!&|^?`\"'")
        readline.set_completer(find)
        readline.parse_and_bind("tab: complete")
    for source in _inputs(engine):
        command, _, argument = source.strip().partition(" ")
        match command:
            case ":quit":
                return
            case ":help":
                echo(_HELP)
            case ":reset":
                session.reset()
            case ":variables":
                for name, value in session.scope.items():
                    echo(f"{name} = {value!r}")
            case ":functions":
                _show(function for function in engine.functions() if argument in str(function))
            case _ if command.startswith(":"):
                echo(f"There is no {command}; :help lists the commands.", err=True)
            case _:
                _show_value(session, source, engine)


def complete(session: Session, engine: Engine, start: str, before: str = "") -> list[str | None]:
    """List the words that begin with `start`; `None` is the end of the list.

    Behind a dot, these are methods and properties: those of the variable in front of it, if it is one, otherwise all.
    Elsewhere, they are commands, variables and functions.

    Args:
        session: Has the variables.
        engine: Has the functions.
        start: The beginning of a name.
        before: The line up to there.
    """
    if before.endswith("."):
        names = set(_members(session, engine, before))
    else:
        functions = (function.name for function in engine.functions())
        names = {*_COMMANDS, *(name for name, _ in session.scope.items()), *functions}
    found = (name for name in names if name.startswith(start) and (name.isidentifier() or name in _COMMANDS))
    return [*sorted(found), None]


def _members(session: Session, engine: Engine, before: str) -> Iterator[str]:
    variable = _VARIABLE.search(before)
    values = dict(session.scope.items()) if variable else {}
    name = variable[1] if variable and variable[1] in values else None
    kind = None if name is None else engine.run(f"type_of({name})", scope=session.scope.copy())
    for function in engine.functions():
        if function.parameters:
            first = function.parameters[0].partition(": ")[2].removeprefix("&mut ")
            if kind is None or TYPES.get(first, first) in {kind, "any"}:
                yield function.name.removeprefix("get$")
    if kind == "map":
        yield from values[str(name)]
    elif kind not in {None, *TYPES.values()}:  # an object of a registered class
        yield from (member for member in dir(values[str(name)]) if not member.startswith("_"))


def _show_value(session: Session, source: str, engine: Engine) -> None:
    try:
        text = session.evaluate(source)
    except RhaiError as error:
        echo(describe_error(error, source, engine), err=True)
    except KeyboardInterrupt:
        echo("interrupted", err=True)
    else:
        if text:
            echo(text)


def _show(functions: Iterator[Function]) -> None:
    for function in functions:
        echo(function)
        for line in function.doc.splitlines()[:1]:
            echo(f"    {line}")


def _inputs(engine: Engine) -> Iterator[str]:
    """Yield scripts, each as many lines as it needs, until the end of input."""
    prompts = ("> ", ". ") if sys.stdin.isatty() else ("", "")
    source = ""
    while True:
        try:
            line = input(prompts[bool(source)])
        except EOFError:
            if source:
                yield source
            if prompts[0]:
                echo()
            return
        except KeyboardInterrupt:
            echo()
            source = ""
            continue
        # A command ends an open script. Not so in an open text, and not where a map ends as in `:quit }`.
        if source and line.rstrip().partition(" ")[0] in _COMMANDS and source.count("`") % 2 == 0 and "}" not in line:
            yield source
            source = ""
        source += line
        if _needs_more(source, engine):
            source += "\n"
            continue
        if source.strip():
            yield source
        source = ""


def _needs_more(source: str, engine: Engine) -> bool:
    if source.startswith(":"):  # a command
        return False
    try:
        engine.compile(source)
    except RhaiSyntaxError as error:
        return is_incomplete(error, source)
    return False
