"""The limits of an evaluation."""

from dataclasses import dataclass, fields

MIB = 1024 * 1024
TIB = 1024 * 1024 * MIB
_DEEPEST = 10_000
_LARGEST = 2**63 - 1  # what the engine counts with


def check_timeout(seconds: object) -> None:
    """Raise `ValueError` unless this can be a timeout."""
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise ValueError(f"timeout is {seconds!r}: expected a number")  # noqa: TRY004  (documented)
    if not 0 < seconds <= _LARGEST:
        raise ValueError(f"timeout is {seconds}: it must be finite and above 0; None means no bound")


def check_bound(name: str, value: object) -> None:
    """Raise `ValueError` unless this can be a limit."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}: expected a whole number")  # noqa: TRY004  (documented)
    if value < 0:
        raise ValueError(f"{name} is {value}: a limit cannot be negative")
    if value > _LARGEST:
        raise ValueError(f"{name} is {value}: expected at most {_LARGEST}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The limits of one evaluation. 0 means no limit, except for the three depths; `None` means no timeout.

    Args:
        timeout: Seconds, above 0.
        max_operations: Operations of the engine; those in closures and functions count, too.
        max_memory: Bytes allocated at once, up to 1 TiB. A single operation may overshoot by its own allocation.
        max_call_levels: Nested calls of functions, up to 10,000. The default is Rhai's own, as of the next two.
        max_expr_depth: Nested expressions outside of functions, from 2 to 10,000.
        max_function_expr_depth: Nested expressions in functions, from 1 to 10,000.
        max_variables: Variables in a scope at once.
        max_functions: Functions that a script defines.
        max_modules: Modules that a script imports.
        max_string_size: Bytes of a string. This and the next two make scripts slow: Rhai measures the whole value at
            each change.
        max_array_size: Elements of an array, nested ones included.
        max_map_size: Entries of a map, nested ones included.

    Raises:
        ValueError: A limit is out of its range.
    """

    timeout: float | None = None
    max_operations: int = 0  # as the original worker
    max_memory: int = 64 * MIB
    max_call_levels: int = 64
    max_expr_depth: int = 64
    max_function_expr_depth: int = 32
    max_variables: int = 0
    max_functions: int = 0
    max_modules: int = 0
    max_string_size: int = 0
    max_array_size: int = 0
    max_map_size: int = 0

    def __post_init__(self) -> None:
        for bound in fields(self):
            value = getattr(self, bound.name)
            if bound.name == "timeout":
                if value is not None:
                    check_timeout(value)
                continue
            check_bound(bound.name, value)
        if self.max_memory > TIB:
            raise ValueError(f"max_memory is {self.max_memory}, above 1 TiB: four times as much is reserved as stack")
        for name in ("max_call_levels", "max_expr_depth", "max_function_expr_depth"):
            if getattr(self, name) > _DEEPEST:
                raise ValueError(f"{name} is {getattr(self, name)}: at most {_DEEPEST}, since each level takes stack")
        for name, least in (("max_expr_depth", 2), ("max_function_expr_depth", 1)):  # with 1 no script compiles
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}: without a bound, a script could exhaust the stack")
