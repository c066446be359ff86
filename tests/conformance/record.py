"""Ask Rhai itself, and write its answers into the cases: `python -m tests.conformance.record`.

Needs cargo, and is needed only when cases or the version of Rhai change.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.conformance.chapters import Case, read, write

ORACLE = Path(__file__).parent / "oracle"


def main() -> None:
    """Record the answers; fail if two processes answer differently, as then no answer can be expected."""
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=ORACLE, check=True)
    chapters = read()
    cases = [case for chapter in chapters for case in chapter.cases]
    answers = ask(cases)
    unsure = [case.name for case, first, second in zip(cases, answers, ask(cases), strict=True) if first != second]
    if unsure:
        sys.exit(f"Rhai's answer is another in each process: {'; '.join(unsure)}")
    answer = iter(answers)
    for chapter in chapters:
        write(replace(chapter, cases=tuple(_recorded(case, next(answer)) for case in chapter.cases)))
    print(f"{len(cases)} cases in {len(chapters)} chapters")


def ask(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Run the scripts in one new process of the oracle."""
    scripts = "".join(json.dumps(case.script) + "\n" for case in cases)
    result = subprocess.run(
        [ORACLE / "target/release/oracle"], input=scripts, stdout=subprocess.PIPE, encoding="utf-8", check=True
    )
    return [json.loads(line) for line in result.stdout.split("\n") if line]


def _recorded(case: Case, answer: dict[str, Any]) -> Case:
    return Case(
        name=case.name,
        script=case.script,
        printed=tuple(answer["printed"]),
        debugged=tuple(answer["debugged"]),
        output=answer.get("output"),
        type=answer.get("type"),
        error=answer.get("error"),
    )


if __name__ == "__main__":
    main()
