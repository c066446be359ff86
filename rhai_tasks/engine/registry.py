"""What an application adds to an engine: functions, classes and modules that scripts can use."""

import functools
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar, overload

from ._engine import NativeEngine
from .additions import Additions, Key, by_key, described, merged
from .authorization import Authorization
from .classes import Module, constructor_of, make_type, shared_members, standard_types, take_slot
from .coroutines import make_blocking
from .evaluation import Debug, Print
from .functions import (
    MOST_OF_A_MODULES,
    Function,
    Native,
    check_identifier,
    check_indexer,
    check_name,
    describe,
    overloads,
    warn_if_hidden,
)
from .hooks import Conversions
from .language import Language
from .limits import Limits
from .output import log_debug, script_logger
from .refusals import refusal

HostFunction = TypeVar("HostFunction", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)
Modules = Path | Mapping[str, str] | Callable[[str], str | None]


class Registry(Authorization, Conversions):
    """The part of an `Engine` that is configured: each addition makes a new native engine."""

    def __init__(
        self,
        limits: Limits | None,
        print_: Print | None,
        debug: Debug | None,
        modules: Modules | None,
        language: Language,
    ) -> None:
        super().__init__()
        _check(limits, print_, debug)
        self.limits = limits or Limits()
        self._print = print_ or script_logger.info
        self._debug = debug or log_debug
        self._sources = None if modules is None else _sources(modules)
        self._language = language
        self._additions = Additions(types={known.slot: known for known in standard_types(self._slots)})
        self._native = self._build(self._additions)
        self.calls_host = callable(self._sources)
        """Whether scripts can call functions of the host."""
        self._adding = threading.RLock()

    def register(self, name: str, function: Callable[..., Any]) -> None:
        """Make a Python function callable by scripts.

        Scripts call it with as many arguments as it has parameters; defaults and `*args` allow several numbers, a
        builtin without a signature any number. Parameters behind `*` or `**` are given by name, in a map that is one
        more argument. Annotations choose between functions of one name, as Rhai's types do: a
        function registered for `str` is not found for an `int`. A script can catch an exception that the function
        raises. Uncaught, the exception ends the script as `RhaiHostError`, and is its `__cause__`.

        The name may also be an operator; or `get$x` and `set$x`, for `value.x` in a script; or `index$get$` and
        `index$set$`, for `value[i]`. The annotation of the first parameter is then the type of the value. The
        operators of numbers and strings stay Rhai's own, as does the indexing of integers, strings, blobs, arrays and
        maps.

        A coroutine function, or an object whose `__call__` is one, runs in the event loop that awaits `eval_async`.
        For other evaluations it runs in an event loop that all engines of the process share, in a thread of its own.

        Raises:
            TypeError: The function has more than 16 parameters, or there is no place for the names that it needs. An
                annotation is not a type. Or it is an indexer of a type that Rhai itself indexes.
            ValueError: Scripts cannot call anything by this name.
        """
        check_name(name)
        if not callable(function):
            raise refusal("function", function)
        functions = overloads(name, self._adapt(function), self._slots)
        check_indexer(functions)
        warn_if_hidden(name, functions)
        texts = described(functions, describe(name, function, self._slots))
        self._add(Additions(described=texts, functions=by_key(functions)))

    @overload
    def function(self, function: HostFunction) -> HostFunction: ...
    @overload
    def function(self, *, name: str) -> Callable[[HostFunction], HostFunction]: ...
    def function(self, function: Any = None, *, name: str | None = None) -> Any:
        """Register the decorated function under its own name, or under `name`."""

        def register(function: HostFunction) -> HostFunction:
            self.register(name or function.__name__, function)
            return function

        return register if function is None else register(function)

    @overload
    def register_type(self, cls: Class, *, name: str | None = None, members: Iterable[str] | None = None) -> Class: ...
    @overload
    def register_type(
        self, *, name: str | None = None, members: Iterable[str] | None = None
    ) -> Callable[[Class], Class]: ...
    def register_type(self, cls: Any = None, *, name: str | None = None, members: Iterable[str] | None = None) -> Any:
        """Make a class a type of scripts. Returns the class, so that it can be a decorator, with or without arguments.

        Scripts make objects by calling the name, and use static and class methods, constants and enum members as those
        of a module of that name: `Color::RED`. They can use public methods and attributes, operators, `len`, `in`,
        indexing, `for` and equality, and print an object as its `str`. A copy in a script is the same object, as in
        Python. An object of a subclass has this type, too. For the class itself, scripts get a pointer
        to its constructor.

        Args:
            cls: The class.
            name: The type's name in scripts; by default the class's own name.
            members: The methods and attributes that scripts can use; by default all without a leading underscore,
                annotated attributes included.

        Raises:
            OverflowError: The engine knows 64 classes, six of Python's own among them.
            TypeError: It is not a class, or scripts have values in place of its objects (`str`, `dict`, `object`); or a
                method that Python itself calls, such as `__len__`, is a coroutine function.
            ValueError: Scripts cannot use the name.
        """
        if cls is None:
            return functools.partial(self.register_type, name=name, members=members)
        if members is not None:
            if isinstance(members, str) or not isinstance(members, Iterable):
                raise refusal("members", members)
            members = list(members)
        with self._adding:
            known = dict(self._slots)
            slot = take_slot(cls, self._slots)
            name = name or cls.__name__
            try:
                check_identifier(name)
                made = make_type(cls, name, members, self._slots, adapt=self._adapt)
                functions = [(name, types, make_blocking(function)) for name, types, function in made.functions]
                of_class = shared_members(cls, members, self._slots, self._native.passes)
                texts, shared = self._module(name, of_class)
                constructor = [native for native in functions if native[0] == name]
                texts |= described(constructor, describe(name, constructor_of(cls), self._slots))
                of_type = replace(made, functions=functions, shared=shared)
                self._add(Additions(described=texts, types={slot: of_type}))
            except BaseException:
                if cls not in known:
                    del self._slots[cls]
                raise
            self._hooks.setdefault(type, self._constructor)
        return cls

    def _constructor(self, cls: type) -> Any:
        """Return the value that scripts get for a class: a pointer to the function that makes its objects."""
        slot = self._slots.get(cls)
        known = None if slot is None else self._additions.types.get(slot)
        if known is None or all(name != known.name for name, *_ in known.functions):
            raise TypeError(
                f"the class {cls.__qualname__} cannot be passed to a script: register it with Engine.register_type"
            )
        return self._native.evaluate("value", f'Fn("{known.name}")', None, None, None, None, None, None, None)

    def register_module(self, name: str, members: Mapping[str, Any]) -> None:
        """Make a module of functions and constants, which scripts use as `name::member` without an import.

        Members of a module of the same name stay, except those of the same name and types.

        Args:
            name: The module's name; `a::b` makes a module within a module.
            members: Members by name. Callables become functions of up to 8 arguments, other values constants.
                Annotations mean the same as in `register`.

        Raises:
            TypeError: Scripts cannot call a function, or a constant cannot be passed to scripts.
            ValueError: Scripts cannot use the name of the module or of a member.
        """
        if not isinstance(name, str):
            raise refusal("name", name)
        if not isinstance(members, Mapping):
            raise TypeError(f"members is {members!r}: expected a mapping of names to functions and constants")
        for part in (*name.split("::"), *members):
            check_identifier(part)
        if "global" in name.split("::"):
            raise ValueError(f"{name!r} is not a valid name of a module: scripts reach their constants by 'global'")
        with self._adding:
            texts, module = self._module(name, members)
            former = self._additions.modules.get(name, Module(functions=[], constants={}))
            self._add(Additions(described=texts, modules={name: merged(former, module)}))

    def _module(self, name: str, members: Mapping[str, Any]) -> tuple[dict[Key, Function], Module]:
        """Make a module, and describe its functions."""
        functions: list[Native] = []
        texts: dict[Key, Function] = {}
        for key, function in members.items():
            if callable(function):
                whole = f"{name}::{key}"
                found = overloads(whole, self._adapt(function), self._slots, most=MOST_OF_A_MODULES)
                texts |= described(found, describe(whole, function, self._slots))
                functions += [(key, types, called) for _, types, called in found]
        constants = {key: value for key, value in members.items() if not callable(value)}
        return texts, Module(functions=functions, constants=constants)

    def _add(self, later: Additions) -> None:
        """Add all of this or, if the native engine refuses any of it, nothing."""
        with self._adding:
            additions = self._additions.plus(later)
            self._native = self._build(additions)
            self.calls_host = True
            self._additions = additions

    def _build(self, additions: Additions) -> NativeEngine:
        types = additions.types.values()
        outer_first = sorted(additions.all_modules().items(), key=lambda entry: entry[0].count("::"))
        return NativeEngine(
            [
                *self._language.functions,  # first: the host may have its own in their place
                *(function for cls in types for function in cls.functions),
                *additions.functions.values(),
            ],
            [(cls.slot, cls.name, cls.iterable) for cls in types],
            [(name, module.functions, module.constants) for name, module in outer_first],
            self._sources,
            self._slots,
            self._hooks,
            replace(self._language, modules=[name for name, _ in outer_first if "::" not in name]),
            self.limits,
            self._print,
            self._debug,
        )


def _check(limits: object, print_: object, debug: object) -> None:
    for name, output in (("print", print_), ("debug", debug)):
        if output is not None and not callable(output):
            raise refusal(name, output)
    if limits is not None and not isinstance(limits, Limits):
        raise refusal("limits", limits)


def _sources(modules: Modules) -> Path | Callable[[str], str | None]:
    """Return the folder of the modules, or a function from a module's path to its source."""
    if isinstance(modules, Path):
        folder = modules.resolve(strict=True)
        if not folder.is_dir():
            raise NotADirectoryError(f"modules is {str(modules)!r}: expected a folder")
        return folder
    if isinstance(modules, Mapping):
        return functools.partial(_source, modules.get)
    if not callable(modules) or isinstance(modules, type):
        raise refusal("modules", modules)
    return functools.partial(_source, modules)


def _source(find: Callable[[str], str | None], path: str) -> str | None:
    """Return the source of a module.

    Raises:
        TypeError: It is not a text.
    """
    source = find(path)
    if source is not None and not isinstance(source, str):
        raise TypeError(f"the source of module {path!r} is of type {type(source).__name__}: expected a text, or None")
    return source
