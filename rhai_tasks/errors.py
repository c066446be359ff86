"""Errors this package raises on purpose.

RhaiTasksError
├── ConfigurationError        an option, a variable or the server cannot be worked with: says what to change
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
    └── RhaiPanic             a fault of the engine itself; the process lives on
"""


class RhaiTasksError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigurationError(RhaiTasksError):
    """What the operator gave cannot be worked with; the message says what to change."""


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
