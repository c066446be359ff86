"""What goes into an evaluation and comes out of it: compiled scripts, options, results."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

from rhai_tasks.errors import RhaiMemoryLimit
from rhai_tasks.protocol import write_args

from ._engine import CancelToken
from .functions import Function
from .refusals import refusal
from .scope import Scope

Args = Mapping[str, Any] | str | None
"""The arguments of a script: values by name, or the JSON text of an object."""

Ended = tuple[int, str | BaseException | None, float, int, int]
"""How a script of a batch has ended, as `Batch.take_ended` tells."""

Print = Callable[[str], object]
Debug = Callable[[str, str | None, int | None, int | None], object]


@dataclass(frozen=True, slots=True)
class AST:
    """A script that compiles. Any engine and thread can run it, and it pickles.

    Threads do not share compiled scripts, which would halve their speed: each thread compiles a script once.

    Attributes:
        source: The source.
        name: The script's name in texts of errors.
        functions: The functions that the script defines.
        library: Scripts whose functions this one can call, too.
    """

    source: str = field(repr=False)
    name: str | None = None
    functions: tuple[Function, ...] = ()
    library: tuple["AST", ...] = field(default=(), repr=False)

    def with_functions_of(self, other: "AST") -> "AST":
        """Return this script with the functions of another one; the other's statements do not run.

        Of two functions with the same name and number of parameters, this script's stays.

        Raises:
            TypeError: `other` is not a compiled script.
        """
        if not isinstance(other, AST):
            raise refusal("other", other)
        return replace(self, library=(*other.library, replace(other, library=()), *self.library))


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The value of an evaluation, and what the evaluation took.

    Attributes:
        value: The script's value as a Python value.
        text: The value in the native text form, as `Engine.run` returns it.
        operations: Operations of the engine.
        elapsed: Seconds.
        peak_memory: The most bytes that the script had allocated at once, with those that its `Scope` holds.
        printed: A text for each `print` of the script.
    """

    value: Any
    text: str
    operations: int
    elapsed: float
    peak_memory: int
    printed: tuple[str, ...]


class EvaluationOptions(TypedDict, total=False):
    """The options of an evaluation, as `Engine.run` takes and explains them."""

    scope: Scope | Mapping[str, Any] | None
    constants: Mapping[str, object] | None
    timeout: float | None
    cancel: CancelToken | None
    print: Print | None
    debug: Debug | None
    args: Args


def text_of(args: Args) -> str | None:
    """Return arguments as JSON text.

    Raises:
        TypeError, ValueError: A value has no JSON form; see `write_args`.
    """
    return args if args is None or isinstance(args, str) else write_args(args)


class RunOptions(EvaluationOptions, total=False):
    """The options of `Engine.run`."""

    max_operations: int | None
    max_memory: int | None


class CallOptions(EvaluationOptions, total=False):
    """The options of `Engine.call`."""

    this: Any
    eval_ast: bool


def measure(
    evaluate: Callable[..., Any],
    arguments: tuple[Any, ...],
    print_: Print,
    debug: Debug | None,
    max_memory: int,
    args: str | None = None,
) -> Result:
    """Evaluate a script, and measure what it takes.

    Args:
        evaluate: `NativeEngine.evaluate`.
        arguments: Its arguments from `script` to `cancel`.
        print_: Takes each text that the script prints.
        debug: As of `evaluate`.
        max_memory: Bytes that the printed texts may take; 0 means no bound.
        args: As of `evaluate`.

    Raises:
        RhaiMemoryLimit: The script printed more than that.
        RhaiError: As `Engine.run`.
    """
    printed: list[str] = []
    room = max_memory or sys.maxsize

    def keep(text: str) -> None:
        nonlocal room
        room -= sys.getsizeof(text) + 8  # and its place in the list
        if room < 0:
            raise RhaiMemoryLimit("Script terminated: it printed more than its memory limit")
        printed.append(text)
        print_(text)

    start = time.perf_counter()
    value, text, operations, peak = evaluate("details", *arguments, keep, debug, args=args)
    return Result(
        value=value,
        text=text,
        operations=operations,
        elapsed=time.perf_counter() - start,
        peak_memory=peak,
        printed=tuple(printed),
    )
