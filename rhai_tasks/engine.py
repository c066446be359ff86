"""Run Rhai scripts within limits, in the real engine: the crate `rhai`, bound in engine/."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, TypeVar, overload

from ._engine import Ast, CancelToken, NativeEngine

__all__ = ["STACK_SIZE", "CancelToken", "Engine", "Limits"]

MIB = 1024 * 1024
STACK_SIZE = 256 * MIB
"""Bytes of stack for threads that run scripts: `threading.stack_size(STACK_SIZE)` before they start.

Freeing what a script has built recurses as deep as it is linked. Four times the default memory limit held
the longest chains that fit into that limit; the address space is only reserved, not used.
"""

_CACHED_SCRIPTS = 256  # by thread
_CACHED_BYTES = 4 * MIB  # of source, by thread; the compiled form is some ten times larger
_MOST_ARGUMENTS = 16  # Rhai finds no function with more `Dynamic` parameters

script_logger = logging.getLogger("rhai_tasks.script")
Function = TypeVar("Function", bound=Callable[..., Any])
Debug = Callable[[str, str | None, int | None, int | None], object]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one evaluation may take. Zero and `None` mean no bound."""

    timeout: float | None = None  # seconds
    max_operations: int = 0  # as the original worker has it; all operations count, also in closures
    max_memory: int = 64 * MIB  # bytes allocated and not freed; one step may overshoot by what it builds at once
    max_call_depth: int = 64  # Rhai's own default, like the next two
    max_expr_depth: int = 64
    max_function_expr_depth: int = 32


class Engine:
    """A Rhai engine with host functions, for any number of threads.

    Each thread has an engine and compiled scripts of its own inside: shared ones lose half their speed to
    reference counts. Scripts cannot reach files, modules, the network or the environment, and `sleep`
    heeds timeout and cancellation.

    Args:
        limits: For every evaluation; a `timeout` given there replaces the one here.
        print: Takes each text that a script prints; by default the logger `rhai_tasks.script`, level info.
        debug: Takes text, source name or `None`, line and column of each `debug(...)`; by default the same
            logger, level debug.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002  (the script's name for it)
        debug: Debug | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._print = print or script_logger.info
        self._debug = debug or _log_debug
        self._functions: list[tuple[str, list[int], Callable[..., Any]]] = []
        self._threads = _Threads()

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Make a Python function callable by scripts.

        Its parameters' number tells the calls it takes; with defaults or `*args` that is several. An
        exception is an error that the script can catch; uncaught, it ends as `RhaiHostError` with the
        exception as its cause. A builtin that does not tell its parameters takes any number.

        Raises:
            TypeError: It has keyword-only parameters without defaults, or more than 16 parameters.
        """
        self._functions.append((name, _arities(name, function), function))
        self._threads = _Threads()  # every thread builds a new engine

    @overload
    def function(self, function: Function) -> Function: ...
    @overload
    def function(self, *, name: str) -> Callable[[Function], Function]: ...
    def function(self, function: Any = None, *, name: str | None = None) -> Any:
        """Register the decorated function under its own name, or under `name`."""

        def register(function: Function) -> Function:
            self.register(name or function.__name__, function)
            return function

        return register if function is None else register(function)

    def run(
        self,
        source: str,
        *,
        constants: dict[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
    ) -> str:
        """Run a script and return its value in the native text form.

        That is a string's own text, else what Rust's `to_string()` makes of the value: `()` is the empty
        text, a map `#{...}`.

        Args:
            source: The script.
            constants: Name to value, visible everywhere in the script.
            timeout: Seconds; replaces that of the limits.
            cancel: Stops the script from another thread.
            print: As in the constructor, for this evaluation.
            debug: Likewise.

        Raises:
            RhaiError: The script failed or was stopped; `str()` is Rhai's own text with the position.
        """
        text: str = self._evaluate(NativeEngine.run, source, constants, timeout, cancel, print, debug)
        return text

    def eval(
        self,
        source: str,
        *,
        constants: dict[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
    ) -> Any:
        """Run a script and return its value as a Python value; otherwise like `run`.

        Raises:
            RhaiError: As for `run`.
            TypeError, ValueError, OverflowError: The value has no counterpart in Python.
        """
        return self._evaluate(NativeEngine.eval, source, constants, timeout, cancel, print, debug)

    def _evaluate(
        self,
        method: Callable[..., Any],
        source: str,
        constants: dict[str, object] | None,
        timeout: float | None,
        cancel: CancelToken | None,
        print_: Callable[[str], object] | None,
        debug: Debug | None,
    ) -> Any:
        limits, mine = self.limits, self._threads
        scripts = mine.scripts
        if scripts is None:
            scripts = mine.scripts = _Scripts(self._new_native())
        return method(
            scripts.native,
            scripts.compiled(source, constants),
            constants,
            limits.max_operations,
            limits.max_memory,
            limits.timeout if timeout is None else timeout,
            cancel,
            print_ or self._print,
            debug or self._debug,
        )

    def _new_native(self) -> NativeEngine:
        return NativeEngine(
            self._functions,
            max_call_depth=self.limits.max_call_depth,
            max_expr_depth=self.limits.max_expr_depth,
            max_function_expr_depth=self.limits.max_function_expr_depth,
        )


class _Threads(threading.local):
    """What each thread has of an engine."""

    scripts: "_Scripts | None" = None


class _Scripts:
    """One thread's engine, and the scripts it compiled lately."""

    def __init__(self, native: NativeEngine) -> None:
        self.native = native
        self._compiled: OrderedDict[tuple[str, str], Ast] = OrderedDict()
        self._bytes = 0

    def compiled(self, source: str, constants: dict[str, object] | None) -> Ast:
        # Script functions see a constant only if it was there when they were compiled. So its value is part
        # of the key, unless the script does not name it.
        named = tuple(item for item in (constants or {}).items() if item[0] in source)
        key = (source, repr(named) if named else "")
        try:
            ast = self._compiled[key]
        except KeyError:
            ast = self.native.compile(source, dict(named))
            self._keep(key, ast)
        else:
            self._compiled.move_to_end(key)
        return ast

    def _keep(self, key: tuple[str, str], ast: Ast) -> None:
        self._compiled[key] = ast
        self._bytes += _size(key)
        while self._bytes > _CACHED_BYTES or len(self._compiled) > _CACHED_SCRIPTS:
            oldest, _ = self._compiled.popitem(last=False)
            self._bytes -= _size(oldest)


def _size(key: tuple[str, str]) -> int:
    return len(key[0]) + len(key[1])


def _arities(name: str, function: Callable[..., Any]) -> list[int]:
    try:
        parameters = signature(function).parameters.values()
    except ValueError:  # some builtins do not tell
        return list(range(_MOST_ARGUMENTS + 1))
    required = most = 0
    for parameter in parameters:
        if parameter.kind is Parameter.VAR_POSITIONAL:
            most = _MOST_ARGUMENTS
        elif parameter.kind is Parameter.KEYWORD_ONLY:
            if parameter.default is Parameter.empty:
                raise TypeError(f"{name}: scripts have no keyword arguments, and {parameter.name!r} has no default")
        elif parameter.kind is not Parameter.VAR_KEYWORD:
            most = max(most, 0) + 1 if most < _MOST_ARGUMENTS else most
            required += parameter.default is Parameter.empty
    if required > _MOST_ARGUMENTS:
        raise TypeError(f"{name}: scripts can pass at most {_MOST_ARGUMENTS} arguments")
    return list(range(required, most + 1))


def _log_debug(text: str, source: str | None, line: int | None, column: int | None) -> None:
    script_logger.debug("%s%s:%s: %s", f"{source}:" if source else "", line, column, text)
