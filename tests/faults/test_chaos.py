"""A short run of the chaos ledger: `make chaos` is the long one, and holds recoveries to what is promised."""

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.__main__ import run_mixed
from tests.chaos.faults import FAULTS
from tests.chaos.soak import Probe
from tests.chaos.world import Strain
from tests.conftest import wait_until

SHORT = {
    "kill-worker",
    "kill-bridge",
    "kill-supervisor",
    "kill-tree",
    "kill-server",
    "client-kill",
    "script-flush",
    "cut",
}


STRANGERS = {"refused-command", "wrong-type", "foreign-words", "clock-back", "unread-log"}
THROUGH_RABBITMQ = {"kill-worker", "kill-bridge", "kill-server", "kill-rabbitmq"}


def every_task_ends_once(
    names: set[str], folder: Path, *, seed: int, seconds: float, turns: int = 0, **setting: Any
) -> list[str]:
    """Mix these faults; return which of them happened, in their order."""
    faults = [fault for fault in FAULTS if fault.name in names]
    strain = Strain(tasks_per_second=100, longest=1.0, threads=8, victims=3)

    account, happened = run_mixed(faults, folder, strain, seed, seconds, turns=turns, **setting)

    print(happened, account)
    assert account.submitted > 500
    assert account.defects() == []
    assert (account.recovery or 0.0) < 60.0  # four times as long as promised: others may load this machine
    return happened


def test_every_task_ends_once_whatever_is_killed_and_cut(tmp_path: Path) -> None:
    happened = every_task_ends_once(SHORT, tmp_path, seed=2, seconds=15.0)

    assert len(happened) >= 3


def test_no_caller_exceeds_its_limit_whatever_is_killed_and_cut(tmp_path: Path) -> None:
    every_task_ends_once(SHORT - {"kill-bridge"}, tmp_path, seed=5, seconds=10.0, turns=3, limit=3)


def test_no_caller_starves_or_exceeds_its_limit_where_callers_take_turns(tmp_path: Path) -> None:
    every_task_ends_once(SHORT - {"kill-bridge"}, tmp_path, seed=8, seconds=10.0, turns=3, limit=3, fair=True)


@pytest.mark.parametrize("rules", [{}, {"limit": 5, "fair": True}], ids=["without rules", "with turns and limits"])
def test_every_task_ends_once_whatever_strangers_do(tmp_path: Path, rules: dict[str, Any]) -> None:
    happened = every_task_ends_once(STRANGERS, tmp_path, seed=6006, seconds=0.0, turns=3, **rules)

    assert {name for together in happened for name in together.split(" + ")} == STRANGERS


def test_every_task_ends_once_though_rabbitmq_is_killed(tmp_path: Path) -> None:
    happened = every_task_ends_once(THROUGH_RABBITMQ, tmp_path, seed=1, seconds=8.0, rabbitmq=True)

    assert any("kill-rabbitmq" in together for together in happened)


def test_a_probe_of_the_soak_that_nobody_answers_counts_as_a_slow_one(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.chaos.soak._PATIENCE_SECONDS", 0.5)

    probe = Probe(client)

    assert min(wait_until(probe.take)) >= 500
    probe.stop()
