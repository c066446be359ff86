"""Scripts use what a class has without an object: as members of a module with the class's name."""

import enum
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Final

import pytest

from rhai_tasks import Engine
from rhai_tasks.errors import RhaiNameError


class Color(enum.Enum):
    """A color."""

    RED = "red"
    BLUE = "blue"

    def loud(self) -> str:
        return self.name + "!"

    @classmethod
    def pick(cls, place: int = 0) -> "Color":
        return list(cls)[place]


class Permission(enum.IntFlag):
    READ = 1
    WRITE = 2


class Base:
    INHERITED = "from the base"

    @classmethod
    def named(cls) -> str:
        return cls.__name__


@dataclass
class Point(Base):
    x: int
    y: int = 0
    names: list[str] = field(default_factory=list)
    DIMENSIONS: ClassVar[int] = 2
    LIMITS: Final[tuple[int, int]] = (0, 9)
    unfit: ClassVar[object] = object()
    _secret: ClassVar[int] = 1

    class Corner:
        """A nested class is a function, too."""

    @staticmethod
    def parse(text: str, *, separator: str = "|") -> "Point":
        x, y = text.split(separator)
        return Point(int(x), int(y))

    @staticmethod
    async def later(x: int) -> "Point":
        return Point(x)

    @staticmethod
    def named_only(*, a: int, b: int) -> int:
        return a + b

    @property
    def length(self) -> int:
        return self.x + self.y

    @cached_property
    def area(self) -> int:
        return self.x * self.y

    def moved(self) -> "Point":
        return self


Point.ORIGIN = Point(0, 0)  # type: ignore[attr-defined]


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    for cls in (Color, Permission, Point):
        engine.register_type(cls)
    return engine


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("Color::RED", Color.RED),
        ('Color("blue")', Color.BLUE),
        ('Color::RED == Color("red") && Color::RED != Color::BLUE', True),
        ("[Color::RED.name, Color::RED.value, Color::BLUE.loud()]", ["RED", "red", "BLUE!"]),
        ("[Color::pick(), Color::pick(1)]", [Color.RED, Color.BLUE]),
        ("Permission::READ | Permission::WRITE", Permission.READ | Permission.WRITE),
        ("Point::DIMENSIONS", 2),
        ("Point::LIMITS", [0, 9]),
        ("Point::INHERITED + Point::named()", "from the basePoint"),
        ("Point::ORIGIN.x", 0),
        ("fn origin() { Point::ORIGIN } origin()", Point(0, 0)),
        ('Point::parse("1|2")', Point(1, 2)),
        ('Point::parse("1-2", #{separator: "-"})', Point(1, 2)),
        ("Point::later(3)", Point(3)),
        ("Point::named_only(#{a: 1, b: 2})", 3),
        ('[1, 2].map(Fn("Point"))', [Point(1), Point(2)]),
        ('let kinds = #{point: Fn("Point")}; kinds.point.call(1, 2)', Point(1, 2)),
    ],
)
def test_shared_members_are_those_of_a_module(engine: Engine, script: str, value: object) -> None:
    assert engine.eval(script) == value


@pytest.mark.parametrize("member", ["x", "y", "names", "unfit", "_secret", "length", "area", "moved()", "missing"])
def test_what_belongs_to_objects_or_is_private_is_not_shared(engine: Engine, member: str) -> None:
    with pytest.raises(RhaiNameError):
        engine.eval(f"Point::{member}")


def test_members_chooses_shared_members_too() -> None:
    engine = Engine()
    engine.register_type(Point, members=["DIMENSIONS", "x"])

    assert engine.eval("Point::DIMENSIONS + Point(1).x") == 3
    with pytest.raises(RhaiNameError):
        engine.eval('Point::parse("1|2")')


def test_scripts_make_no_classes_of_an_enumeration(engine: Engine) -> None:
    with pytest.raises(RhaiNameError):
        engine.eval('Color("Hue", ["GREEN"])')


def test_shared_functions_are_listed(engine: Engine) -> None:
    listed = {function.name: function for function in engine.functions(standard=False)}

    assert str(listed["Color"]) == "Color(value)"
    assert listed["Color"].doc == "A color."
    assert listed["Point::parse"].parameters == ("text: string | char", "#{separator: string | char}")


def test_a_class_without_shared_members_has_no_module() -> None:
    class Plain:
        def method(self) -> Any: ...

    engine = Engine()
    engine.register_type(Plain)

    assert [function.name for function in engine.functions(standard=False)] == ["Plain"]
