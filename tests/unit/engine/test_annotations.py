"""Annotations of host functions, methods, constructors and modules: what they let pass, and what a function gets."""

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Literal,
    LiteralString,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    Self,
    TypedDict,
    TypeVar,
)

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import Engine, FnPtr, Timestamp

Text = NewType("Text", str)
Anything = TypeVar("Anything")
Number = TypeVar("Number", int, float)
Bounded = TypeVar("Bounded", bound=int)


class Level(enum.Enum):
    LOW = 1
    HIGH = 2


class Options(TypedDict):
    size: int
    color: NotRequired[str]


class Pair(NamedTuple):
    one: int
    other: str


@dataclass
class Line:
    count: int


class Plain:
    pass


TAKEN: list[tuple[Any, str, Any]] = [  # annotation, a script's value, what the function gets
    (int, "1", 1),
    (Final, "1", 1),
    (LiteralString, '"a"', "a"),
    (Self, "5", 5),
    (float, "1", 1),
    (float, "1.5", 1.5),
    (bool, "true", True),
    (str, "'c'", "c"),
    (bytes, "blob(2, 1)", b"\1\1"),
    (bytearray, "blob(2, 1)", bytearray(b"\1\1")),
    (memoryview, "blob(2, 1)", memoryview(b"\1\1")),
    (Decimal, 'parse_decimal("1.5")', Decimal("1.5")),
    (None, "()", None),
    (list, "[1, true]", [1, True]),
    (list[int], "[1, 2]", [1, 2]),
    (list[Any], "[1, true]", [1, True]),
    (tuple, "[1, 2]", (1, 2)),
    (tuple[int, ...], "[1, 2]", (1, 2)),
    (tuple[int, str], '[1, "a"]', (1, "a")),
    (set, "[1, 1]", {1}),
    (set[int], "[1, 1]", {1}),
    (frozenset[str], '["a"]', frozenset({"a"})),
    (Sequence[int], "[1]", [1]),
    (Sequence, "[1]", [1]),
    (Collection[int], "[1]", [1]),
    (Iterable[int], "[1]", [1]),
    (dict[str, int], "#{a: 1}", {"a": 1}),
    (Mapping[str, list[int]], "#{a: [1]}", {"a": [1]}),
    (Options, "#{size: 1}", {"size": 1}),
    (range, "0..3", range(3)),
    (Literal["a", 2], '"a"', "a"),
    (Literal["a", 2], "2", 2),
    (Literal[Level.HIGH], "2", Level.HIGH),
    (Level, "2", Level.HIGH),
    (list[Level], "[1]", [Level.LOW]),
    (Text, '"a"', "a"),
    (list[Text], '["a"]', ["a"]),
    (Annotated[int, "positive"], "1", 1),
    (Number, "1.5", 1.5),
    (Bounded, "1", 1),
    (Anything, '"a"', "a"),
    (int | None, "()", None),
    (Level | None, "()", None),
    (set[int] | str, "[1, 1]", {1}),
    (list[int] | dict[str, int], "#{a: 1}", {"a": 1}),
    (Line, "#{count: 1}", Line(1)),
    (Line | None, "#{count: 1}", Line(1)),
    (object, "1", 1),
    (Any, "1", 1),
]

REFUSED: list[tuple[Any, str]] = [  # annotation, a script's value
    (int, "true"),
    (Required[int], "true"),
    (LiteralString, "5"),
    (int, "1.5"),
    (float, "true"),
    (float, '"1"'),
    (bool, "1"),
    (str, "1"),
    (bytes, '"a"'),
    (bytearray, '"a"'),
    (memoryview, "[1]"),
    (Decimal, "1.5"),
    (None, "1"),
    (list, "#{}"),
    (list[int], "[1, true]"),
    (list[float], "[true]"),
    (list[list[int]], '[["a"]]'),
    (tuple[int, ...], '["a"]'),
    (tuple[int, str], "[1]"),
    (tuple[int, str], '["a", 1]'),
    (tuple, "1"),
    (set, "#{}"),
    (set[int], '["a"]'),
    (set[str], "[[1]]"),
    (set, "[[1]]"),
    (frozenset[str], "[1]"),
    (Sequence[int], '["a"]'),
    (Sequence, "1"),
    (Sequence, '"text"'),
    (Collection[int], "[true]"),
    (Iterable[int], "[()]"),
    (dict[str, int], '#{a: "b"}'),
    (Mapping[str, list[int]], "#{a: 1}"),
    (Options, '#{size: "1"}'),
    (Options, "#{}"),
    (Options, "#{size: 1, other: 1}"),
    (Options, "[]"),
    (range, "[0]"),
    (Timestamp, "1"),
    (FnPtr, "1"),
    (Callable, '"f"'),
    (Callable[[int], int], '"f"'),
    (Literal["a", 2], '"b"'),
    (Literal["a", 2], "1"),
    (Literal[1], "true"),
    (Literal[True], "1"),
    (Literal["a"], "[]"),
    (Level, "3"),
    (Level, '"LOW"'),
    (list[Level], "[3]"),
    (Text, "1"),
    (list[Text], "[1]"),
    (Annotated[int, "positive"], '"1"'),
    (Annotated[list[int], "positive"], '["1"]'),
    (Number, '"1"'),
    (Bounded, '"1"'),
    (int | None, '"1"'),
    (Level | None, "3"),
    (set[int] | str, '["a"]'),
    (Line, "1"),
    (Line, "#{}"),
    (Line, '#{count: "1"}'),
    (Plain, "1"),
    (Plain, "#{}"),
    (complex, "1"),
]


def functions_of(annotation: Any, got: list[Any]) -> Iterable[tuple[str, Engine]]:
    """Yield calls of functions whose last parameter has an annotation, each with an engine that knows them."""

    def receive(value: Any) -> None:
        got.append(value)

    def rest(*values: Any) -> None:
        got.extend(values)

    def named(*, value: Any) -> None:
        got.append(value)

    def several(one: int | float | str, two: int | float | str, three: int | float | str, value: Any) -> None:
        assert [one, two, three] == [1, 2, 3]
        got.append(value)

    class Host:
        def __init__(self, value: Any) -> None:
            got.append(value)

        @staticmethod
        def give(value: Any) -> None:
            got.append(value)

    class Method:
        def receive(self, value: Any) -> None:
            got.append(value)

    functions: list[Any] = [receive, named, several, Host.__init__, Host.give, Method.receive]
    for function in functions:
        function.__annotations__["value"] = annotation
    rest.__annotations__["values"] = annotation
    engine = Engine()
    for registered in (receive, rest, named, several):
        engine.register(registered.__name__, registered)
    engine.register_module("m", {"receive": receive, "named": named})
    engine.register_type(Host)
    engine.register_type(Method)
    calls = [
        *("receive({})", "rest({})", "named(#{{value: {}}})", "several(1, 2, 3, {})"),
        *("m::receive({})", "m::named(#{{value: {}}})"),
        *("Host({})", "Host::give({})", "Method().receive({})"),
    ]
    return [(call, engine) for call in calls]


@pytest.mark.parametrize(("annotation", "value", "given"), TAKEN)
def test_a_function_gets_what_its_annotation_says(annotation: Any, value: str, given: Any) -> None:
    got: list[Any] = []

    for call, engine in functions_of(annotation, got):
        engine.eval(call.format(value))
        assert got == [given], call
        assert type(got.pop()) is type(given), call


@pytest.mark.parametrize(("annotation", "value"), REFUSED)
def test_a_function_is_not_called_with_what_its_annotation_excludes(annotation: Any, value: str) -> None:
    got: list[Any] = []

    for call, engine in functions_of(annotation, got):
        with pytest.raises((errors.RhaiHostError, errors.RhaiNameError)):
            engine.eval(call.format(value))
        assert got == [], call


@pytest.mark.parametrize("annotation", [[int], (int, str), {"a": int}, 5])
def test_an_annotation_that_is_no_type_is_refused(annotation: Any) -> None:
    with pytest.raises(TypeError, match=r"^an annotation is .*: expected a type$"):
        functions_of(annotation, [])
    with pytest.raises(TypeError, match=r"^an annotation is .*: expected a type$"):
        Engine().read(1, annotation)


@pytest.mark.parametrize("annotation", [Timestamp, FnPtr, Callable, Callable[[int], int]])
def test_a_function_gets_timestamps_and_pointers(annotation: Any) -> None:
    got: list[Any] = []
    value = "timestamp()" if annotation is Timestamp else "|x| x"

    for call, engine in functions_of(annotation, got):
        engine.eval(call.format(value))
        assert isinstance(got.pop(), Timestamp if annotation is Timestamp else FnPtr)


def test_an_annotation_that_only_a_type_checker_knows_leaves_the_others_checked() -> None:
    engine = Engine()

    @engine.function
    def add(one: "Unknown", other: "int") -> Any:  # type: ignore[name-defined]  # noqa: F821
        return one + other

    assert engine.eval("add(1.5, 2)") == 3.5
    with pytest.raises(errors.RhaiNameError):
        engine.eval("add(1, 2.5)")


def test_types_choose_between_the_functions_of_a_module() -> None:
    engine = Engine()

    def of_text(value: str) -> str:
        return f"text {value}"

    def of_number(value: int) -> str:
        return f"number {value}"

    engine.register_module("m", {"kind": of_text})
    engine.register_module("m", {"kind": of_number})

    assert engine.eval('[m::kind("a"), m::kind(1)]') == ["text a", "number 1"]
    with pytest.raises(errors.RhaiNameError, match=r"Function not found: m::kind \(f64\)"):
        engine.eval("m::kind(1.5)")
    assert [str(function) for function in engine.functions(standard=False)] == [
        "m::kind(value: string | char) -> string | char",
        "m::kind(value: i64) -> string | char",
    ]


# ---- constructors and fields ----


class Account:
    owner: int  # what the constructor makes of its argument
    rest: str

    def __init__(self, owner: str, rest: list[str]) -> None:
        self.owner, self.rest = len(owner), "".join(rest)


def test_a_constructor_takes_what_its_own_annotations_say() -> None:
    engine = Engine()
    engine.register_type(Account)

    assert engine.eval('let a = Account("me", ["x", "y"]); [a.owner, a.rest]') == [2, "xy"]
    with pytest.raises(errors.RhaiNameError):
        engine.eval('Account(1, ["x"])')
    assert str(engine.functions(standard=False)[0]) == "Account(owner: string | char, rest: array)"


@dataclass
class Order:
    LIMIT: ClassVar[int] = 5
    count: int
    factor: InitVar[int]
    unit: str = "kg"
    total: int = field(init=False, default=0)

    def __post_init__(self, factor: int) -> None:
        self.total = self.count * factor


def test_class_variables_and_arguments_of_init_are_no_fields() -> None:
    engine = Engine()

    @engine.function
    def total(order: Order) -> int:
        return order.total

    assert engine.eval("x", scope={"x": Order(2, 3)}) == {"count": 2, "unit": "kg", "total": 6}
    assert engine.eval("total(#{count: 2, factor: 4})") == 8
    for wrong, why in {
        "#{count: 2}": "factor: this field of Order is missing",
        "#{count: 2, factor: 1, LIMIT: 3}": "LIMIT: Order has no such field",
        "#{count: 2, factor: 1, total: 3}": "total: Order has no such field",
        '#{count: 2, factor: "a"}': "factor: expected int, not str",
    }.items():
        with pytest.raises(errors.RhaiHostError, match=why):
            engine.eval(f"total({wrong})")
    engine.register_type(Order)
    assert engine.eval("[Order(2, 5).total, Order::LIMIT]") == [10, 5]


def test_a_named_tuple_is_a_map_of_its_fields() -> None:
    assert Engine().eval("x", scope={"x": Pair(1, "a")}) == {"one": 1, "other": "a"}


# ---- modules ----


@pytest.mark.parametrize("names", [("x", "x::y", "x::y::z"), ("x::y::z", "x::y", "x"), ("x::y", "x", "x::y::z")])
def test_modules_within_modules_come_in_any_order(names: tuple[str, ...]) -> None:
    engine = Engine()
    for name in names:
        engine.register_module(name, {"depth": lambda name=name: name.count("::"), "NAME": name})

    assert engine.eval("[x::depth(), x::y::depth(), x::y::z::depth(), x::NAME, x::y::z::NAME]") == [
        *(0, 1, 2),
        *("x", "x::y::z"),
    ]


def test_a_module_registered_again_keeps_its_members() -> None:
    engine = Engine()
    engine.register_module("x", {"one": lambda: 1, "two": lambda: 2, "A": 1, "B": 2})
    engine.register_module("x", {"two": lambda: 22, "B": 22, "three": lambda: 3})

    assert engine.eval("[x::one(), x::two(), x::three(), x::A, x::B]") == [1, 22, 3, 1, 22]
    assert [function.name for function in engine.functions(standard=False)] == ["x::one", "x::two", "x::three"]


def test_a_function_registered_again_is_listed_once() -> None:
    engine = Engine()

    def first(value: int) -> str:
        """First."""
        return f"first {value}"

    def second(value: int | str) -> str:
        """Second."""
        return f"second {value}"

    for function in (first, first, second):
        engine.register("f", function)
    assert engine.eval('[f(1), f("a")]') == ["second 1", "second a"]
    assert [function.doc for function in engine.functions(standard=False)] == ["Second."]


def test_a_type_and_a_module_of_one_name_are_one_module() -> None:
    engine = Engine()
    engine.register_type(Level)
    engine.register_module("Level", {"count": lambda: 2})

    assert engine.eval("[Level::HIGH.value, Level::count()]") == [2, 2]


@pytest.mark.parametrize("name", ["global", "global::x", "x::global"])
def test_the_name_of_rhais_own_module_is_refused(name: str) -> None:
    engine = Engine()

    with pytest.raises(ValueError, match="'global'"):
        engine.register_module(name, {"f": lambda: 1})
    assert engine.eval("const X = 1; fn f() { global::X } f()") == 1
