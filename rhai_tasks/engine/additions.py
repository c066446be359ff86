"""What an application has added to an engine, as values."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .classes import HostType, Module
from .functions import Function, Native

Key = tuple[str, tuple[str, ...]]
"""By what Rhai tells functions apart: name and types."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Additions:
    """Functions, classes and modules.

    Attributes:
        described: What scripts can call, with constructors and the functions of modules.
        functions: Functions that belong to no class and no module.
        types: Classes by slot.
        modules: Modules by name, without those of classes.
    """

    described: Mapping[Key, Function] = field(default_factory=dict)
    functions: Mapping[Key, Native] = field(default_factory=dict)
    types: Mapping[int, HostType] = field(default_factory=dict)
    modules: Mapping[str, Module] = field(default_factory=dict)

    def plus(self, later: "Additions") -> "Additions":
        """Return these additions with later ones, which replace those of the same key."""
        replaced = {key for slot in later.types.keys() & self.types.keys() for key in _keys_of(self.types[slot])}
        kept = {key: text for key, text in self.described.items() if key not in replaced}
        return Additions(
            described={**kept, **later.described},
            functions={**self.functions, **later.functions},
            types={**self.types, **later.types},
            modules={**self.modules, **later.modules},
        )

    def all_modules(self) -> dict[str, Module]:
        """Return all modules by name, with those of classes."""
        shared = {cls.name: cls.shared for cls in self.types.values() if cls.shared}
        found = {name: module for name, module in shared.items() if module.functions or module.constants}
        own = self.modules.items()
        return found | {name: merged(found[name], module) if name in found else module for name, module in own}

    def listed(self) -> list[Function]:
        """List what is described, with the names of classes in place of their slots."""
        return [self._named(function) for function in dict.fromkeys(self.described.values())]

    def _named(self, function: Function) -> Function:
        def named(text: str) -> str:
            return re.sub(r"#(\d+)\b", lambda found: self.types[int(found[1])].name, text)

        return replace(function, parameters=tuple(map(named, function.parameters)), returns=named(function.returns))


def by_key(functions: Iterable[Native]) -> dict[Key, Native]:
    """Return functions by key; of two with the same key, the later one."""
    return {_key(native): native for native in functions}


def described(functions: Iterable[Native], text: Function) -> dict[Key, Function]:
    """Return a description for each overload that it describes."""
    return {_key(native): text for native in functions}


def merged(former: Module, later: Module) -> Module:
    """Return a module with the members of two; of two with the same key or name, the later one."""
    functions = by_key((*former.functions, *later.functions))
    return Module(functions=list(functions.values()), constants={**former.constants, **later.constants})


def _key(native: Native) -> Key:
    return native[0], tuple(native[1])


def _keys_of(cls: HostType) -> Iterable[Key]:
    """Return the keys of a class's constructor and shared functions."""
    shared = cls.shared.functions if cls.shared else []
    yield from (_key(native) for native in cls.functions if native[0] == cls.name)
    yield from ((f"{cls.name}::{name}", tuple(types)) for name, types, _ in shared)
