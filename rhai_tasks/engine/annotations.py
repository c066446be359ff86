"""Converts scripts' values to the types of annotations: dataclasses, models, classes with a hook."""

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from enum import Enum
from inspect import Parameter, signature
from itertools import repeat, zip_longest
from typing import Any, Literal, get_args, get_origin, get_type_hints, is_typeddict

from .functions import NAMED, are_too_many
from .hints import accepted, hints_of, is_anything, is_checked_by_rhai, parts_of_union, resolve

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
_REFUSALS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError)


class Readers:
    """Readers of annotations, with the classes and hooks of one engine.

    Attributes:
        slots: The slot of each class that is a type of scripts.
        hooks: What makes an instance of a script's value, by class.
        seen: The classes in annotations of functions so far.
    """

    def __init__(self) -> None:
        self.slots: dict[type, int] = {}
        self.hooks: dict[type, Callable[[Any], Any]] = {}
        self.seen: set[type] = set()

    def adapt(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that reads its arguments by its annotations; the function itself if Rhai checks them all.

        The function that is returned has only the annotations that Rhai checks.
        """
        try:
            found = signature(function)
        except ValueError:  # some builtins have no signature
            return function
        hints = hints_of(function)
        self.seen.update(cls for hint in hints.values() for cls in _classes(hint))
        parameters = [parameter for parameter in found.parameters.values() if parameter.kind not in NAMED]
        names = [parameter.name for parameter in parameters]
        readers = self._readers_of(parameters, hints)
        # Rhai does not check what is in a map, so what is given by name is always read.
        by_name = {}
        if len(names) < len(found.parameters):
            by_name = {name: self.reader(hint) for name, hint in hints.items() if name != "return"}
        if not any(readers) and not by_name:
            return function
        kinds = {parameter.kind: parameter.name for parameter in found.parameters.values()}
        rest = readers[-1] if Parameter.VAR_POSITIONAL in kinds else None
        rest_by_name = by_name.get(kinds.get(Parameter.VAR_KEYWORD, ""), _anything)

        @functools.wraps(function)
        def adapted(*arguments: Any, **named: Any) -> Any:
            places = zip_longest(arguments, readers[: len(arguments)], names[: len(arguments)], fillvalue=rest)
            return function(
                *(reader(value, str(name)) if reader else value for value, reader, name in places),
                **{name: by_name.get(name, rest_by_name)(value, name) for name, value in named.items()},
            )

        narrowed = [
            parameter.replace(annotation=self._narrowed(hints.get(parameter.name, Any)))
            for parameter in found.parameters.values()
        ]
        setattr(adapted, "__signature__", found.replace(parameters=narrowed))  # noqa: B010  (mypy does not know it)
        return adapted

    def _readers_of(self, parameters: list[Parameter], hints: Mapping[str, Any]) -> list[Reader | None]:
        """Return a reader for each parameter whose annotation asks for more than Rhai checks."""
        each = [hints.get(parameter.name, Any) for parameter in parameters]
        is_rhais = not are_too_many(accepted(self._narrowed(hint), self.slots) for hint in each)
        return [
            None
            if is_anything(hint)
            or (is_rhais and parameter.kind is not Parameter.VAR_POSITIONAL and self._is_rhais(hint))
            else self.reader(hint)
            for parameter, hint in zip(parameters, each, strict=True)
        ]

    def _is_rhais(self, hint: Any) -> bool:
        """Whether Rhai checks all that an annotation asks for."""
        return not self._is_made(hint) and is_checked_by_rhai(hint, self.slots)

    def _is_made(self, hint: Any) -> bool:
        """Whether values of other types may become what an annotation asks for."""
        return any(
            cls in self.hooks or (cls not in self.slots and (is_dataclass(cls) or hasattr(cls, "model_validate")))
            for cls in _classes(hint)
        )

    def _narrowed(self, hint: Any) -> Any:
        """Return the part of an annotation by which Rhai chooses between functions."""
        origin = get_origin(hint)
        if origin in _MADE_OF_LISTS or origin is dict or origin is Mapping:
            return origin
        return Any if self._is_made(hint) else hint

    def reader(self, hint: Any) -> Reader:
        """Return the reader of an annotation. It raises `TypeError` or `ValueError`, with the path in the text.

        Raises:
            TypeError: The annotation is a value, and no type.
        """
        hint = resolve(hint)
        if is_anything(hint):
            return _anything
        parts = parts_of_union(hint)
        if parts is not None:
            return _union([self.reader(each) for each in parts], hint)
        origin, of = get_origin(hint), get_args(hint)
        if origin is Literal:
            return _literal(of)
        cls = type(None) if hint is None else origin or hint
        if cls is Callable:
            return _callable
        if not isinstance(cls, type) and not callable(cls) and type(cls).__module__ != "typing":
            raise TypeError(f"an annotation is {hint!r}: expected a type")
        if not isinstance(cls, type) or getattr(cls, "_is_protocol", False):
            return _anything
        nested = None if cls in self.hooks else self._nested(cls, of)
        return nested or _instance(cls, self._maker(cls))

    def _nested(self, cls: type, of: tuple[Any, ...]) -> Reader | None:
        if is_dataclass(cls) and cls not in self.slots:
            return self._dataclass(cls)
        if is_typeddict(cls):
            return self._typed_dict(cls)
        if cls in _MADE_OF_LISTS:
            return self._items(cls, of)
        if cls is dict or cls is Mapping:
            return self._values(of[1] if of else Any)
        return None

    def _maker(self, cls: type) -> Callable[[Any], Any] | None:
        model_validate: Callable[[Any], Any] | None = getattr(cls, "model_validate", None)
        is_made = issubclass(cls, Enum) or cls in {bytearray, memoryview}
        return self.hooks.get(cls) or model_validate or (cls if is_made else None)

    def _dataclass(self, cls: type) -> Reader:
        @functools.cache  # made when the first map comes: a dataclass may contain its own class
        def readers() -> dict[str, tuple[Reader, bool]]:
            hints, parameters = hints_of(cls), signature(cls).parameters.values()
            return {
                parameter.name: (self.reader(hints.get(parameter.name, Any)), parameter.default is Parameter.empty)
                for parameter in parameters
            }

        fields = functools.partial(_fields, readers, f"a map of the fields of {cls.__name__}", cls.__name__)

        def read(value: Any, path: str) -> Any:
            if isinstance(value, cls):
                return value
            named = fields(value, path)
            return _make(lambda _: cls(**named), value, path)

        return read

    def _typed_dict(self, cls: Any) -> Reader:
        @functools.cache
        def readers() -> dict[str, tuple[Reader, bool]]:
            hints = get_type_hints(cls)
            return {name: (self.reader(hint), name in cls.__required_keys__) for name, hint in hints.items()}

        return functools.partial(_fields, readers, f"a map of the keys of {cls.__name__}", cls.__name__)

    def _items(self, cls: type, of: tuple[Any, ...]) -> Reader:
        make = _MADE_OF_LISTS[cls]
        is_fixed = cls is tuple and bool(of) and of[-1] is not Ellipsis
        readers = [self.reader(each) for each in of if each is not Ellipsis] or [_anything]

        def read(value: Any, path: str) -> Any:
            if not isinstance(value, list):
                raise _wrong_type(path, "an array", value)
            if is_fixed and len(value) != len(readers):
                raise ValueError(f"{path}: expected an array of {len(readers)}, not of {len(value)}")
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
    passing: Any = int | float if cls is float else cls  # an int passes for a float, as in Python

    def read(value: Any, path: str) -> Any:
        if isinstance(value, passing) and (cls not in {int, float} or not isinstance(value, bool)):
            return value
        if make is None:
            raise _wrong_type(path, cls.__name__, value)
        return _make(make, value, path)

    return read


def _fields(
    readers: Callable[[], dict[str, tuple[Reader, bool]]], expected: str, of: str, value: Any, path: str
) -> dict[str, Any]:
    """Read the entries of a map by their names."""
    if not isinstance(value, dict):
        raise _wrong_type(path, expected, value)
    known = readers()
    for name in value.keys() - known:
        raise TypeError(f"{path}.{name}: {of} has no such field")
    for name, (_, is_required) in known.items():
        if is_required and name not in value:
            raise TypeError(f"{path}.{name}: this field of {of} is missing")
    return {name: known[name][0](part, f"{path}.{name}") for name, part in value.items()}


def _literal(values: tuple[Any, ...]) -> Reader:
    """Return a reader that takes these values."""

    def read(value: Any, path: str) -> Any:
        for allowed in values:
            plain = allowed.value if isinstance(allowed, Enum) else allowed
            if type(plain) is type(value) and plain == value:
                return allowed
        raise ValueError(f"{path}: expected {' or '.join(map(repr, values))}, not {value!r}")

    return read


def _callable(value: Any, path: str) -> Any:
    if not callable(value):
        raise _wrong_type(path, "a function", value)
    return value


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


def _wrong_type(path: str, expected: str, value: Any) -> TypeError:
    return TypeError(f"{path}: expected {expected}, not {type(value).__name__}")


def _classes(hint: Any) -> Iterator[type]:
    """Yield the classes in an annotation."""
    hint = resolve(hint)
    if isinstance(hint, type):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)
