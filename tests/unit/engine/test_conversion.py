"""Values of an application's own classes go into scripts and come back."""

import array
import collections
import enum
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Self

import pytest

from rhai_tasks import Engine, Scope
from rhai_tasks.errors import RhaiHostError, RhaiNameError


class Money:
    def __init__(self, amount: int, currency: str) -> None:
        self.amount, self.currency = amount, currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Refund(Money):
    pass


class Level(enum.Enum):
    LOW = "low"
    HIGH = "high"


@dataclass
class Line:
    price: Money
    count: int = 1
    level: Level = Level.LOW
    parts: "list[Line]" = field(default_factory=list)
    tags: frozenset[str] = frozenset()
    size: tuple[int, float] = (0, 0)
    notes: Mapping[str, Decimal | None] = field(default_factory=dict)


@dataclass
class Order:
    lines: list[Line]
    note: Annotated[str | None, "for the parcel"] = None

    def __post_init__(self) -> None:
        if not self.lines:
            raise ValueError("no lines")


@pytest.fixture
def engine() -> Engine:
    engine = Engine()
    engine.convert(
        Money,
        to=lambda money: {"amount": money.amount, "currency": money.currency},
        from_=lambda value: Money(value["amount"], value["currency"]),
    )
    return engine


EURO = Money(5, "EUR")


class Item:
    @property
    def price(self) -> Money:
        return EURO


@pytest.mark.parametrize(
    "give",
    [
        lambda engine: engine.eval("x", scope={"x": EURO}),
        lambda engine: engine.eval("x", scope={"x": Refund(5, "EUR")}),
        lambda engine: engine.eval("fn price() { X } price()", constants={"X": EURO}),
        lambda engine: engine.eval("x[0].price", scope={"x": ({"price": EURO},)}),
        lambda engine: engine.call("fn price(x) { x }", "price", EURO),
        lambda engine: engine.register("price", lambda: EURO) or engine.eval("price()"),
        lambda engine: engine.register_module("shop", {"price": EURO}) or engine.eval("shop::price"),
        lambda engine: engine.register("price", lambda pick: pick(EURO)) or engine.eval("price(|x| x)"),
        lambda engine: engine.register_type(Item) and engine.eval("Item().price"),
    ],
    ids=["scope", "subclass", "constant", "nested", "argument", "result", "module", "closure", "property"],
)
def test_a_hook_converts_a_value_wherever_it_enters(engine: Engine, give: Callable[[Engine], Any]) -> None:
    assert give(engine) == {"amount": 5, "currency": "EUR"}


def test_hooks_are_those_of_one_engine(engine: Engine) -> None:
    other = Engine()
    other.convert(Money, to=lambda money: money.currency)
    engine.register("other", lambda: other.eval("x", scope={"x": EURO}))

    assert engine.eval("[x, other(), x]", scope={"x": EURO})[1:] == ["EUR", {"amount": 5, "currency": "EUR"}]
    with pytest.raises(TypeError, match=r"x: an object of Money cannot be passed"):
        Scope(x=EURO)


def test_a_hook_may_return_what_another_one_converts_but_not_for_ever(engine: Engine) -> None:
    engine.convert(Item, to=lambda item: [item.price])
    assert engine.eval("x[0].amount", scope={"x": Item()}) == 5

    engine.convert(Item, to=lambda item: item)
    with pytest.raises(ValueError, match="deeper than 100 levels"):
        engine.eval("x", scope={"x": Item()})


def test_a_hook_replaces_what_the_engine_knows_of_a_class() -> None:
    engine = Engine()
    engine.convert(datetime, to=datetime.isoformat, from_=datetime.fromisoformat)

    @engine.function
    def year(when: datetime, others: Sequence[datetime | None] = ()) -> list[int]:
        return [when.year, *(other.year for other in others if other)]

    assert engine.eval("x", scope={"x": datetime(2024, 2, 29)}) == "2024-02-29T00:00:00"
    assert engine.eval('year("2024-02-29", ["2025-01-01", ()])') == [2024, 2025]


def test_parameters_with_a_dataclass_or_a_hook_get_instances(engine: Engine) -> None:
    taken: list[Any] = []

    @engine.function
    def take(count: int, order: Order | None, *lines: Line) -> None:
        taken.append((count, order, *lines))

    engine.eval('take(1, #{lines: [#{price: #{amount: 5, currency: "EUR"}, level: "high"}]}, #{price: x, count: 2})',
                scope={"x": EURO})  # fmt: skip
    engine.eval("take(2, ())")

    assert taken == [(1, Order([Line(EURO, level=Level.HIGH)]), Line(EURO, 2)), (2, None)]


def test_methods_constructors_modules_and_coroutines_get_instances_too(engine: Engine) -> None:
    @dataclass
    class Cart:
        total: Money

        def holds(self, money: Money) -> bool:
            return self.total == money

    async def amount(money: Money) -> int:
        return money.amount

    engine.register_type(Cart)
    engine.register_module("shop", {"amount": amount})
    engine.register("amount", amount)

    assert engine.eval("Cart(x).holds(x) && shop::amount(x) == 5 && amount(x) == 5", scope={"x": EURO})


def test_types_still_choose_between_functions(engine: Engine) -> None:
    @engine.function(name="show")
    def show_lines(lines: list[Money]) -> str:
        return f"{len(lines)} prices"

    @engine.function(name="show")
    def show_number(number: int) -> str:
        return f"number {number}"

    assert engine.eval("[show([x]), show(1)]", scope={"x": EURO}) == ["1 prices", "number 1"]
    with pytest.raises(RhaiNameError, match="show"):
        engine.eval('show("text")')


LINE = '#{price: #{amount: 5, currency: "EUR"}'


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("1", "order: expected a map of the fields of Order, not int"),
        ("#{}", "order.lines: this field of Order is missing"),
        ("#{lines: [], when: 1}", "order.when: Order has no such field"),
        ("#{lines: []}", "order: no lines"),
        ("#{lines: 1}", "order.lines: expected an array, not int"),
        ("#{lines: [1]}", "order.lines[0]: expected a map of the fields of Line, not int"),
        ("#{lines: [], note: 1}", r"order.note: expected str, not int"),
        ("#{lines: [#{price: #{amount: 1}}]}", "order.lines[0].price: KeyError: 'currency'"),
        (f"#{{lines: [{LINE}, count: true}}]}}", "order.lines[0].count: expected int, not bool"),
        (f'#{{lines: [{LINE}, level: "no"}}]}}', "order.lines[0].level: 'no' is not a valid Level"),
        (f"#{{lines: [{LINE}, parts: [#{{}}]}}]}}", "order.lines[0].parts[0].price: this field of Line is missing"),
        (f"#{{lines: [{LINE}, tags: [1]}}]}}", "order.lines[0].tags[0]: expected str, not int"),
        (f"#{{lines: [{LINE}, size: [1]}}]}}", "order.lines[0].size: expected an array of 2, not of 1"),
        (f'#{{lines: [{LINE}, size: [1, ""]}}]}}', "order.lines[0].size[1]: expected float, not str"),
        (f"#{{lines: [{LINE}, notes: #{{a: 1}}}}]}}", "order.lines[0].notes.a: expected Decimal, not int"),
    ],
)
def test_an_error_names_the_place_of_a_wrong_part(engine: Engine, order: str, reason: str) -> None:
    @engine.function
    def take(order: Order) -> None: ...

    with pytest.raises(RhaiHostError) as error:
        engine.eval(f"take({order})")

    assert isinstance(error.value.__cause__, TypeError | ValueError)
    assert str(error.value.__cause__) == reason
    assert engine.eval(f"let why = 0; try {{ take({order}) }} catch (e) {{ why = e }} why") == reason


def test_read_makes_instances_of_results(engine: Engine) -> None:
    lines = engine.read(engine.eval("[#{price: x, size: [1, 2], tags: ['a']}]", scope={"x": EURO}), list[Line])

    assert lines == [Line(EURO, size=(1, 2), tags=frozenset("a"))]
    assert engine.read(lines, list[Line]) == lines
    assert engine.read(7, int | str) == 7
    with pytest.raises(TypeError, match=r"value\[0\]: expected Money, not int|value\[0\]: 'int' object"):
        engine.read([1], list[Money])
    with pytest.raises(TypeError, match=r"value: expected int \| str, not list"):
        engine.read([1], int | str)


class Refusing(Mapping[str, object]):
    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("a",))

    def __len__(self) -> int:
        return 1


@pytest.mark.parametrize(
    ("give", "text"),
    [
        (lambda engine: engine.eval("1", scope={"cfg": {"a": [1, {"b": object()}]}}), "cfg.a[1].b: an object of"),
        (lambda engine: engine.eval("1", constants={"cfg": {"a b": 2**63}}), 'cfg["a b"]: integer 92233720368547'),
        (lambda engine: engine.eval("1", scope={"cfg": [{1: 2}]}), "cfg[0]: the keys of a map"),
        (lambda engine: engine.call("fn f(a, b) {}", "f", 1, [range(0, 9, 2)]), "arguments[1][0]: a range for"),
        (lambda _: Scope(cfg=Line(EURO)), "cfg.price: an object of Money"),
        (lambda engine: engine.register_module("m", {"cfg": (object(),)}), "cfg[0]: an object of"),
        (lambda engine: engine.register("load", lambda: [object()]) or engine.eval("load()"), "load()[0]: an object"),
        (lambda engine: engine.register("load", lambda f: f(object())) or engine.eval("load(|x| x)"), "arguments[0]:"),
        (lambda engine: engine.eval("1", scope={"cfg": [Refusing()]}), "'a'"),
    ],
)
def test_an_error_names_the_place_of_a_value_that_cannot_enter(give: Callable[[Engine], Any], text: str) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError, KeyError, RhaiHostError)) as error:
        give(Engine())

    assert text in str(error.value)
    if isinstance(error.value, KeyError):  # an exception of the host's own stays as it is
        assert error.value.__notes__ == ["in cfg[0]"]


def test_an_exception_of_a_hook_is_the_cause_of_the_error() -> None:
    engine = Engine()

    def refuse(_: Money) -> object:
        raise ValueError("no money today")

    engine.convert(Money, to=refuse)
    with pytest.raises(ValueError, match=r"^cfg\[0\]: no money today$") as error:
        engine.eval("1", scope={"cfg": [EURO]})
    assert str(error.value.__cause__) == "no money today"


def test_hooks_that_cannot_work_are_refused(engine: Engine) -> None:
    async def wait(value: Any) -> Any:
        return value

    engine.function(name="pay")(_pay)
    with pytest.raises(TypeError, match="needs 'to', 'from_', or both"):
        engine.convert(date)
    for cls in (int, str, dict, type(None)):
        with pytest.raises(TypeError, match="no hook can replace it"):
            engine.convert(cls, to=str)
    with pytest.raises(TypeError, match="coroutine"):
        engine.convert(date, to=wait)
    with pytest.raises(ValueError, match="has date in its annotations: call convert before"):
        engine.convert(date, from_=date.fromisoformat)


def _pay(when: "date | None") -> None: ...


class Scalar:
    """As numpy's: it knows its type, and its Python value by `tolist`."""

    dtype = "float32"

    def __init__(self, value: object) -> None:
        self.value = value

    def tolist(self) -> object:
        return self.value

    def __index__(self) -> int:
        raise TypeError("only integer scalar arrays can be converted to a scalar index")


class Model:
    """As pydantic's."""

    def __init__(self, when: date) -> None:
        self.when = when

    def model_dump(self) -> dict[str, object]:
        return vars(self)

    @classmethod
    def model_validate(cls, value: dict[str, Any]) -> Self:
        if set(value) != {"when"}:
            raise ValueError("1 validation error for Model")
        return cls(**value)


class Index:
    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize(
    ("value", "converted"),
    [
        (Index(7), 7),
        (Scalar(0.5), 0.5),
        (Scalar([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (Model(date(2024, 2, 29)), {"when": date(2024, 2, 29)}),
        (collections.deque([1, "a"]), [1, "a"]),
        (array.array("d", [1.5]), [1.5]),
        (collections.UserList([1]), [1]),
        (collections.UserString("text"), "text"),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"a": 1}.items(), [["a", 1]]),
        (collections.ChainMap({"a": 1}), {"a": 1}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_are_known_by_what_they_can_do(value: object, converted: object) -> None:
    assert Engine().eval("x[0]", scope={"x": [value]}) == converted


@pytest.mark.parametrize("value", [iter([1]), 1j, object, Scalar, Model], ids=lambda value: type(value).__name__)
def test_iterators_complex_numbers_and_classes_are_not_converted(value: object) -> None:
    with pytest.raises(TypeError, match="cannot be passed to a script"):
        Engine().eval("x", scope={"x": value})


def test_a_number_beyond_64_bits_is_refused() -> None:
    assert Engine().eval("x", scope={"x": Index(2**63 - 1)}) == 2**63 - 1
    with pytest.raises(OverflowError, match="x: integer 9223372036854775808 does not fit"):
        Engine().eval("x", scope={"x": Index(2**63)})


def test_a_number_that_python_cannot_hold_is_refused() -> None:
    scalar = Scalar(None)
    scalar.value = scalar

    with pytest.raises(TypeError, match="object of Scalar cannot be passed"):
        Engine().eval("x", scope={"x": scalar})


def test_a_model_validates_what_a_parameter_gets() -> None:
    engine = Engine()

    @engine.function
    def year(model: Model) -> int:
        return model.when.year

    assert engine.eval("year(x)", scope={"x": Model(date(2024, 2, 29))}) == 2024
    with pytest.raises(RhaiHostError, match="model: 1 validation error for Model"):
        engine.eval("year(#{})")
