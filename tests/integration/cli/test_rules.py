"""`rhai-tasks` sets and shows rules."""

import json
import subprocess
from typing import Any

import pytest

from tests.integration.conftest import Run


def shown(ended: "subprocess.CompletedProcess[str]") -> Any:
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


def test_a_pause_is_set_shown_everywhere_and_ended(run: Run) -> None:
    assert run("pause", "circle", "--reason", "the database moves", "--by", "ada").returncode == 0

    (queue,) = shown(run("queues", "--json"))
    assert (queue["paused"], queue["rules"]) == (True, 1)
    assert "circle paused" in run("queues").stdout
    (rule,) = shown(run("rules", "--json"))
    assert (rule["circle"], rule["verb"], rule["scope"]) == ("circle", "pause", "circle")
    assert (rule["by"], rule["reason"]) == ("ada", "the database moves")
    found = run("doctor")
    assert found.returncode == 1
    assert "by ada: the database moves" in found.stdout
    assert run("resume").returncode == 0
    assert shown(run("rules", "--json")) == []
    again = run("resume")
    assert (again.returncode, again.stderr) == (1, "It is not paused.\n")


def test_blocks_name_a_caller_or_a_script(run: Run) -> None:
    digest = "ab" * 32
    assert run("block", "circle", "--caller", "noisy", "--reason", "it floods us").returncode == 0
    assert run("block", "circle", "--script", f"sha256:{digest}").returncode == 0

    rules = run("rules").stdout

    assert "block caller noisy" in rules
    assert f"block script sha256:{digest}" in rules
    assert "it floods us" in rules
    assert run("unblock", "--script", digest).returncode == 0
    assert run("unblock", "--caller", "other").returncode == 1
    assert [rule["name"] for rule in shown(run("rules", "--json"))] == ["noisy"]


def test_the_log_says_who_changed_what(run: Run) -> None:
    run("pause", "circle", "--by", "ada", "--reason", "why")
    run("resume", "circle", "--by", "bob")

    last, first = shown(run("audit", "--json"))

    assert (first["by"], first["circle"], first["what"], first["reason"]) == (
        "ada",
        "circle",
        "pause the circle",
        "why",
    )
    assert (last["by"], last["what"]) == ("bob", "resume the circle")
    assert "resume the circle" in run("audit", "--circle", "circle").stdout
    assert shown(run("audit", "--circle", "other", "--json")) == []


def test_limits_are_set_shown_and_cleared(run: Run) -> None:
    assert run("limits", "set", "--concurrency", "4", "--rate", "600/m", "--burst", "5").returncode == 0
    assert run("limits", "set", "--each-caller", "--concurrency", "2", "--weight", "3").returncode == 0
    assert run("limits", "set", "--caller", "noisy", "--rate", "1/s", "--reason", "why").returncode == 0

    found = shown(run("limits", "show", "--json"))
    table = run("limits", "show").stdout

    assert [(rule["scope"], rule["name"]) for rule in found] == [
        ("caller", "noisy"),
        ("callers", ""),
        ("circle", ""),
    ]
    assert found[2]["quota"] == {"concurrency": 4, "rate": 10, "burst": 5, "waiting": None, "weight": None}
    assert "limit the circle: concurrency 4, rate 10/s, burst 5" in table
    assert "limit each caller: concurrency 2, weight 3" in table
    assert run("doctor").stdout.count("limit") == 0
    assert run("limits", "clear", "--caller", "noisy").returncode == 0
    assert run("limits", "clear", "--caller", "noisy").returncode == 1
    assert len(shown(run("limits", "show", "--json"))) == 2
    assert "clear the limit of caller noisy" in run("audit").stdout


def test_one_caller_is_paused_and_resumed(run: Run) -> None:
    assert run("pause", "circle", "--caller", "noisy").returncode == 0

    assert not shown(run("queues", "--json"))[0]["paused"]
    assert "pause caller noisy" in run("rules").stdout
    assert run("resume", "circle").returncode == 1
    assert run("resume", "circle", "--caller", "noisy").returncode == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["block"], "Name a caller or a script"),
        (["block", "circle", "--caller", "a", "--script", "ab" * 32], "Name a caller or a script"),
        (["block", "circle", "--script", "abc"], "'abc' is not a hash of a script: expected sha256: and 64 hex digits"),
        (["pause", ""], "CIRCLE ''"),
        (["limits", "set"], "Name a figure: --concurrency, --rate, --waiting or --weight"),
        (["limits", "set", "--burst", "3", "--concurrency", "1"], "--burst needs --rate"),
        (["limits", "set", "--weight", "2"], "--weight needs --caller or --each-caller"),
        (["limits", "set", "--rate", "10"], "'10' is not a rate: expected a number and /s, /m or /h, such as 10/s"),
        (["limits", "set", "--rate", "0/s"], "'0/s' is not a rate"),
        (["limits", "set", "--concurrency", "0"], "--concurrency"),
        (["limits", "clear", "--each-caller", "--caller", "a"], "exclude each other"),
    ],
    ids=[
        *(
            "nothing",
            "both",
            "no hash",
            "no circle",
            "no figure",
            "burst alone",
            "weight of the circle",
            "no unit",
            "no task a second",
        ),
        *("no task at once", "one and each"),
    ],
)
def test_wrong_use_says_what_is_wanted(run: Run, arguments: list[str], text: str) -> None:
    ended = run(*arguments)

    assert ended.returncode == 2
    assert text in ended.stderr
