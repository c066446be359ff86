"""Conversions of an application's own classes to values of scripts, and back."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from .annotations import Readers
from .coroutines import make_blocking
from .functions import is_coroutine_function
from .refusals import refusal

Instance = TypeVar("Instance")

_BASIC = {str, bool, int, float, list, tuple, dict, type(None)}  # the extension asks for no hook of these


class Conversions:
    """The part of an `Engine` that converts values by annotations and by hooks."""

    def __init__(self) -> None:
        self._readers = Readers()
        self._slots = self._readers.slots  # the native engine sees what is added later, here and to the hooks
        self._hooks: dict[type, Callable[[Any], object]] = {}

    def convert(
        self,
        cls: type[Instance],
        *,
        to: Callable[[Instance], object] | None = None,
        from_: Callable[[Any], Instance] | None = None,
    ) -> None:
        """Set the value that scripts get for a class's instances, and how it becomes an instance again.

        Both hold within lists, maps and dataclasses, too. Texts of errors begin with the place: `order.lines[1].price`.

        Args:
            cls: The class.
            to: Returns a value for scripts in place of an instance of the class or of a subclass. It comes before all
                that the engine itself knows of the class. A `Scope` has no engine: what is put into one between
                evaluations, no hook converts.
            from_: Makes an instance of a script's value where the annotation of a parameter names the class, or `read`
                asks for it.

        Raises:
            TypeError: There is no hook, one is a coroutine function, or Rhai has the class as a type of its own.
            ValueError: A registered function has the class in its annotations, and knows it without `from_`.
        """
        if not isinstance(cls, type):
            raise refusal("cls", cls)
        for name, hook in (("to", to), ("from_", from_)):
            if hook is not None and not callable(hook):
                raise TypeError(f"{name} is {hook!r}: expected a function")
        if to is None and from_ is None:
            raise TypeError(f"convert({cls.__name__}) needs 'to', 'from_', or both")
        if is_coroutine_function(to) or is_coroutine_function(from_):
            raise TypeError(f"a hook of {cls.__name__} is a coroutine function, but a conversion never waits")
        if cls in _BASIC:
            raise TypeError(f"{cls.__name__} is a type that scripts have themselves: no hook can replace it")
        if from_ is not None:
            if cls in self._readers.seen:
                raise ValueError(f"a registered function has {cls.__name__} in its annotations: call convert before")
            self._readers.hooks[cls] = from_
        if to is not None:
            self._hooks[cls] = to

    @overload
    def read(self, value: object, annotation: type[Instance]) -> Instance: ...
    @overload
    def read(self, value: object, annotation: Any) -> Any: ...
    def read(self, value: object, annotation: Any) -> Any:
        """Return a script's value as an annotation asks for it, as a host function's parameter gets it.

        Args:
            value: What `eval` or `call` returned, or a part of it.
            annotation: A class, or what can annotate a parameter: `list[Point]`, `Point | None`.

        Raises:
            TypeError, ValueError: The value does not fit; the text says where: `value[1].x`.
        """
        return self._readers.reader(annotation)(value, "value")

    def _adapt(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return what scripts call in place of a function: it waits for coroutines, and reads arguments."""
        return self._readers.adapt(make_blocking(function))
