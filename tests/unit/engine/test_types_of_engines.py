"""A class that an engine knows as a type: what other engines, scopes and pointers make of its objects."""

import collections.abc
import copy
import gc
import weakref
from dataclasses import dataclass
from decimal import Decimal
from types import FunctionType, ModuleType
from typing import Any

import pytest

from rhai_tasks.engine import CancelToken, Engine, FnPtr, Scope, Timestamp


@dataclass
class Color:
    name: str = "red"

    def loud(self) -> str:
        return self.name.upper()


@dataclass
class Shape:
    sides: int = 3


@pytest.fixture
def knowing() -> Engine:
    engine = Engine()
    engine.register_type(Shape)
    engine.register_type(Color)
    return engine


def test_a_type_of_one_engine_is_none_of_another(knowing: Engine) -> None:
    other = Engine()

    def show(value: Color) -> str:
        return value.name

    assert knowing.eval("[x.loud(), type_of(x)]", scope={"x": Color()}) == ["RED", "Color"]
    assert other.eval("[x, type_of(x)]", scope={"x": Color()}) == [{"name": "red"}, "map"]
    other.register("show", show)
    assert str(other.functions(standard=False)[0]) == "show(value) -> string | char"
    assert other.eval('show(#{name: "blue"})') == "blue"
    knowing.register("show", show)
    assert str(knowing.functions(standard=False)[-1]) == "show(value: Color) -> string | char"


@pytest.mark.parametrize(
    "place",
    [
        lambda scope: scope.update(x=Color()),
        lambda scope: scope.update(x=[{"deep": [Color()]}]),
        lambda scope: scope.set_constant("x", Color()),
    ],
)
def test_a_scope_gives_its_objects_the_types_of_the_engine_that_uses_it(knowing: Engine, place: Any) -> None:
    others_first = Engine()
    others_first.register_type(Color)  # in the slot that Shape has in the other one
    scope = Scope()
    place(scope)
    path = "x[0].deep[0]" if isinstance(scope["x"], list) else "x"

    for engine in (knowing, others_first, knowing):
        assert engine.eval(f"let x2 = [{path}]; [{path}.loud(), type_of(x2[0])]", scope=scope) == ["RED", "Color"]
    assert Engine().eval(path, scope=scope) == {"name": "red"}


def test_objects_that_closures_hold_get_the_types_of_the_engine_that_calls(knowing: Engine) -> None:
    other = Engine()
    other.register_type(Color)
    scope = Scope(x=Color(), all=[])
    knowing.eval("let f = || x.loud(); all.push(f); all.push(x); all.push(all)", scope=scope)
    ast = knowing.compile("let c = Color(); |y| c.loud() + y")

    assert other.eval("x.loud()", scope=scope) == "RED"
    assert other.call(ast, knowing.eval(ast), "!") == "RED!"
    assert knowing.call(ast, knowing.eval(ast), "!") == "RED!"


def test_a_scope_refuses_what_its_engine_does_not_know() -> None:
    class Plain:
        pass

    with pytest.raises(TypeError, match="x: an object of .*Plain cannot be passed"):
        Scope(x=Plain())
    engine = Engine()
    engine.register_type(Plain)
    scope = Scope(y=1, x=Plain())
    with pytest.raises(TypeError, match="x: an object of .*Plain cannot be passed"):
        Engine().eval("y", scope=scope)
    assert isinstance(engine.eval("x", scope=scope), Plain)


def test_a_type_is_freed_with_its_engine() -> None:
    engines = []
    for _ in range(3):
        engine = Engine()
        for number in range(58):
            engine.register_type(type(f"Class{number}", (), {}))
        with pytest.raises(OverflowError, match="an engine can know at most 64 classes"):
            engine.register_type(type("Another", (), {}))
        engines.append(engine)

    class Freed:
        pass

    freed = weakref.ref(Freed)
    engine = Engine()
    engine.register_type(Freed)
    assert engine.eval("Freed(); 1") == 1
    del Freed, engine
    gc.collect()
    assert freed() is None


@pytest.mark.parametrize(
    "cls",
    [
        *(object, type, type(None), bool, int, float, complex, str, bytes, bytearray, memoryview, range, slice),
        *(list, tuple, dict, set, frozenset, Decimal, FnPtr, Timestamp, CancelToken, Scope.__base__),
        *(FunctionType, ModuleType),
    ],
)
def test_a_class_that_scripts_have_values_for_is_no_type(cls: type) -> None:
    engine = Engine()

    with pytest.raises(TypeError, match=f"{cls.__name__} cannot be a type of scripts"):
        engine.register_type(cls)
    assert engine.eval("[x, 1]", scope={"x": {"a": [1, "b"]}}) == [{"a": [1, "b"]}, 1]


@pytest.mark.parametrize("given", [1, "Color", list[int], int | str, collections.abc.Callable[[], int], Color()])
def test_what_is_no_class_is_no_type(given: Any) -> None:
    with pytest.raises(TypeError, match="is not a class"):
        Engine().register_type(given)


def test_a_registration_that_fails_takes_no_slot(knowing: Engine) -> None:
    class Bad:
        pass

    with pytest.raises(ValueError, match="not a valid name in scripts"):
        knowing.register_type(Bad, name="a b")
    with pytest.raises(TypeError, match="Bad cannot be passed to a script"):
        knowing.eval("x", scope={"x": Bad()})


def test_a_class_registered_again_replaces_itself(knowing: Engine) -> None:
    knowing.register_type(Color, name="Colour", members=["name"])

    assert [function.name for function in knowing.functions(standard=False)] == ["Shape", "Colour"]
    assert knowing.eval("type_of(Colour())") == "Colour"


def test_copies_of_what_never_changes_are_the_same_object(knowing: Engine) -> None:
    for value in (CancelToken(), *knowing.eval("[|x| x, timestamp()]")):
        assert copy.copy(value) is value
        assert copy.deepcopy([value])[0] is value


def test_timestamps_have_an_order(knowing: Engine) -> None:
    first, second = knowing.eval("let a = timestamp(); sleep(0.001); [a, timestamp()]")

    assert sorted([second, first]) == [first, second]
    assert first < second
    assert not first >= second
    assert len({first, second, knowing.eval("x", scope={"x": first})}) == 2
