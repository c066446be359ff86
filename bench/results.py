"""Figures as they are kept: one JSON file, written anew after every measurement."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .conditions import AS_THEY_COME
from .measure import Figures

FOLDER = Path(__file__).parent / "results"


class Results:
    """What one run found. An interrupted one can be read all the same.

    Args:
        path: The file; nothing is written until something is added.
        machine: Where and when, and versions; `None` reads what the file has.
    """

    def __init__(self, path: Path, machine: dict[str, str] | None = None) -> None:
        self._path = path
        found: dict[str, Any] = {} if machine else json.loads(path.read_text())
        self.machine: dict[str, str] = machine or found["machine"]
        self.versions: dict[str, str] = found.get("versions", {})
        self.records: list[dict[str, Any]] = found.get("records", [])

    def add(self, contender: str, workload: str, number: int, figures: Figures, condition: str = AS_THEY_COME) -> None:
        """Keep one measurement; `figures` may be `{"error": why there is none}`."""
        head = {"contender": contender, "workload": workload, "condition": condition, "round": number}
        self.records.append(head | rounded(figures))
        self.save()

    def save(self) -> None:
        """Write the file whole, in place of the old one."""
        lines = ",\n".join(json.dumps(record) for record in self.records)
        head = json.dumps({"machine": self.machine, "versions": self.versions}, indent=1)[:-2]
        self._path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self._path.with_suffix(".unfinished")
        unfinished.write_text(f'{head},\n "records": [\n{lines}\n]}}\n')
        unfinished.replace(self._path)

    def errors(self) -> dict[tuple[str, str], str]:
        """Return why there are no figures, by contender and workload."""
        return {(one["contender"], one["workload"]): one["error"] for one in self.records if "error" in one}

    def contenders(self, workload: str, condition: str = AS_THEY_COME) -> list[str]:
        """Name the contenders that have figures for a workload, in the order in which they ran."""
        return list(dict.fromkeys(one["contender"] for one in self._good(workload, condition)))

    def values(self, contender: str, workload: str, figure: str, condition: str = AS_THEY_COME) -> dict[int, float]:
        """Return a figure by round."""
        return {
            one["round"]: one[figure]
            for one in self._good(workload, condition)
            if one["contender"] == contender and one.get(figure) is not None
        }

    def quantiles(self, contender: str, workload: str) -> list[list[float]]:
        """Return the 99 percentiles of each round, in milliseconds."""
        return [one["quantiles_ms"] for one in self._good(workload, AS_THEY_COME) if one["contender"] == contender]

    def _good(self, workload: str, condition: str) -> Iterator[dict[str, Any]]:
        return (
            one
            for one in self.records
            if one["workload"] == workload and one.get("condition", AS_THEY_COME) == condition and "error" not in one
        )


def rounded(figures: Figures) -> Figures:
    """Keep four digits: more say nothing, and would make the file large."""

    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(one) for one in value]
        return float(f"{value:.4g}") if isinstance(value, float) else value

    return {name: short(value) for name, value in figures.items()}
