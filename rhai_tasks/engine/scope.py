"""Variables and constants that outlive an evaluation."""

from collections.abc import Iterator, MutableMapping
from typing import Any

from ._engine import NativeScope


class Scope(NativeScope, MutableMapping[str, Any]):
    """Variables and constants that outlive an evaluation. A mapping from name to value; the values stay in Rhai.

    One evaluation at a time can use a scope; a second one raises `RuntimeError`.

    Args:
        variables: Values by name.
    """

    def __init__(self, /, **variables: Any) -> None:
        self.update(variables)

    def __getitem__(self, name: str) -> Any:
        return self.get_value(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.set_value(name, value, False)

    def __delitem__(self, name: str) -> None:
        self.remove(name)

    def __iter__(self) -> Iterator[str]:
        return iter([name for name, _ in self.names()])

    def __len__(self) -> int:
        return len(self.names())

    def __repr__(self) -> str:
        return f"Scope({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def set_constant(self, name: str, value: Any) -> None:
        """Add a constant, which scripts cannot change.

        Raises:
            TypeError: The constant exists already, or the value cannot be passed to a script.
        """
        self.set_value(name, value, True)

    def is_constant(self, name: str) -> bool:
        """Whether a name is that of a constant; raises `KeyError` if the scope does not have it."""
        return dict(self.names())[name]

    def constants(self) -> dict[str, Any]:
        """Return the values of the constants by name."""
        return {name: self[name] for name, constant in self.names() if constant}
