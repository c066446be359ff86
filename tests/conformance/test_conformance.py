"""Our engine answers every case as Rhai itself does."""

import re
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from rhai_tasks.engine import Engine, FnPtr, Timestamp
from rhai_tasks.errors import RhaiError
from tests.conformance.chapters import CONSTANTS, MODULES, Case, read

ENGINE = Engine(modules=MODULES)

DIFFERS: dict[str, str] = {
    "constants: functions cannot begin a chain with a task's constant": "constants are visible everywhere",
    "constants: global does not find a task's constant": "constants are visible everywhere",
    "constants: eval in a function does not see a task's constant": "constants are visible everywhere",
}
"""By chapter and name: cases where our engine does otherwise, and why."""

TYPES: dict[str | None, type] = {
    "()": type(None),
    "bool": bool,
    "i64": int,
    "f64": float,
    "decimal": Decimal,
    "string": str,
    "char": str,
    "array": list,
    "map": dict,
    "blob": bytes,
    "range": range,
    "range=": range,
    "Fn": FnPtr,
    "timestamp": Timestamp,
    "u8": int,
}

PLACE = re.compile(r"\(line (\d+), position (\d+)\)$", re.MULTILINE)

CASES = {f"{chapter.name}: {case.name}": case for chapter in read() for case in chapter.cases}
SAME = [name for name in CASES if name not in DIFFERS]


def answer(script: str) -> dict[str, Any]:
    printed: list[str] = []
    debugged: list[str] = []
    try:
        end = {
            "output": ENGINE.run(
                script,
                constants=CONSTANTS,
                print=printed.append,
                debug=lambda text, _, line, column: debugged.append(f"{line}:{column} {text}"),
            )
        }
    except RhaiError as error:
        end = {"error": str(error)}
    return {"printed": tuple(printed), "debugged": tuple(debugged), **end}


def expected(case: Case) -> dict[str, Any]:
    end = {"output": case.output} if case.error is None else {"error": case.error}
    return {"printed": case.printed, "debugged": case.debugged, **end}


@pytest.mark.parametrize("name", SAME)
def test_a_script_ends_with_rhais_own_text(name: str) -> None:
    case = CASES[name]

    assert answer(case.script) == expected(case)


@pytest.mark.parametrize("name", [name for name in SAME if CASES[name].error is not None])
def test_an_error_knows_the_places_that_rhai_writes(name: str) -> None:
    case = CASES[name]
    assert case.error is not None
    places = [(int(line), int(column)) for line, column in PLACE.findall(case.error)]

    with pytest.raises(RhaiError) as caught:
        ENGINE.run(case.script, constants=CONSTANTS, print=len, debug=lambda *_: None)

    error = caught.value
    known = [(error.line, error.column), *((line, column) for _, line, column in error.frames)]
    assert [place for place in known if place != (None, None)] == places


@pytest.mark.parametrize("name", [name for name in SAME if CASES[name].error is None])
def test_a_value_has_its_type_in_python(name: str) -> None:
    case = CASES[name]

    assert type(ENGINE.eval(case.script, constants=CONSTANTS)) is TYPES[case.type]


def test_every_name_is_there_once_and_every_difference_is_one() -> None:
    names = Counter(f"{chapter.name}: {case.name}" for chapter in read() for case in chapter.cases)

    assert [name for name, count in names.items() if count > 1] == []
    assert [name for name in DIFFERS if answer(CASES[name].script) == expected(CASES[name])] == []
