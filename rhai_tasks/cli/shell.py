"""Scripts at a terminal: one from a file, or line by line."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import click

from .engine import CancelToken, Engine, Function, Scope
from .errors import RhaiError, RhaiSyntaxError

_HELP = """\
:functions [TEXT]   functions that scripts can call, or those whose signature holds TEXT, with what they do
:variables          what the lines so far have left
:reset              forget variables and functions
:quit               leave; Ctrl-D too. Ctrl-C stops a script"""


def describe_error(error: RhaiError, source: str) -> str:
    """Write an error with the line of the script that it points to."""
    lines = source.split("\n")  # as Rhai counts them
    if error.line is None or error.column is None or error.line > len(lines):
        return str(error)
    line = lines[error.line - 1].removesuffix("\r")
    return f"{error}\n  {line}\n  {' ' * (error.column - 1)}^"


def interruptible(evaluate: Callable[[CancelToken], Any]) -> Any:
    """Evaluate on a thread, so that Ctrl-C is heard at once also inside a host function, and stops the script."""
    cancel = CancelToken()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(evaluate, cancel)
        try:
            return running.result()
        except KeyboardInterrupt:
            cancel.cancel()
            raise


class Session:
    """What a terminal's lines have in common: variables, and functions.

    Args:
        engine: Runs the lines.
        constants: Visible in all of them.
    """

    def __init__(self, engine: Engine, constants: Mapping[str, object]) -> None:
        self._engine, self._constants = engine, constants
        self.reset()

    def reset(self) -> None:
        """Forget variables and functions."""
        self.scope = Scope()
        self._functions: dict[tuple[str, int], str] = {}  # source by name and number of parameters

    def evaluate(self, source: str) -> str:
        """Run an input; its functions stay defined, its variables stay in the scope.

        Returns:
            The text of its value.

        Raises:
            RhaiError: It failed; the position is one in the input.
        """
        anew = self._signatures(source)
        earlier = [text for signature, text in self._functions.items() if signature not in anew]
        # Behind the input, so that its positions are right; functions may stand anywhere.
        whole = "\n;\n".join([source, *earlier])
        text: str = interruptible(
            lambda cancel: self._engine.run(
                whole, scope=self.scope, constants=self._constants, cancel=cancel, print=click.echo
            )
        )
        for definition in _functions_in(source):
            with suppress(RhaiSyntaxError):  # it was none, but looked like one
                self._functions |= dict.fromkeys(self._signatures(definition), definition)
        return text

    def _signatures(self, source: str) -> list[tuple[str, int]]:
        return [(function.name, len(function.parameters)) for function in self._engine.compile(source).functions]


_NO_CODE = re.compile(
    r"""(?P<hashes>\#+)".*?"(?P=hashes)|//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])'|`[^`]*`""", re.DOTALL
)
_DEFINITION = re.compile(r"\b(?:private\s+)?fn\s")


def _functions_in(source: str) -> Iterator[str]:
    """Yield the definitions of functions in an input; the rest of it must not run again with what follows."""
    code = _NO_CODE.sub(lambda match: " " * len(match[0]), source)
    end = 0
    for definition in _DEFINITION.finditer(code):
        body = code.find("{", definition.end())
        if definition.start() >= end and body >= 0:
            depth = 0
            for end in range(body, len(code)):
                depth += (code[end] == "{") - (code[end] == "}")
                if depth == 0:
                    break
            yield source[definition.start() : end + 1]


def is_incomplete(error: RhaiSyntaxError, source: str) -> bool:
    """Say whether more lines could mend a script that does not compile: the error is at its end."""
    at_the_end = (error.line or 0, error.column or 0) > _last(source)
    return at_the_end or ("Open string" in str(error) and source.count("`") % 2 == 1)


def _last(source: str) -> tuple[int, int]:
    """Return line and column of the last character that is not blank, from 1."""
    lines = source.rstrip().split("\n")
    return len(lines), len(lines[-1])


def repl(session: Session, engine: Engine) -> None:
    """Read scripts from the terminal and show their values until the end of input."""
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415  (editing and history, where Python has it)
    for source in _inputs(engine):
        command, _, argument = source.strip().partition(" ")
        match command:
            case ":quit":
                return
            case ":help":
                click.echo(_HELP)
            case ":reset":
                session.reset()
            case ":variables":
                for name, value in session.scope.items():
                    click.echo(f"{name} = {value!r}")
            case ":functions":
                _show(function for function in engine.functions() if argument in str(function))
            case _ if command.startswith(":"):
                click.echo(f"There is no {command}; :help tells what there is.", err=True)
            case _:
                _show_value(session, source)


def _show_value(session: Session, source: str) -> None:
    try:
        text = session.evaluate(source)
    except RhaiError as error:
        click.echo(describe_error(error, source), err=True)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
    else:
        if text:
            click.echo(text)


def _show(functions: Iterator[Function]) -> None:
    for function in functions:
        click.echo(function)
        for line in function.doc.splitlines()[:1]:
            click.echo(f"    {line}")


def _inputs(engine: Engine) -> Iterator[str]:
    """Yield scripts, of as many lines as they need, until the end of input."""
    prompts = ("> ", ". ") if sys.stdin.isatty() else ("", "")
    source = ""
    while True:
        try:
            source += input(prompts[bool(source)])
        except EOFError:
            if source:
                yield source
            if prompts[0]:
                click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            source = ""
            continue
        if not source.startswith(":"):
            try:
                engine.compile(source)
            except RhaiSyntaxError as error:
                if is_incomplete(error, source):
                    source += "\n"
                    continue
        if source.strip():
            yield source
        source = ""
