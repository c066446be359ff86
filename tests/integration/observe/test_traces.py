"""Traces: a task's spans, in the trace of its submitter."""

import asyncio
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from bridge.bridge import Bridge
from rhai_tasks import AsyncClient, Client, Engine, Limits, ScriptActor
from rhai_tasks.errors import ConfigurationError
from rhai_tasks.settings import Settings
from rhai_tasks.worker.make import make_worker
from tests.conftest import Dispatcher, Worker, wait_until

TASK = {"task_id": "t", "circle": "circle", "caller_id": "caller"}


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return exporter


@pytest.fixture
def spans(exporter: InMemorySpanExporter, server_url: str, client: Any) -> Iterator[Callable[[], Any]]:
    """Run a bridge and a worker that traces in this process; return the spans of its one task, by name."""
    exporter.clear()
    settings = Settings(redis_url=server_url, threads=1, shutdown_timeout=1.0, traces=True)
    engine = Engine(limits=Limits(timeout=10.0))

    @engine.function
    def look_up() -> None:
        with trace.get_tracer("application").start_as_current_span("look up"):
            pass

    broker, worker = make_worker(settings, engine)
    broker.declare_circle("circle")
    bridge = Bridge(settings)
    bridge.serve("circle")
    worker.start()

    def spans() -> dict[str, ReadableSpan]:
        wait_until(lambda: any(span.name == "task" for span in exporter.get_finished_spans()))
        return {span.name: span for span in exporter.get_finished_spans()}

    yield spans
    bridge.stop()
    worker.stop(2000)


def test_a_tasks_spans_follow_each_other_in_its_submitters_trace(
    spans: Callable[[], dict[str, ReadableSpan]], app_that_traces: Client
) -> None:
    with trace.get_tracer("application").start_as_current_span("order") as order:
        task = app_that_traces.submit("look_up(); 42", task_id="t")
        assert task.result(timeout=60) == "42"

    found = spans()

    whole = found["task"]
    assert whole.parent
    assert whole.parent.span_id == order.get_span_context().span_id
    assert whole.parent.is_remote
    assert {span.context.trace_id for span in found.values()} == {order.get_span_context().trace_id}
    parts = [found[name] for name in ("wait", "take", "run", "finish")]
    assert {part.parent.span_id for part in parts if part.parent} == {whole.context.span_id}
    for span in (whole, *parts):
        assert dict(span.attributes or {}) == TASK
        assert span.start_time
        assert span.end_time
        assert span.end_time >= span.start_time
    assert [part.start_time for part in parts] == sorted(part.start_time or 0 for part in parts)
    assert (whole.start_time, whole.end_time) == (parts[0].start_time, parts[-1].end_time)


def test_what_host_functions_trace_is_below_the_run(
    spans: Callable[[], dict[str, ReadableSpan]], dispatcher: Dispatcher
) -> None:
    dispatcher.run("circle", "look_up()")

    found = spans()

    assert found["look up"].parent
    assert found["look up"].parent.span_id == found["run"].context.span_id


def test_an_error_shows_by_its_kind_and_not_by_its_text(
    spans: Callable[[], dict[str, ReadableSpan]], dispatcher: Dispatcher
) -> None:
    dispatcher.run("circle", "throw `secret`")

    found = spans()

    assert not found["task"].status.is_ok
    assert (found["task"].attributes or {})["error.type"] == "Runtime"
    assert "secret" not in "".join(span.to_json() for span in found.values())


@pytest.mark.parametrize("traceparent", [None, "", "nonsense", b"\xff", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"])
def test_without_a_submitters_span_a_task_is_a_trace_of_its_own(
    traceparent: str | bytes | None, spans: Callable[[], dict[str, ReadableSpan]], dispatcher: Dispatcher
) -> None:
    fields = {} if traceparent is None else {"traceparent": traceparent}

    dispatcher.submit("circle", "t", "1", **fields)

    found = spans()
    wait_until(lambda: dispatcher.status("t") == "completed")
    assert found["task"].parent is None
    assert len({span.context.trace_id for span in found.values()}) == 1


def test_a_dispatcher_joins_by_the_field(spans: Callable[[], dict[str, ReadableSpan]], dispatcher: Dispatcher) -> None:
    trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

    dispatcher.run("circle", "1", traceparent=f"00-{trace_id}-{span_id}-01", createdAt="2026-01-31T12:00:00Z")

    whole = spans()["task"]
    assert f"{whole.context.trace_id:032x}" == trace_id
    assert whole.parent
    assert f"{whole.parent.span_id:016x}" == span_id
    assert whole.start_time == 1_769_860_800_000_000_000


@pytest.fixture
def app_that_traces(server_url: str) -> Iterator[Client]:
    with Client(server_url, circle="circle", caller_id="caller", traces=True) as app:
        yield app


async def _submit_async(url: str) -> None:
    async with AsyncClient(url, circle="circle", traces=True) as app:
        await app.submit("1", task_id="t")


def _send(url: str) -> None:
    actor = ScriptActor(url, circle="circle", traces=True)
    actor.send("1", task_id="t")
    actor.broker.close()


def test_every_client_writes_the_current_span(
    exporter: InMemorySpanExporter, server_url: str, client: Any, app_that_traces: Client
) -> None:
    submits: list[Callable[[], object]] = [
        lambda: app_that_traces.submit("1", task_id="t"),
        lambda: list(app_that_traces.submit_many(["1"])),
        lambda: asyncio.run(_submit_async(server_url)),
        lambda: _send(server_url),
    ]
    for submit in submits:
        client.flushall()
        with trace.get_tracer("application").start_as_current_span("order") as order:
            submit()
        (key,) = client.scan_iter("rhai_task_details:*")
        written = client.hget(key, "traceparent")
        context = order.get_span_context()
        assert written.startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")


def test_nothing_is_written_without_a_span_or_without_the_option(client: Any, app: Client, server_url: str) -> None:
    with trace.get_tracer("application").start_as_current_span("order"):
        app.submit("1", task_id="t1")
    with Client(server_url, circle="circle", traces=True) as app_that_traces:
        app_that_traces.submit("1", task_id="t2")

    assert client.hget("rhai_task_details:t1", "traceparent") is None
    assert client.hget("rhai_task_details:t2", "traceparent") is None


def test_a_worker_that_stops_sends_the_last_spans(
    dispatcher: Dispatcher, start_worker: Callable[..., Worker], tmp_path: Path
) -> None:
    file = tmp_path / "spans"
    worker = start_worker(
        "circle", "--engine", "tests.engine_for_tests:make_traced_engine", "--traces", env={"SPANS": str(file)}
    )
    dispatcher.run("circle", "1")

    assert worker.stop() == 0

    assert {json.loads(line)["name"] for line in file.read_text().splitlines()} == {
        "task",
        "take",
        "wait",
        "run",
        "finish",
    }


def test_without_the_api_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "rhai_tasks.observe.tracing", raising=False)

    with pytest.raises(ConfigurationError, match=r"pip install 'rhai-tasks\[otel\]'"):
        Client("redis://127.0.0.1/", traces=True)
