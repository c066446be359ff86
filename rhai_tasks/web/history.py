"""The history of the last days: reads the minutes that workers have counted, and draws them."""

import time
from collections.abc import Sequence
from typing import Any

import redis

from rhai_tasks.observe.metrics import RUN, WAIT, Metric, quantile
from rhai_tasks.protocol import Status, queue_name
from rhai_tasks.protocol.history import CIRCLE_NUMBERS, MINUTES, all_numbers, history_prefix, numbers_at
from rhai_tasks.settings import Settings

from . import charts

RANGES = {"1h": 60, "6h": 360, "24h": 1440, "7d": 10_080}
"""Minutes by their name."""

_POINTS = 120  # of a chart, at most
_BUCKETS = len(RUN.bounds) + 1
_KEPT_SECONDS = 20.0
_KEPT = 50
_SHARES = (("median", 0.5), ("p95", 0.95), ("p99", 0.99))
_ENDS = (Status.COMPLETED.value, Status.ERROR.value)

Row = tuple[float, list[int]]
"""Seconds since the epoch at its end, and the sums of its minutes."""


class History:
    """Reads the history. Threads: any; the same question within some seconds costs nothing."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._client, self._prefix = client, history_prefix(settings.namespace, _BUCKETS)
        self._kept: dict[tuple[str, str], tuple[float, list[charts.Chart]]] = {}

    def draw(self, circle: str, span: str, now: float) -> list[charts.Chart]:
        """Draw the charts of a circle, or of all for an empty name.

        Args:
            circle: Its key.
            span: One of `RANGES`.
            now: Seconds since the epoch, by the server's clock.
        """
        at, drawn = self._kept.get((circle, span), (float("-inf"), []))
        if time.monotonic() < at + _KEPT_SECONDS:
            return drawn
        count = CIRCLE_NUMBERS if circle else all_numbers(_BUCKETS)
        rows, step = self._read(circle, count, RANGES[span], now)
        drawn = [charts.draw("Ended tasks a second", _ENDS, [(end, [n / step for n in row[:2]]) for end, row in rows])]
        if not circle:
            for title, metric, start in (("Run time", RUN, 2), ("Queue wait", WAIT, 2 + _BUCKETS)):
                points = [(end, _quantiles(metric, row[start : start + _BUCKETS])) for end, row in rows]
                names = [name for name, _ in _SHARES]
                drawn.append(charts.draw(title, names, points, seconds=True, is_log=True))
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[circle, span] = time.monotonic(), drawn
        return drawn

    def _read(self, circle: str, count: int, minutes: int, now: float) -> tuple[list[Row], int]:
        """Read the last minutes that have ended; return them in steps, and the seconds of a step."""
        last = int(now // 60)  # the present minute, which is not over
        step = -(-minutes // _POINTS)
        first = last - minutes
        days = range(first // MINUTES, last // MINUTES + 1)
        end = f".{queue_name(circle)}" if circle else ""
        with self._client.pipeline(transaction=False) as pipeline:
            for day in days:
                pipeline.get(f"{self._prefix}{day}{end}")
            replies = pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, redis.RedisError) and not isinstance(reply, redis.ResponseError):
                raise reply
        data = {day: reply if isinstance(reply, bytes) else b"" for day, reply in zip(days, replies, strict=True)}
        rows = []
        for start in range(first, last, step):
            some = range(start, min(start + step, last))
            parts = [numbers_at(data[minute // MINUTES], minute % MINUTES, count) for minute in some]
            rows.append((some.stop * 60.0, [sum(column) for column in zip(*parts, strict=True)]))
        return rows, step * 60


def _quantiles(metric: Metric, buckets: Sequence[int]) -> list[float | None]:
    return [quantile(metric, [*buckets, 0], share) for _, share in _SHARES]
