"""Evaluations in the caller's thread."""

import atexit
import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, Unpack, overload

from ._engine import Batch, CancelToken, FnPtr, end_calls, forget_calls
from .evaluation import AST, Args, Debug, EvaluationOptions, Result, measure, text_of
from .reader import Reader
from .scope import Scope

_LEAVING = 1.0  # seconds that the interpreter waits at its end for host functions of daemon threads

# A daemon thread that came back to Python after its end would abort the process: engine/src/crossing/exit.rs.
atexit.register(end_calls, _LEAVING)
os.register_at_fork(after_in_child=forget_calls)


class Evaluator(Reader):
    """The part of an `Engine` that runs scripts in the caller's thread."""

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
            ArgsError: The text of `args` is not a JSON object, or has a number that no script can hold.
            RhaiError: The script failed or was stopped; `str()` is Rhai's own text with the position.
            TypeError, ValueError, OverflowError: A value in `scope`, `constants` or `args` cannot be passed on.
        """
        text: str = self._native.evaluate(
            *("text", script, None, scope, constants, timeout, cancel, print, debug, max_operations, max_memory),
            None if args is None else text_of(args),
        )
        return text

    def run_batch(
        self,
        batch: Batch,
        *,
        timeout: float | None,
        patience: float,
        print: Callable[[str], object],  # noqa: A002
        debug: Debug,
        begin: Callable[[int], object] | None = None,
    ) -> None:
        """Run the scripts of a batch as `run` does, one after the other, until all have run or some time has passed.

        `Batch.take_ended` tells how they have ended.

        Args:
            batch: The scripts.
            timeout: Seconds that each script has; `None`: as in the limits.
            patience: Seconds after which no further script begins.
            print: As of `run`, for all of them.
            debug: As of `run`, for all of them.
            begin: Is called with the position of each script before it begins.
        """
        self._native.evaluate_batch(batch, timeout, patience, begin, print, debug)

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
    # Not keyword-only: Python would look up each default, which takes as long as a short script.
    def eval(  # noqa: PLR0917
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
        this: Any = None,
        eval_ast: bool = True,
        scope: Scope | Mapping[str, Any] | None = None,
        constants: Mapping[str, object] | None = None,
        timeout: float | None = None,
        cancel: CancelToken | None = None,
        print: Callable[[str], object] | None = None,  # noqa: A002
        debug: Debug | None = None,
        args: Args = None,
    ) -> Any:
        """Call a function of a script and return its value as a Python value.

        Args:
            script: The source, or what `compile` returned for it.
            function: A name, or a pointer that an evaluation of this script returned.
            arguments: Its arguments.
            this: A copy of this value is `this` in the function; an object of a registered class is the same object.
            eval_ast: Whether the script itself runs first, as in Rhai, so that its modules and constants exist. For a
                pointer it never does.
            scope: As the others, that of `run`.
            constants: As of `run`.
            timeout: As of `run`.
            cancel: As of `run`.
            print: As of `run`.
            debug: As of `run`.
            args: As of `run`.

        Raises:
            RhaiNameError: The script has no function of this name with as many parameters.
            RhaiError: The script failed or was stopped.
            TypeError, ValueError, OverflowError: As for `eval`.
        """
        entry = (function, arguments, this, bool(eval_ast))
        return self._native.evaluate(
            "value", script, entry, scope, constants, timeout, cancel, print, debug, args=text_of(args)
        )
