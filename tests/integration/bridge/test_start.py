"""What a worker has imported once it has run a task: most of the time of a start goes into imports."""

from collections.abc import Callable
from pathlib import Path

from tests.conftest import Dispatcher, Worker

_ENGINE = """
import sys

from rhai_tasks import Engine


def make_engine():
    engine = Engine()
    engine.register("modules", lambda: " ".join(sys.modules))
    return engine
"""

_OF_OPERATORS = ("cli", "client", "operate", "testing", "web")
_FOREIGN = (
    "fastapi",
    "jinja2",
    "multiprocessing",
    "pika",
    "prometheus_client",
    "pydantic",
    "pygments",
    "rich",
    "tomllib",
)


def test_a_worker_that_has_run_a_task_has_imported_only_what_that_takes(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    (tmp_path / "engine_of_this_test.py").write_text(_ENGINE)
    start_worker("circle", "--engine", "engine_of_this_test:make_engine", env={"PYTHONPATH": str(tmp_path)})

    modules = set(dispatcher.run("circle", "modules()")["output"].split())

    assert modules.isdisjoint(f"rhai_tasks.{package}" for package in _OF_OPERATORS)
    assert modules.isdisjoint(_FOREIGN)
    ours = {name for name in modules if name.startswith(("rhai_tasks.", "bridge."))}
    assert 100 < len(ours) <= 130  # 124 when this was written; each takes about a thousandth of the start
