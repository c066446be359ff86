"""Scripts' values as annotations ask for them: instances of dataclasses, of models, of classes with a hook."""

import functools
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from inspect import Parameter, signature
from itertools import repeat, zip_longest
from typing import Annotated, Any, Union, get_args, get_origin

from .functions import NAMED, hints_of, slots

Reader = Callable[[Any, str], Any]
"""Makes of a script's value what an annotation asks for. The text names the value in errors: `order.lines[1].price`."""

_MADE_OF_LISTS: dict[Any, Callable[[Iterable[Any]], Any]] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    Sequence: list,
    Collection: list,
    Iterable: list,
}
_OUTER = {*_MADE_OF_LISTS, dict, Mapping}
"""Types of arrays and maps, whatever is in them: Rhai checks them, and chooses between functions by them."""
_REFUSALS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class Readers:
    """Readers of annotations, with the hooks of one engine.

    Attributes:
        hooks: What makes an instance of a script's value, by class.
        seen: The classes in annotations of functions so far.
    """

    def __init__(self) -> None:
        self.hooks: dict[type, Callable[[Any], Any]] = {}
        self.seen: set[type] = set()

    def adapt(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that reads its arguments by its annotations; the function itself if Rhai checks them all.

        The function that is returned has only the annotations that Rhai checks.
        """
        try:
            parameters = signature(function).parameters.values()
        except ValueError:  # some builtins have no signature
            return function
        hints = hints_of(function)
        self.seen.update(cls for hint in hints.values() for cls in _classes(hint))
        names = [parameter.name for parameter in parameters if parameter.kind not in NAMED]
        readers = [self.reader(hints[name]) if self._makes(hints.get(name)) else None for name in names]
        # Rhai does not check what is in a map, so what is given by name is always read.
        by_name = {name: self.reader(hint) for name, hint in hints.items()} if len(names) < len(parameters) else {}
        if not any(readers) and not by_name:
            return function
        kinds = {parameter.kind: parameter.name for parameter in parameters}
        rest = readers[-1] if Parameter.VAR_POSITIONAL in kinds else None
        rest_by_name = by_name.get(kinds.get(Parameter.VAR_KEYWORD, ""), _anything)

        @functools.wraps(function)
        def adapted(*arguments: Any, **named: Any) -> Any:
            places = zip_longest(arguments, readers[: len(arguments)], names[: len(arguments)], fillvalue=rest)
            return function(
                *(reader(value, str(name)) if reader else value for value, reader, name in places),
                **{name: by_name.get(name, rest_by_name)(value, name) for name, value in named.items()},
            )

        for name, reader in zip(names, readers, strict=True):
            if reader and get_origin(hints[name]) in _OUTER:
                hints[name] = get_origin(hints[name])
            elif reader:
                del hints[name]
        adapted.__annotations__ = hints
        return adapted

    def _makes(self, hint: Any) -> bool:
        """Whether a reader makes an instance for this annotation, rather than check the type, as Rhai itself does."""
        return any(
            cls in self.hooks or (cls not in slots and (is_dataclass(cls) or hasattr(cls, "model_validate")))
            for cls in _classes(hint)
        )

    def reader(self, hint: Any) -> Reader:
        """Return the reader of an annotation. It raises `TypeError` or `ValueError`, with the path in the text."""
        while get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        origin, of = get_origin(hint), get_args(hint)
        if origin in {Union, types.UnionType}:
            return _union([self.reader(each) for each in of], hint)
        cls = type(None) if hint is None else origin or hint
        if not isinstance(cls, type) or cls is object or getattr(cls, "_is_protocol", False):
            return _anything
        nested = None if cls in self.hooks else self._nested(cls, of)
        return nested or _instance(cls, self._maker(cls))

    def _nested(self, cls: type, of: tuple[Any, ...]) -> Reader | None:
        if is_dataclass(cls):
            return self._dataclass(cls)
        if cls in _MADE_OF_LISTS:
            return self._items(cls, of)
        if issubclass(cls, Mapping):
            return self._values(of[1] if of else Any)
        return None

    def _maker(self, cls: type) -> Callable[[Any], Any] | None:
        model_validate: Callable[[Any], Any] | None = getattr(cls, "model_validate", None)
        return self.hooks.get(cls) or model_validate or (cls if issubclass(cls, Enum) else None)

    def _dataclass(self, cls: type) -> Reader:
        @functools.cache  # made when the first map comes: a dataclass may contain its own class
        def readers() -> dict[str, tuple[Reader, bool]]:
            hints = hints_of(cls)
            return {
                field.name: (self.reader(hints.get(field.name, Any)), _is_required(field))
                for field in fields(cls)
                if field.init
            }

        def read(value: Any, path: str) -> Any:
            if isinstance(value, cls):
                return value
            if not isinstance(value, dict):
                raise _wrong_type(path, f"a map of the fields of {cls.__name__}", value)
            for name in value.keys() - readers():
                raise TypeError(f"{path}.{name}: {cls.__name__} has no such field")
            for name, (_, is_required) in readers().items():
                if is_required and name not in value:
                    raise TypeError(f"{path}.{name}: this field of {cls.__name__} is missing")
            named = {name: readers()[name][0](part, f"{path}.{name}") for name, part in value.items()}
            return _make(lambda _: cls(**named), value, path)

        return read

    def _items(self, cls: type, of: tuple[Any, ...]) -> Reader:
        make = _MADE_OF_LISTS[cls]
        is_fixed = cls is tuple and bool(of) and of[-1] is not Ellipsis
        readers = [self.reader(each) for each in of if each is not Ellipsis] or [_anything]

        def read(value: Any, path: str) -> Any:
            if not isinstance(value, list):
                raise _wrong_type(path, "an array", value)
            if is_fixed and len(value) != len(readers):
                raise ValueError(f"{path}: an array of {len(readers)} is wanted, not of {len(value)}")
            each = readers if is_fixed else repeat(readers[0])
            pairs = enumerate(zip(each, value, strict=False))
            return _make(make, [reader(item, f"{path}[{place}]") for place, (reader, item) in pairs], path)

        return read

    def _values(self, of: Any) -> Reader:
        reader = self.reader(of)

        def read(value: Any, path: str) -> Any:
            if not isinstance(value, dict):
                raise _wrong_type(path, "a map", value)
            return {key: reader(part, f"{path}.{key}") for key, part in value.items()}

        return read


def _anything(value: Any, _path: str) -> Any:
    return value


def _instance(cls: type, make: Callable[[Any], Any] | None) -> Reader:
    """Return a reader that takes instances of a class, and makes them of other values, if they can be made."""
    accepted: Any = int | float if cls is float else cls  # an int passes for a float, as in Python

    def read(value: Any, path: str) -> Any:
        if isinstance(value, accepted) and (cls is not int or not isinstance(value, bool)):
            return value
        if make is None:
            raise _wrong_type(path, cls.__name__, value)
        return _make(make, value, path)

    return read


def _union(readers: list[Reader], hint: Any) -> Reader:
    """Return a reader that takes what the first possible one makes."""

    def read(value: Any, path: str) -> Any:
        refusals = []
        for reader in readers:
            try:
                return reader(value, path)
            except (TypeError, ValueError) as error:
                refusals.append(error)
        if len(refusals) == 2 and type(None) in get_args(hint):  # then the other one says more
            raise refusals[get_args(hint)[0] is type(None)]
        raise _wrong_type(path, str(hint), value)

    return read


def _make(make: Callable[[Any], Any], value: Any, path: str) -> Any:
    try:
        return make(value)
    except _REFUSALS as error:
        kind = ValueError if isinstance(error, ValueError) else TypeError
        reason = f"{type(error).__name__}: {error}" if isinstance(error, LookupError) else error
        raise kind(f"{path}: {reason}") from error


def _wrong_type(path: str, wanted: str, value: Any) -> TypeError:
    return TypeError(f"{path}: {wanted} is wanted, not {type(value).__name__}")


def _is_required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _classes(hint: Any) -> Iterator[type]:
    """Yield the classes in an annotation."""
    if isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)
