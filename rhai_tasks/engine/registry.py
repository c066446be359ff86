"""What an application adds to an engine: functions, classes and modules that scripts can use."""

import functools
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

from rhai_tasks.errors import RhaiSyntaxError

from ._engine import NativeEngine
from .authorization import Authorization
from .check import CONSTANTS, Finding, Names, find_mistakes
from .classes import HostType, Module, constructor_of, make_type, shared_members, standard_types, take_slot
from .coroutines import make_blocking
from .definitions import files
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
    standard_functions,
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
_Key = tuple[str, tuple[str, ...]]  # by what Rhai tells functions apart: name and types


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
        self._described: dict[_Key, Function] = {}
        self._functions: dict[_Key, Native] = {}
        self._modules: dict[str, Module] = {}
        self._language = language
        self._types = {known.slot: known for known in standard_types(self._slots)}
        self._native = self._build(self._functions, self._types, self._modules)
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
            TypeError: The function has more than 16 parameters, or there is no place for the names that it needs, or
                it is an indexer of a type that Rhai itself indexes.
            ValueError: Scripts cannot call anything by this name.
        """
        check_name(name)
        if not callable(function):
            raise refusal("function", function)
        functions = overloads(name, self._adapt(function), self._slots)
        check_indexer(functions)
        warn_if_hidden(name, functions)
        self._add(_by_key(functions, describe(name, function, self._slots)), functions=functions)

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
        Python. An object of a subclass has this type, too. In place of the class itself, scripts are given a pointer
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
                described = make_type(cls, name, members, self._slots, adapt=self._adapt)
                functions = [(name, types, make_blocking(function)) for name, types, function in described.functions]
                of_class = shared_members(cls, members, self._slots, self._native.passes)
                texts, shared = self._module(name, of_class)
                constructor = [native for native in functions if native[0] == name]
                texts |= _by_key(constructor, describe(name, constructor_of(cls), self._slots))
                self._add(texts, types={slot: replace(described, functions=functions, shared=shared)})
            except BaseException:
                if cls not in known:
                    del self._slots[cls]
                raise
            self._hooks.setdefault(type, self._constructor)
        return cls

    def _constructor(self, cls: type) -> Any:
        """Return what scripts are given in place of a class: a pointer to the function that makes its objects."""
        slot = self._slots.get(cls)
        known = None if slot is None else self._types.get(slot)
        if known is None or all(name != known.name for name, *_ in known.functions):
            raise TypeError(
                f"the class {cls.__qualname__} cannot be passed to a script; Engine.register_type makes it known"
            )
        return self._native.evaluate("value", f'Fn("{known.name}")', None, None, None, None, None, None, None)

    def register_module(self, name: str, members: Mapping[str, Any]) -> None:
        """Make a module of functions and constants, which scripts use as `name::member` without an import.

        Members of a module of the same name stay, but for those of the same name and types.

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
            former = self._modules.get(name, Module(functions=[], constants={}))
            self._add(texts, modules={name: _merged(former, module)})

    def functions(self, *, standard: bool = True) -> list[Function]:
        """Return the functions that scripts can call: the host's, then, if `standard`, Rhai's own library."""
        own = (_with_names(function, self._types) for function in dict.fromkeys(self._described.values()))
        return [*own, *(standard_functions() if standard else ())]

    def check(self, source: str, constants: Collection[str] = CONSTANTS) -> list[Finding]:
        """Find mistakes in a script without running it.

        Args:
            source: The script.
            constants: Names of the constants that it is given; by default those of a worker.

        Returns:
            A syntax error alone; or unknown functions and variables, and code that never runs. An empty list is no
            proof: types are known only when a script runs.
        """
        if not isinstance(source, str):
            raise refusal("source", source)
        try:
            mentions, functions = self._native.mentions(source), self._native.compile(source, None, list(constants))
        except RhaiSyntaxError as error:
            return [Finding(error.line, error.column, "syntax", str(error))]
        own = [(name, len(parameters)) for name, parameters, _ in functions]
        host = {function.name for function in self.functions(standard=False)}
        host |= {name for cls in self._types.values() for name, *_ in cls.functions}
        return find_mistakes(mentions, Names(host, own, constants))

    def definitions(self) -> dict[str, str]:
        """Return definition files for editors of scripts, and a page of Markdown with the host's functions, by name.

        `__builtin__.d.rhai` defines Rhai's own functions, `__static__.d.rhai` the host's functions, types and modules;
        `functions.md` is the page.
        """
        return files(self.functions(standard=False), self._types.values(), _all_modules(self._types, self._modules))

    def _module(self, name: str, members: Mapping[str, Any]) -> tuple[dict[_Key, Function], Module]:
        """Make a module, and describe its functions."""
        functions: list[Native] = []
        texts: dict[_Key, Function] = {}
        for key, function in members.items():
            if callable(function):
                whole = f"{name}::{key}"
                found = overloads(whole, self._adapt(function), self._slots, most=MOST_OF_A_MODULES)
                texts |= _by_key(found, describe(whole, function, self._slots))
                functions += [(key, types, called) for _, types, called in found]
        constants = {key: value for key, value in members.items() if not callable(value)}
        return texts, Module(functions=functions, constants=constants)

    def _add(
        self,
        described: Mapping[_Key, Function],
        *,
        functions: Iterable[Native] = (),
        types: Mapping[int, HostType] = MappingProxyType({}),
        modules: Mapping[str, Module] = MappingProxyType({}),
    ) -> None:
        """Add all of this or, if the native engine refuses any of it, nothing."""
        with self._adding:
            all_functions = {**self._functions, **{_key(native): native for native in functions}}
            all_types, all_modules = {**self._types, **types}, {**self._modules, **modules}
            replaced = {key for slot in types.keys() & self._types.keys() for key in _keys_of(self._types[slot])}
            self._native = self._build(all_functions, all_types, all_modules)
            self.calls_host = True
            self._functions, self._types, self._modules = all_functions, all_types, all_modules
            kept = {key: text for key, text in self._described.items() if key not in replaced}
            self._described = {**kept, **described}

    def _build(
        self, functions: Mapping[_Key, Native], types: Mapping[int, HostType], modules: Mapping[str, Module]
    ) -> NativeEngine:
        known, all_modules = types.values(), _all_modules(types, modules)
        outer_first = sorted(all_modules.items(), key=lambda entry: entry[0].count("::"))
        return NativeEngine(
            [
                *self._language.functions,  # first: the host may have its own in their place
                *(function for cls in known for function in cls.functions),
                *functions.values(),
            ],
            [(cls.slot, cls.name, cls.iterable) for cls in known],
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


def _with_names(function: Function, types: Mapping[int, HostType]) -> Function:
    """Put the names of classes in place of their slots."""

    def named(text: str) -> str:
        return re.sub(r"#(\d+)\b", lambda found: types[int(found[1])].name, text)

    return replace(function, parameters=tuple(map(named, function.parameters)), returns=named(function.returns))


def _all_modules(types: Mapping[int, HostType], modules: Mapping[str, Module]) -> dict[str, Module]:
    """Return all modules by name: those of the host, and those of classes."""
    shared = {cls.name: cls.shared for cls in types.values() if cls.shared}
    found = {name: module for name, module in shared.items() if module.functions or module.constants}
    return found | {name: _merged(found[name], own) if name in found else own for name, own in modules.items()}


def _key(native: Native) -> _Key:
    return native[0], tuple(native[1])


def _keys_of(cls: HostType) -> Iterable[_Key]:
    """Return the keys of a class's constructor and shared functions."""
    shared = cls.shared.functions if cls.shared else []
    yield from (_key(native) for native in cls.functions if native[0] == cls.name)
    yield from ((f"{cls.name}::{name}", tuple(types)) for name, types, _ in shared)


def _by_key(functions: Iterable[Native], text: Function) -> dict[_Key, Function]:
    """Return a description for each overload that it describes."""
    return {_key(native): text for native in functions}


def _merged(former: Module, later: Module) -> Module:
    functions = {_key(native): native for native in (*former.functions, *later.functions)}
    return Module(functions=list(functions.values()), constants={**former.constants, **later.constants})


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
        raise TypeError(f"the source of module {path!r} is a {type(source).__name__}: expected a text, or None")
    return source
