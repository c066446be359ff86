from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, final

from typing_extensions import disjoint_base

from .evaluation import AST
from .language import Language
from .limits import Limits

__all__ = [
    "RHAI_VERSION",
    "ArgsError",
    "Batch",
    "CancelToken",
    "FnPtr",
    "NativeEngine",
    "NativeScope",
    "Timestamp",
    "begin_profile",
    "charge",
    "end_calls",
    "end_profile",
    "forget_calls",
    "last_use",
    "standard_library",
    "stopped",
]

# The docstrings of what is public stand here for the reference, which cannot read those of the compiled classes.

RHAI_VERSION: str
"""The version of the crate `rhai`."""

class ArgsError(ValueError):
    """The text of a script's arguments is no JSON object, or has a number that no script can hold."""

@final
class CancelToken:
    """A flag that stops scripts, from any thread or signal handler; an argument of every evaluation."""

    def __new__(cls) -> CancelToken: ...
    def cancel(self) -> None:
        """Stop the scripts that run, or will run, with this token."""

    def __copy__(self) -> CancelToken: ...
    def __deepcopy__(self, _memo: object) -> CancelToken: ...
    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""

    def of_waiting(self) -> CancelToken:
        """Return the token of one evaluation that waits for a thread.

        `cancel` of either stops that evaluation, and its timeout counts from now.
        """

@final
class FnPtr:
    """A script's pointer to a function, or a closure."""

    @property
    def name(self) -> str:
        """The function's name; a closure's is made up by the engine."""

    def __call__(self, *arguments: Any) -> Any:
        """Call it. While the evaluation runs that it comes from, the call belongs to it; later it is one of its own.

        Raises:
            RhaiError: It failed or was stopped.
            RuntimeError: It comes from a `Scope` that no engine has used yet.
        """

    def __copy__(self) -> FnPtr: ...
    def __deepcopy__(self, _memo: object) -> FnPtr: ...

@final
class Timestamp:
    """A moment of the engine's monotonic clock, from `timestamp()`."""

    @property
    def elapsed(self) -> float:
        """Seconds since then."""

    def __lt__(self, value: Timestamp, /) -> bool: ...
    def __le__(self, value: Timestamp, /) -> bool: ...
    def __gt__(self, value: Timestamp, /) -> bool: ...
    def __ge__(self, value: Timestamp, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __copy__(self) -> Timestamp: ...
    def __deepcopy__(self, _memo: object) -> Timestamp: ...

@disjoint_base
class NativeScope:
    def __new__(cls, **_variables: Any) -> Self: ...
    def get_value(self, name: str) -> Any: ...
    def set_value(self, name: str, value: Any, constant: bool) -> None: ...
    def remove(self, name: str) -> None: ...
    def become_copy(self, other: NativeScope) -> None: ...
    def has_functions(self) -> bool: ...
    def names(self) -> list[tuple[str, bool]]: ...

@final
class Batch:
    """Scripts that one thread runs one after the other. Another thread can take those that have not begun.

    Args:
        names: Of the constants that scripts see.
        scripts: For each its source and the values of the constants, texts in UTF-8, and the token that stops it.
    """

    def __new__(cls, names: Sequence[str], scripts: list[tuple[bytes, Sequence[bytes], CancelToken]]) -> Batch: ...
    @property
    def left(self) -> int:
        """How many scripts have not begun."""

    @property
    def begun(self) -> int:
        """How many scripts have begun."""

    @property
    def running(self) -> tuple[int, float] | None:
        """The position of the script that runs, and the seconds since it began; `None`: none runs."""

    def take_ended(self) -> list[tuple[int, str | BaseException | None, float, int, int]]:
        """Return how scripts have ended since the last call, also while another one runs.

        For each its position; its value in the native text form, or the exception that ended it, or `None` if it is not
        UTF-8; the seconds that it took; its operations; the most bytes that it had allocated at once.
        """

    def split(self) -> tuple[int, int]:
        """Take the scripts that have not begun out of the batch.

        Returns the position of the first of them, and that behind the last.
        """

@final
class NativeEngine:
    def __new__(
        cls,
        functions: list[tuple[str, list[str], Callable[..., Any]]],
        types: list[tuple[int, str, bool]],
        modules: list[tuple[str, list[tuple[str, list[str], Callable[..., Any]]], dict[str, Any]]],
        sources: Path | Callable[[str], str | None] | None,
        classes: dict[type, int],
        hooks: dict[type, Callable[[Any], object]],
        language: Language,
        limits: Limits,
        print: Callable[[str], object],
        debug: Callable[[str, str | None, int | None, int | None], object],
    ) -> NativeEngine: ...
    def passes(self, value: object) -> bool: ...
    def compile(self, source: str, name: str | None, variables: list[str]) -> list[tuple[str, list[str], str]]: ...
    def mentions(self, source: str) -> list[tuple[str, str, int, int | None, int | None]]: ...
    def evaluate(
        self,
        form: Literal["text", "value", "json", "details"],
        script: str | AST,
        entry: tuple[str | FnPtr, tuple[Any, ...], Any, bool] | None,
        scope: NativeScope | Mapping[str, Any] | None,
        constants: Mapping[str, Any] | None,
        timeout: float | None,
        cancel: CancelToken | None,
        print: Callable[[str], object] | None,
        debug: Callable[[str, str | None, int | None, int | None], object] | None,
        max_operations: int | None = None,
        max_memory: int | None = None,
        args: str | None = None,
    ) -> Any: ...
    def evaluate_batch(
        self,
        batch: Batch,
        timeout: float | None,
        patience: float,
        begin: Callable[[int], object] | None,
        print: Callable[[str], object],
        debug: Callable[[str, str | None, int | None, int | None], object],
    ) -> None: ...
    def call_pointer(self, pointer: FnPtr, arguments: tuple[Any, ...]) -> Any: ...

def last_use() -> tuple[int, int]: ...
def end_calls(seconds: float) -> None:
    """Let no other thread's script call Python any more, and wait that long at most for the calls that have begun."""

def forget_calls() -> None:
    """Forget the calls of threads that a forked process does not have."""

def charge(bytes: int) -> None:
    """Count bytes that the host keeps for the script that this thread runs as memory of the script, until it ends.

    Raises:
        RuntimeError: The script has been stopped, by this or before.
    """

def stopped() -> bool: ...
def standard_library() -> list[tuple[str, str, list[str]]]: ...
def begin_profile() -> None: ...
def end_profile() -> tuple[list[tuple[str | None, str, int]], list[list[int]], bool]: ...
