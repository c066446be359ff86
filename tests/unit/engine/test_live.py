"""Live lists and dictionaries: scripts change the host's own, within the limits of their memory."""

import threading
from typing import Any

import pytest

from rhai_tasks.engine import Engine, Limits, LiveList, LiveMap, Scope
from rhai_tasks.errors import RhaiHostError, RhaiMemoryLimit, RhaiNameError

MIB = 1024 * 1024


@pytest.fixture
def engine() -> Engine:
    return Engine(limits=Limits(timeout=10, max_memory=MIB))


@pytest.mark.parametrize(
    ("script", "answer", "after"),
    [
        ("v[0] = 9; v[-1] += 1; v.len + v.len()", 6, [9, 2, 4]),
        ("v.push(4); v.push([5, #{a: 6}]);", None, [1, 2, 3, 4, [5, {"a": 6}]]),
        ("v.append([4, 5]); v.append(v);", None, [1, 2, 3, 4, 5] * 2),
        ("v.insert(0, 'a'); v.insert(-1, ());", None, ["a", 1, 2, None, 3]),
        ("[v.pop(), v.shift(), v.pop(), v.pop(), v.shift()]", [3, 1, 2, None, None], []),
        ("v.remove(1)", 2, [1, 3]),
        ("v.clear();", None, []),
        ("let sum = 0; for x in v { sum += x } sum", 6, [1, 2, 3]),
        (
            "[2 in v, 7 in v, v.contains(3), v == [1, 2, 3], v == [1], v != [1]]",
            [True, False, True, True, False, True],
            None,
        ),
        ("v.to_array().map(|x| x * 2)", [2, 4, 6], [1, 2, 3]),
        ("let copy = v.to_array(); copy.push(4); v.len", 3, [1, 2, 3]),
        ("`${v}` + type_of(v)", "[1, 2, 3]LiveList", None),
        ("let alias = v; alias[0] = 5; fn f(v) { v.pop(); } f(v); v[0]", 5, [5, 2]),
    ],
)
def test_a_script_uses_a_list_of_the_host_in_place(engine: Engine, script: str, answer: Any, after: Any) -> None:
    values: list[Any] = [1, 2, 3]

    assert engine.eval(script, scope={"v": engine.live(values)}) == answer
    assert values == ([1, 2, 3] if after is None else after)


@pytest.mark.parametrize(
    ("script", "answer", "after"),
    [
        ("v.a = 5; v.b = 'x'; v[`c d`] = [1];", None, {"a": 5, "b": "x", "c d": [1]}),
        ("v.a += 1; [v.a, v['a'], v.none, v.len]", [2, 2, None, None], {"a": 2}),
        ("v.len = 7; [v.len, v.len()]", [7, 2], {"a": 1, "len": 7}),
        ("[v.keys(), v.values(), 'a' in v, 'b' in v]", [["a"], [1], True, False], {"a": 1}),
        ("[v.remove('a'), v.remove('a')]", [1, None], {}),
        ("v.clear(); v == #{}", True, {}),
        ("let copy = v.to_map(); copy.a = 9; v.a", 1, {"a": 1}),
    ],
)
def test_a_script_uses_a_dictionary_of_the_host_in_place(
    engine: Engine, script: str, answer: Any, after: dict[str, Any]
) -> None:
    values = {"a": 1}

    assert engine.eval(script, scope={"v": engine.live(values)}) == answer
    assert values == after


def test_what_is_within_is_the_same_object_before_and_after(engine: Engine) -> None:
    lines: list[Any] = [{"count": 1}]
    tags: dict[str, Any] = {"x": ["y"]}
    order: dict[str, Any] = {"lines": lines, "tags": tags}

    engine.run(
        "order.lines[0].count += 1; order.tags.x.push('z'); for line in order.lines { line.seen = true; } "
        "order.tags.copy = order.lines; let first = order.lines[0]; first.count += 1;",
        scope={"order": engine.live(order)},
    )

    assert order["lines"] is lines is tags["copy"]
    assert order == {
        "lines": [{"count": 3, "seen": True}],
        "tags": {"x": ["y", "z"], "copy": lines},
    }


def test_a_change_of_the_host_shows_while_the_script_runs(engine: Engine) -> None:
    values: list[int] = []
    engine.register("host_adds", lambda: values.append(len(values)))

    assert engine.eval("host_adds(); host_adds(); v.len", scope={"v": engine.live(values)}) == 2


def test_a_value_comes_back_as_what_stands_for_the_same_object(engine: Engine) -> None:
    values: list[Any] = [[1]]
    live = engine.live(values)

    whole, inner = engine.eval("[v, v[0]]", scope={"v": live})

    assert (type(whole), whole.value is values, inner.value is values[0]) == (LiveList, True, True)
    assert engine.live({}) == LiveMap({})
    assert Scope(v=live)["v"] is live


@pytest.mark.parametrize(
    "script",
    [
        "loop { v.push(blob(1_000)) }",
        "loop { v.push(1) }",
        "loop { v.push([]) }",
        "let s = ``; s.pad(1_000, `x`); loop { v.insert(0, s + v.len) }",
        "loop { v.append([1, 2, 3]) }",
        "v.push(1); loop { v.append(v) }",
        "loop { v.push(v) }",
        "loop { try { v.push(blob(1_000)) } catch {} }",
        "let n = 0; loop { n += 1; m[`key ${n}`] = 1 }",
        "let n = 0; loop { n += 1; m[`key ${n}`] = v }",
        "let n = 0; loop { n += 1; m.a = [m.a]; }",
        "v.push(0); loop { v[0] = blob(10_000); v.clear(); v.push(0) }",
    ],
)
def test_what_a_script_adds_counts_as_its_memory(engine: Engine, script: str) -> None:
    values: list[Any] = []
    entries: dict[str, Any] = {"a": 1}

    with pytest.raises(RhaiMemoryLimit):
        engine.run(script, scope={"v": engine.live(values), "m": engine.live(entries)})

    assert len(values) + len(entries) < MIB / 8


def test_each_evaluation_has_the_whole_limit(engine: Engine) -> None:
    values: list[Any] = []
    for _ in range(5):
        engine.run("v.push(blob(300_000))", scope={"v": engine.live(values)})

    assert len(values) == 5


def test_a_script_counts_in_place_without_end(engine: Engine) -> None:
    values: dict[str, Any] = {"n": 0, "list": [0], "none": 1}

    engine.run("for i in 0..50_000 { v.n += 1; v.list[0] += 1; v.none = (); }", scope={"v": engine.live(values)})

    assert values == {"n": 50_000, "list": [50_000], "none": None}


def test_what_python_refuses_is_an_error_of_the_host(engine: Engine) -> None:
    for script in ("v[3]", "v['a']", "v.remove(5)", "m[1] = 2"):
        with pytest.raises(RhaiHostError):
            engine.run(script, scope={"v": engine.live([1]), "m": engine.live({})})


def test_scripts_make_no_live_values_themselves(engine: Engine) -> None:
    engine.live([])

    for script in ("LiveList([])", "LiveMap(#{})", "let v = engine; v"):
        with pytest.raises(RhaiNameError):
            engine.run(script)


def test_only_an_engine_that_has_made_live_values_takes_them(engine: Engine) -> None:
    live, other = engine.live({"a": [1]}), Engine()

    with pytest.raises(TypeError, match="v: an object of LiveMap cannot be passed to a script"):
        other.eval("v.a", scope={"v": live})
    other.live([])
    assert other.eval("v.a[0]", scope={"v": live}) == 1


@pytest.mark.parametrize("value", [(), {1}, None, "text", 5, object()])
def test_only_lists_and_dictionaries_are_live(engine: Engine, value: Any) -> None:
    with pytest.raises(TypeError, match="^value is .*: expected a list, or a dictionary$"):
        engine.live(value)


def test_scripts_of_two_threads_share_a_list(engine: Engine) -> None:
    values: list[Any] = []
    live = engine.live(values)
    threads = [
        threading.Thread(target=engine.run, args=("for i in 0..1_000 { v.push(i) }",), kwargs={"scope": {"v": live}})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(values) == sorted([*range(1_000)] * 2)
