"""Functions that decide whether a worker may run a task in an engine."""

from collections.abc import Callable
from typing import TypeVar

from rhai_tasks.current import TaskRequest

from .functions import is_coroutine_function
from .refusals import refusal

Authorize = Callable[[TaskRequest], bool | str]
Authorizer = TypeVar("Authorizer", bound=Authorize)


class Authorization:
    """The part of an `Engine` that says which tasks a worker may run."""

    authorizers: tuple[Authorize, ...] = ()
    """What `authorize` was called with."""

    def authorize(self, function: Authorizer) -> Authorizer:
        """Have a function asked before each task that a worker runs in this engine; usable as a decorator.

        Args:
            function: Takes a `TaskRequest`, in the thread that would run the task. `True`: the task may run. `False`,
                or a text that says why: it ends as the error `not allowed: …`. So does it if the function raises.
                Several functions must all allow a task.

        Raises:
            TypeError: It is not a function, or a coroutine function.
        """
        if not callable(function):
            raise refusal("function", function)
        if is_coroutine_function(function):
            raise TypeError("expected a function, not a coroutine function: the thread waits for the answer")
        self.authorizers = (*self.authorizers, function)
        return function

    def refusal_of(self, request: TaskRequest) -> str | None:
        """Ask the functions about a task; return why it may not run, or `None`.

        Raises:
            TypeError: A function returned neither a bool nor a text.
            Exception: A function raised it.
        """
        for function in self.authorizers:
            answer = function(request)
            if isinstance(answer, str):
                return answer
            if answer is False:
                return "the worker's engine refuses it"
            if answer is not True:
                raise TypeError(f"an authorize function returned {answer!r}: expected True, False or a text")
        return None
