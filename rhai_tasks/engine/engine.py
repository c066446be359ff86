"""Run Rhai scripts within limits, in the real engine: the crate `rhai`, bound in engine/."""

import asyncio
import functools
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, overload

from . import host
from ._engine import (
    RHAI_VERSION,
    CancelToken,
    FnPtr,
    NativeEngine,
    NativeScope,
    Timestamp,
    last_use,
    standard_library,
    stopped,
)
from .coroutines import awaited, awaiting_loop
from .errors import RhaiMemoryLimit
from .host import Function

__all__ = [
    "AST",
    "RHAI_VERSION",
    "CancelToken",
    "Engine",
    "FnPtr",
    "Function",
    "Limits",
    "Result",
    "Scope",
    "Timestamp",
    "last_use",
    "stopped",
]

MIB = 1024 * 1024
TIB = 1024 * 1024 * MIB
_DEEPEST = 10_000

script_logger = logging.getLogger("rhai_tasks.script")
HostFunction = TypeVar("HostFunction", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)
Debug = Callable[[str, str | None, int | None, int | None], object]
Modules = Path | Mapping[str, str] | Callable[[str], str | None]
_Module = tuple[list[tuple[str, int, Callable[..., Any]]], dict[str, Any]]  # functions, by arity, and constants


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one evaluation may take. Zero means no bound, but for the depths; for the timeout, `None` does.

    Raises:
        ValueError: One is out of its range.
    """

    timeout: float | None = None  # seconds, above zero
    max_operations: int = 0  # as the original worker has it; all operations count, also in closures
    max_memory: int = 64 * MIB  # bytes not freed, up to 1 TiB; one step may overshoot by what it builds at once
    max_call_levels: int = 64  # Rhai's own default, like the next two; each at most 10 000
    max_expr_depth: int = 64
    max_function_expr_depth: int = 32
    max_variables: int = 0  # in a scope at once
    max_functions: int = 0  # that a script defines
    max_modules: int = 0  # that it imports
    max_string_size: int = 0  # bytes; this and the next two make Rhai measure whole values at each change: slow
    max_array_size: int = 0  # elements, with those inside
    max_map_size: int = 0  # entries, with those inside

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if value is not None and value < 0:
                raise ValueError(f"{bound.name} is {value}: a limit cannot be negative")
        if self.timeout is not None and not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise ValueError(f"timeout is {self.timeout}: it must be finite and above 0; None means no bound")
        if self.max_memory > TIB:
            raise ValueError(f"max_memory is {self.max_memory}, above 1 TiB: four times as much is reserved as stack")
        for name in ("max_call_levels", "max_expr_depth", "max_function_expr_depth"):
            if getattr(self, name) > _DEEPEST:
                raise ValueError(f"{name} is {getattr(self, name)}: at most {_DEEPEST}, since each level takes stack")
        for name in ("max_expr_depth", "max_function_expr_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1: without a bound, a script could exhaust the stack")


@dataclass(frozen=True, slots=True)
class AST:
    """A script that compiles: its source, its name, its functions. For any engine and thread; it pickles.

    Threads do not share compiled scripts (that would halve their speed): each compiles it once for itself.
    """

    source: str = field(repr=False)
    name: str | None = None  # stands in texts of errors
    functions: tuple[Function, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What an evaluation gave, and what it took."""

    value: Any
    text: str  # as `Engine.run` returns it
    operations: int
    elapsed: float  # seconds
    peak_memory: int  # bytes that the script had allocated at most
    printed: tuple[str, ...]  # what it printed, a text for each `print`


class Scope(NativeScope, MutableMapping[str, Any]):
    """Variables and constants that outlive an evaluation; values stay in Rhai, closures included.

    One evaluation at a time can use it: `RuntimeError` otherwise.

    Args:
        variables: Names and values.
    """

    def __init__(self, /, **variables: Any) -> None:
        self.update(variables)

    def __getitem__(self, name: str) -> Any:
        return self.get_value(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.set_value(name, value, False)

    def __delitem__(self, name: str) -> None:
        self.remove(name)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self.names()])

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"Scope({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def set_constant(self, name: str, value: Any) -> None:
        """Add a constant, which no script can change.

        Raises:
            TypeError: It is there already, or the value is nothing for a script.
        """
        self.set_value(name, value, True)

    def is_constant(self, name: str) -> bool:
        """Whether the name is a constant's; raises `KeyError` if there is none."""
        return dict(self.names())[name]

    def constants(self) -> dict[str, Any]:
        """Return the constants' values by name."""
        return {name: self[name] for name, constant in self.names() if constant}


class Engine:
    """A Rhai engine with host functions, for any number of threads.

    Each thread has an engine and compiled scripts of its own inside: shared ones lose half their speed to
    reference counts. Scripts run on a stack of the engine's own, cannot reach files, the network or the
    environment, and `sleep` heeds timeout and cancellation.

    Args:
        limits: For every evaluation; a `timeout` given there replaces the one here.
        print: Takes each text that a script prints; by default the logger `rhai_tasks.script`, level info.
        debug: Takes text, source name or `None`, line and column of each `debug(...)`; by default the same
            logger, level debug.
        modules: What `import` finds: a folder, whose `a/b.rhai` is the module "a/b" and which nothing leads
            out of; or sources by path; or a function from path to source, `None` for what there is not.
            Without it there is nothing to import. A thread loads a module once.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002  (the script's name for it)
        debug: Debug | None = None,
        modules: Modules | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._print = print or script_logger.info
        self._debug = debug or _log_debug
        self._find = None if modules is None else _finder(modules)
        self._described: list[Function] = []
        self._functions: list[host.Native] = []
        self._types = {known.slot: known for known in host.standard_types()}
        self._modules: dict[str, _Module] = {}
        self._native = self._build(self._functions, self._types, self._modules)
        self._adding = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None

    # ---- what scripts can use ----

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Make a Python function callable by scripts.

        Its parameters' number tells the calls it takes; with defaults or `*args` that is several. Annotations
        choose between functions of one name, as Rhai's types do: one registered for `str` is not found for an
        `int`. An exception is an error that the script can catch; uncaught, it ends as `RhaiHostError` with
        the exception as its cause. A builtin that does not tell its parameters takes any number.

        A name may also be an operator's, or `get$x`, `set$x`, `index$get$` and `index$set$` for what a script
        does with `value.x` and `value[i]`; the first parameter's annotation is then the value's type. The
        operators of numbers and strings stay Rhai's own, as does the indexing of integers, strings, blobs,
        arrays and maps.

        A coroutine function, or an object whose `__call__` is one, runs on the loop that awaits `eval_async`, else
        on one that all engines of the process share, in a thread of its own.

        Raises:
            TypeError: It has keyword-only parameters without defaults, or more than 16 parameters, or is an
                indexer of what Rhai itself indexes.
            ValueError: No script can call anything by that name.
        """
        host.check_name(name)
        functions = host.overloads(name, awaited(function))
        host.check_indexer(functions)
        self._add([host.describe(name, function)], functions=functions)

    @overload
    def function(self, function: HostFunction) -> HostFunction: ...
    @overload
    def function(self, *, name: str) -> Callable[[HostFunction], HostFunction]: ...
    def function(self, function: Any = None, *, name: str | None = None) -> Any:
        """Register the decorated function under its own name, or under `name`."""

        def register(function: HostFunction) -> HostFunction:
            self.register(name or function.__name__, function)
            return function

        return register if function is None else register(function)

    def register_type(self, cls: Class, *, name: str | None = None, members: list[str] | None = None) -> Class:
        """Make a class known to scripts, as a type of its own; can decorate it.

        Scripts make objects by calling its name, use its public methods and attributes, its operators, `len`,
        `in`, indexing, `for` and equality, and see `str` of it where they print it. A copy in a script is the
        same object, as in Python. Objects of subclasses pass as this type.

        Args:
            cls: The class.
            name: What scripts call it; by default its own name.
            members: The methods and attributes that scripts see; by default those without an underscore in
                front, where annotations count as attributes.

        Raises:
            OverflowError: 64 classes are known in this process, six of them Python's own; they are never
                forgotten.
            TypeError: A method that Python itself calls, such as `__len__`, is a coroutine function.
            ValueError: No script can use the name.
        """
        host.check_identifier(name or cls.__name__)
        described = host.make_type(cls, name or cls.__name__, members, constructor=True)
        functions = [(name, types, awaited(function)) for name, types, function in described.functions]
        self._add([host.describe(described.name, cls)], types={described.slot: replace(described, functions=functions)})
        return cls

    def register_module(self, name: str, members: Mapping[str, Any]) -> None:
        """Make a module of functions and constants, which scripts use as `name::member` without an import.

        Args:
            name: Its name; `a::b` makes a module in a module.
            members: Callables become functions of up to 8 arguments, all else constants.

        Raises:
            TypeError: A function cannot be called by scripts, or a constant is nothing for them.
            ValueError: No script can use a module or member of that name.
        """
        for part in (*name.split("::"), *members):
            host.check_identifier(part)
        functions = {key: value for key, value in members.items() if callable(value)}
        callables = [
            (key, count, awaited(function))
            for key, function in functions.items()
            for count in host.arities(f"{name}::{key}", function)
        ]
        constants = {key: value for key, value in members.items() if key not in functions}
        self._add(
            [host.describe(f"{name}::{key}", function) for key, function in functions.items()],
            modules={name: (callables, constants)},
        )

    def functions(self, *, standard: bool = True) -> list[Function]:
        """Return the functions that scripts can call: the host's, then, if `standard`, Rhai's own library."""
        return [*self._described, *(_library() if standard else ())]

    # ---- evaluation ----

    def compile(self, source: str, *, name: str | None = None) -> AST:
        """Check a script and say what is in it.

        Args:
            source: The script.
            name: Stands in texts of errors.

        Raises:
            RhaiSyntaxError: It does not compile.
            RhaiTimeout, RhaiMemoryLimit: It would take more than the limits allow; eight times `max_memory` is.
        """
        functions = self._native.compile(source, name)
        return AST(
            source,
            name,
            tuple(
                Function(name=name, parameters=tuple(parameters), returns="", doc=doc)
                for name, parameters, doc in functions
            ),
        )

    def run(
        self,
        script: str | AST,
        *,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
    ) -> str:
        """Run a script and return its value in the native text form.

        That is a string's own text, else what Rust's `to_string()` makes of the value: `()` is the empty
        text, a map `#{...}`. A Python object is its `str`.

        Args:
            script: Its source, or what `compile` made of it.
            scope: Its variables; a `Scope` keeps what the script does to them.
            constants: Name to value, visible everywhere in the script.
            timeout: Seconds; replaces that of the limits.
            cancel: Stops the script from another thread.
            print: As in the constructor, for this evaluation.
            debug: Likewise.

        Raises:
            RhaiError: The script failed or was stopped; `str()` is Rhai's own text with the position.
            TypeError, ValueError, OverflowError: A value given is nothing for a script.
        """
        text: str = self._native.evaluate("text", script, None, scope, constants, timeout, cancel, print, debug)
        return text

    @overload
    def eval(
        self,
        script: str | AST,
        *,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,
        debug: Debug | None = None,
        details: Literal[False] = False,
    ) -> Any: ...
    @overload
    def eval(
        self,
        script: str | AST,
        *,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,
        debug: Debug | None = None,
        details: Literal[True],
    ) -> Result: ...
    def eval(  # here not keyword-only: Python would look up each default, which takes as long as a short script
        self,
        script: str | AST,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
        details: bool = False,
    ) -> Any:
        """Run a script and return its value as a Python value; otherwise like `run`.

        Args:
            script: As for `run`, like the next.
            scope: Likewise.
            constants: Likewise.
            timeout: Likewise.
            cancel: Likewise.
            print: Likewise.
            debug: Likewise.
            details: Return a `Result` instead: the value, its text, and what it took.

        Raises:
            RhaiError: As for `run`.
            TypeError, ValueError, OverflowError: The value has no counterpart in Python, or one given has none
                in a script.
        """
        if details:
            return self._measured(script, scope, constants, timeout, cancel, print or self._print, debug)
        return self._native.evaluate("value", script, None, scope, constants, timeout, cancel, print, debug)

    def call(
        self,
        script: str | AST,
        function: str | FnPtr,
        *arguments: Any,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
    ) -> Any:
        """Call a script's function and return its value as a Python value.

        As in Rhai, the script itself runs first, so that its modules and constants are there; for a function
        pointer it does not.

        Args:
            script: As for `run`.
            function: Its name, or a pointer that an evaluation of this script gave.
            arguments: For the function.
            scope: As for `run`, like the rest.
            constants: Likewise.
            timeout: Likewise.
            cancel: Likewise.
            print: Likewise.
            debug: Likewise.

        Raises:
            RhaiNameError: The script has no such function of that many parameters.
            RhaiError: As for `run`.
        """
        entry = (function, arguments)
        return self._native.evaluate("value", script, entry, scope, constants, timeout, cancel, print, debug)

    async def eval_async(
        self,
        script: str | AST,
        *,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
        details: bool = False,
    ) -> Any:
        """Evaluate on a thread of the engine's, and leave the event loop free.

        Cancelling the task stops the script. Host functions that are coroutines run on this loop.

        Args:
            script: As for `eval`, like the rest.
            scope: Likewise.
            constants: Likewise.
            timeout: Likewise.
            cancel: Likewise.
            print: Likewise.
            debug: Likewise.
            details: Likewise.

        Raises:
            RhaiError: As for `eval`.
        """
        cancel = cancel or CancelToken()
        options: dict[str, Any] = {"scope": scope, "constants": constants, "timeout": timeout, "cancel": cancel}
        options |= {"print": print, "debug": debug, "details": details}
        loop = asyncio.get_running_loop()
        context = copy_context()
        context.run(awaiting_loop.set, loop)
        evaluation = self._executor().submit(context.run, functools.partial(self.eval, script, **options))
        try:
            return await asyncio.wrap_future(evaluation)
        except asyncio.CancelledError:
            cancel.cancel()
            raise

    # ---- inside ----

    def _measured(
        self,
        script: str | AST,
        scope: Scope | Mapping[str, Any] | None,
        constants: Mapping[str, object] | None,
        timeout: float | None,
        cancel: CancelToken | None,
        print_: Callable[[str], object],
        debug: Debug | None,
    ) -> Result:
        printed: list[str] = []
        room = self.limits.max_memory or sys.maxsize

        def keep(text: str) -> None:
            nonlocal room
            room -= sys.getsizeof(text) + 8  # and its place in the list
            if room < 0:
                raise RhaiMemoryLimit("Script terminated: it printed more than its memory limit")
            printed.append(text)
            print_(text)

        start = time.perf_counter()
        value, text, operations, peak = self._native.evaluate(
            "details", script, None, scope, constants, timeout, cancel, keep, debug
        )
        return Result(
            value=value,
            text=text,
            operations=operations,
            elapsed=time.perf_counter() - start,
            peak_memory=peak,
            printed=tuple(printed),
        )

    def _add(
        self,
        described: Iterable[Function],
        *,
        functions: Iterable[host.Native] = (),
        types: Mapping[int, host.HostType] = MappingProxyType({}),
        modules: Mapping[str, "_Module"] = MappingProxyType({}),
    ) -> None:
        """Let scripts know more: all of it or, if the extension refuses it, nothing."""
        with self._adding:
            all_functions, all_types = [*self._functions, *functions], {**self._types, **types}
            all_modules = {**self._modules, **modules}
            self._native = self._build(all_functions, all_types, all_modules)
            self._functions, self._types, self._modules = all_functions, all_types, all_modules
            self._described = [*self._described, *described]

    def _build(
        self, functions: list[host.Native], types: Mapping[int, host.HostType], modules: Mapping[str, "_Module"]
    ) -> NativeEngine:
        known = types.values()
        return NativeEngine(
            [*(function for cls in known for function in cls.functions), *functions],
            [(cls.slot, cls.name, cls.iterable) for cls in known],
            [(name, callables, constants) for name, (callables, constants) in modules.items()],
            self._find,
            self.limits,
            self._print,
            self._debug,
        )

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=(os.cpu_count() or 1) + 4, thread_name_prefix="rhai")
        return self._pool


def _finder(modules: Modules) -> Callable[[str], str | None]:
    """Return the function that finds a module's source by its path."""
    if callable(modules):
        return modules
    if isinstance(modules, Mapping):
        return modules.get
    folder = modules.resolve(strict=True)

    def find(path: str) -> str | None:
        if not {"", ".", ".."}.isdisjoint(path.split("/")):
            return None  # a module has one name: a thread keeps what it has loaded, by name
        # What the system says of a file must not reach the script: it tells where the folder lies.
        try:
            file = (folder / f"{path}.rhai").resolve()  # follows links, so that none leads out
            return file.read_text(encoding="utf-8") if file.is_relative_to(folder) and file.is_file() else None
        except UnicodeDecodeError:
            raise ValueError(f"module '{path}' is not UTF-8") from None
        except (OSError, RuntimeError, ValueError):
            return None  # no file has such a name, or its links go round

    return find


@functools.cache
def _library() -> tuple[Function, ...]:
    functions = json.loads(standard_library())["functions"]
    return tuple(
        Function(
            name=function["name"],
            parameters=tuple(_parameter(parameter) for parameter in function.get("params", ())),
            returns=function.get("returnType", ""),
            doc="\n".join(line.removeprefix("///").strip() for line in function.get("docComments", ())),
        )
        for function in functions
    )


def _parameter(parameter: dict[str, str]) -> str:
    return f"{parameter.get('name', '_')}{': ' + parameter['type'] if 'type' in parameter else ''}"


def _log_debug(text: str, source: str | None, line: int | None, column: int | None) -> None:
    script_logger.debug("%s%s:%s: %s", f"{source}:" if source else "", line, column, text)
