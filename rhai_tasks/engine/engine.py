"""The engine: runs Rhai scripts within limits."""

import asyncio
import functools
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any, Literal, TypeVar, Unpack, overload

from rhai_tasks.errors import make_rhai_error

from ._engine import CancelToken, FnPtr
from .additions import Additions
from .coroutines import awaiting_loop
from .evaluation import AST, CallOptions, Debug, EvaluationOptions, Result, RunOptions
from .evaluator import Evaluator
from .language import language
from .limits import Limits, check_timeout
from .live import LiveList, LiveMap, live_types
from .pool import Pool
from .refusals import refusal
from .registry import Modules

Value = TypeVar("Value")


class Engine(Evaluator):
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
        threads: How many scripts of `eval_async`, `run_async` and `call_async` run at once; by default as many as CPUs
            and four more.
        disable: Keywords, operators, and names of functions and properties of Rhai's library that scripts cannot use,
            also by a pointer: `{"eval", "sleep"}`. A host function of such a name can take its place.
        strict: Whether a script compiles only if there is each variable and module that it names, and fails where it
            reads a property that a map does not have.
        expressions: Whether a script is a single expression, without statements, assignments, functions and `eval`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `threads` is below 1, or Rhai has nothing of a name in `disable`.
        OSError: The folder of the modules cannot be found.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002  (the script's name for it)
        debug: Debug | None = None,
        modules: Modules | None = None,
        threads: int | None = None,
        disable: Iterable[str] = (),
        strict: bool = False,
        expressions: bool = False,
    ) -> None:
        allowed = language(disable, strict=strict, expressions=expressions)
        super().__init__(limits, print, debug, modules, allowed)
        self._pool = Pool(threads)

    @overload
    def live(self, value: list[Any]) -> LiveList: ...
    @overload
    def live(self, value: dict[str, Any]) -> LiveMap: ...
    def live(self, value: list[Any] | dict[str, Any]) -> LiveList | LiveMap:
        """Return a value that stands for a list or a dictionary in scripts: they use it in place, without a copy.

        What a script adds to it counts as memory of the script until its evaluation ends. Two classes become types of
        the engine's scripts with the first call.

        Raises:
            TypeError: The value is neither.
            OverflowError: The engine knows too many classes.
        """
        if not isinstance(value, list | dict):
            raise refusal("value", value)
        with self._adding:
            if LiveMap not in self._slots:
                self._add(Additions(types=live_types(self._slots)))
        return LiveList(value) if isinstance(value, list) else LiveMap(value)

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
            RuntimeError: The engine is closed.
        """
        cancel = _own_token(options)
        return await self._in_thread(functools.partial(self.eval, script, details=details, **options), cancel, options)

    async def run_async(self, script: str | AST, **options: Unpack[RunOptions]) -> str:
        """Run a script as `run` does, in a thread as `eval_async` does.

        Raises:
            RhaiError, TypeError, ValueError, OverflowError: As for `run`.
            RecursionError, RuntimeError: As for `eval_async`.
        """
        cancel = _own_token(options)
        return await self._in_thread(functools.partial(self.run, script, **options), cancel, options)

    async def call_async(
        self, script: str | AST, function: str | FnPtr, *arguments: Any, **options: Unpack[CallOptions]
    ) -> Any:
        """Call a function of a script as `call` does, in a thread as `eval_async` does.

        Raises:
            RhaiError, TypeError, ValueError, OverflowError: As for `call`.
            RecursionError, RuntimeError: As for `eval_async`.
        """
        cancel = _own_token(options)
        call = functools.partial(self.call, script, function, *arguments, **options)
        return await self._in_thread(call, cancel, options)

    def close(self) -> None:
        """End the threads of `eval_async`, `run_async` and `call_async`, and wait until their scripts have ended.

        Scripts that still wait for a thread do not begin: they end as `asyncio.CancelledError`. All other methods work
        on. In an event loop, call it by `asyncio.to_thread`.
        """
        self._pool.close()

    async def _in_thread(self, evaluate: Callable[[], Value], cancel: CancelToken, options: EvaluationOptions) -> Value:
        timeout = options.get("timeout")
        timeout = self.limits.timeout if timeout is None else timeout
        if timeout is not None:
            check_timeout(timeout)
        loop = asyncio.get_running_loop()
        context = copy_context()
        context.run(awaiting_loop.set, loop)
        evaluation = self._pool.submit(evaluate, context.run)
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


def _own_token(options: EvaluationOptions) -> CancelToken:
    """Put a token of this evaluation alone into its options, and return it."""
    given = options.get("cancel")
    if given is not None and not isinstance(given, CancelToken):
        raise refusal("cancel", given)
    cancel = options["cancel"] = (given or CancelToken()).of_waiting()
    return cancel
