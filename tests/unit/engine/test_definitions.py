"""Definition files: what an editor of scripts and a reader learn of an engine."""

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from rhai_tasks.engine import Engine, FnPtr


@dataclass
class Point:
    """A point."""

    x: int
    LIMIT: ClassVar[int] = 5

    def moved(self, by: float) -> "Point":
        return Point(self.x + int(by))

    def __add__(self, other: "Point") -> "Point":
        return other

    @staticmethod
    def origin() -> "Point":
        return Point(0)


@pytest.fixture
def files() -> dict[str, str]:
    engine = Engine()
    engine.register_type(Point)

    @engine.function
    def price(item: str, count: int = 1, *more: str, factor: float = 1.0) -> float:
        """Price of items.

        In euros.
        """
        return factor

    @engine.function
    def show(point: Point | None, then: FnPtr, anything: Any) -> None:
        pass

    engine.register_module("shop", {"VAT": 19, "tax": lambda value: value})
    engine.register_module("shop::deep", {"NAME": "x"})
    return engine.definitions()


@pytest.mark.parametrize(
    "line",
    [
        "module static;",
        "/// Price of items.\n///\n/// In euros.\n"
        "fn price(item: String, count: int, more: String, named: Map) -> float;",
        "fn show(point: Point|(), then: FnPtr, anything: ?) -> ();",
        "/// A point.\nfn Point(x: int) -> ?;",
        "fn moved(this: Point, _: float) -> ?;",
        "fn get x(this: Point) -> ?;",
        "fn set x(this: Point, _: ?) -> ?;",
        "op +(Point, Point) -> ?;",
        "fn get year(this: datetime) -> ?;",
        "module Point {\nconst LIMIT: int;\n\nfn origin() -> Point;\n}",
        "module shop {\nmodule deep {\nconst NAME: String;\n}\n\nconst VAT: int;\n\nfn tax(value: ?) -> ?;\n}",
    ],
)
def test_host_functions_types_and_modules_are_defined(files: dict[str, str], line: str) -> None:
    assert line in files["__static__.d.rhai"]


@pytest.mark.parametrize(
    "line",
    [
        "fn to_upper(string: String) -> String;",
        "fn push(array: Array, item: ?) -> ();",
        "fn get len(string: String) -> int;",
        "op !(bool) -> bool;",
    ],
)
def test_rhais_own_functions_are_defined(files: dict[str, str], line: str) -> None:
    assert line in files["__builtin__.d.rhai"]
    assert "/// Convert the string to all upper-case and return it as a new string." in files["__builtin__.d.rhai"]


def test_a_page_has_the_hosts_functions_with_their_documentation(files: dict[str, str]) -> None:
    page = files["functions.md"]

    assert page.startswith("# Functions of the application\n\n## ")
    assert "\n\n## `Point(x: i64)`\n\nA point.\n\n" in page
    assert "## `show(point: Point | (), then: Fn, anything) -> ()`" in page
    assert "#7" not in page
