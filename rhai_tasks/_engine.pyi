from collections.abc import Callable
from typing import Any, final

__all__ = ["Ast", "CancelToken", "NativeEngine"]

@final
class CancelToken:
    def __new__(cls) -> CancelToken: ...
    def cancel(self) -> None: ...
    @property
    def cancelled(self) -> bool: ...

@final
class Ast: ...

@final
class NativeEngine:
    def __new__(
        cls,
        functions: list[tuple[str, list[int], Callable[..., Any]]],
        *,
        max_call_depth: int,
        max_expr_depth: int,
        max_function_expr_depth: int,
    ) -> NativeEngine: ...
    def compile(self, source: str, constants: dict[str, Any] | None) -> Ast: ...
    def run(
        self,
        ast: Ast,
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
        ast: Ast,
        constants: dict[str, Any] | None,
        max_operations: int,
        max_memory: int,
        timeout: float | None,
        cancel: CancelToken | None,
        print: Callable[[str], object] | None,
        debug: Callable[[str, str | None, int | None, int | None], object] | None,
    ) -> Any: ...
