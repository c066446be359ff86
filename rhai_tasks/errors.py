"""Errors this package raises on purpose.

RhaiTasksError
├── ConfigurationError        an option, a variable or the server cannot be worked with: says what to change
├── ServerUnavailable         the server has not answered for as long as the client tries (ConnectionError)
├── ServerError               the server refuses what it was asked for
├── ClientClosed              the client was closed while results were awaited
├── NoCurrentTask             `current_task()` outside a task (LookupError)
├── TaskError                 about one task, whose id is in `.task_id`
│   ├── TaskNotFound          it has no details: never submitted, deleted or expired (LookupError)
│   ├── TaskExists            `unique=True`, and its id is taken
│   ├── TaskTimeout           it has not ended in time; it goes on (TimeoutError)
│   └── TaskCancelled         it was cancelled
├── TaskMalformed             a task's details cannot be read as docs/protocol.md says
└── RhaiError                 a script failed; `str()` is Rhai's own text, which tasks store
    ├── RhaiSyntaxError       it does not compile
    ├── RhaiRuntimeError      it failed while it ran
    │   ├── RhaiThrow         `throw`; the value is in `.thrown`
    │   ├── RhaiHostError     a host function raised; `__cause__` is its exception
    │   ├── RhaiNameError     no such variable, property or function (NameError)
    │   ├── RhaiTypeError     an operation on the wrong type (TypeError)
    │   ├── RhaiIndexError    an index out of bounds (IndexError)
    │   ├── RhaiArithmeticError   overflow, division by zero (ArithmeticError)
    │   ├── RhaiConstantError     a write to a constant
    │   └── RhaiModuleError       `import`: no such module (ImportError)
    ├── RhaiLimitError        it asked for more than it may have
    │   ├── RhaiOperationLimit
    │   ├── RhaiMemoryLimit   (MemoryError)
    │   ├── RhaiDataTooLarge
    │   └── RhaiCallDepth     calls nested too deeply (RecursionError)
    ├── RhaiTerminated        it was stopped
    │   ├── RhaiTimeout       (TimeoutError)
    │   └── RhaiCancelled
    ├── RhaiPanic             a fault of the engine itself; the process lives on
    └── ScriptError           it failed in a worker: all that is known is the text in the task
"""

import re


class RhaiTasksError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(RhaiTasksError):
    """What the operator gave cannot be worked with; the message says what to change."""


class ServerUnavailable(RhaiTasksError, ConnectionError):
    """The server has not answered for as long as the client tries; `__cause__` is the last failure."""


class ServerError(RhaiTasksError):
    """The server refuses what it was asked for; `__cause__` is its error."""


class ClientClosed(RhaiTasksError):
    """The client was closed while results were awaited."""


class NoCurrentTask(RhaiTasksError, LookupError):
    """`current_task()` was called where no task runs."""

    def __init__(self) -> None:
        super().__init__("no task runs here: current_task() is for host functions that a worker's script calls")


class TaskError(RhaiTasksError):
    """About one task, whose id is in `task_id`."""

    def __init__(self, task_id: str, *facts: object) -> None:
        super().__init__(task_id, *facts)  # these are what it is pickled by
        self.task_id = task_id


class TaskNotFound(TaskError, LookupError):
    """The task has no details: it was never submitted, or they were deleted or have expired."""

    def __str__(self) -> str:
        return f"task {self.task_id!r} has no details: never submitted, deleted, or expired"


class TaskExists(TaskError):
    """A task was to be unique, and its id is taken; nothing was submitted in its place."""

    def __str__(self) -> str:
        return f"task {self.task_id!r} exists already"


class TaskTimeout(TaskError, TimeoutError):
    """The task has not ended in time; it goes on."""

    def __init__(self, task_id: str, seconds: float, others: int = 0) -> None:
        super().__init__(task_id, seconds, others)
        self.seconds, self.others = seconds, others  # `others` have not ended either

    def __str__(self) -> str:
        more = f" and {self.others} more" if self.others else ""
        return f"task {self.task_id!r}{more} not ended within {self.seconds:g} s"


class TaskCancelled(TaskError):
    """The task was cancelled."""

    def __str__(self) -> str:
        return f"task {self.task_id!r} was cancelled"


class TaskMalformed(RhaiTasksError):
    """A task's details cannot be read as docs/protocol.md says; the message is what the task's client is told."""


class RhaiError(RhaiTasksError):
    """A script failed. `str()` is Rhai's own text, with the position and, a line each, the calls it came through.

    Attributes:
        kind: Rhai's name of the error, such as `ArrayBounds` for `EvalAltResult::ErrorArrayBounds`.
        line: Where, from 1; `None` if the engine does not know.
        column: Likewise.
        frames: Name, line, column of each call the error came through, outermost last.
        debug_text: Rust's `{:?}` of the error.
        thrown: The value of a `throw`, or the text of a host's error, as a Python value.
    """

    kind: str = ""
    line: int | None = None
    column: int | None = None
    frames: tuple[tuple[str, int | None, int | None], ...] = ()
    debug_text: str = ""
    thrown: object = None


class RhaiSyntaxError(RhaiError):
    """The script does not compile."""


class RhaiRuntimeError(RhaiError):
    """The script failed while it ran."""


class RhaiThrow(RhaiRuntimeError):
    """The script threw; the value is in `thrown`."""


class RhaiHostError(RhaiRuntimeError):
    """A host function raised; `__cause__` is its exception."""


class RhaiNameError(RhaiRuntimeError, NameError):
    """There is no such variable, property or function."""


class RhaiTypeError(RhaiRuntimeError, TypeError):
    """An operation met a value of the wrong type."""


class RhaiIndexError(RhaiRuntimeError, IndexError):
    """An index is out of bounds."""


class RhaiArithmeticError(RhaiRuntimeError, ArithmeticError):
    """Overflow or division by zero."""


class RhaiConstantError(RhaiRuntimeError):
    """The script wrote to a constant."""


class RhaiModuleError(RhaiRuntimeError, ImportError):
    """There is no such module."""


class RhaiLimitError(RhaiError):
    """The script asked for more than it may have."""


class RhaiOperationLimit(RhaiLimitError):
    """The script took too many operations."""


class RhaiMemoryLimit(RhaiLimitError, MemoryError):
    """The script took too much memory."""


class RhaiDataTooLarge(RhaiLimitError):
    """A value is larger than the engine holds."""


class RhaiCallDepth(RhaiLimitError, RecursionError):
    """The script's functions call each other too deeply."""


class RhaiTerminated(RhaiError):
    """The script was stopped."""


class RhaiTimeout(RhaiTerminated, TimeoutError):
    """The script ran too long."""


class RhaiCancelled(RhaiTerminated):
    """The script was cancelled."""


class RhaiPanic(RhaiError):
    """The engine itself failed; the process lives on."""


_PLACE = r"\(line (\d{1,9}), position (\d{1,9})\)$"  # anybody may have written the text
_POSITION = re.compile(_PLACE)
_FRAME = re.compile(rf"in call to function '?(.*?)'?(?: @ '.*?')? {_PLACE}")


class ScriptError(RhaiError):
    """A task ended as an error; `str()` is the text that its worker wrote.

    Attributes:
        task_id: Whose.
        line: Where, from 1, as far as the text says; likewise `column` and `frames`.
    """

    def __init__(self, task_id: str, text: str) -> None:
        super().__init__(task_id, text)  # these are what it is pickled by
        self.task_id, self.text = task_id, text
        first, *calls = text.split("\n")
        if found := _POSITION.search(first):
            self.line, self.column = int(found[1]), int(found[2])
        frames = (_FRAME.search(call) for call in calls)
        self.frames = tuple((frame[1], int(frame[2]), int(frame[3])) for frame in frames if frame)

    def __str__(self) -> str:
        return self.text


_CLASSES: dict[str, type[RhaiError]] = {
    "Parsing": RhaiSyntaxError,
    "Runtime": RhaiThrow,
    "Host": RhaiHostError,
    "VariableNotFound": RhaiNameError,
    "PropertyNotFound": RhaiNameError,
    "FunctionNotFound": RhaiNameError,
    "DotExpr": RhaiNameError,
    "UnboundThis": RhaiNameError,
    "ModuleNotFound": RhaiModuleError,
    "IndexNotFound": RhaiIndexError,
    "ArrayBounds": RhaiIndexError,
    "StringBounds": RhaiIndexError,
    "BitFieldBounds": RhaiIndexError,
    "MismatchDataType": RhaiTypeError,
    "MismatchOutputType": RhaiTypeError,
    "IndexingType": RhaiTypeError,
    "For": RhaiTypeError,
    "Arithmetic": RhaiArithmeticError,
    "AssignmentToConstant": RhaiConstantError,
    "NonPureMethodCallOnConstant": RhaiConstantError,
    "StackOverflow": RhaiCallDepth,
    "DataTooLarge": RhaiDataTooLarge,
    "TooManyVariables": RhaiLimitError,
    "TooManyModules": RhaiLimitError,
    "TooManyOperations": RhaiOperationLimit,
    "OutOfMemory": RhaiMemoryLimit,
    "Timeout": RhaiTimeout,
    "Cancelled": RhaiCancelled,
    "Panic": RhaiPanic,
}


def make_rhai_error(
    kind: str,
    text: str,
    line: int | None,
    column: int | None,
    frames: list[tuple[str, int | None, int | None]],
    debug_text: str,
    thrown: object,
) -> RhaiError:
    """Make the exception for what the engine reports; called by the extension."""
    error = _CLASSES.get(kind, RhaiRuntimeError)(text)
    error.kind, error.line, error.column = kind, line, column
    error.frames, error.debug_text, error.thrown = tuple(frames), debug_text, thrown
    return error
