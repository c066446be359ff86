"""Objects that change what is being passed to a script, and those that have no text."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from rhai_tasks.engine import Engine, Scope
from rhai_tasks.errors import RhaiHostError


class Trap:
    """A number whose conversion does something."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def __index__(self) -> int:
        self.act()
        return 1


CHANGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "grown": lambda values: values.update({str(len(values)): 1}),
    "emptied": lambda values: values.clear(),
    "another key": lambda values: values.update({"other": values.pop("last", 1)}),
}


def changing(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    trap = Trap(lambda: change(values))
    values.update(first=trap, second=trap, last=trap)
    return values


@pytest.mark.parametrize("change", [CHANGES["grown"], CHANGES["emptied"]])
def test_a_dictionary_that_changes_while_it_is_passed_is_refused(change: Callable[[dict[str, Any]], Any]) -> None:
    engine = Engine()
    engine.register("values", lambda: changing(change))
    error = "a dictionary changed while it was passed"

    with pytest.raises(RuntimeError, match=error):
        engine.eval("x", scope={"x": changing(change)})
    with pytest.raises(RuntimeError, match=error):
        engine.eval("1", scope=changing(change))
    with pytest.raises(RuntimeError, match=error):
        engine.eval("1", constants=changing(change))
    with pytest.raises(RuntimeError, match=error):
        Scope()["x"] = changing(change)
    with pytest.raises(RhaiHostError, match=error):
        engine.eval("values()")


def test_a_dictionary_whose_keys_change_while_it_is_passed_is_no_panic() -> None:
    value = Engine().eval("x", scope={"x": changing(CHANGES["another key"])})

    assert value["first"] == 1


def test_a_set_or_a_list_that_changes_while_it_is_passed_is_as_it_was() -> None:
    numbers = {-1}
    assert Engine().eval("x", scope={"x": [Trap(numbers.clear), numbers]}) == [1, []]

    members: set[Any] = set()
    members.update({Trap(lambda: members.add(len(members))), 7})
    assert sorted(Engine().eval("x", scope={"x": members})) == [1, 7]

    items: list[Any] = []
    items += [Trap(lambda: items.append(1)), 2]
    assert Engine().eval("x", scope={"x": items}) == [1, 2]


def test_an_index_that_is_no_number_is_refused() -> None:
    class Wrong:
        def __index__(self) -> Any:
            return "1"  # noqa: PLE0305

    with pytest.raises(TypeError, match="x: .*__index__ returned non-int"):
        Engine().eval("x", scope={"x": Wrong()})


# Python reports an exception that nobody gets.
def test_what_has_no_text_is_no_unreported_exception() -> None:
    child = """
from decimal import Decimal
from rhai_tasks import Engine

class Number(int):
    def __str__(self):
        raise KeyError

class Failure(Exception):
    def __str__(self):
        raise KeyError

class Reason:
    def __repr__(self):
        raise KeyError

def fail(error):
    raise error

engine = Engine()
for value in (10**5000, Number(2**70), [Number(2**70)]):
    try:
        engine.eval("x", scope={"x": value})
    except OverflowError as error:
        print(error)
for error in (Failure(), ValueError(Reason())):
    engine.register("fail", lambda: fail(error))
    print(engine.eval("let why = 0; try { fail() } catch (e) { why = e } why"))
    try:
        engine.eval("fail()")
    except Exception as raised:
        print(raised.__cause__ is error)
"""
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        "x: integer without a text does not fit a script's 64 bits",
        "x: integer without a text does not fit a script's 64 bits",
        "x[0]: integer without a text does not fit a script's 64 bits",
        *("<class '__main__.Failure'>", "True", "<class 'ValueError'>", "True"),
    ]
