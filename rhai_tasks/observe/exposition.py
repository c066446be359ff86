"""The /metrics page of a tree, from the reports of its processes; needs the extra `metrics`."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import inf

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from rhai_tasks.protocol import to_bytes

from .metrics import LEASE_AGE, METRICS, READ_AGE, READY, Counts, Labels, Metric, Samples
from .recorder import Report
from .reports import REPORT_SECONDS, Reports

MOST_CIRCLES = 100
"""Circles with series of their own: the first ones that are seen, in the order of their names where several are
seen at once. All others are summed as the circle `other`."""

_FRESH_SECONDS = 5 * REPORT_SECONDS  # gauges of older reports are ignored


class Exposition(Collector):
    """Shows the counts of a tree.

    Args:
        reports: Reports of the tree.
        samples: Further values, read with each scrape.
    """

    def __init__(self, reports: Reports, samples: Samples) -> None:
        self._reports, self._samples = reports, samples
        self._circles: set[str] = set()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self, accept: str) -> tuple[bytes, str]:
        """Return body and content type of the answer to a scrape with this header `Accept`."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type

    def collect(self) -> Iterator[Family]:
        """Yield all metrics that have values."""
        reports = self._reports.read_all()
        counts = Counts()
        for report in reports:
            counts.merge(report.counts)
        values: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        for metric, labels, value in [*_counted(counts), *_gauges(reports), *sorted(self._samples(), key=_by_labels)]:
            values[metric.name][self._bounded(metric, labels)] += value
        for metric in METRICS:
            if metric.kind == "histogram":
                yield _histogram(metric, counts.histograms[metric.name])
            elif metric.name in values:
                yield _family(metric, values[metric.name])

    def _bounded(self, metric: Metric, labels: Labels) -> Labels:
        """Replace a circle beyond the first ones by `other`, and bytes that are not UTF-8 by U+FFFD."""
        if not metric.labels or metric.labels[0] != "circle":
            return labels
        circle = to_bytes(labels[0]).decode(errors="replace")
        if len(self._circles) < MOST_CIRCLES:
            self._circles.add(circle)
        return (circle if circle in self._circles else "other", *labels[1:])


def _by_labels(sample: tuple[Metric, Labels, float]) -> Labels:
    return sample[1]


def _counted(counts: Counts) -> Iterator[tuple[Metric, Labels, float]]:
    for metric in METRICS:
        for labels, value in sorted(counts.counters.get(metric.name, {}).items()):
            yield metric, labels, value


def _gauges(reports: Iterable[Report]) -> Iterator[tuple[Metric, Labels, float]]:
    now = time.monotonic()
    by_name = {metric.name: metric for metric in METRICS}
    for report in reports:
        yield READY, (report.process,), float(not report.list_missing())
        for metric, start in ((READ_AGE, "read of "), (LEASE_AGE, "lease of ")):
            times = [then for what, then in report.succeeded.items() if what.startswith(start) and then > -inf]
            if times:
                yield metric, (report.process,), now - min(times)
        if now - report.clock < _FRESH_SECONDS:
            for name, value in report.gauges.items():
                if name in by_name and not by_name[name].labels:
                    yield by_name[name], (), value


def _family(metric: Metric, values: dict[Labels, float]) -> Family:
    if metric.kind == "counter":
        family: Family = CounterMetricFamily(metric.name, metric.text, labels=metric.labels)
    else:
        family = GaugeMetricFamily(metric.name, metric.text, labels=metric.labels)
    for labels, value in values.items():
        family.add_sample(metric.name, dict(zip(metric.labels, labels, strict=True)), value)
    return family


def _histogram(metric: Metric, histogram: list[float]) -> Family:
    *counts, total = histogram
    buckets, so_far = [], 0.0
    for bound, count in zip([*metric.bounds, float("inf")], counts, strict=True):
        so_far += count
        buckets.append((floatToGoString(bound), so_far))  # type: ignore[no-untyped-call]
    return HistogramMetricFamily(metric.name, metric.text, buckets=buckets, sum_value=total)
