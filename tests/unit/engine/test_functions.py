"""What scripts can use of Python: functions, types, modules."""

import asyncio
import collections
import contextlib
import datetime
import enum
import gc
import operator
import os
import stat
import subprocess
import sys
import threading
import time
import uuid
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import pytest

from rhai_tasks import errors
from rhai_tasks.engine import CancelToken, Engine, FnPtr, Function, Limits, Scope, Timestamp, stopped
from rhai_tasks.engine.limits import MIB

# ---- functions ----


def test_annotations_choose_between_functions_of_one_name() -> None:
    engine = Engine()
    engine.register("kind", lambda value: f"anything: {value}")

    @engine.function(name="kind")
    def of_text(value: str) -> str:
        return f"text: {value}"

    @engine.function(name="kind")
    def of_number_or_list(value: int | list[int]) -> str:
        return f"number or list: {value}"

    assert engine.eval('[kind("a"), kind(1), kind([1]), kind(#{})]') == [
        "text: a",
        "number or list: 1",
        "number or list: [1]",
        "anything: {}",
    ]


def test_a_function_for_floats_takes_integers_as_in_python() -> None:
    engine = Engine()

    @engine.function
    def half(value: float) -> float:
        return value / 2

    assert engine.eval("[half(3), half(3.0)]") == [1.5, 1.5]


def test_a_call_with_the_wrong_types_is_rhais_own_error() -> None:
    engine = Engine()

    @engine.function
    def price(item: str, count: int) -> Decimal:
        return Decimal("9.95") * count + len(item)

    with pytest.raises(errors.RhaiNameError, match=r"Function not found: price \(i64, i64\)"):
        engine.run("price(1, 2)")
    assert engine.run('price("x", 2)') == "20.90"


def test_properties_indexers_and_operators_of_rhais_types_can_be_added() -> None:
    engine = Engine()

    def word(text: str, index: int) -> str:
        return text.split()[index]

    def half(text: str) -> str:
        return text[: len(text) // 2]

    def merged(one: dict[str, Any], other: list[str]) -> dict[str, Any]:
        return one | dict.fromkeys(other)

    engine.register("word", word)
    engine.register("get$half", half)
    engine.register("+", merged)

    assert engine.eval('["a b".word(1), "abcd".half, #{x: 1} + ["y"]]') == ["b", "ab", {"x": 1, "y": None}]


def test_a_function_that_scripts_cannot_call_is_refused_when_it_is_registered() -> None:
    def keyword(*rest: object, needed: int) -> int:
        return needed

    with pytest.raises(TypeError, match="keyword: no parameter can be the map with 'needed', which has no default"):
        Engine().register("keyword", keyword)


@pytest.mark.parametrize(
    "name", ["", "a b", "a::", "::a", "a::b", "if", "this", "spawn", "eval", "_", "1a", "<lambda>", "get$", "get$a b"]
)
def test_a_name_that_no_script_can_call_is_refused(name: str) -> None:
    engine = Engine()

    with pytest.raises(ValueError, match="not a valid name"):
        engine.register(name, lambda: 1)
    if name != "a::b":
        with pytest.raises(ValueError, match="not a valid name"):
            engine.register_module(name, {"f": lambda: 1})
    for member in (len, 1):
        with pytest.raises(ValueError, match="not a valid name"):
            engine.register_module("m", {name: member})


@pytest.mark.parametrize("hint", [dict, list, str, int, float, bytes, int | datetime.date])
def test_values_that_rhai_indexes_itself_have_no_indexers_of_the_hosts(hint: type) -> None:
    def found(value: object, index: object) -> object:
        return index

    def changed(value: object, index: object, new: object) -> None: ...

    found.__annotations__["value"] = changed.__annotations__["value"] = hint
    engine = Engine()

    for name, function in (("index$get$", found), ("index$set$", changed)):
        with pytest.raises(TypeError, match=r"index\$.et\$: Rhai itself indexes"):
            engine.register(name, function)
    assert engine.eval("1") == 1


def test_other_values_can_have_indexers() -> None:
    def digit(value: Decimal, index: int) -> str:
        return str(value)[index]

    engine = Engine()
    engine.register("index$get$", digit)
    engine.register("index$set$", lambda *changed: None if changed else changed)

    assert engine.eval("x[1] = 5; x[0]", scope={"x": Decimal(12)}) == "1"


def test_no_registration_of_several_threads_is_lost() -> None:
    engine = Engine()
    names = [f"f{n}" for n in range(200)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as threads:
            list(threads.map(lambda name: engine.register(name, lambda: 1), names))
    finally:
        sys.setswitchinterval(interval)

    assert engine.eval(f"[{', '.join(f'{name}()' for name in names)}]") == [1] * len(names)
    assert {function.name for function in engine.functions(standard=False)} == set(names)


def test_a_registration_that_fails_leaves_the_engine_as_it_was() -> None:
    engine = Engine()

    with pytest.raises(TypeError):
        engine.register_module("m", {"K": object(), "f": lambda: 1})
    engine.register("after", lambda: 1)

    assert engine.eval("after()") == 1
    assert [function.name for function in engine.functions(standard=False)] == ["after"]


def test_a_builtin_that_does_not_tell_its_parameters_can_be_called() -> None:
    engine = Engine()
    engine.register("highest", max)

    assert engine.eval("highest(1, 3, 2)") == 3


def test_a_host_function_calls_a_scripts_closure_with_what_it_captured() -> None:
    engine = Engine()

    @engine.function
    def apply(function: FnPtr, items: list[int]) -> list[int]:
        return [function(item) for item in items]

    assert engine.eval("let k = 10; apply(|x| x * k, [1, 2, 3])") == [10, 20, 30]


def test_what_a_closure_throws_passes_through_the_host_function_as_it_was() -> None:
    engine = Engine()
    engine.register("apply", lambda function: function())

    with pytest.raises(errors.RhaiThrow) as caught:
        engine.run("apply(|| throw #{code: 5})")

    assert caught.value.thrown == {"code": 5}
    assert str(caught.value).startswith('Runtime error: #{"code": 5}')


def test_a_host_function_can_handle_what_a_closure_throws() -> None:
    engine = Engine()

    @engine.function
    def recover(function: FnPtr) -> object:
        try:
            return function()
        except errors.RhaiThrow as error:
            return error.thrown

    assert engine.eval("recover(|| throw 7)") == 7


def test_a_python_callable_is_a_function_pointer_for_the_script() -> None:
    assert Engine().eval("[1, 2].map(double)", scope={"double": lambda value: value * 2}) == [2, 4]


def test_an_endless_closure_in_a_host_function_heeds_the_deadline() -> None:
    engine = Engine()
    engine.register("apply", lambda function: function())

    with pytest.raises(errors.RhaiTimeout):
        engine.run("try { apply(|| loop {}) } catch { 1 }", timeout=0.1)


@pytest.mark.parametrize("way", ["sort", "sort_by", "map", "filter", "reduce", "for_each"])
def test_a_host_functions_exception_inside_a_library_function_is_not_lost(way: str) -> None:
    engine = Engine()

    @engine.function
    def fail() -> None:
        raise OSError("disk full")

    arguments = {"sort": "|a, b| fail()", "sort_by": "|a, b| fail()", "reduce": "|sum, x| fail(), 0"}
    with pytest.raises(errors.RhaiHostError) as caught:
        engine.run(f"let a = [3, 1, 2]; a.{way}({arguments.get(way, '|x| fail()')}); a")

    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("script", ["apply(|| fail())", "apply(|| apply(|| fail()))"])
def test_a_host_functions_exception_is_the_cause_also_through_a_function_that_a_host_function_calls(
    script: str,
) -> None:
    engine = Engine()
    engine.register("apply", lambda function: function())

    @engine.function
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(errors.RhaiHostError) as caught:
        engine.run(script)

    assert isinstance(caught.value.__cause__, OSError)


def test_an_exception_that_a_host_function_has_dealt_with_is_no_cause_of_a_later_error() -> None:
    engine = Engine()

    @engine.function
    def attempt(function: FnPtr) -> None:
        with contextlib.suppress(errors.RhaiError):
            function()

    @engine.function
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(errors.RhaiThrow) as caught:
        engine.run('attempt(|| fail()); throw "disk full"')

    assert caught.value.__cause__ is None


# ---- types ----


@dataclass
class Point:
    """A point of the plane."""

    x: int
    y: int = 0

    unit: ClassVar[str] = "mm"

    def moved(self, dx: int, dy: int = 0) -> "Point":
        return Point(self.x + dx, self.y + dy)

    @property
    def size(self) -> int:
        return abs(self.x) + abs(self.y)

    @classmethod
    def origin(cls) -> "Point":
        return cls(0, 0)

    def __add__(self, other: object) -> "Point":
        return Point(self.x + other.x, self.y + other.y) if isinstance(other, Point) else NotImplemented

    def __mul__(self, factor: int) -> "Point":
        return Point(self.x * factor, self.y * factor)

    def __rmul__(self, factor: int) -> "Point":
        return self * factor

    def __neg__(self) -> "Point":
        return Point(-self.x, -self.y)

    def __lt__(self, other: "Point") -> bool:
        return self.size < other.size

    def __iter__(self) -> Iterator[int]:
        return iter((self.x, self.y))

    def __len__(self) -> int:
        return 2

    def __contains__(self, value: object) -> bool:
        return value in (self.x, self.y)

    def __getitem__(self, index: int) -> int:
        return (self.x, self.y)[index]

    def __setitem__(self, index: int, value: int) -> None:
        if index == 0:
            self.x = value
        else:
            self.y = value

    def __str__(self) -> str:
        return f"({self.x}|{self.y})"


class Account:
    owner = "me"
    secret = "sesame"


@pytest.fixture
def points() -> Engine:
    engine = Engine()
    engine.register_type(Point)
    return engine


@pytest.mark.parametrize(
    ("script", "value"),
    [
        ("Point(1, 2)", Point(1, 2)),
        ("Point(1)", Point(1, 0)),
        ("type_of(Point(1))", "Point"),
        ("Point(1, 2).y", 2),
        ("let p = Point(1, 2); p.x = 7; p", Point(7, 2)),
        ("let p = Point(1, 2); p.x += 7; p.x", 8),
        ("Point(3, -4).size", 7),
        ("Point(1, 2).unit", "mm"),
        ("Point(1, 2).moved(1)", Point(2, 2)),
        ("Point(1, 2).moved(1, 1)", Point(2, 3)),
        ("Point(1, 2).origin()", Point(0, 0)),
        ("Point(1, 2) + Point(3, 4)", Point(4, 6)),
        ("Point(1, 2) * 3", Point(3, 6)),
        ("3 * Point(1, 2)", Point(3, 6)),
        ("-Point(1, 2)", Point(-1, -2)),
        ("Point(1, 2) == Point(1, 2)", True),
        ("Point(1, 2) != Point(1, 2)", False),
        ("Point(1, 2) == 5", False),
        ("Point(1) < Point(2)", True),
        ("let sum = 0; for v in Point(1, 2) { sum += v } sum", 3),
        ("Point(1, 2).len()", 2),
        ("2 in Point(1, 2)", True),
        ("Point(1, 2)[1]", 2),
        ("let p = Point(1, 2); p[1] = 9; p", Point(1, 9)),
        ('`at ${Point(1, 2)}` + ""', "at (1|2)"),
        ("Point(1, 2).to_string()", "(1|2)"),
        ("[Point(1, 2)].contains(Point(1, 2))", True),
        ("#{p: Point(1, 2)}.p.x", 1),
    ],
)
def test_a_python_class_is_a_type_of_the_script(points: Engine, script: str, value: object) -> None:
    assert points.eval(script) == value


def test_an_object_is_the_same_one_on_both_sides(points: Engine) -> None:
    point = Point(1, 2)

    assert points.eval("let q = p; q.x = 5; q", scope={"p": point}) is point
    assert point.x == 5


def test_the_text_of_an_object_is_its_str(points: Engine) -> None:
    printed: list[str] = []

    assert points.run("print(Point(1, 2)); print([Point(1, 2)]); Point(3, 4)", print=printed.append) == "(3|4)"
    assert printed == ["(1|2)", "[Point(x=1, y=2)]"]


@pytest.mark.parametrize(
    "script",
    [
        *("if p { 1 }", "while p {}", "[1][p]", "#{}[p]", '"ab"[p]', "1[p]", "[p, p].sort()", "throw p", "throw [p]"),
        *("p.call()", "p.nope()", "p.nope", "p.nope = 1", "p + 1", "p()", "-p", "for i in p {}", "import p as m;"),
        *("#{p: p}.p.nope", "switch p { _ => p.nope }", "[1].map(|x| x + p)", "let n = 1; n += p", "range(p, 1)"),
    ],
)
def test_no_error_names_the_rust_type_of_an_object(script: str) -> None:
    engine = Engine()
    engine.register_type(type("Opaque", (), {}), name="Thing")
    thing = engine.eval("Thing()")

    with pytest.raises(errors.RhaiError) as caught:
        engine.eval(script, scope={"p": thing})

    assert "rhai_tasks_engine" not in str(caught.value) + str(caught.value.debug_text)


def test_the_text_of_a_result_names_the_classes_of_objects_in_it(points: Engine) -> None:
    assert points.run("[Point(1, 2), #{p: [Point(1)]}]") == '[Point, #{"p": [Point]}]'


def test_what_a_class_does_not_have_is_rhais_own_error() -> None:
    engine = Engine()
    engine.register_type(Account)

    with pytest.raises(
        errors.RhaiNameError, match="Unknown property 'z' - a getter is not registered for type 'Account'"
    ):
        engine.run("Account().z")
    with pytest.raises(errors.RhaiNameError, match=r"Function not found: fly \(Account\)"):
        engine.run("Account().fly()")


def test_an_operator_that_refuses_its_operand_is_a_host_error(points: Engine) -> None:
    with pytest.raises(errors.RhaiHostError, match="Point and int do not support +"):
        points.run("Point(1) + 1")


def test_members_that_begin_with_an_underscore_are_not_for_scripts(points: Engine) -> None:
    for hidden in ("__class__", "__dict__", "_x", "__init__()"):
        with pytest.raises(errors.RhaiError):
            points.run(f"Point(1).{hidden}")


def test_only_the_members_named_are_seen() -> None:
    engine = Engine()
    engine.register_type(Account, name="Konto", members=["owner"])

    assert engine.eval("Konto().owner") == "me"
    with pytest.raises(errors.RhaiNameError, match="secret"):
        engine.eval("Konto().secret")


def test_a_class_decorated_is_registered_and_functions_can_ask_for_it() -> None:
    engine = Engine()

    @engine.register_type
    class Box:
        def __init__(self, content: str) -> None:
            self.content = content

    def opened(box: Box) -> str:
        return box.content

    def opened_otherwise(text: str) -> str:
        return f"just {text}"

    opened.__annotations__["box"] = Box  # the class is local: its name alone says nothing
    engine.register("opened", opened)
    engine.register("opened", opened_otherwise)

    assert engine.eval('[opened(Box("x")), opened("y")]') == ["x", "just y"]


class Text(str):
    __slots__ = ()


class MutableText(collections.UserString): ...


@pytest.mark.parametrize("cls", [Text, MutableText])
@pytest.mark.parametrize("attack", ["t.format(p)", "t.format_map(#{p: p})"])
def test_a_text_of_ones_own_reaches_nothing_through_its_format(points: Engine, cls: type, attack: str) -> None:
    points.register_type(cls)

    with pytest.raises(errors.RhaiNameError):
        points.run(attack, scope={"t": cls("{0.__init__.__globals__}"), "p": Point(1)})
    assert points.eval("t.upper().to_string()", scope={"t": cls("a")}) == "A"


def test_a_format_method_of_ones_own_is_seen() -> None:
    class Money:
        def format(self) -> str:
            return "5 EUR"

    engine = Engine()
    engine.register_type(Money)

    assert engine.eval("Money().format()") == "5 EUR"


def test_a_registered_class_is_passed_as_a_pointer_to_its_constructor() -> None:
    class Size:
        area: int

        def __init__(self, width: int, height: int = 1) -> None:
            self.area = width * height

    class Shade(enum.Enum):
        DARK = 1

    engine = Engine()
    engine.register_type(Size)
    engine.register_type(Shade, name="Tone")
    engine.register("kinds", lambda: {"size": Size})

    assert engine.eval("make.call(2, 3).area", scope={"make": Size}) == 6
    assert engine.eval("fn all(of) { [4, 5].map(of) } all(MAKE).map(|size| size.area)", constants={"MAKE": Size}) == [
        4,
        5,
    ]
    assert engine.eval("kinds().size.call(7).area") == 7
    assert engine.eval("made[0].call(1)", scope={"made": [Shade]}) is Shade.DARK
    with pytest.raises(errors.RhaiHostError, match="Function not found: Size"):
        engine.eval('make.call("2")', scope={"make": Size})
    with pytest.raises(TypeError, match=r"made\[0\]: the class Path cannot be passed to a script"):
        engine.eval("1", scope={"made": [Path]})


def test_a_class_inside_a_class_is_called_with_all_its_arguments() -> None:
    class Outer:
        class Inner:
            def __init__(self, value: int) -> None:
                self.value = value

    engine = Engine()
    engine.register_type(Outer)
    engine.register_type(Outer.Inner, members=["value"])

    assert engine.eval("Outer().Inner(5).value") == 5


def test_operators_of_a_metaclass_are_none_of_the_objects() -> None:
    engine = Engine()
    engine.register_type(Account)

    with pytest.raises(errors.RhaiNameError):
        engine.run("Account() | Account()")


def test_an_unregistered_object_is_an_error_that_says_what_to_do() -> None:
    class Unknown: ...

    with pytest.raises(TypeError, match=r"Unknown cannot be passed to a script; Engine\.register_type"):
        Engine().eval("x", scope={"x": Unknown()})


def test_an_exception_in_an_objects_iteration_ends_the_loop() -> None:
    class Broken:
        def __iter__(self) -> Iterator[int]:
            yield 1
            raise OSError("gone")

    engine = Engine()
    engine.register_type(Broken)

    with pytest.raises(errors.RhaiHostError, match="gone"):
        engine.run("let sum = 0; for x in Broken() { sum += x }")


@pytest.mark.parametrize(
    ("value", "script", "result"),
    [
        (datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC), "x.year * 100 + x.minute", 202604),
        (datetime.date(2026, 1, 2), "x.isoformat()", "2026-01-02"),
        (datetime.date(2026, 1, 2), "x < y", False),
        (datetime.time(3, 4), "x.hour", 3),
        (datetime.timedelta(days=1, seconds=2), "x.total_seconds()", 86402.0),
        (uuid.UUID(int=5), "x.hex", f"{5:032x}"),
        (PurePosixPath("/a/b.txt"), "x.stem", "b"),
    ],
)
def test_values_of_the_standard_library_pass_as_they_are(value: object, script: str, result: object) -> None:
    scope = {"x": value, "y": datetime.date(2025, 1, 1)}

    assert Engine().eval("x", scope=scope) is value
    assert Engine().eval(script, scope=scope) == result


def test_times_are_added_and_subtracted_and_paths_compared() -> None:
    day, path = datetime.date(2026, 1, 2), Path("/a")

    assert Engine().eval("x + (x - y)", scope={"x": day, "y": datetime.date(2026, 1, 1)}) == datetime.date(2026, 1, 3)
    assert Engine().eval("[x == y, x < y]", scope={"x": path, "y": path / "b"}) == [False, True]


def test_a_path_does_not_open_files() -> None:
    for attempt in ('x.open("r")', "x.read_text()", 'x / "passwd"', '"/etc" / x', "x.iterdir()"):
        with pytest.raises(errors.RhaiNameError):
            Engine().run(attempt, scope={"x": Path("/etc")})


# ---- values of the border ----


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Plain:
    name: str
    inner: Pair


class Frozen(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return {"a": 1}[key]

    def __iter__(self) -> Iterator[str]:
        return iter("a")

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("value", "back"),
    [
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (frozenset({3}), [3]),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Pair(1, 2), {"left": 1, "right": 2}),
        (Plain("n", Pair(1, 2)), {"name": "n", "inner": {"left": 1, "right": 2}}),
        (Frozen(), {"a": 1}),
        (range(2, 5), range(2, 5)),
        (Decimal("1.50"), Decimal("1.50")),
    ],
)
def test_a_python_value_becomes_the_nearest_of_rhais(value: object, back: object) -> None:
    result = Engine().eval("x", scope={"x": value})

    assert result == back
    assert type(result) is type(back)


def test_an_integer_that_is_not_64_bits_wide_is_an_int() -> None:
    assert Engine().eval("let bytes = []; for byte in blob(2, 7) { bytes += byte } bytes") == [7, 7]


def test_an_inclusive_range_is_a_range_that_ends_one_later() -> None:
    assert Engine().eval("2..=5") == range(2, 6)


def test_a_timestamp_tells_how_long_ago_it_was() -> None:
    moment = Engine().eval("timestamp()")

    assert isinstance(moment, Timestamp)
    assert 0 <= moment.elapsed < 60
    assert Engine().eval("then.elapsed >= 0.0", scope={"then": moment}) is True


@pytest.mark.parametrize(
    ("value", "message"),
    [(range(0, 10, 2), "step 1"), (Decimal("1e40"), r"decimal 1E\+40"), ("\ud800", "surrogates not allowed")],
)
def test_what_rhai_cannot_hold_is_an_error(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Engine().eval("x", scope={"x": value})


def test_a_value_too_deep_for_python_is_an_error() -> None:
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        Engine().eval("let a = []; for i in 0..150 { a = [a]; } a")


# ---- modules ----


def test_a_module_of_python_functions_and_constants() -> None:
    engine = Engine()
    engine.register_module("shop", {"price": lambda item, count=1: len(item) * count, "VAT": 19})
    engine.register_module("shop::stock", {"left": lambda: 3})

    assert engine.eval('[shop::price("abc"), shop::price("abc", 2), shop::VAT, shop::stock::left()]') == [3, 6, 19, 3]


def test_functions_of_the_library_are_listed_in_the_same_order_by_each_process() -> None:
    command = "from rhai_tasks.engine import Engine; print(*Engine().functions(), sep='\\n')"
    listed = {subprocess.check_output([sys.executable, "-c", command]) for _ in range(3)}

    assert len(listed) == 1


def test_a_modules_function_that_needs_too_many_arguments_is_refused() -> None:
    def add(a: int, b: int, c: int, d: int, e: int, f: int, g: int, h: int, i: int) -> int:  # noqa: PLR0917
        return a + b + c + d + e + f + g + h + i

    with pytest.raises(TypeError, match="m::add: functions of modules take at most 8 arguments"):
        Engine().register_module("m", {"add": add})


def test_an_exception_of_a_modules_function_is_the_cause() -> None:
    engine = Engine()
    engine.register_module("shop", {"fail": lambda: operator.truediv(1, 0)})

    with pytest.raises(errors.RhaiHostError, match="division by zero") as caught:
        engine.run("shop::fail()")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    scripts = tmp_path / "scripts"
    (scripts / "deep").mkdir(parents=True)
    (tmp_path / "secret.rhai").write_text("export const KEY = 1;")
    (scripts / "tools.rhai").write_text("fn double(x) { x * 2 } export const K = 5;")
    (scripts / "deep" / "er.rhai").write_text('import "tools" as t; fn four(x) { t::double(t::double(x)) }')
    (scripts / "endless.rhai").write_text('import "endless" as e;')
    (scripts / "ping.rhai").write_text('import "pong" as p;')
    (scripts / "pong.rhai").write_text('import "ping" as p;')
    (scripts / "bad.rhai").write_text("fn (")
    (scripts / "late.rhai").write_text("\n\nthrow 5;")
    (scripts / "linked.rhai").symlink_to(tmp_path / "secret.rhai")
    return scripts


def test_scripts_import_modules_of_a_folder(folder: Path) -> None:
    engine = Engine(modules=folder)

    assert engine.eval('import "tools" as t; t::double(t::K)') == 10
    assert engine.eval('import "deep/er" as d; d::four(1)') == 4


@pytest.mark.parametrize(
    "path", ["../secret", "deep/../../secret", "linked", "{absolute}", "nosuch", "", ".", "deep", "a\\x00b"]
)
def test_no_import_leads_out_of_the_folder(folder: Path, path: str) -> None:
    path = path.format(absolute=folder.parent / "secret")

    with pytest.raises(errors.RhaiModuleError, match="Module not found"):
        Engine(modules=folder).run(f'import "{path}" as m;')


@pytest.mark.parametrize("path", ["./tools", "deep//er", "deep/./er", "deep/../tools", "x" * 5000, "round"])
def test_a_module_has_one_name_and_none_that_no_file_has(folder: Path, path: str) -> None:
    (folder / "round.rhai").symlink_to(folder / "round.rhai")

    with pytest.raises(errors.RhaiModuleError, match="Module not found") as caught:
        Engine(modules=folder).run(f'import "{path}" as m;')
    assert str(folder) not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device", "folder", "broken link", "nobody's"])
def test_a_module_that_is_no_file_is_not_there(folder: Path, kind: str) -> None:
    path = folder / "odd.rhai"
    match kind:
        case "pipe":
            os.mkfifo(path)  # an open would wait for a writer
        case "device":
            try:
                os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
            except PermissionError:
                pytest.skip("only root makes devices")
        case "link to a device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "broken link":
            path.symlink_to(folder / "nosuch")
        case "nobody's":
            if os.geteuid() == 0:
                pytest.skip("root may read everything")
            path.touch(mode=0)

    with pytest.raises(errors.RhaiModuleError, match="Module not found: odd"):
        Engine(modules=folder, limits=Limits(timeout=5.0)).run('import "odd" as m;')


_IMPORTERS = ['import "big" as m;', 'try { import "big" as m; m::f() } catch (e) { `${e}` }', 'import "other" as o;']


@pytest.mark.parametrize("size", [16 * MIB, 1 << 40])
@pytest.mark.parametrize("importer", _IMPORTERS)
def test_a_module_file_larger_than_the_memory_limit_is_not_read(folder: Path, size: int, importer: str) -> None:
    with (folder / "big.rhai").open("w") as file:
        file.truncate(size)  # takes no room on the disk
    (folder / "other.rhai").write_text('import "big" as m;')
    engine = Engine(modules=folder, limits=Limits(max_memory=8 * MIB, timeout=5.0))

    with pytest.raises(errors.RhaiMemoryLimit) as caught:
        engine.run(importer)

    assert f"memory limit of 8 MiB exceeded by module 'big' of {size} bytes (line 1, position" in str(caught.value)
    assert str(folder) not in str(caught.value)
    with pytest.raises(errors.RhaiMemoryLimit) as caught:
        engine.run('let s = "x"; loop { s += s; }')
    assert "by module" not in str(caught.value)


def test_a_module_file_has_the_memory_that_the_script_has_left(folder: Path) -> None:
    (folder / "big.rhai").write_text("//" + "x" * 3 * MIB)
    engine = Engine(modules=folder, limits=Limits(max_memory=8 * MIB))

    engine.run('import "big" as m;')
    with pytest.raises(errors.RhaiMemoryLimit, match="by module 'big' of"):
        Engine(modules=folder, limits=Limits(max_memory=8 * MIB)).run('let b = blob(6000000); import "big" as m;')


def test_a_module_file_that_grows_is_not_followed(folder: Path) -> None:
    path, has_ended = folder / "log.rhai", threading.Event()

    def write() -> None:
        with path.open("a") as file:
            while not has_ended.is_set() and path.stat().st_size < 64 * MIB:
                file.write("// more\n" * 100)
                file.flush()

    seen: set[str] = set()
    end = time.monotonic() + 30
    while not any("module 'log' grew while it was read" in text for text in seen):
        assert time.monotonic() < end, seen
        path.write_text("// some\n" * 200_000)
        has_ended.clear()
        writer = threading.Thread(target=write)
        writer.start()
        try:
            Engine(modules=folder, limits=Limits(timeout=5.0)).run('import "log" as m;')
        except errors.RhaiError as error:
            seen.add(str(error))
        finally:
            has_ended.set()
            writer.join()


def test_a_module_that_is_no_text_is_an_error_that_does_not_say_where_it_lies(folder: Path) -> None:
    (folder / "latin.rhai").write_bytes(b'"\xe4"')

    with pytest.raises(errors.RhaiError, match=r"module 'latin' is not UTF-8 \(line 1, position 8\)") as caught:
        Engine(modules=folder).run('import "latin" as m;')
    assert str(folder) not in str(caught.value)


@pytest.mark.parametrize("path", ["endless", "ping"])
def test_modules_that_import_themselves_are_an_error(folder: Path, path: str) -> None:
    with pytest.raises(errors.RhaiRuntimeError, match="imports itself"):
        Engine(modules=folder).run(f'import "{path}" as m;')


def test_a_chain_of_modules_is_bounded() -> None:
    engine = Engine(modules=lambda path: f'import "{path}x" as m;')

    with pytest.raises(errors.RhaiRuntimeError, match="more than 16 modules import each other in a row"):
        engine.run('import "x" as m;')


def test_a_module_s_constants_take_no_memory_while_it_compiles() -> None:
    doublings = [f"const A{n + 1} = [A{n}, A{n}];" for n in range(40)]
    engine = Engine(modules={"m": "\n".join(["const A0 = [1];", *doublings])})

    with pytest.raises(errors.RhaiMemoryLimit):
        engine.run('import "m" as m;')


def test_an_error_in_a_module_names_it(folder: Path) -> None:
    engine = Engine(modules=folder)

    with pytest.raises(errors.RhaiSyntaxError, match="in module 'bad'|module 'bad'"):
        engine.run('import "bad" as m;')
    with pytest.raises(errors.RhaiThrow) as caught:
        engine.run('import "late" as m;')
    assert (caught.value.line, caught.value.thrown) == (3, 5)
    assert caught.value.frames[-1][0] == "late"


def test_modules_come_from_a_mapping_or_a_function() -> None:
    assert Engine(modules={"m": "fn f() { 1 }"}).eval('import "m" as m; m::f()') == 1
    assert Engine(modules=lambda path: f'fn f() {{ "{path}" }}').eval('import "any" as m; m::f()') == "any"


def test_a_modules_code_heeds_the_limits() -> None:
    engine = Engine(modules={"m": "fn spin() { loop {} } loop {}"}, limits=Limits(timeout=0.1))

    with pytest.raises(errors.RhaiTimeout):
        engine.run('import "m" as m;')


def test_there_is_nothing_to_import_unless_the_host_gives_it() -> None:
    with pytest.raises(errors.RhaiModuleError):
        Engine().run('import "m" as m;')


# ---- coroutines ----


def test_a_coroutine_host_function_runs_on_the_callers_loop() -> None:
    engine = Engine()
    loops: list[object] = []

    @engine.function
    async def fetch(value: int) -> int:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0.001)
        return value * 2

    async def main() -> list[Any]:
        results = await asyncio.gather(*(engine.eval_async(f"fetch({n}) + 1") for n in range(5)))
        assert set(loops) == {asyncio.get_running_loop()}
        return results

    assert asyncio.run(main()) == [1, 3, 5, 7, 9]


def test_coroutine_host_functions_of_scripts_that_no_loop_awaits_share_one_loop() -> None:
    engine = Engine()
    seen: ContextVar[str] = ContextVar("seen")
    loops: list[asyncio.AbstractEventLoop] = []

    @engine.function
    async def fetch(value: int) -> str:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0.01)
        return f"{seen.get()} {value}"

    def run(number: int) -> str:
        seen.set(f"thread {number}")
        return engine.run(f"fetch({number})")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(run, range(8))) == [f"thread {number} {number}" for number in range(8)]
    assert len(set(loops)) == 1


@pytest.mark.parametrize("stop", ["deadline", "cancellation"])
def test_a_script_that_no_loop_awaits_is_stopped_with_its_coroutine(stop: str) -> None:
    engine = Engine()
    ended, token = threading.Event(), CancelToken()

    @engine.function
    async def wait() -> None:
        if stop == "cancellation":
            token.cancel()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    with pytest.raises(errors.RhaiTimeout if stop == "deadline" else errors.RhaiCancelled):
        engine.run("wait()", cancel=token, timeout=0.1 if stop == "deadline" else None)
    assert ended.wait(5)


def test_a_fork_has_a_loop_of_its_own() -> None:
    """In a process of its own: this one has threads."""
    program = """
import os
from rhai_tasks import Engine
engine = Engine()
@engine.function
async def fetch(): return 1
assert engine.eval("fetch()") == 1
child = os.fork()
if not child:
    os._exit(engine.eval("fetch() + 6"))
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)

    assert done.stdout == "7\n"


def test_a_coroutine_of_a_plain_function_is_an_error_that_says_how_to_write_it() -> None:
    async def fetch() -> int:
        return 1

    engine = Engine()
    engine.register("fetch", lambda *_: fetch())

    with pytest.raises(errors.RhaiHostError, match="defined with 'async def'"):
        engine.run("fetch()")


@pytest.mark.parametrize("method", ["__str__", "__repr__", "__len__", "__iter__"])
def test_a_class_with_a_coroutine_where_python_does_not_wait_is_refused(method: str) -> None:
    async def wait(self: object) -> None:
        """Whatever."""

    with pytest.raises(TypeError, match=f"Bad.{method} is a coroutine function"):
        Engine().register_type(type("Bad", (), {method: wait}))


@pytest.mark.parametrize("name", ["my type", "1st", "let", "naïve"])
def test_a_class_is_known_by_a_name_that_scripts_can_write(name: str) -> None:
    class Known:
        pass

    with pytest.raises(ValueError, match="is not a valid name in scripts"):
        Engine().register_type(Known, name=name)


def test_a_coroutine_that_blocks_its_loop_with_a_script_that_needs_it_is_an_error() -> None:
    engine = Engine()

    @engine.function
    async def inner() -> int:
        return 1

    @engine.function
    async def outer() -> object:
        return engine.eval("inner()", timeout=5)

    with pytest.raises(errors.RhaiHostError, match="inner is a coroutine, and this thread's event loop waits"):
        asyncio.run(engine.eval_async("outer()", timeout=10))


class Server:
    async def fetch(self, value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    @staticmethod
    async def ping() -> str:
        return "pong"

    @property
    async def state(self) -> str:
        return "up"

    async def __getitem__(self, index: int) -> int:
        return index

    async def __add__(self, other: int) -> int:
        return other

    async def __call__(self, value: int) -> int:
        return value + 1


class Proxy:
    server = Server()


@pytest.mark.filterwarnings("error")
def test_coroutine_methods_and_objects_that_are_called_run_on_the_callers_loop() -> None:
    engine = Engine()
    engine.register_type(Server)
    engine.register_type(Proxy)
    engine.register("serve", Server())
    engine.register_module("m", {"serve": Server()})
    script = "let s = Server(); [s.fetch(4), s.ping(), s.state, s[3], s + 7, serve(1), m::serve(2), Proxy().server(3)]"

    assert asyncio.run(engine.eval_async(script)) == [8, "pong", "up", 3, 7, 2, 3, 4]
    assert engine.eval(script) == [8, "pong", "up", 3, 7, 2, 3, 4]


def test_the_deadline_ends_the_wait_for_a_coroutine_and_cancels_it() -> None:
    engine = Engine()
    ended: list[str] = []

    @engine.function
    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        with pytest.raises(errors.RhaiTimeout):
            await engine.eval_async("wait()", timeout=0.1)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert ended == ["cancelled"]


# ---- introspection ----


def test_functions_are_listed_with_their_types_and_documentation() -> None:
    engine = Engine()

    @engine.function
    def price(item: str, count: int = 1) -> Decimal:
        """Price of some items."""
        return Decimal(len(item) * count)

    engine.register_module("shop", {"left": len})

    own = engine.functions(standard=False)
    assert [str(function) for function in own] == [
        "price(item: string | char, count: i64) -> decimal",
        "shop::left(obj)",
    ]
    assert own[0].doc == "Price of some items."
    standard = [function for function in engine.functions() if function.name == "to_upper"]
    assert standard
    assert "upper-case" in standard[0].doc


def test_types_are_listed_by_their_constructor(points: Engine) -> None:
    assert any(
        isinstance(function, Function) and function.name == "Point" for function in points.functions(standard=False)
    )


def test_a_function_registered_while_scripts_run_does_not_disturb_them() -> None:
    engine = Engine()
    done: list[Callable[..., Any]] = []

    @engine.function
    def grow() -> int:
        engine.register(f"more_{len(done)}", lambda: 1)
        done.append(grow)
        return len(done)

    assert engine.eval("grow() + grow()") == 3
    assert engine.eval("more_0() + more_1()") == 2


def test_a_slow_host_function_may_look_whether_the_script_was_stopped() -> None:
    engine = Engine()
    calls = 0

    @engine.function
    def slow() -> None:
        nonlocal calls
        calls += 1
        while not stopped():
            time.sleep(0.01)

    with pytest.raises(errors.RhaiTimeout):
        engine.run("loop { slow() }", timeout=0.12)
    assert calls == 1
    assert not stopped()


def test_operations_of_what_a_host_function_evaluates_count() -> None:
    engine = Engine(limits=Limits(max_operations=10_000))
    inner = Engine(limits=Limits(max_operations=1_000_000))
    engine.register("run", inner.eval)

    assert engine.eval('run("1 + 1")') == 2
    with pytest.raises(errors.RhaiOperationLimit):
        engine.eval('run("loop {}")')
    with pytest.raises(errors.RhaiOperationLimit):
        engine.eval('loop { try { run("let i = 0; while i < 1000 { i += 1 }") } catch { } }')
    assert engine.eval('run("let i = 0; while i < 1000 { i += 1 } i")', details=True).operations > 1000
    assert inner.eval("let i = 0; while i < 100_000 { i += 1 } i") == 100_000


# ---- garbage ----


class Node:
    """Refers to what holds it."""

    owner: object = None


@pytest.mark.parametrize("value", ["node", "[node, #{a: node}]", 'Fn("f").curry(node)'])
def test_a_scope_that_its_own_values_refer_to_is_collected(value: str) -> None:
    engine, scope, node = Engine(), Scope(), Node()
    engine.register_type(Node)
    node.owner = scope
    scope["node"] = node
    engine.run(f"let held = {value}; let again = held;", scope=scope)
    known = weakref.ref(node)

    del scope, node
    gc.collect()

    assert known() is None


@pytest.mark.parametrize("module", ["m", "m::n::o"])
def test_an_engine_that_its_modules_constants_refer_to_is_collected(module: str) -> None:
    engine, node = Engine(), Node()
    engine.register_type(Node)
    node.owner = engine
    engine.register_module(module, {"node": node, "nodes": [node]})
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(engine.run, [f"{module}::node", f"{module}::nodes"] * 4))
    known = weakref.ref(node)

    del engine, node
    gc.collect()

    assert known() is None


def test_what_a_script_still_holds_is_not_collected() -> None:
    engine, node, scope = Engine(), Node(), Scope()
    engine.register_type(Node)
    node.owner = engine
    engine.register_module("m", {"node": node})
    engine.run("let kept = m::node; let other = kept;", scope=scope)

    del engine, node
    gc.collect()

    assert isinstance(scope["kept"].owner, Engine)
    assert scope["other"] is scope["kept"]
