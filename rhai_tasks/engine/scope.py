"""Variables, constants and functions that outlive an evaluation."""

from collections.abc import Iterator, MutableMapping
from typing import Any, Self

from ._engine import NativeScope


class Scope(NativeScope, MutableMapping[str, Any]):
    """Variables, constants and functions that outlive an evaluation. A mapping from name to value; values stay in Rhai.

    Scripts find the functions of all scripts that have used the scope before; of two with the same name and number of
    parameters, the later one. One evaluation at a time can use a scope; a second one raises `RuntimeError`.

    Args:
        variables: Values by name.

    Raises:
        ValueError: Scripts cannot use a name.
        TypeError: A value cannot be passed to a script.
    """

    def __init__(self, /, **variables: Any) -> None:
        self.update(variables)

    def __getitem__(self, name: str) -> Any:
        if not isinstance(name, str):
            raise KeyError(name)
        return self.get_value(name)

    def __setitem__(self, name: str, value: Any) -> None:
        self.set_value(name, value, False)

    def __delitem__(self, name: str) -> None:
        if not isinstance(name, str):
            raise KeyError(name)
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
            ValueError: Scripts cannot use the name.
        """
        self.set_value(name, value, True)

    def is_constant(self, name: str) -> bool:
        """Whether a name is that of a constant; raises `KeyError` if the scope does not have it."""
        return dict(self.names())[name]

    def constants(self) -> dict[str, Any]:
        """Return the values of the constants by name."""
        return {name: self[name] for name, constant in self.names() if constant}

    def copy(self) -> Self:
        """Return a scope with copies of all values, and with the functions. Python objects are the same in both.

        Raises:
            RuntimeError: An evaluation uses the scope.
        """
        made = type(self)()
        made.become_copy(self)
        return made

    def rewind(self, snapshot: "Scope") -> None:
        """Take the variables, constants and functions of a copy in place of the scope's own. The copy stays as it is.

        Raises:
            RuntimeError: An evaluation uses one of the two.
        """
        if snapshot is not self:
            self.become_copy(snapshot)

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what a pickle holds: the variables and constants.

        Raises:
            TypeError: The scope keeps functions of scripts, which only an engine can make.
        """
        if self.has_functions():
            raise TypeError("a scope with functions of scripts cannot be pickled")
        return _restored, (type(self), [(name, self[name], constant) for name, constant in self.names()])

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self.copy()


def _restored(cls: type[Scope], variables: list[tuple[str, Any, bool]]) -> Scope:
    scope = cls()
    for name, value, constant in variables:
        scope.set_value(name, value, constant)
    return scope
