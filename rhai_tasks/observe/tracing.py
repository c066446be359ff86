"""Spans of tasks, in the traces of their submitters; needs the extra `otel`.

The application configures the exporter: without a provider of OpenTelemetry's SDK, spans are dropped.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rhai_tasks.errors import ConfigurationError
from rhai_tasks.protocol import Field, Outcome, Status, parse_time, to_bytes

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ModuleNotFoundError as error:
    raise ConfigurationError("traces need the API of OpenTelemetry: pip install 'rhai-tasks[otel]'") from error

_PROPAGATOR = TraceContextTextMapPropagator()


def current_traceparent() -> str | None:
    """Write the current span as W3C's `traceparent`; `None` if there is none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(Field.TRACEPARENT)


class Tracer:
    """Makes a span `task` for each task, from its `createdAt` to its recorded end, with four spans below it.

    `wait` ends when a worker has fetched the task, `take` when its script begins, `run` when the script ends, and
    `finish` when the end is recorded.
    """

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("rhai_tasks")

    def begin(
        self,
        task: Mapping[str, str],
        traceparent: bytes | None,
        created_at: bytes | None,
        fetched: float,
        now: float,
    ) -> "TaskTrace":
        """Begin the trace of a task whose script is about to begin.

        Args:
            task: Attributes of all its spans.
            traceparent: The submitter's span; an unreadable one is ignored.
            created_at: The task's `createdAt`.
            fetched: When a worker fetched the task, in seconds since the epoch.
            now: The present, in seconds since the epoch.
        """
        submitter = _PROPAGATOR.extract(
            {Field.TRACEPARENT: traceparent.decode(errors="replace")} if traceparent else {}
        )
        created = parse_time(created_at) if created_at else None
        attributes = {name: to_bytes(value).decode(errors="replace") for name, value in task.items()}
        start = fetched if created is None else min(created, fetched)  # clocks of machines differ
        whole = self._tracer.start_span(
            "task", submitter, trace.SpanKind.CONSUMER, attributes, start_time=_nanoseconds(start)
        )
        begun = TaskTrace(self._tracer, whole, attributes)
        begun.add("wait", start, fetched)
        begun.add("take", fetched, now)
        return begun

    @staticmethod
    def flush() -> None:
        """Export all spans that wait for it, before the process ends."""
        flush = getattr(trace.get_tracer_provider(), "force_flush", None)  # only the SDK's provider has it
        if flush:
            flush()


class TaskTrace:
    """The spans of one running task."""

    def __init__(self, tracer: trace.Tracer, whole: trace.Span, attributes: Mapping[str, str]) -> None:
        self._tracer, self._whole, self._attributes = tracer, whole, attributes
        self._context = trace.set_span_in_context(whole)

    def add(self, name: str, start: float, end: float) -> None:
        """Add a span that has ended; times are in seconds since the epoch."""
        span = self._tracer.start_span(name, self._context, attributes=self._attributes, start_time=_nanoseconds(start))
        span.end(_nanoseconds(max(start, end)))

    @contextmanager
    def run(self) -> Iterator[None]:
        """Trace the script: spans of its host functions are below this span."""
        with self._tracer.start_as_current_span("run", self._context, attributes=self._attributes):
            yield

    def finish(self, outcome: Outcome | None, ended: float, now: float) -> None:
        """End the trace: the outcome is recorded or, without an outcome, the task is released."""
        self.add("finish", ended, now)
        if outcome and outcome.status is Status.ERROR:
            self._whole.set_attribute("error.type", outcome.kind)
            self._whole.set_status(trace.StatusCode.ERROR)
        self._whole.end(_nanoseconds(now))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
