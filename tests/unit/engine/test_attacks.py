"""Attacks found by search: processes that meet them live, and keep to their limits."""

import json
import subprocess
import sys

import pytest

from rhai_tasks.engine import Engine
from tests.attacks import largest

SEED = 20261124


def run(attack: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"tests.attacks.{attack}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, f"it died of: {done.stderr[-2000:]}"
    return done


def test_no_library_function_panics_hangs_or_exhausts_memory_whatever_it_is_given() -> None:
    done = run("library", SEED, 60)

    *panics, summary = done.stdout.splitlines()
    assert not panics
    calls, peak = map(int, summary.split())
    assert calls > 20_000
    assert peak < 256, "MiB of the whole process, where a script may have 16"


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
def test_no_script_of_the_grammar_makes_the_engine_panic(seed: int) -> None:
    done = run("grammar", seed, 1_500)

    *panics, ends = done.stdout.splitlines()
    assert not panics
    assert sum(json.loads(ends).values()) == 1_500


def test_every_function_of_the_library_is_reviewed() -> None:
    """A new one, or a new type of argument, may take more than its share: see `tests/attacks/largest.py`."""
    reviewed = largest.REVIEWED.read_text()

    assert largest.listed(Engine().functions()) == reviewed
    assert len(reviewed.splitlines()) < 250


@pytest.mark.parametrize("type_", largest.LARGEST)
def test_no_library_function_exceeds_the_limits_with_the_largest_arguments(type_: str) -> None:
    *excesses, made = run("largest", 8, "some", type_).stdout.splitlines()

    assert not excesses
    assert int(made) > 100


def test_no_call_that_once_exceeded_the_limits_does_again() -> None:
    *excesses, _ = run("largest", 64, "reported").stdout.splitlines()

    assert not excesses


def test_no_call_of_a_value_without_end_ends_the_process_or_never_ends() -> None:
    *faults, made = run("endless").stdout.splitlines()

    assert not faults
    assert int(made) > 1_000


@pytest.mark.parametrize("seed", range(SEED, SEED + 2))
def test_no_two_calls_exceed_the_limits_together(seed: int) -> None:
    *excesses, made = run("pairs", seed, 500).stdout.splitlines()

    assert not excesses
    assert int(made) == 500


@pytest.mark.parametrize("seed", range(SEED, SEED + 3))
def test_no_broken_script_ends_the_process(seed: int) -> None:
    done = run("sources", seed, 30_000)

    assert sum(json.loads(done.stdout).values()) == 30_000
