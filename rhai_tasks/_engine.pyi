from collections.abc import Callable
from typing import Any, final

__all__ = [
    "RHAI_VERSION",
    "CancelToken",
    "FnPtr",
    "NativeAst",
    "NativeEngine",
    "NativeScope",
    "Timestamp",
    "class_slot",
    "slot_type_name",
    "standard_library",
    "stopped",
]

RHAI_VERSION: str

@final
class CancelToken:
    def __new__(cls) -> CancelToken: ...
    def cancel(self) -> None: ...
    @property
    def cancelled(self) -> bool: ...

@final
class FnPtr:
    @property
    def name(self) -> str: ...
    def __call__(self, *arguments: Any) -> Any: ...

@final
class Timestamp:
    @property
    def elapsed(self) -> float: ...

@final
class NativeAst:
    def functions(self) -> list[tuple[str, list[str], str, bool]]: ...

@final
class NativeScope:
    def __new__(cls) -> NativeScope: ...
    def get(self, name: str) -> Any: ...
    def set(self, name: str, value: Any, constant: bool) -> None: ...
    def remove(self, name: str) -> None: ...
    def names(self) -> list[tuple[str, bool]]: ...

@final
class NativeEngine:
    def __new__(
        cls,
        functions: list[tuple[str, list[str], Callable[..., Any]]],
        types: list[tuple[int, str, bool]],
        modules: list[tuple[str, list[tuple[str, int, Callable[..., Any]]], dict[str, Any]]],
        loader: Callable[[str], str | None] | None,
        limits: list[tuple[str, int]],
    ) -> NativeEngine: ...
    def compile(self, source: str, name: str | None, constants: dict[str, Any] | None) -> NativeAst: ...
    def run(
        self,
        ast: NativeAst,
        entry: tuple[str | FnPtr, tuple[Any, ...]] | None,
        scope: NativeScope | None,
        variables: dict[str, Any] | None,
        constants: dict[str, Any] | None,
        max_operations: int,
        max_memory: int,
        timeout: float | None,
        cancel: CancelToken | None,
        print: Callable[[str], object] | None,
        debug: Callable[[str, str | None, int | None, int | None], object] | None,
    ) -> str: ...
    def eval(
        self,
        ast: NativeAst,
        entry: tuple[str | FnPtr, tuple[Any, ...]] | None,
        scope: NativeScope | None,
        variables: dict[str, Any] | None,
        constants: dict[str, Any] | None,
        max_operations: int,
        max_memory: int,
        timeout: float | None,
        cancel: CancelToken | None,
        print: Callable[[str], object] | None,
        debug: Callable[[str, str | None, int | None, int | None], object] | None,
    ) -> Any: ...
    def measure(
        self,
        ast: NativeAst,
        entry: tuple[str | FnPtr, tuple[Any, ...]] | None,
        scope: NativeScope | None,
        variables: dict[str, Any] | None,
        constants: dict[str, Any] | None,
        max_operations: int,
        max_memory: int,
        timeout: float | None,
        cancel: CancelToken | None,
        print: Callable[[str], object] | None,
        debug: Callable[[str, str | None, int | None, int | None], object] | None,
    ) -> tuple[Any, str, int, int]: ...

def class_slot(class_: type, /) -> int: ...
def slot_type_name(slot: int) -> str | None: ...
def stopped() -> bool: ...
def standard_library() -> str: ...
