"""The errors that this package raises on purpose.

RhaiTasksError
├── ConfigurationError        an option, a variable or the server cannot be used; the text says what to change
├── ServerUnavailable         the server has not answered for as long as the client retries (ConnectionError)
├── ServerError               the server refuses a request
├── QueueFull                as many tasks wait as a limit allows; nothing was submitted
├── ClientClosed              the client is closed, or was closed while results were awaited
├── NoCurrentTask             `current_task()` outside a task (LookupError)
├── TaskError                 about one task, whose id is in `.task_id`
│   ├── TaskNotFound          the task has no details: never submitted, deleted or expired (LookupError)
│   ├── TaskExists            `unique=True`, and the id is taken
│   ├── TaskTimeout           the task has not ended in time; it goes on (TimeoutError)
│   ├── TaskCancelled         the task was cancelled
│   └── NotAsked              a task has no value or stats: nobody asked for them (TypeError)
├── TaskMalformed             a task's details break docs/protocol.md
└── RhaiError                 a script failed; `str()` is Rhai's own text, which tasks store
    ├── RhaiSyntaxError       the script does not compile
    ├── RhaiRuntimeError      the script failed while it ran
    │   ├── RhaiThrow         `throw`; the value is in `.thrown`
    │   ├── RhaiHostError     a host function raised; `__cause__` is its exception
    │   ├── RhaiNameError     no such variable, property or function (NameError)
    │   ├── RhaiTypeError     an operation on the wrong type (TypeError)
    │   ├── RhaiIndexError    an index out of bounds (IndexError)
    │   ├── RhaiArithmeticError   overflow, division by zero (ArithmeticError)
    │   ├── RhaiConstantError     a write to a constant
    │   └── RhaiModuleError       `import`: no such module (ImportError)
    ├── RhaiLimitError        the script exceeded a limit
    │   ├── RhaiOperationLimit
    │   ├── RhaiMemoryLimit   (MemoryError)
    │   ├── RhaiDataTooLarge
    │   └── RhaiCallDepth     calls nested too deeply (RecursionError)
    ├── RhaiTerminated        the script was stopped
    │   ├── RhaiTimeout       (TimeoutError)
    │   └── RhaiCancelled
    ├── RhaiSystemMemoryError the system has no memory to run a script: no fault of the script's (MemoryError)
    ├── RhaiPanic             a bug in the engine itself; the process lives on
    └── ScriptError           the script failed in a worker: only the text in the task is known
"""

import re


class RhaiTasksError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigurationError(RhaiTasksError):
    """An option, a variable or the server cannot be used; the text says what to change."""


class ServerUnavailable(RhaiTasksError, ConnectionError):
    """The server has not answered for as long as the client retries; `__cause__` is the error of the last try."""


class ServerError(RhaiTasksError):
    """The server refuses a request; `__cause__` is the server's error."""


class QueueFull(RhaiTasksError):
    """As many tasks of the circle or of the caller wait as an operator's limit allows; nothing was submitted.

    Attributes:
        caller: Whose limit it is; `None`: the circle's.
        limit: How many may wait.
    """

    def __init__(self, caller: str | None, limit: int) -> None:
        super().__init__(caller, limit)  # pickle passes these to the constructor
        self.caller, self.limit = caller, limit

    def __str__(self) -> str:
        whose = "the circle" if self.caller is None else f"caller {self.caller!r}"
        return f"no more than {self.limit} task(s) of {whose} may wait: submit again when some have begun"


class ClientClosed(RhaiTasksError):
    """The client is closed, or was closed while results were awaited."""


class NoCurrentTask(RhaiTasksError, LookupError):
    """`current_task()` was called where no task runs."""

    def __init__(self) -> None:
        super().__init__("no task runs here: current_task() is for host functions that a worker's script calls")


class TaskError(RhaiTasksError):
    """Base of the errors about one task, whose id is in `task_id`."""

    def __init__(self, task_id: str, *facts: object) -> None:
        super().__init__(task_id, *facts)  # pickle passes these to the constructor
        self.task_id = task_id


class TaskNotFound(TaskError, LookupError):
    """The task has no details: it was never submitted, or its details were deleted or have expired."""

    def __str__(self) -> str:
        return f"task {self.task_id!r} has no details: never submitted, deleted, or expired"


class TaskExists(TaskError):
    """A submission with `unique=True` names an id that is taken; nothing was submitted."""

    def __str__(self) -> str:
        return f"task {self.task_id!r} exists already"


class TaskTimeout(TaskError, TimeoutError):
    """The task has not ended in time; it goes on.

    Attributes:
        seconds: The timeout.
        others: How many further tasks have not ended either.
    """

    def __init__(self, task_id: str, seconds: float, others: int = 0) -> None:
        super().__init__(task_id, seconds, others)
        self.seconds, self.others = seconds, others

    def __str__(self) -> str:
        more = f" and {self.others} more" if self.others else ""
        why = f": {self.__cause__}" if isinstance(self.__cause__, ServerUnavailable) else ""
        return f"task {self.task_id!r}{more} not ended within {self.seconds:g} s{why}"


class TaskCancelled(TaskError):
    """The task was cancelled."""

    def __str__(self) -> str:
        return f"task {self.task_id!r} was cancelled"


class ScriptNotFound(RhaiTasksError, LookupError):
    """No script is stored under a name or a hash.

    Attributes:
        reference: The name after `@`, or the hash after `sha256:`.
    """

    def __init__(self, reference: str) -> None:
        super().__init__(reference)
        self.reference = reference

    def __str__(self) -> str:
        return f"no script is stored as {self.reference!r}"


class NotAsked(TaskError, TypeError):
    """A task that has ended has no such answer: it was submitted without the argument, or an original worker ran it.

    Attributes:
        argument: The argument of `submit`.
    """

    def __init__(self, task_id: str, argument: str) -> None:
        super().__init__(task_id, argument)
        self.argument = argument

    def __str__(self) -> str:
        what, value = {"json": ("value", "True"), "keep_prints": ("prints", "...")}.get(
            self.argument, (self.argument, "True")
        )
        return (
            f"task {self.task_id!r} has no {what}: submit it with {self.argument}={value}, for a worker of this project"
        )


class TaskMalformed(RhaiTasksError):
    """A task's details break docs/protocol.md; the text becomes the task's error."""


class RhaiError(RhaiTasksError):
    """A script failed. `str()` is Rhai's own text: the error with its position, then a line for each call it passed.

    Attributes:
        kind: Rhai's name of the error, such as `ArrayBounds` for `EvalAltResult::ErrorArrayBounds`.
        line: Line of the error, from 1; `None` if the engine does not know it.
        column: Column of the error, from 1; `None` if the engine does not know it.
        frames: Name, line and column of each call that the error passed, outermost last.
        debug_text: The error as Rust's `{:?}` formats it.
        thrown: The value that the script threw, or the text of a host function's error.
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
    """An operation got a value of the wrong type."""


class RhaiIndexError(RhaiRuntimeError, IndexError):
    """An index is out of bounds."""


class RhaiArithmeticError(RhaiRuntimeError, ArithmeticError):
    """A number overflowed, or was divided by zero."""


class RhaiConstantError(RhaiRuntimeError):
    """The script wrote to a constant."""


class RhaiModuleError(RhaiRuntimeError, ImportError):
    """There is no such module."""


class RhaiLimitError(RhaiError):
    """The script exceeded a limit."""


class RhaiOperationLimit(RhaiLimitError):
    """The script took too many operations."""


class RhaiMemoryLimit(RhaiLimitError, MemoryError):
    """The script took too much memory."""


class RhaiDataTooLarge(RhaiLimitError):
    """A value is larger than the engine or its limits allow."""


class RhaiCallDepth(RhaiLimitError, RecursionError):
    """Calls of functions are nested too deeply."""


class RhaiTerminated(RhaiError):
    """The script was stopped."""


class RhaiTimeout(RhaiTerminated, TimeoutError):
    """The script ran too long."""


class RhaiCancelled(RhaiTerminated):
    """The script was cancelled."""


class RhaiSystemMemoryError(RhaiError, MemoryError):
    """The system has no memory for the engine's stack. The script has not begun, and is not at fault."""


class RhaiPanic(RhaiError):
    """The engine itself has a bug; the process lives on."""


_PLACE = r"\(line (\d{1,9}), position (\d{1,9})\)$"  # digits are bounded: any program may have written the text
_POSITION = re.compile(_PLACE)
# Both patterns take time linear in the line: a script may throw megabytes, and must not block those who read them.
_FRAME = re.compile(rf"in call to function (.*) {_PLACE}")
_SOURCE = " @ '"  # between a function's name and its module's, both in quotes


class ScriptError(RhaiError):
    """A task ended as an error; `str()` is the text that its worker wrote.

    `line`, `column` and `frames` are read from the text, as far as it has them.

    Attributes:
        task_id: The task's id.
        text: The text.
        kind: As of `RhaiError`, or one of this project's (docs/protocol.md); empty if another kind of worker ran the
            task.
    """

    def __init__(self, task_id: str, text: str, kind: str = "") -> None:
        super().__init__(task_id, text, kind)  # pickle passes these to the constructor
        self.task_id, self.text, self.kind = task_id, text, kind
        first, *calls = text.split("\n")
        if found := _POSITION.search(first):
            self.line, self.column = int(found[1]), int(found[2])
        frames = (_FRAME.match(call) for call in calls)
        self.frames = tuple((_function(frame[1]), int(frame[2]), int(frame[3])) for frame in frames if frame)

    def __str__(self) -> str:
        return self.text


def _function(text: str) -> str:
    name = text.partition(_SOURCE)[0] if text.endswith("'") else text
    return name.removeprefix("'").removesuffix("'")


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
    "NoJson": RhaiTypeError,
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
    "NoStack": RhaiSystemMemoryError,
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
    """Make the exception for an error of the engine; the extension calls it."""
    error = _CLASSES.get(kind, RhaiRuntimeError)(text)
    error.kind, error.line, error.column = kind, line, column
    error.frames, error.debug_text, error.thrown = tuple(frames), debug_text, thrown
    return error
