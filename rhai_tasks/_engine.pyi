from collections.abc import Callable, Mapping
from typing import Any, Literal, Self, final

from typing_extensions import disjoint_base

from .engine import AST, Limits

__all__ = [
    "RHAI_VERSION",
    "CancelToken",
    "FnPtr",
    "NativeEngine",
    "NativeScope",
    "Timestamp",
    "class_slot",
    "last_use",
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

@disjoint_base
class NativeScope:
    def __new__(cls, **_variables: Any) -> Self: ...
    def get_value(self, name: str) -> Any: ...
    def set_value(self, name: str, value: Any, constant: bool) -> None: ...
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
        limits: Limits,
        print: Callable[[str], object],
        debug: Callable[[str, str | None, int | None, int | None], object],
    ) -> NativeEngine: ...
    def compile(self, source: str, name: str | None) -> list[tuple[str, list[str], str]]: ...
    def evaluate(
        self,
        form: Literal["text", "value", "details"],
        script: str | AST,
        entry: tuple[str | FnPtr, tuple[Any, ...]] | None,
        scope: NativeScope | Mapping[str, Any] | None,
        constants: Mapping[str, Any] | None,
        timeout: float | None,
        cancel: CancelToken | None,
        print: Callable[[str], object] | None,
        debug: Callable[[str, str | None, int | None, int | None], object] | None,
    ) -> Any: ...

def class_slot(class_: type, /) -> int: ...
def last_use() -> tuple[int, int]: ...
def stopped() -> bool: ...
def standard_library() -> str: ...
