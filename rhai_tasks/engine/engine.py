"""The engine: runs Rhai scripts within limits."""

import asyncio
import functools
from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Literal, Unpack, overload

from rhai_tasks.errors import make_rhai_error

from ._engine import CancelToken, FnPtr
from .coroutines import awaiting_loop
from .evaluation import AST, Args, Debug, EvaluationOptions, Result, measure, text_of
from .functions import Function
from .limits import Limits, check_timeout
from .pool import Pool
from .registry import Modules, Registry
from .scope import Scope


class Engine(Registry):
    """A Rhai engine with host functions, for any number of threads.

    Each thread has an engine and compiled scripts of its own inside: shared ones lose half their speed to reference
    counts. Scripts run on a stack of the engine's own. They cannot reach files, the network or the environment, and
    `sleep` ends at a timeout or a cancel.

    Args:
        limits: Limits of every evaluation; an evaluation's own `timeout` replaces the one in them.
        print: Takes each text that a script prints. By default it is logged to `rhai_tasks.script`, at level info.
        debug: Takes text, source name or `None`, line and column of each `debug(...)` of a script. By default it is
            logged to `rhai_tasks.script`, at level debug.
        modules: The modules that scripts can import. A folder: its file `a/b.rhai` is the module "a/b", and no path
            leads out of the folder. A mapping: sources by path. A function: takes a path and returns the source, or
            `None` if there is no such module. `None`: no modules. A thread loads a module once.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002  (the script's name for it)
        debug: Debug | None = None,
        modules: Modules | None = None,
    ) -> None:
        super().__init__(limits, print, debug, modules)
        self._pool = Pool()

    def compile(self, source: str, *, name: str | None = None) -> AST:
        """Compile a script, and return it with its functions.

        Args:
            source: The script.
            name: Name of the script in texts of errors.

        Raises:
            RhaiSyntaxError: The script does not compile.
            RhaiTimeout: Compiling takes longer than the limits allow.
            RhaiMemoryLimit: Compiling takes more than eight times `max_memory`.
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
        max_operations: int | None = None,
        max_memory: int | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
        args: Args = None,
    ) -> str:
        """Run a script and return its value in the native text form.

        The text form of a string is its own text, that of other values is what Rust's `to_string()` returns: `()` is
        the empty text, a map `#{...}`. A Python object is its `str`.

        Args:
            script: The source, or what `compile` returned for it.
            scope: Variables by name. A `Scope` keeps what the script changes.
            constants: Values by name, visible everywhere in the script, also in its functions.
            timeout: Seconds; replaces the timeout of the limits.
            max_operations: Operations of the engine, if that is lower than in the limits.
            max_memory: Bytes allocated at once, if that is lower than in the limits.
            cancel: A token that stops the script, from any thread.
            print: As of the constructor, for this evaluation.
            debug: As of the constructor, for this evaluation.
            args: The constant `ARGS`, a map: values by name, as docs/args.md lists them, or the JSON text of an object.

        Raises:
            ArgsError: The text of `args` is no JSON object, or has a number that no script can hold.
            RhaiError: The script failed or was stopped; `str()` is Rhai's own text with the position.
            TypeError, ValueError, OverflowError: A value in `scope`, `constants` or `args` cannot be passed on.
        """
        text: str = self._native.evaluate(
            *("text", script, None, scope, constants, timeout, cancel, print, debug, max_operations, max_memory),
            None if args is None else text_of(args),
        )
        return text

    def run_json(
        self,
        script: str | AST,
        *,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        max_operations: int | None = None,
        max_memory: int | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
        args: Args = None,
    ) -> tuple[str, str]:
        """Run a script as `run` does, and return its value in the native text form and as JSON.

        docs/protocol.md lists what becomes of each type.

        Raises:
            RhaiTypeError: The value has no JSON form.
            RhaiError, TypeError, ValueError, OverflowError: As for `run`.
        """
        both: tuple[str, str] = self._native.evaluate(
            *("json", script, None, scope, constants, timeout, cancel, print, debug, max_operations, max_memory),
            None if args is None else text_of(args),
        )
        return both

    @overload
    def eval(
        self, script: str | AST, *, details: Literal[False] = False, **options: Unpack[EvaluationOptions]
    ) -> Any: ...
    @overload
    def eval(self, script: str | AST, *, details: Literal[True], **options: Unpack[EvaluationOptions]) -> Result: ...
    @overload
    def eval(self, script: str | AST, *, details: bool, **options: Unpack[EvaluationOptions]) -> Any: ...
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
        args: Args = None,
    ) -> Any:
        """Run a script and return its value as a Python value; the other arguments are those of `run`.

        With `details=True` return a `Result` instead: the value, its text, and what the evaluation took.

        Raises:
            RhaiError: The script failed or was stopped.
            TypeError, ValueError, OverflowError: The script's value has no counterpart in Python, or a value in `scope`
                or `constants` cannot be passed to a script.
        """
        if details:
            arguments = (script, None, scope, constants, timeout, cancel)
            printed = print or self._print
            return measure(self._native.evaluate, arguments, printed, debug, self.limits.max_memory, text_of(args))
        if args is None:  # the two more arguments would take longer than a short script
            return self._native.evaluate("value", script, None, scope, constants, timeout, cancel, print, debug)
        return self._native.evaluate(
            "value", script, None, scope, constants, timeout, cancel, print, debug, args=text_of(args)
        )

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
        args: Args = None,
    ) -> Any:
        """Call a function of a script and return its value as a Python value; the other arguments are those of `run`.

        `function` is a name, or a pointer that an evaluation of this script returned; a closure keeps the constants of
        that evaluation. As in Rhai, the script itself runs first, so that its modules and constants exist; for a
        pointer it does not.

        Raises:
            RhaiNameError: The script has no function of this name with as many parameters.
            RhaiError: The script failed or was stopped.
            TypeError, ValueError, OverflowError: As for `eval`.
        """
        entry = (function, arguments)
        return self._native.evaluate(
            "value", script, entry, scope, constants, timeout, cancel, print, debug, args=text_of(args)
        )

    @overload
    async def eval_async(
        self, script: str | AST, *, details: Literal[False] = False, **options: Unpack[EvaluationOptions]
    ) -> Any: ...
    @overload
    async def eval_async(
        self, script: str | AST, *, details: Literal[True], **options: Unpack[EvaluationOptions]
    ) -> Result: ...
    @overload
    async def eval_async(self, script: str | AST, *, details: bool, **options: Unpack[EvaluationOptions]) -> Any: ...
    async def eval_async(
        self, script: str | AST, *, details: bool = False, **options: Unpack[EvaluationOptions]
    ) -> Any:
        """Evaluate as `eval` does, in a thread of the engine's, so that the event loop stays free.

        Cancelling the asyncio task stops this script, and no other one that has the same `cancel`. Host functions that
        are coroutines run in this event loop. `timeout` counts from the call: it includes the wait for a thread.

        Raises:
            RhaiError, TypeError, ValueError, OverflowError: As for `eval`.
            RecursionError: 64 scripts wait for this one, each for the next, in coroutines that call `eval_async`.
        """
        cancel = options["cancel"] = (options.get("cancel") or CancelToken()).of_waiting()
        timeout = options.get("timeout")
        timeout = self.limits.timeout if timeout is None else timeout
        if timeout is not None:
            check_timeout(timeout)
        loop = asyncio.get_running_loop()
        context = copy_context()
        context.run(awaiting_loop.set, loop)
        evaluation = self._pool.submit(functools.partial(self.eval, script, details=details, **options), context.run)
        late = False

        def give_up() -> None:
            nonlocal late
            late = evaluation.cancel()  # not if it runs: the engine ends it

        timer = None if timeout is None else loop.call_later(timeout, give_up)
        try:
            return await asyncio.wrap_future(evaluation)
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if late and timeout is not None and not (this and this.cancelling()):
                text = f"Script terminated: time limit of {timeout:g} s exceeded before a thread was free"
                raise make_rhai_error("Timeout", text, None, None, [], text, None) from None
            cancel.cancel()
            raise
        finally:
            if timer is not None:
                timer.cancel()
