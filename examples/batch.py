"""Run a batch of 1,000 scripts, with a progress bar on a terminal. Some of them fail.

python -m examples.batch redis://127.0.0.1/ 02abc
"""

import sys

from rhai_tasks import Client
from rhai_tasks.errors import ScriptError


def main(url: str, circle: str, count: int = 1000) -> int:
    """Run the batch; return the number of scripts that failed."""
    scripts = [f"let n = {number}; if n % 100 == 99 {{ throw `no ${{n}}` }} n * n" for number in range(count)]
    total = failed = 0
    with Client(url, circle=circle) as client:
        tasks = client.submit_many(scripts, progress=True)
        for task in client.as_completed(tasks, timeout=60, progress=True):
            try:
                total += int(task.result())
            except ScriptError:
                failed += 1
    print(f"{count - failed} succeeded with a total of {total}, {failed} failed")
    return failed


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
